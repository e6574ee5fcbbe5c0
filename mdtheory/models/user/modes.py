"""Training and evaluation mode of a foreign module, without the side effects of its ``train()``.

A layer may do more than set a flag there, for instance fold a low-rank product into its weight.
Such a layer keeps the mode and the weights that it was given.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from mdtheory.models.user import attributes

KEEPS_MODE = "_keeps_mode"
"""The attribute that marks a prepared submodule whose mode is never switched."""


def mark_loud_switches(model: nn.Module) -> None:
    """Mark every submodule whose own ``train`` or ``eval`` changes more than flags."""
    for module in model.modules():
        if _overrides(module) and not _quiet(module):
            setattr(module, KEEPS_MODE, True)


def set_mode(module: nn.Module, training: bool) -> None:
    """``module.train(training)``, but for marked submodules, which stay as they are."""
    if not _overrides(module):
        module.training = training
    elif not any(KEEPS_MODE in vars(part) for part in module.modules()):
        module.train(training)
        return
    elif KEEPS_MODE not in vars(module):
        module.training = training
    for child in module.children():
        set_mode(child, training)


def _overrides(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind.train is not nn.Module.train
        or kind.eval is not nn.Module.eval
        or not vars(module).keys().isdisjoint({"train", "eval"})
    )


def _quiet(module: nn.Module) -> bool:
    """Whether there and back again changes nothing but flags, with weights off special values."""
    twin = copy.deepcopy(module)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in twin.parameters():
            value.add_(torch.randn(value.shape, generator=draw).to(value))
        for training in (not module.training, module.training):
            before = _state(twin)
            twin.train(training)
            if not _same(before, _state(twin)):
                return False
    return True


def _state(module: nn.Module) -> tuple[dict[str, Any], dict[Any, Any]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return (
        {name: (value.detach().clone(), value.requires_grad) for name, value in named},
        attributes.marks(module),
    )


def _same(one: tuple[dict[str, Any], Any], other: tuple[dict[str, Any], Any]) -> bool:
    first, second = one[0], other[0]
    return (
        one[1] == other[1]
        and first.keys() == second.keys()
        and all(
            first[name][1] == second[name][1] and torch.equal(first[name][0], second[name][0])
            for name in first
        )
    )
