"""A foreign model with a batch and a loss: its outputs and derivatives, as the probe needs them."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vjp

from mdtheory.core import seeding, tree
from mdtheory.core.functional import functional_call
from mdtheory.core.inputs import Inputs, arguments, call, leaves, map_inputs
from mdtheory.core.types import Params
from mdtheory.models.user.graph import structure

Loss = Callable[[Tensor, Any], Tensor]
FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    LookupError,
    ArithmeticError,
)
"""What foreign code may raise."""


class Derivatives(NamedTuple):
    """A loss, its gradient, and its Hessian times a direction (empty for order 1).

    Where ``torch.func`` was nested: ``outside``, the loss at the outer level alone and of weights
    that are no leaves; ``recorded``, the operations that made it at the outer and the inner level.
    """

    value: Tensor
    gradient: Params
    second: Params
    outside: Tensor | None = None
    recorded: tuple[Counter[tuple[str, ...]], ...] = ()


def loss_of(loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
    """The loss, which must be one number. shape: ()"""
    value = loss(outputs, targets)
    if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            "loss(outputs, targets) must return one floating point number of shape (), got "
            f"{found}; take its mean"
        )
    return value


@dataclass(frozen=True)
class Case:
    """A model (a copy that may be run and written to), inputs, targets and a loss."""

    model: nn.Module
    x: Inputs
    y: Any
    loss: Loss
    seed: int = 0
    weights: Params = field(init=False)

    def __post_init__(self) -> None:
        named = {
            name: value.detach().clone()
            for name, value in self.model.named_parameters()
            if value.requires_grad and value.numel()
        }
        object.__setattr__(self, "weights", named)

    @property
    def wide(self) -> bool:
        """Whether all of the weights are float64."""
        return all(value.dtype == torch.float64 for value in self.weights.values())

    def outputs(self) -> Any:
        """One pass without gradients, by the weights in place."""
        with torch.no_grad():
            return call(self.model, self.x)

    def random(self, name: str) -> Params:
        """Normal numbers of about the size of the weights. shapes: theirs"""
        made = {}
        for key, value in self.weights.items():
            draw = torch.randn(
                value.shape,
                generator=seeding.generator("probe", name, key, self.seed),
                dtype=torch.float32,
            )
            size = float(value.double().square().mean().sqrt())
            made[key] = draw.to(value) * (size or 0.1)
        return made

    def derivatives(self, point: Params, order: int, way: Params) -> Derivatives:
        """At ``point``, by ``functional_call`` and ``torch.func`` as the estimators do it."""
        if order < 2:
            value = self._value([])
            g, total = grad(lambda p: value(_copied(p)), has_aux=True)(point)
            return Derivatives(total.detach(), tree.detach(g), {})
        found, pullback = self._nested(point, way)
        (second,) = pullback(torch.ones_like(found.value))
        return found._replace(second=tree.detach(second))

    def nested(self, point: Params) -> Derivatives:
        """Value and gradient as inside of a second derivative, without it. Cost: 4/3
        forward-backward passes.
        """
        return self._nested(point, point)[0]

    def _value(
        self, recorded: list[Counter[tuple[str, ...]]]
    ) -> Callable[[Params], tuple[Tensor, Tensor]]:
        args, kwargs = arguments(self.model, self.x)

        def value(p: Params) -> tuple[Tensor, Tensor]:
            total = loss_of(self.loss, functional_call(self.model, p, args, kwargs), self.y)
            recorded.append(structure(total))
            return total, total

        return value

    def _nested(self, point: Params, way: Params) -> tuple[Derivatives, Any]:
        recorded: list[Counter[tuple[str, ...]]] = []
        value = self._value(recorded)

        def slope(p: Params) -> tuple[Tensor, tuple[Params, Tensor, Tensor]]:
            outside = value(_copied(p))[0]
            g, total = grad(value, has_aux=True)(p)
            return tree.dot(g, way), (g, total, outside)

        _, pullback, aux = vjp(slope, point, has_aux=True)  # type: ignore[misc]
        g, total, outside = aux
        found = Derivatives(total.detach(), tree.detach(g), {}, outside.detach(), tuple(recorded))
        return found, pullback

    def in_place(
        self, point: Params, way: Params | None = None
    ) -> tuple[Derivatives, Tensor, Tensor]:
        """Loss and gradient by plain autograd with the weights written into the model, and the
        outputs and the loss with their graphs; with a ``way``, also the Hessian times it.
        """
        outputs, value = self.graph(point)
        own = self.own()
        with torch.enable_grad():
            first = _slopes(value, own, create_graph=way is not None)
            second: list[Tensor] = []
            if way is not None:
                along = tree.dot(dict(zip(self.weights, first, strict=True)), way)
                second = _slopes(along, own)
        gradient = tree.detach(dict(zip(self.weights, first, strict=True)))
        curved = dict(zip(self.weights, second, strict=True)) if second else {}
        return Derivatives(value.detach(), gradient, curved), outputs, value

    def graph(self, point: Params) -> tuple[Tensor, Tensor]:
        """Outputs and loss with the weights written into the model, as plain autograd records
        them. shapes: (n_items, ...), ()
        """
        self.write(point)
        with torch.enable_grad():
            outputs = call(self.model, self.x)
            return outputs, loss_of(self.loss, outputs, self.y)

    def own(self) -> list[nn.Parameter]:
        """The model's own tensors under the names of the weights, in that order."""
        named = dict(self.model.named_parameters())
        return [named[name] for name in self.weights]

    def slopes(self, value: Tensor) -> Params:
        """The gradient of what :meth:`graph` returned. shapes: as the weights"""
        return dict(zip(self.weights, _slopes(value, self.own()), strict=True))

    def write(self, point: Params) -> None:
        """Overwrite the model's weights."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in point.items():
                own[name].copy_(value)

    def widened(self) -> Case:
        """The same in float64, as a copy."""

        def wide(value: Any) -> Any:
            return (
                value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
            )

        loss = copy.deepcopy(self.loss).double() if isinstance(self.loss, nn.Module) else self.loss
        return Case(
            copy.deepcopy(self.model).double(),
            map_inputs(wide, self.x),
            map_inputs(wide, self.y),
            loss,
            self.seed,
        )

    def again(self, seed: int) -> Case:
        """The same with other random numbers."""
        return replace(self, seed=seed)


def _copied(point: Params) -> Params:
    """The same numbers, which are no leaves."""
    return {name: value.clone() for name, value in point.items()}


def _slopes(value: Tensor, own: list[nn.Parameter], *, create_graph: bool = False) -> list[Tensor]:
    """The gradient by ``own``, zero where there is none. shapes: theirs"""
    if not value.requires_grad:
        return [torch.zeros_like(v) for v in own]
    return list(
        torch.autograd.grad(
            value, own, materialize_grads=True, retain_graph=True, create_graph=create_graph
        )
    )


def random_states(x: Inputs) -> dict[str, Any]:
    """The generators that anybody may draw from, by name."""
    legacy: Any = np.random.get_state()  # noqa: NPY002
    _, numbers, position, *_ = legacy
    states: dict[str, Any] = {
        "the global random generator": torch.get_rng_state(),
        "numpy's global random generator": (position, numbers.tobytes()),
        "Python's random module": random.getstate(),
    }
    for device in {leaf.device for leaf in leaves(x) if isinstance(leaf, Tensor) and leaf.is_cuda}:
        states[f"the global random generator of {device}"] = torch.cuda.get_rng_state(device)
    return states


def drawn(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first generator that has moved."""
    for name, value in before.items():
        same = (
            torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        )
        if not same:
            return name
    return None
