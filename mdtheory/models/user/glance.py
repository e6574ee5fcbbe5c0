"""The cheap half of the judgement, which settles it for networks of common layers.

At one point off the weights, in the model's own precision: plain autograd in place against
``functional_call`` under ``torch.func``, and a walk over the graph. What the graph is made of says
whether second derivatives need a look of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.models.user import truth
from mdtheory.models.user.case import FAILURES, Case, Derivatives
from mdtheory.models.user.graph import graph_leaves, nodes, structure
from mdtheory.models.user.trusted import TRUSTED
from mdtheory.models.user.verdict import Verdict

WEIGHTED = {"NativeBatchNormBackward0", "NativeGroupNormBackward0", "NativeLayerNormBackward0"}
"""With a bias and no weight, torch's second derivatives are wrong or missing."""
CLOSE = 64.0
"""How far two values, or two gradients, may lie apart, in units of the rounding of the largest
entry: mostly they are the same bits."""


def look(case: Case, order: int, verdict: Verdict) -> tuple[Verdict, bool]:
    """What is known now, and whether it settles the matter: everything agrees, and no operation
    needs a closer look. Cost: two forward-backward passes, and one forward pass for order 2.
    """
    if not _ordinary(case):
        return verdict, False
    base, watch = tree.axpy(truth.WANDER, case.random("base"), case.weights), _Apart()
    try:
        with verdict.kernels(), watch:
            outputs, value = case.graph(base)
        unknown = untrusted(value) if order == 2 else set()
        if not verdict.plain_attention and any("Attention" in name for name in unknown):
            case.write(case.weights)
            return look(case, order, replace(verdict, plain_attention=True))
        if unknown or watch.seen:
            return verdict, False
        plain = Derivatives(value.detach(), case.slopes(value), {}, recorded=(structure(value),))
        case.write(case.weights)
        with verdict.kernels():
            found = case.derivatives(base, 1, {}) if order < 2 else case.nested(base)
            if not _alike(case, base, plain, found):
                return verdict, False
    except FAILURES:
        return verdict, False
    finally:
        case.write(case.weights)
    own = {id(p) for p in case.model.parameters()}
    if any(id(leaf) not in own for leaf in graph_leaves(outputs)):
        return verdict, False
    known = replace(
        verdict,
        unused=truth.zeros(plain.gradient, found.gradient),
        loss_learns=any(id(leaf) not in own for leaf in graph_leaves(value)),
    )
    return known, True


def _alike(case: Case, base: Params, plain: Derivatives, found: Derivatives) -> bool:
    """The same numbers by plain autograd and by ``torch.func``, at whatever depth it is nested.

    Of the outer level only the value is computed; the same operations have the same gradient.
    """
    if found.outside is None:
        return _agree(plain, found)
    once = found._replace(value=found.outside)
    if {*map(_frozen, found.recorded)} != {*map(_frozen, plain.recorded)}:
        once = case.derivatives(base, 1, {})
    return _agree(plain, found) and _agree(plain, once)


def _frozen(recorded: Counter[tuple[str, ...]]) -> frozenset[Any]:
    return frozenset(recorded.items())


def untrusted(value: Tensor) -> set[str]:
    """The operations in a graph whose second derivatives may be missing or wrong."""
    return {type(node).__name__ for node in nodes(value) if not _trusted(node)}


def _trusted(node: Any) -> bool:
    kind = type(node)
    if kind.__module__ != "builtins":  # an autograd.Function; the library's own are tested
        made_by = getattr(kind, "_forward_cls", kind).__module__
        return bool(made_by.startswith("mdtheory.kernels."))
    return kind.__name__ in TRUSTED and not (
        kind.__name__ in WEIGHTED
        and node._saved_weight is None
        and any(following is not None for following, _ in node.next_functions[1:])
    )


def _ordinary(case: Case) -> bool:
    """Whether the weights are of one type that is precise enough, and of no class of their own."""
    return (
        {type(p) for p in case.model.parameters()} == {nn.Parameter}
        and {p.dtype for p in case.model.parameters()} in ({torch.float32}, {torch.float64})
        and not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
    )


def _agree(plain: Derivatives, found: Derivatives) -> bool:
    """Finite, and equal up to rounding."""
    pairs = (
        ({"": plain.value}, {"": found.value}),
        (plain.gradient, found.gradient),
    )
    for one, other in pairs:
        top = max(float(v.abs().max()) for v in one.values())
        apart = max(float((v - other[n]).abs().max()) for n, v in one.items())
        if not (math.isfinite(top) and apart <= CLOSE * torch.finfo(plain.value.dtype).eps * top):
            return False
    return True


class _Apart(TorchFunctionMode):
    """Notices what a graph does not show and ``torch.func`` takes otherwise than plain autograd: a
    pass that hooks itself onto the graph, and constants made of weights by other means than
    ``detach``, which are constant in the innermost derivative only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func in _APART
        return func(*args, **(kwargs or {}))


_OWN: Any = Tensor
_APART = {
    Tensor.register_hook,
    _OWN.grad_fn.__get__,
    _OWN.data.__get__,
    Tensor.detach_,
    torch.detach_,
}
