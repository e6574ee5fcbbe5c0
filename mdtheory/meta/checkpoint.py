"""Checkpoints: written whole or not at all, read without running anything, and compared by one
digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdtheory.core.atomic import write_atomically

FORMAT, VERSION = "mdtheory-checkpoint", 1
STATE = ("weights", "optimizer", "scheduler", "random", "counters")
"""The parts that decide every later bit of a run, and so the parts that the digest covers."""
KINDS: dict[str, tuple[type, ...]] = {
    "weights": (dict,),
    "optimizer": (dict,),
    "scheduler": (dict, type(None)),
    "random": (dict,),
    "counters": (dict,),
    "config": (str,),
    "config_digest": (str,),
    "data_digest": (str,),
    "pixels_digest": (str,),
    "split_digest": (str,),
    "threads": (int,),
    "torch": (str,),
    "mdtheory": (str,),
    "numerics": (dict,),
    "seal": (str,),
}
UNSAID = ("pixels_digest", "split_digest")
"""Parts that are sealed only where they say something, since there were checkpoints before them."""
LATER: dict[str, Any] = {"numerics": {}, "seal": "", **dict.fromkeys(UNSAID, "")}
"""Parts that a checkpoint from before them is read with."""
DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8}
    | {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32}
    | {torch.uint64, torch.complex64, torch.complex128}
)
"""Element types that a tensor may have: all that have numbers which can be compared."""
NUMBERS: dict[type, type] = {bool: np.bool_, int: np.integer, float: np.floating}
DEEPEST = 32
"""Tables inside tables; a cycle is deeper."""


def plain(value: Any) -> Any:
    """A copy made of CPU tensors, numbers, strings, lists and dictionaries only: what
    ``weights_only=True`` loads. NumPy's numbers become Python's.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous().resolve_conj()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    for kind, others in NUMBERS.items():
        if isinstance(value, kind | others):
            return kind(value)
    if value is None or isinstance(value, str):
        return value if value is None else str(value)
    raise ValueError(
        f"a checkpoint must hold tensors, numbers and strings only, got a {type(value).__name__}; "
        "leave it out"
    )


def save(state: Mapping[str, Any], path: str | Path) -> None:
    """Replace the file in one step: a reader, a crash or a full disk sees the old checkpoint or the
    new one, never a part.

    ``state`` holds the keys of :data:`KINDS`; its ``seal``, a digest of all the others, is made
    here and compared by :func:`load`. ``ValueError`` when the file cannot be written, or a
    weight is not finite; the old one is then intact.
    """
    odd = next((n for n, item in state["weights"].items() if not isinstance(item, Tensor)), None)
    if odd is not None:
        raise ValueError(
            f"{path} must get tensors as weights, but {odd!r} is a module's extra state; keep it "
            "in a buffer"
        )
    broken = _not_finite(state["weights"])
    if broken is not None:
        raise ValueError(
            f"{path} must get finite weights, but {broken!r} has a NaN or an infinity; what stood "
            "there before is intact: lower meta_lr or task_lr"
        )
    content = plain(state)
    odd = next(_oddities(content, ""), None)
    if odd is not None:
        raise ValueError(
            f"{path} must get plain tensors, numbers and texts, but {odd}; what stood there before "
            "is intact"
        )
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **content, "seal": _sealed(content)}, buffer)
    write_atomically(path, buffer.getbuffer())


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete the unfinished temporary files of processes that were killed while they wrote one of
    these files here.
    """
    for leftover in folder.glob(".*.part"):
        name, _, process = leftover.name[1:].removesuffix(".part").rpartition(".")
        if name in names and process.isdigit():
            leftover.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed. ``ValueError``, in one sentence, for anything
    but a sound one.
    """
    path = Path(path)
    _check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} must be a checkpoint of plain tensors, but it asks for code to be run, which "
            "is refused; "
            "use only files that `mdtheory train` wrote"
        ) from None
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        MemoryError,
        EOFError,
        OSError,
        struct.error,
    ):
        raise ValueError(
            f"{path} must be a checkpoint, but its content makes no sense; use another copy"
        ) from None
    return _check_content(state, path)


