"""Derivatives by ``torch.func`` against plain autograd in place and differences of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.models.user import culprit
from mdtheory.models.user.case import FAILURES, Case, Derivatives
from mdtheory.models.user.graph import graph_leaves

WANDER = 0.02
"""How far from the start, relative to the weights, derivatives are compared: off special values
such as zeros, where a derivative may exist in one direction only."""
STEPS = (1e-8, 1e-7, 1e-8)
"""Length of a difference in float64, relative to the weights, by attempt: too short to meet a kink
by more than bad luck."""
WIDE, NARROW = 1e-3, 0.15
"""Largest relative error in float64 and in float32; in anything shorter nothing can be said of
second derivatives."""


class Comparison:
    """At base = weights + random: f and its derivatives by functional_call, and by plain autograd
    at base + h v written into the model; also which trainable tensors there are besides the
    model's own.
    """

    def __init__(self, case: Case, order: int):
        self.case = case
        self.order = order
        start = case.weights
        self.base = tree.axpy(WANDER, case.random("base"), start)
        self.way = case.random("way")
        self.h = STEPS[case.seed] if case.wide else 0.0
        truth, outputs, value = case.in_place(tree.axpy(self.h, self.way, self.base))
        own = {id(p) for p in case.model.parameters()}
        self.foreign = [leaf for leaf in graph_leaves(outputs) if id(leaf) not in own]
        known = own | {id(leaf) for leaf in self.foreign}
        self.of_loss = any(id(leaf) not in known for leaf in graph_leaves(value))
        del outputs, value
        case.write(start)
        self.truth = truth
        self.found = case.derivatives(self.base, order, self.way)
        self.far: Params = {}
        if order == 2 and not case.wide and all(v.dtype == torch.float32 for v in start.values()):
            self.far_h = 1e-2
            self.far = case.in_place(tree.axpy(self.far_h, self.way, self.base))[0].gradient
            case.write(start)

    @property
    def tolerance(self) -> float:
        """How far two numbers may lie apart."""
        return WIDE if self.case.wide else NARROW

    def value_fits(self) -> bool:
        """f(base + h v) = f(base) + h f'(base) v."""
        f, g = self.truth, self.found
        slopes = [float((value * self.way[n]).sum()) for n, value in g.gradient.items()]
        expected = float(g.value) + self.h * sum(slopes)
        size = max(abs(float(f.value)), abs(float(g.value)))
        curved = self.h**2 * (
            1 + sum(float((v * self.way[n]).abs().sum()) for n, v in g.second.items())
        )
        rounding = size * (1e-13 if self.case.wide else 1e-2 if self._float32() else 0.1)
        allowed = self.tolerance * self.h * sum(map(abs, slopes)) + rounding + curved
        return abs(float(f.value) - expected) <= allowed

    def unreached(self) -> list[str]:
        """The tensors whose gradient differs from plain autograd's at nearly the same point."""
        f, g = self.truth.gradient, self.found.gradient
        top = max((float(v.abs().max()) for v in f.values()), default=0.0)
        wrong = []
        for name, value in f.items():
            allowed = self.tolerance * max(float(value.abs().max()), float(g[name].abs().max()))
            allowed += (1e-7 if self.case.wide else 0.05) * top
            if self.found.second:
                allowed += 2 * self.h * float(self.found.second[name].abs().max())
            if not float((value - g[name]).abs().max()) <= allowed:
                wrong.append(name)
        return wrong

    def second_fits(self) -> bool:
        """(f'(base + h v) - f'(base)) / h = f''(base) v."""
        if self.order < 2 or not (self.case.wide or self.far):
            return True
        there, h = (self.truth.gradient, self.h) if self.case.wide else (self.far, self.far_h)
        here = self.found.gradient
        differences = {n: (there[n] - here[n]) / h for n in here}
        top = max(float(v.abs().max()) for v in differences.values())
        slope = max(float(v.abs().max()) for v in here.values())
        eps = torch.finfo(torch.float64 if self.case.wide else torch.float32).eps
        for name, value in differences.items():
            found = self.found.second[name]
            size = max(float(value.abs().max()), float(found.abs().max()))
            allowed = self.tolerance * size + 0.1 * self.tolerance * top + 100 * eps * slope / h
            if not float((value - found).abs().max()) <= allowed:
                return False
        return True

    def level_fits(self) -> bool:
        """Whether the model does the same at either depth of nested ``torch.func``."""
        found = self.found
        if found.outside is None:
            return True
        once = Derivatives(found.outside, found.gradient, {})
        if found.recorded[0] != found.recorded[-1]:
            once = self.case.derivatives(self.base, 1, {})
        return self._near(once, found)

    def finite(self) -> bool:
        """Whether the true value and gradient hold finite numbers only."""
        return bool(torch.isfinite(self.truth.value)) and all(
            bool(torch.isfinite(v).all()) for v in self.truth.gradient.values()
        )

    def fits(self) -> bool:
        """Whether value and derivatives agree with the truth, or with plain autograd where a
        declared derivative excuses them.
        """
        if not self.finite():
            return True
        if not self.level_fits():
            return False
        if self.value_fits() and not self.unreached() and self.second_fits():
            return True
        # a narrow comparison cannot tell a declared derivative from a wrong one
        return (not self.case.wide or not self.value_fits()) and self.declared_fits()

    def declared_fits(self) -> bool:
        """Where the declared derivative is not the one of the values (a straight-through estimator,
        a detached part, a padding index): equality with plain autograd at the same point.
        """
        case, way = self.case, self.way if self.order == 2 else None
        try:
            plain = case.in_place(self.base, way)[0]
        except FAILURES:  # plain autograd refuses too
            return False
        finally:
            case.write(case.weights)
        return self._near(plain, self.found)

    def first_agree(self) -> bool:
        """Whether value and gradient equal plain autograd's at the same point."""
        try:
            plain = self.case.in_place(self.base)[0]
        except FAILURES:
            return False
        finally:
            self.case.write(self.case.weights)
        return self._near(plain, self.found._replace(second={}))

    def reads_levels(self) -> bool:
        """Whether values differ inside of ``torch.func`` though all weights are in place."""
        case = self.case
        try:
            value = case.graph(self.base)[1]
            found = case.nested(self.base)
        finally:
            case.write(case.weights)
        close = 1e-8 if case.wide else 0.05
        inside = (v for v in (found.value, found.outside) if v is not None)
        return not all(_near({"": value.detach()}, {"": v}, close) for v in inside)

    def unused(self) -> tuple[str, ...]:
        """The tensors without influence."""
        return zeros(self.truth.gradient, self.found.gradient)

    def _near(self, one: Derivatives, other: Derivatives) -> bool:
        close = 1e-8 if self.case.wide else 0.05
        return (
            _near({"": one.value}, {"": other.value}, close)
            and _near(one.gradient, other.gradient, close)
            and _near(one.second, other.second, close)
        )

    def _float32(self) -> bool:
        return all(torch.finfo(v.dtype).bits >= 32 for v in self.case.weights.values())


