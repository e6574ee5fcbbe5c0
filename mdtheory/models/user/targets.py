"""Whether a loss compares outputs and targets item by item."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.nn.functional import cross_entropy

from mdtheory.models.user.case import FAILURES, Loss, loss_of


def is_cross_entropy(loss: Loss) -> bool:
    """Whether a loss is torch's cross-entropy, which never broadcasts."""
    return loss is cross_entropy or isinstance(loss, CrossEntropyLoss)


def layout(targets: Tensor) -> tuple[bool, int, tuple[bool, ...]]:
    """What decides how targets are broadcast, whatever the number of items: whether they are
    floating, their number of axes, and which further axes have one entry.
    """
    ones = tuple(size == 1 for size in targets.shape[1:])
    return targets.is_floating_point(), targets.dim(), ones


def constant(targets: Tensor) -> bool:
    """Whether whole-numbered targets are all the same, which settles nothing, and needs no pass."""
    return not targets.is_floating_point() and torch.equal(targets, targets.roll(1, 0))


def check(loss: Loss, outputs: Tensor, targets: Any) -> bool:
    """Refuse a cross-entropy of one class, and a loss that broadcasts targets against outputs;
    whether such targets are now known to be compared item by item.
    """
    if is_cross_entropy(loss) and outputs.dim() > 1 and outputs.shape[1] == 1:
        raise ValueError(
            f"the cross-entropy must have at least 2 classes, got outputs of shape "
            f"{tuple(outputs.shape)}, over which it is 0 whatever they are; pass loss=..., for "
            "instance torch.nn.functional.mse_loss"
        )
    paired = _paired(loss, outputs, targets) if isinstance(targets, Tensor) else None
    if paired is False:
        raise ValueError(
            f"outputs and targets must be compared item by item, got shapes "
            f"{tuple(outputs.shape)} and {tuple(targets.shape)}, which the loss broadcasts; "
            "give the targets the shape of the outputs, for instance y[:, None]"
        )
    return paired is True


def _paired(loss: Loss, outputs: Tensor, targets: Tensor) -> bool | None:
    """Permuting the targets alone changes a loss over items, permuting both does not; ``None``
    where these items cannot tell.
    """
    n = len(outputs)
    if n < 2:
        return None
    if outputs.shape == targets.shape or not _broadcasts(outputs, targets):
        return True
    if outputs.dtype.itemsize < 4:  # few bits make different losses equal
        outputs = outputs.float()
        targets = targets.float() if targets.is_floating_point() else targets
    draw = torch.Generator().manual_seed(0)
    outputs = outputs + torch.randn(outputs.shape, generator=draw).to(outputs)
    if targets.is_floating_point():
        targets = targets + 0.1 * torch.rand(targets.shape, generator=draw).to(targets)
    if constant(targets):
        return None
    order = torch.arange(n, device=targets.device).roll(1)
    views = (outputs, targets), (outputs, targets[order]), (outputs[order], targets[order])
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            here, shuffled, both = (float(loss_of(loss, o, t)) for o, t in views)
    except FAILURES:  # not defined for such outputs: nothing can be said
        return None
    if not math.isfinite(here + shuffled + both):
        return None
    tiny = 1e-5 * abs(here)
    return abs(here - shuffled) > tiny and abs(here - both) <= 100 * tiny


def _broadcasts(outputs: Tensor, targets: Tensor) -> bool:
    try:
        shape = torch.broadcast_shapes(outputs.shape, targets.shape)
    except RuntimeError:
        return False
    return outputs.dim() != targets.dim() or shape != outputs.shape