def digest(state: Mapping[str, Any]) -> str:
    """sha256 (hex) over the sorted (name, dtype, shape, bytes) of :data:`STATE`: no times, no
    paths, no versions.
    """
    return _sha256(state, STATE)


def _sealed(content: Mapping[str, Any]) -> str:
    """What ``seal`` must be beside this content; one that says nothing of pixels or splits is
    sealed as before there was a word for them.
    """
    silent = {"seal", *(name for name in UNSAID if not content.get(name))}
    return _sha256(LATER | dict(content), KINDS.keys() - silent)


def _sha256(content: Mapping[str, Any], parts: Iterable[str]) -> str:
    result = hashlib.sha256()
    for name, kind, shape, data in sorted(
        entry for part in parts for entry in _entries(part, content[part])
    ):
        result.update(f"{name}\x1f{kind}\x1f{shape}\x1f{len(data)}\x1f".encode())
        result.update(data)
    return result.hexdigest()


def digests(state: Mapping[str, Any]) -> dict[str, str]:
    """A short digest of every leaf of :data:`STATE`, and those of the configuration, the images and
    their splits, by name.
    """
    leaves = (
        entry
        for part in (*STATE, "config_digest", "data_digest", *UNSAID)
        for entry in _entries(part, {**LATER, **state}[part])
    )
    return {
        name: hashlib.sha256(f"{kind}\x1f{shape}\x1f".encode() + data).hexdigest()[:16]
        for name, kind, shape, data in leaves
    }


def export_safetensors(state: Mapping[str, Any], path: str | Path) -> None:
    """Write the weights alone, with the configuration and the digest as metadata, in the
    safetensors format.

    The library writes metadata in a random order; here they are sorted, so that the same state
    gives the same bytes. Source of the layout: the README of huggingface/safetensors (length of the
    header, the header as JSON, the tensors).
    """
    from safetensors.torch import save as encode

    about = {
        "format": "pt",
        "config": state["config"],
        "digest": digest(state),
        "iteration": str(iteration(state)),
        "seal": _sha256(state, ("config", "weights")),
    }
    data = encode(
        {name: value.contiguous() for name, value in state["weights"].items()}, metadata=about
    )
    end = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(about.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, struct.pack("<Q", len(text)) + text + data[end:])


def load_safetensors(path: str | Path) -> dict[str, Any]:
    """The ``weights`` and the ``config`` of a file that :func:`export_safetensors` wrote;
    ``ValueError``, in one sentence, for any other.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} must be a file of weights, got no file there; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError, UnicodeError) as error:
        raise ValueError(
            f"{path} must be a sound safetensors file, but {' '.join(str(error).split())[:200]}; "
            "use another copy"
        ) from None
    if "config" not in about:
        raise ValueError(
            f"{path} must hold its run's configuration, as `mdtheory checkpoint export` writes it, "
            "got other weights; use a file that this command wrote"
        )
    broken = _not_finite(weights)
    if broken is not None:
        raise ValueError(
            f"{path} must hold finite weights, but {broken!r} has a NaN or an infinity; use "
            "another copy"
        )
    state = {"weights": weights, "config": about["config"], "seal": about.get("seal", "")}
    _check_seal(state, _sha256(state, ("config", "weights")), path)
    return state


def iteration(state: Mapping[str, Any]) -> int:
    """How many meta-iterations the checkpoint has behind it."""
    return int(state["counters"]["iteration"])


def _entries(name: str, value: Any) -> Iterator[tuple[str, str, str, bytes]]:
    """Every leaf below ``value`` as (name, dtype, shape, bytes)."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield name, str(value.dtype), str(tuple(value.shape)), bytes(flat.view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        yield name, "mapping", str(len(value)), b""
        for key, item in value.items():
            yield from _entries(f"{name}/{key}", item)
    elif isinstance(value, list | tuple):
        yield name, "list", str(len(value)), b""
        for index, item in enumerate(value):
            yield from _entries(f"{name}/{index}", item)
    elif isinstance(value, float):
        yield name, "float", "()", struct.pack("<d", value)
    else:
        yield name, type(value).__name__, "()", json.dumps(value).encode()


