"""The cheap half of the judgement, which settles it for networks of common layers.

At one point off the weights, in the model's own precision: plain autograd in place against
``functional_call`` under ``torch.func``, and a walk over the graph. What the graph is made of says
whether second derivatives need a look of their own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdtheory.core import tree
from mdtheory.models.user import truth
from mdtheory.models.user.case import FAILURES, Case, Derivatives
from mdtheory.models.user.graph import graph_leaves, nodes
from mdtheory.models.user.verdict import Verdict

TRUSTED = frozenset(
    f"{name}Backward{number}"
    for names, number in (
        (
            "Add Addmm AvgPool2D AdaptiveAvgPool2D BinaryCrossEntropyWithLogits Bmm Cat Clone "
            "ConstantPadNd Convolution Div Elu Embedding Expand Gelu Hardswish Hardtanh LeakyRelu "
            "LogSoftmax MaxPool2DWithIndices Mean Mish Mm MseLoss Mul NativeGroupNorm "
            "NativeLayerNorm Neg NllLoss Permute Relu Repeat ReshapeAlias Rsqrt SafeSoftmax Select "
            "Sigmoid Silu Slice Softmax Softplus Split Stack Sub Sum T Tanh Transpose Unbind "
            "UnsafeSplit UnsafeView Unsqueeze View",
            0,
        ),
        ("Add Mean Mul Squeeze Sum Transpose", 1),
    )
    for name in names.split()
) | {"AccumulateGrad"}
"""Operations of torch whose second derivatives are right wherever their first ones are finite: each
occurs in the sweep of the tests, which compares them with differences."""
WEIGHTED = {"NativeLayerNormBackward0", "NativeGroupNormBackward0"}
"""Right only with a weight: without one, and with a bias, torch's second derivatives are wrong."""
CLOSE = 64.0
"""How far two values, or two gradients, may lie apart, in units of the rounding of the largest
entry: mostly they are the same bits."""


def settled(case: Case, order: int, verdict: Verdict) -> Verdict | None:
    """The verdict where everything agrees and no operation needs a closer look; ``None`` where one
    does. Cost: a forward-backward pass each way.
    """
    if not _ordinary(case):
        return None
    base, watch = tree.axpy(truth.WANDER, case.random("base"), case.weights), _Apart()
    try:
        with verdict.kernels():
            with watch:
                outputs, value = case.graph(base)
            unknown = untrusted(value) if order == 2 else set()
            fused = unknown and all("Attention" in name for name in unknown)
            if fused and not verdict.plain_attention:
                case.write(case.weights)
                return settled(case, order, replace(verdict, plain_attention=True))
            if unknown or watch.seen:
                return None
            plain = Derivatives(value.detach(), case.slopes(value), {})
            case.write(case.weights)
            found = case.derivatives(base, 1, {})
    except FAILURES:
        return None
    finally:
        case.write(case.weights)
    own = {id(p) for p in case.model.parameters()}
    if not _agree(plain, found) or any(id(leaf) not in own for leaf in graph_leaves(outputs)):
        return None
    return replace(
        verdict,
        unused=truth.zeros(plain.gradient, found.gradient),
        loss_learns=any(id(leaf) not in own for leaf in graph_leaves(value)),
    )


def untrusted(value: Tensor) -> set[str]:
    """The operations in a graph whose second derivatives may be missing or wrong."""
    return {type(node).__name__ for node in nodes(value) if not _trusted(node)}


def _trusted(node: Any) -> bool:
    kind = type(node)
    if kind.__module__ != "builtins":  # an autograd.Function; the library's own are tested
        made_by = getattr(kind, "_forward_cls", kind).__module__
        return bool(made_by.startswith("mdtheory.kernels."))
    return kind.__name__ in TRUSTED and not (
        kind.__name__ in WEIGHTED and node._saved_weight is None
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
