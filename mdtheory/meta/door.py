"""At the door: tasks, one or many, from tensors or arrays, brought to the learner's type and
device; a geometry and a budget of steps; each refused by one sentence where it cannot be one.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdtheory.core.inputs import Inputs, leaves, map_inputs, rows
from mdtheory.core.types import Episode
from mdtheory.geometry.base import Geometry, geometries

FORM = "Episode(support_x, support_y, query_x, query_y)"


def as_episodes(given: Any) -> list[Episode]:
    """A list of episodes from one, from (support_x, support_y, query_x, query_y), or from any
    iterable of such.
    """
    if isinstance(given, Episode) or _is_quadruple(given):
        return [_as_episode(given)]
    if isinstance(given, str | Mapping | Tensor) or not isinstance(given, Iterable):
        raise ValueError(
            f"episodes must be one {FORM} or several, got {type(given).__name__}; put tensors into "
            "an Episode"
        )
    return [_as_episode(one) for one in given]


def _is_quadruple(given: Any) -> bool:
    return (
        isinstance(given, tuple | list)
        and len(given) == 4
        and all(isinstance(given[i], Tensor | np.ndarray) for i in (1, 3))
    )


def _as_episode(given: Any) -> Episode:
    if isinstance(given, Episode):
        return given
    if not _is_quadruple(given):
        raise ValueError(
            f"every task must be an {FORM}, or a tuple of these four, got {type(given).__name__}; "
            "put its tensors into an Episode"
        )
    return Episode(*given)


class Fitting:
    """Brings tasks to a device and, for floating values, to a type (``None``: to none).

    ``floating``: targets are floating, as the binary cross-entropy of logits wants its 0 and 1.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None, *, floating: bool = False):
        self.device = device
        self.dtype = dtype
        self.floating = floating

    def episode(self, given: Episode, *, queries: bool = True) -> Episode:
        """The task with tensors of the right type; itself where nothing has to be done."""
        parts = [given.support_x, given.support_y, given.query_x, given.query_y]
        made = [
            self.inputs(parts[0]),
            self.targets(parts[1]),
            self.inputs(parts[2]),
            self.targets(parts[3]),
        ]
        _check("support", made[0], made[1])
        if queries:
            _check("query", made[2], made[3])
        if all(new is old for new, old in zip(made, parts, strict=True)):
            return given
        return Episode(made[0], made[1], made[2], made[3], given.seed)

    def inputs(self, x: Inputs) -> Inputs:
        """Tensors from tensors, arrays or nested lists of numbers. shape: as given"""
        if isinstance(x, Tensor):
            return self._tensor(x)
        if isinstance(x, list) and not any(isinstance(v, Tensor | np.ndarray) for v in leaves(x)):
            return self._tensor(_tensor(x))
        return map_inputs(lambda value: self._tensor(_tensor(value)), x)

    def targets(self, y: Any) -> Any:
        """As :meth:`inputs`; whole numbers become int64, as torch's losses want class indices, or
        ``floating``. shape: as given
        """
        y = self.inputs(y)
        if (
            self.floating
            and isinstance(y, Tensor)
            and not (y.is_floating_point() or y.is_complex())
        ):
            return y.to(self.dtype or torch.get_default_dtype())
        if isinstance(y, Tensor) and not (
            y.dtype == torch.int64 or y.is_floating_point() or y.dtype == torch.bool
        ):
            return y if y.is_complex() else y.long()
        return y

    def _tensor(self, value: Tensor) -> Tensor:
        if (
            value.layout != torch.strided
            or value.is_nested
            or value.device.type == "meta" != self.device.type
        ):
            kind = "a tensor without numbers" if value.is_meta else f"{value.layout}"
            kind = "a nested tensor" if value.is_nested else kind
            raise ValueError(
                f"a task's inputs and targets must be dense tensors that hold numbers, got {kind}; "
                "call to_dense() or to_padded_tensor(), or load the data"
            )
        if value.is_inference() and not torch.is_inference_mode_enabled():
            value = value.clone()
        if value.device != self.device:
            value = value.to(self.device)
        if self.dtype is not None and value.is_floating_point() and value.dtype != self.dtype:
            value = value.to(self.dtype)
        return value


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            "a task's inputs and targets must be plain arrays, got a masked one; fill what is "
            "masked: x.filled(...)"
        )
    try:
        array = np.asarray(value)
        native = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        return torch.as_tensor(native)
    except (TypeError, ValueError) as error:
        held = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
        raise ValueError(
            f"a task's inputs and targets must be tensors or arrays of numbers, got "
            f"{type(value).__name__}{held}; convert them, number classes from 0"
        ) from error