def proved(case: Case, order: int) -> Comparison | None:
    """A comparison in float64 that fits at once; ``None`` is no verdict yet. Cost for order 2:
    13/3 forward-backward passes, 22/3 where the declared derivative is not the one of the values.
    """
    try:
        comparison = Comparison(case.widened(), order)
        fits = not comparison.foreign and comparison.finite() and comparison.fits()
    except FAILURES:
        return None
    return comparison if fits else None


def zeros(one: Params, other: Params) -> tuple[str, ...]:
    """The tensors whose gradient is exactly zero in both ways, without the biases that batch
    statistics cancel.
    """
    return tuple(
        name
        for name, value in one.items()
        if not (bool(value.any()) or bool(other[name].any()))
        and not (name.endswith("bias") and value.dim() == 1)
    )


def _near(one: Params, other: Params, close: float) -> bool:
    """Equal up to a share of the largest entry of all."""
    top = max((float(v.abs().max()) for v in one.values()), default=0.0)
    return all(float((v - other[n]).abs().max()) <= close * top for n, v in one.items())


def alike(one: Any, other: Any) -> bool:
    """Equal outputs, up to the order of additions on a parallel device."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    close = 1e3 * torch.finfo(one.dtype).eps if one.is_floating_point() else 0.0
    return torch.allclose(one, other.to(one.dtype), rtol=close, atol=close, equal_nan=True)


def wrong_alone(case: Case) -> bool:
    """Whether a layer on its own has wrong or missing second derivatives."""
    if not case.weights:
        return False
    try:
        return not any(Comparison(case.again(seed), 2).fits() for seed in (0, 1, 2))
    except FAILURES:
        return True


def missing_alone(order: int) -> Any:
    """A test whether a layer on its own has no derivatives of that order."""

    def fails(case: Case) -> bool:
        try:
            case.derivatives(case.weights, order, case.random("way"))
        except FAILURES:
            return True
        return False

    return fails


def complaint(comparison: Comparison) -> str:
    """Why a comparison failed, as the sentence of a refusal."""
    case = comparison.case
    if not comparison.level_fits() or comparison.reads_levels():
        return LEVELS
    if not comparison.value_fits() and comparison.first_agree():
        return wrong_second(
            case,
            "other ones than plain autograd's (.data, detach_() and gradient hooks may do that; "
            "detach() does not)",
        )
    wrong = comparison.unreached()
    stuck = [n for n in wrong if not bool(comparison.found.gradient[n].any())]
    if stuck or not comparison.value_fits():
        return unreachable((stuck or wrong or list(case.weights))[0])
    if wrong:
        where = culprit.failing_layer(case, wrong_alone)
        return (
            f"the gradient of {wrong[0]!r} by torch.func must be the one of plain autograd, but it "
            f"differs{f' in {where}' if where else ''}; write that layer with ordinary torch "
            "operations"
        )
    return wrong_second(case, "wrong: a difference of two gradients refutes them")


LEVELS = (
    "the model must be the same function inside and outside of torch.func, but its outputs or "
    "gradients depend on how deep transforms are nested; do not ask torch which ones are under way"
)
UNEQUAL = (
    "the model must give the same output twice, but equal calls differ: it draws random numbers "
    "from a generator of its own, or remembers earlier calls; make forward depend on its input and "
    "parameters alone"
)


def unreachable(name: str) -> str:
    """The sentence for a weight that is read past its place."""
    return (
        f"the model must read its weights where they are registered, but replacing {name!r} "
        "does not replace it everywhere: a list, cache, closure or hook holds the tensor itself; "
        "use self.<name> in forward"
    )


def foreign() -> str:
    """The sentence for weights outside the copy."""
    return (
        "the model must own all the weights that it uses, but forward reads trainable tensors that "
        "are not among its registered parameters: a lambda, closure, hook or plain list still "
        "refers to another object (a deep copy leaves functions as they are); call layers through "
        "self.<name> in a method, or register them in an nn.ModuleList"
    )


def wrong_second(case: Case, how: str) -> str:
    """The sentence for second derivatives that exist and are useless."""
    where = culprit.failing_layer(case, wrong_alone)
    return (
        f"second derivatives must be right, but those of {where or 'the model or its loss'} are "
        f"{how}; write it with ordinary torch arithmetic, or take estimator='first_order', which "
        "needs none"
    )
