"""What a module keeps in plain attributes: numbers, containers, tensors, generators, objects.

Neither ``state_dict`` nor ``functional_call`` knows them, so a forward pass that reads what an
earlier one wrote has hidden state.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OWN_TO_TORCH = frozenset(vars(nn.Module())) | {"_flat_weights", "_flat_weight_refs"}
"""Attributes of every ``nn.Module`` and of torch's recurrent layers."""
SIMPLE = (bool, int, float, complex, str, bytes, type(None))
DEPTH = 5
"""How far containers and objects are followed."""
MISSING = object()
Place = tuple[str, str]
"""The path of a module and the name of one of its attributes."""


def plain(model: nn.Module) -> Iterator[tuple[Place, Any]]:
    """Every plain attribute of every submodule."""
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if name not in OWN_TO_TORCH:
                yield (path, name), value


def label(place: Place) -> str:
    """A place as users write it, ``path.name``."""
    return ".".join(part for part in place if part)


def mark(value: Any, depth: int = DEPTH) -> Any:
    """Something that is equal as long as the value has not been changed or replaced."""
    if isinstance(value, SIMPLE):
        return repr(value)
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    if depth == 0 or isinstance(value, nn.Module | type) or inspect.isroutine(value):
        return id(value)
    if isinstance(value, dict):
        return tuple((repr(key), mark(item, depth - 1)) for key, item in value.items())
    if isinstance(value, list | tuple | deque):
        return tuple(mark(item, depth - 1) for item in value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    if hasattr(value, "__dict__"):
        return id(value), mark(vars(value), depth - 1)
    return id(value), repr(value)[:200]


def marks(model: nn.Module) -> dict[Place, Any]:
    """The mark of every plain attribute."""
    return {place: mark(value) for place, value in plain(model)}


def moved(before: dict[Place, Any], after: dict[Place, Any]) -> list[Place]:
    """The attributes that were changed, created or removed."""
    return [
        place
        for place in {**before, **after}
        if before.get(place, MISSING) != after.get(place, MISSING)
    ]


def tensors(value: Any, depth: int = DEPTH) -> Iterator[Tensor]:
    """The tensors that a value holds."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type):
        inside = (
            list(value.values())
            if isinstance(value, dict)
            else list(value)
            if isinstance(value, list | tuple | deque)
            else list(vars(value).values())
            if hasattr(value, "__dict__") and not inspect.isroutine(value)
            else []
        )
        for item in inside:
            yield from tensors(item, depth - 1)


def _undo(value: Any, depth: int = DEPTH) -> Callable[[], None]:
    """A function that gives containers and objects the contents that they have now."""
    if depth == 0 or isinstance(value, nn.Module | Tensor | type) or inspect.isroutine(value):
        return lambda: None
    if isinstance(value, dict):
        items, inner = dict(value), [_undo(item, depth - 1) for item in value.values()]

        def put() -> None:
            value.clear()
            value.update(items)
            for one in inner:
                one()

        return put
    if isinstance(value, list | deque):
        row, inside = list(value), [_undo(item, depth - 1) for item in value]

        def put_row() -> None:
            value.clear()
            value.extend(row)
            for one in inside:
                one()

        return put_row
    if isinstance(value, set):
        members = set(value)

        def put_members() -> None:
            value.clear()
            value.update(members)

        return put_members
    if isinstance(value, tuple):
        parts = [_undo(item, depth - 1) for item in value]

        def put_parts() -> None:
            for part in parts:
                part()

        return put_parts
    return _undo(vars(value), depth - 1) if hasattr(value, "__dict__") else lambda: None


class Held:
    """The present values of some plain attributes, to be put back."""

    def __init__(self, model: nn.Module, places: list[Place]):
        modules = dict(model.named_modules())
        self._rows: list[tuple[dict[str, Any], str, Any, Callable[[], None]]] = []
        for path, name in places:
            if path in modules:
                own = modules[path].__dict__
                value = own.get(name, MISSING)
                self._rows.append((own, name, value, _undo(value)))

    def put_back(self) -> None:
        """Make the attributes what they were."""
        for own, name, value, undo in self._rows:
            if value is MISSING:
                own.pop(name, None)
            else:
                own[name] = value
                undo()

    @staticmethod
    def remove(model: nn.Module, places: list[Place]) -> None:
        """Delete attributes that were not there."""
        for path, name in places:
            vars(model.get_submodule(path)).pop(name, None)


class Stash:
    """A pair of forward hooks that empty a model after every pass of what the pass left behind.

    For attributes that a pass writes before it reads them (features kept for inspection, lazily
    built masks): left alone they would hold the graph of the last pass.
    """

    def __init__(self, places: list[Place]):
        self.places = places
        self._held: Held | None = None

    def before(self, model: nn.Module, args: Any) -> None:
        """Remember the attributes that the call may change."""
        self._held = Held(model, self.places)

    def after(self, model: nn.Module, args: Any, output: Any) -> None:
        """Put the attributes back as they were before the call."""
        if self._held is not None:
            self._held.put_back()
            self._held = None

    def watch(self, model: nn.Module) -> None:
        """Do so in every pass of ``model``."""
        model.register_forward_pre_hook(self.before)
        model.register_forward_hook(self.after, always_call=True)


def unwatched(model: nn.Module) -> nn.Module:
    """``model`` without :class:`Stash`: what its passes leave behind may be looked at."""
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "__self__", None), Stash):
                del hooks[key]
    return model
