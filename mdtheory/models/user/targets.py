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


def check(loss: Loss, outputs: Tensor, targets: Any) -> None:
    """Refuse a cross-entropy of one class, and a loss that broadcasts targets against outputs."""
    if (
        (loss is cross_entropy or isinstance(loss, CrossEntropyLoss))
        and outputs.dim() > 1
        and outputs.shape[1] == 1
    ):
        raise ValueError(
            f"the cross-entropy must have at least 2 classes, got outputs of shape "
            f"{tuple(outputs.shape)}, over which it is 0 whatever they are; pass loss=..., for "
            "instance torch.nn.functional.mse_loss"
        )
    if isinstance(targets, Tensor) and not _paired(loss, outputs, targets):
        raise ValueError(
            f"outputs and targets must be compared item by item, got shapes "
            f"{tuple(outputs.shape)} and {tuple(targets.shape)}, which the loss broadcasts; "
            "give the targets the shape of the outputs, for instance y[:, None]"
        )


def _paired(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Permuting the targets alone changes a loss over items, permuting both does not."""
    n = len(outputs)
    if outputs.shape == targets.shape or n < 2 or not _broadcasts(outputs, targets):
        return True
    draw = torch.Generator().manual_seed(0)
    outputs = outputs + torch.randn(outputs.shape, generator=draw).to(outputs)
    if targets.is_floating_point():
        targets = targets + 0.1 * torch.rand(targets.shape, generator=draw).to(targets)
    order = torch.arange(n, device=targets.device).roll(1)
    if torch.equal(targets, targets[order]):
        return True
    views = (outputs, targets), (outputs, targets[order]), (outputs[order], targets[order])
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            here, shuffled, both = (float(loss_of(loss, o, t)) for o, t in views)
    except FAILURES:  # not defined for such outputs: nothing can be said
        return True
    tiny = 1e-5 * abs(here)
    return not math.isfinite(here + shuffled + both) or (
        abs(here - shuffled) > tiny and abs(here - both) <= 100 * tiny
    )


def _broadcasts(outputs: Tensor, targets: Tensor) -> bool:
    try:
        shape = torch.broadcast_shapes(outputs.shape, targets.shape)
    except RuntimeError:
        return False
    return outputs.dim() != targets.dim() or shape != outputs.shape