def _check_archive(path: Path) -> None:
    """Refuse what is no sound zip archive of stored members: broken, truncated, foreign, or a
    bomb.
    """
    if not path.is_file():
        raise ValueError(f"{path} must be a checkpoint file, got no file there; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError(
                    f"{path} must be a checkpoint, but it is another kind of zip file; check the "
                    "path"
                )
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, struct.error):
        raise ValueError(
            f"{path} must be a checkpoint, but it is truncated, damaged or another kind of file; "
            "use another copy"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{path} must be readable, but the system says: {error.strerror}; check its rights"
        ) from None
    if broken is not None:
        raise ValueError(
            f"{path} must be a checkpoint, but its member {broken!r} is damaged; use another copy"
        )


def _check_content(state: Any, path: Path) -> dict[str, Any]:
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(
            f"{path} must be a checkpoint that `mdtheory train` wrote, got another torch file; "
            "check the path"
        )
    if type(state.get("version")) is not int or state["version"] != VERSION:
        raise ValueError(
            f"{path} must have checkpoint version {VERSION}, got {state.get('version')!r}; use the "
            "release that wrote it"
        )
    state = LATER | state
    for key, kinds in KINDS.items():
        if key not in state or not isinstance(state[key], kinds):
            raise ValueError(
                f"{path} must hold a sound {key!r}, which it does not; use another copy"
            )
    odd = next(_oddities(state, ""), None)
    if odd is not None:
        raise ValueError(
            f"{path} must hold plain CPU tensors, numbers and texts, but {odd}; use another copy"
        )
    if sum(tensor.nbytes for tensor in _tensors(state)) > path.stat().st_size:
        raise ValueError(
            f"{path} must hold all numbers of its tensors, but it is smaller than they are; use "
            "another copy"
        )
    weights, counters = state["weights"], state["counters"]
    if not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError(
            f"{path} must hold named tensors as weights, which it does not; use another copy"
        )
    broken = _not_finite(weights)
    if broken is not None:
        raise ValueError(
            f"{path} must hold finite weights, but {broken!r} has a NaN or an infinity; use "
            "another copy"
        )
    done, validated, best = (counters.get(k) for k in ("iteration", "validated", "best_iteration"))
    if any(type(count) is not int for count in (done, validated, best)) or not (
        -1 <= best <= validated <= done and done >= 0
    ):
        raise ValueError(
            f"{path} must hold counters of iterations, which it does not; use another copy"
        )
    score = counters.get("best_score")
    if type(score) is not float or math.isnan(score) or (best >= 0 and math.isinf(score)):
        raise ValueError(f"{path} must hold a best score, which it does not; use another copy")
    _check_seal(state, _sealed(state), path)
    return state


def _check_seal(state: Mapping[str, Any], seal: str, path: Path) -> None:
    """``ValueError`` for a content that was changed after it was sealed."""
    if state["seal"] not in ("", seal):
        raise ValueError(
            f"{path} must hold what was written into it, but something was changed since; use "
            "another copy"
        )


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The first tensor with a NaN or an infinity. An additive mask, of zeros and infinities alone,
    is as it should be.
    """
    for name, value in weights.items():
        if not (value.is_floating_point() or value.is_complex()):
            continue
        finite = torch.isfinite(value)
        if not finite.all() and (value.isnan().any() or value[finite].any() or not finite.any()):
            return name
    return None


def _oddities(value: Any, where: str, depth: int = 0) -> Iterator[str]:
    """What :func:`plain` would not have written, in words."""
    name = where or "it"
    if depth > DEEPEST:
        yield f"{name.split('/')[0]} is nested too deep"
    elif isinstance(value, Tensor):
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_nested:
            yield f"{name} is a tensor of another kind"
        elif value.dtype not in DTYPES or value.is_neg() or value.is_conj():
            yield f"{name} is a tensor of {value.dtype}"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                yield f"{name} has a key of type {type(key).__name__}"
            elif isinstance(key, str) and not _is_unicode(key):
                yield f"{name} has a key that is no text"
            yield from _oddities(item, f"{where}/{key}" if where else str(key), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _oddities(item, f"{where}/{index}", depth + 1)
    elif isinstance(value, str):
        if not _is_unicode(value):
            yield f"{name} is no text"
    elif not (value is None or isinstance(value, bool | float)) and not (
        type(value) is int and abs(value) < 2**64
    ):
        yield f"{name} is of type {type(value).__name__}"


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
