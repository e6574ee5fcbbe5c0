"""Pickles of arrays and plain containers, read without executing anything that the pickle asks for.

Nothing named in the file is ever imported or called. The few names that arrays need are answered by
stand-ins of our own, which keep the raw bytes; numpy builds the array only afterwards, from an
allowed dtype and a checked length. (numpy's own ``__setstate__`` trusts what it is given, so it is
not called either.)
"""

from __future__ import annotations

import math
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mdtheory.data.files import open_regular

DTYPES = frozenset({"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"})
"""Element types that a data pickle may hold."""


def load(path: Path) -> Any:
    """The content of a pickle: dicts, lists, tuples, numbers, text and numpy arrays (also of Python
    2, numpy 1 and numpy 2).

    ``ValueError`` for anything else that it asks for, and for a truncated or damaged file.
    """
    try:
        with open_regular(path) as file:
            return _finished(_Unpickler(_Bounded(file), encoding="latin1").load())
    except _Refused as error:
        raise ValueError(
            f"{str(path)!r} must hold only numeric arrays and plain containers, got {error}; "
            "nothing in it was run, do not "
            "trust it"
        ) from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{str(path)!r} must be a whole pickle of arrays, got a damaged one ({reason}); copy "
            "it "
            "again"
        ) from error


_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    RecursionError,
    SystemError,
    struct.error,
)


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not data."""


class _Dtype:
    """An element type by its code (``u1``), with the byte order that its state adds."""

    __slots__ = ("code", "order")

    def __init__(self, code: object):
        if not isinstance(code, str) or code.lstrip("<>|=") not in DTYPES:
            raise _Refused(
                f"an array of type {code[:20]!r}"
                if isinstance(code, str)
                else "an array without a type"
            )
        self.code = code
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def of(
        self, raw: bytes | str | bytearray, shape: tuple[int, ...], fortran: bool
    ) -> NDArray[Any]:
        data = (
            raw.encode("latin1")
            if isinstance(raw, str)
            else bytes(raw)
            if isinstance(raw, bytearray)
            else raw
        )
        dtype = np.dtype(self.code.lstrip("<>|=")).newbyteorder(
            ">" if self.order == ">" else "<" if self.order == "<" else "="
        )
        if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} whose bytes do not fit")
        return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


class _Array:
    """A numpy array: first empty, then filled by its state."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = dtype.of(raw, shape, bool(fortran))


class _StandIn:
    """What a name in the pickle is answered with: a function of ours, to be called but not
    changed.
    """

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)  # because __setattr__ below refuses

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refused("a change of the reader itself")


def _from_buffer(
    raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str = "C", *_: Any
) -> _Array:
    array = _Array()
    array.value = dtype.of(raw, shape, order == "F")
    return array


def _scalar(dtype: _Dtype, raw: bytes | str) -> Any:
    return dtype.of(raw, (), False).item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding.lower().replace("-", "") != "latin1":
        raise _Refused(f"the codec {encoding!r}")
    return text.encode("latin1")


def _range(*bounds: int) -> range:
    rows = range(*bounds)
    if len(rows) > 10_000_000:
        raise _Refused("a range of more than ten million numbers")
    return rows


def _empty_bytes() -> bytes:
    return b""


_NAMES: dict[tuple[str, str], _StandIn] = {
    ("_codecs", "encode"): _StandIn(_encode),
    ("numpy", "ndarray"): _StandIn(_Array),
    ("numpy", "dtype"): _StandIn(lambda code, *_: _Dtype(code)),
    ("collections", "OrderedDict"): _StandIn(dict),
    ("collections", "defaultdict"): _StandIn(lambda *_: {}),
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[_core + ".multiarray", "_reconstruct"] = _StandIn(lambda *_: _Array())
    _NAMES[_core + ".multiarray", "scalar"] = _StandIn(_scalar)
    _NAMES[_core + ".numeric", "_frombuffer"] = _StandIn(_from_buffer)
for _builtins in ("builtins", "__builtin__"):
    _NAMES[_builtins, "list"] = _StandIn(lambda: [])
    _NAMES[_builtins, "bytes"] = _StandIn(_empty_bytes)
    _NAMES[_builtins, "range"] = _NAMES[_builtins, "xrange"] = _StandIn(_range)


_Python: Any = pickle._Unpickler


class _Bounded:
    """A file that refuses at once to read more than it holds."""

    def __init__(self, file: BinaryIO):
        self.readline = file.readline
        self.peek = getattr(file, "peek", None)
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, n: int) -> bytes:
        """The next n bytes; ``EOFError`` where the file cannot hold so many."""
        if not 0 <= n <= self._size:
            raise EOFError(f"a promise of {n} bytes in a file of {self._size}")
        return self._file.read(n)


class _Unpickler(_Python):
    """The unpickler in Python: its memo is a dict, where that in C makes room for any place that
    the file names (nine bytes could take gigabytes). Keys must be text or numbers, since the hash
    of nested tuples can take for ever.
    """

    dispatch = dict(_Python.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        answer = _NAMES.get((module, name))
        if answer is None:
            raise _Refused(f"a request for {f'{module}.{name}'[:80]!r}")
        return answer

    def persistent_load(self, key: object) -> Any:
        raise _Refused("a persistent id")

    def set_item(self) -> None:
        """One pair into a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def set_items(self) -> None:
        """Many pairs into a dict."""
        items = self.pop_mark()
        _fill(self.stack[-1], items)

    def make_dict(self) -> None:
        """A dict of many pairs."""
        items, made = self.pop_mark(), dict[Any, Any]()
        _fill(made, items)
        self.append(made)

    def bytearray8(self) -> None:
        """Bytes that may change; read before there is room for them."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def no_set(self) -> None:
        """Sets are no data here."""
        raise _Refused("a set")

    dispatch[pickle.SETITEM[0]] = set_item
    dispatch[pickle.SETITEMS[0]] = set_items
    dispatch[pickle.DICT[0]] = make_dict
    dispatch[pickle.BYTEARRAY8[0]] = bytearray8
    dispatch[pickle.ADDITEMS[0]] = dispatch[pickle.FROZENSET[0]] = no_set


def _fill(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("a pair for something else than a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int | float | None):
            raise _Refused(f"a key of type {type(key).__name__}")
        target[key] = value


def _finished(value: Any, depth: int = 3) -> Any:
    """Arrays out of their stand-ins, at the top, in a list there, and inside dicts (a few deep:
    shared parts may multiply without end).
    """
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Dtype | _StandIn):
        raise ValueError("a type where a value must be")
    if isinstance(value, dict) and depth:
        return {key: _finished(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list) and depth == 3:
        return [one.value if isinstance(one, _Array) else one for one in value]
    return value
