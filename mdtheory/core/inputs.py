"""A model's inputs: one tensor, or a tuple, list or dictionary of tensors with one row an item."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Any
"""A tensor of shape (n_items, ...), or tuples, lists and dictionaries of such."""


def leaves(x: Inputs) -> list[Any]:
    """The tensors of ``x``, in order; whatever is no container counts as one."""
    if isinstance(x, Mapping):
        return [leaf for value in x.values() for leaf in leaves(value)]
    if isinstance(x, tuple | list):
        return [leaf for value in x for leaf in leaves(value)]
    return [x]


def map_inputs(function: Callable[..., Any], first: Inputs, *rest: Inputs) -> Inputs:
    """``function`` of the corresponding tensors; containers become plain ones of the same kind."""
    if isinstance(first, Mapping):
        return {key: map_inputs(function, first[key], *(r[key] for r in rest)) for key in first}
    if isinstance(first, tuple | list):
        parts = [map_inputs(function, *row) for row in zip(first, *rest, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    return function(first, *rest)


def n_items(x: Inputs) -> int:
    """The number of rows of the first tensor."""
    return len(leaves(x)[0])


def rows(x: Inputs, which: Any) -> Inputs:
    """The items that an index or slice names."""
    return map_inputs(lambda value: value[which], x)


def joined(first: Inputs, second: Inputs) -> Inputs:
    """The items of both, one after the other."""
    return map_inputs(lambda *pair: torch.cat(pair), first, second)


def arguments(model: nn.Module, x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How ``model`` takes ``x``: a dictionary by ``**`` and a tuple or list by ``*`` where its
    ``forward`` accepts that many by these names, and as one argument otherwise.
    """
    if isinstance(x, Tensor) or not isinstance(x, Mapping | tuple | list):
        return (x,), {}
    args, kwargs = ((), dict(x)) if isinstance(x, Mapping) else (tuple(x), {})
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return (x,), {}
    return args, kwargs


def call(model: nn.Module, x: Inputs) -> Any:
    """The outputs of ``model`` for inputs in any form that an episode holds."""
    args, kwargs = arguments(model, x)
    return model(*args, **kwargs)
