"""Arithmetic on ``Params``, and a module that holds one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from mdtheory.core.types import Params


def tree_map(
    function: Callable[..., Tensor], first: Mapping[str, Tensor], *rest: Mapping[str, Tensor]
) -> Params:
    """Apply ``function`` name by name; every tree must have the names of the first."""
    return {
        name: function(value, *(other[name] for other in rest)) for name, value in first.items()
    }


def axpy(scale: float | Tensor, x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Params:
    """``scale * x + y``."""
    return {name: value + scale * x[name] for name, value in y.items()}


def dot(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean inner product over all names. shape: ()"""
    total = [torch.sum(value * y[name]) for name, value in x.items()]
    return torch.stack(total).sum() if total else torch.zeros(())


def norm(x: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm over all names. shape: ()"""
    return torch.sqrt(dot(x, x))


def finite(x: Mapping[str, Tensor]) -> bool:
    """Whether every number is finite."""
    return all(bool(torch.isfinite(value).all()) for value in x.values())


def detach(x: Mapping[str, Tensor]) -> Params:
    """Every tensor cut from its graph."""
    return {name: value.detach() for name, value in x.items()}


def sub(x: Mapping[str, Tensor], prefix: str) -> Params:
    """The entries below ``prefix`` (which ends with a dot), without it."""
    return {name[len(prefix) :]: value for name, value in x.items() if name.startswith(prefix)}


def prefixed(prefix: str, x: Mapping[str, Tensor]) -> Params:
    """The same entries, each name with ``prefix`` before it."""
    return {prefix + name: value for name, value in x.items()}


def flatten(x: Mapping[str, Tensor]) -> Tensor:
    """All tensors in order, as one vector. shape: (d,)"""
    return torch.cat([value.reshape(-1) for value in x.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Params:
    """Undo :func:`flatten`, with the names and shapes of ``like``."""
    pieces = torch.split(vector, [value.numel() for value in like.values()])
    return {
        name: piece.reshape(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


class ParameterTree(nn.Module):
    """A module whose ``named_parameters()`` are exactly the given dotted names
    (``nn.ParameterDict`` refuses dots).
    """

    def __init__(self, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]):
        super().__init__()
        for name, value in dict(tensors).items():
            head, _, tail = name.rpartition(".")
            module: nn.Module = self
            for part in head.split(".") if head else []:
                if part not in module._modules:
                    module.add_module(part, ParameterTree({}))
                module = getattr(module, part)
            module.register_parameter(tail, nn.Parameter(value.detach().clone()))