def _check(name: str, x: Inputs, y: Any) -> None:
    """Equal numbers of items, and at least one; no complex target."""
    if any(part.is_complex() for part in leaves(y)):
        raise ValueError(f"{name}_y must be real numbers or classes, got complex ones; take .real")
    parts = [*leaves(x), *leaves(y)]
    sizes = {len(part) if part.dim() else -1 for part in parts}
    if len(sizes) != 1 or sizes & {0, -1}:
        shapes = [tuple(part.shape) for part in parts]
        raise ValueError(
            f"{name}_x and {name}_y must hold the same number >= 1 of items, got shapes "
            f"{', '.join(map(str, shapes))}; give one target per input"
        )


def only_support(x: Any, y: Any) -> Episode:
    """The support set as an episode that has no queries."""
    return Episode(x, y, rows(x, slice(0)), rows(y, slice(0)))


def floating_type(model: nn.Module) -> torch.dtype | None:
    """The type of all the model's parameters, and so of its inputs; ``None`` where there are
    several.
    """
    kinds = {value.dtype for value in model.parameters()}
    return kinds.pop() if len(kinds) == 1 else None


def as_geometry(given: Any) -> Geometry:
    """A copy of a geometry, or the one that a slug names."""
    if isinstance(given, str):
        return geometries.get(given)()
    if isinstance(given, Geometry):
        try:
            return copy.deepcopy(given)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"geometry must allow copy.deepcopy, but {type(given).__name__} does not: "
                f"{str(error).splitlines()[0]}; drop what cannot be copied, or make it in build()"
            ) from error
    made = isinstance(given, type) and issubclass(given, Geometry)
    got = f"the class {given.__name__}" if made else f"{given!r}"
    remedy = f"call it: {given.__name__}()" if made else "'maml' learns the start alone"
    raise ValueError(f"geometry must be a Geometry or the name of one, got {got}; {remedy}")


def demand_instance(name: str, value: Any, kind: type) -> None:
    """``ValueError`` where ``value`` is not of the class that an argument takes."""
    if not isinstance(value, kind):
        got = " ".join(repr(value).split())[:60]
        raise ValueError(f"{name} must be of the class {kind.__name__}, got {got}; make one")


def patterns(name: str, value: Any) -> list[str]:
    """Patterns of names: one, or several in any collection."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Iterable) or not all(isinstance(one, str) for one in (*found,)):
        raise ValueError(f"{name} must be a pattern of names or several, got {value!r}; '*' is all")
    return list(found)


def demand_stream(stream: Any) -> None:
    """``ValueError`` for what is no function from an index to a task."""
    if not callable(stream):
        raise ValueError(
            "stream must be a function from an index to an Episode, such as an EpisodeStream, got "
            f"{type(stream).__name__}; for a list of episodes pass its __getitem__"
        )


def demand_optimizer(learner: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """``ValueError`` for an optimizer that would move what the learner does not hold, such as the
    model that it copied, and for a scheduler of another optimizer.
    """
    own = {id(value) for value in learner.parameters()}
    moved = [value for group in optimizer.param_groups for value in group["params"]]
    strange = sum(id(value) not in own for value in moved)
    if strange:
        raise ValueError(
            "the optimizer must be over learner.meta().values(), got "
            f"{strange} of {len(moved)} tensors that are not the learner's, which holds a copy of "
            "the model; make it of those"
        )
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "the scheduler must be that of the optimizer, got one of another, whose rate nobody "
            "reads; make it of this one"
        )


def at_least(name: str, value: Any, least: int) -> None:
    """``ValueError`` for what is no whole number of at least ``least``, of any integer type."""
    try:
        right = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        right = False
    if not right:
        raise ValueError(f"{name} must be at least {least} and whole, got {value!r}; correct it")


def finite(name: str, value: Any) -> float:
    """A finite number, or a tensor of one."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        got = " ".join(repr(value).split())[:60]
        raise ValueError(f"{name} must be a finite number, got {got}; leave it out, or correct it")
    return number


def whole(name: str, value: Any) -> int:
    """A number of steps, >= 0, of any integer type."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{name} must be a whole number >= 0, got {value!r}; 5 is usual")
    return number


def positive(name: str, value: Any, *, usual: str = "0.01") -> float:
    """A step size or bound, positive and finite, as a number or a tensor of one."""
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not 0 < number < math.inf:
        got = " ".join(repr(value).split())[:60]
        raise ValueError(f"{name} must be a number > 0 and finite, got {got}; {usual} is usual")
    return number
