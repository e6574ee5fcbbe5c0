"""What the probe finds out about a foreign model that is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mdtheory.models.user import attributes


@dataclass(frozen=True)
class Verdict:
    """How an accepted model has to be run.

    ``plain_attention``: with fused attention off; ``plain_recurrence``: with cuDNN off. Both to
    second order only. ``stashes``: plain attributes to be put back after every pass. ``unused``:
    trainable parameters without influence. ``loss_learns``: the loss holds trainable tensors.
    ``outputs``: the shape of the outputs for as many items as were tried.
    """

    plain_attention: bool = False
    plain_recurrence: bool = False
    stashes: tuple[attributes.Place, ...] = ()
    unused: tuple[str, ...] = ()
    loss_learns: bool = False
    outputs: tuple[int, ...] = ()

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Inside, torch uses the implementations that have second derivatives."""
        with ExitStack() as stack:
            if self.plain_attention:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self.plain_recurrence:
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
