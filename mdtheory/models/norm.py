"""Batch normalisation written out by hand, with its statistics named by a policy.

The native layer gives silently wrong gradients when one differentiates from outside through
``vmap(grad(loss))``, and it changes buffers in every training pass; this one is plain arithmetic,
exact under every transform of ``torch.func``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mdtheory.core.registry import unknown

Policy = Literal["transductive", "support", "running"]
POLICIES: tuple[str, ...] = get_args(Policy)
"""Whose statistics normalise an item: its batch's, the support set's, or running averages."""

_first: ContextVar[tuple[int, int | None] | None] = ContextVar(
    "statistics_over_first", default=None
)
_collecting: ContextVar[bool] = ContextVar("collecting_statistics", default=False)


@contextmanager
def statistics_over_first(n: int, of: int | None = None) -> Iterator[None]:
    """Inside, layers of policy "support" take their statistics from the first ``n`` items and apply
    them to all. ``of``: how many items the batch holds; a layer that sees several rows for each,
    item by item, then takes those of the first ``n``.

    Errors: ``ValueError`` for n < 1 here, and in a layer whose batch holds fewer than ``n`` items,
    or no whole number of rows for each of ``of``.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1 item, got {n}; pass the number of support items")
    token = _first.set((n, of))
    try:
        yield
    finally:
        _first.reset(token)


@contextmanager
def collecting_statistics() -> Iterator[None]:
    """Inside, every forward pass normalises by its batch and updates the running buffers: the only
    place where they change.

    Gradients are off inside, so that no differentiated pass can ever have this side effect. Not
    under ``vmap``.
    """
    token = _collecting.set(True)
    try:
        with torch.no_grad():
            yield
    finally:
        _collecting.reset(token)


def check_policy(policy: str) -> None:
    """Refuse a policy that is not in :data:`POLICIES`, naming the nearest one."""
    if policy not in POLICIES:
        raise unknown("norm policy", policy, list(POLICIES))


class BatchStatNorm(nn.Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias per channel, over all items and positions
    (ioffe2015batch, alg. 1).

    shapes: x and y (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W); weight, bias, running_mean,
    running_var (C,). ``var`` is the biased variance. Which items give mean and variance:

    - "transductive": the batch at hand, in training and in evaluation (the official MetaMiDA code;
      queries see each other);
    - "support": inside :func:`statistics_over_first` the first n items only, elsewhere the batch at
      hand;
    - "running": the batch in training mode, the running averages in evaluation mode.

    float16 is computed in float32. Deviations from ``nn.BatchNorm2d``: the running buffers change
    only inside :func:`collecting_statistics` (with the unbiased variance, as there), and there is
    no ``num_batches_tracked``. One value per channel is refused as there.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        policy: str = "transductive",
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ):
        super().__init__()
        check_policy(policy)
        self.channels = channels
        self.policy = policy
        self.eps = eps
        self.momentum = momentum
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch. shape: as x"""
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"x must have shape (N, {self.channels}, ...), got {tuple(x.shape)}; put the "
                "channels second"
            )
        if x.dtype == torch.float16:  # the squares of activations from 256 on overflow in it
            return self._normalised(x.float()).to(x.dtype)
        return self._normalised(x)

    def _normalised(self, x: Tensor) -> Tensor:
        """The formula, in the precision of x. shape: as x"""
        if self._uses_stored():
            centred, var = x - _per_channel(self.running_mean, x), _per_channel(self.running_var, x)
        else:
            centred, var = self._centred(x)
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * _per_channel(self.weight, x)
        y = centred * scale
        return y if self.bias is None else y + _per_channel(self.bias, x)

    def normalises_by_batch(self) -> bool:
        """Whether a pass here and now has no side effect and takes its statistics from the
        batch.
        """
        return not self._uses_stored() and not _collecting.get()

    def counted(self, x: Tensor) -> int:
        """How many items, from the first, give the statistics; ``ValueError`` below 2 values per
        channel.
        """
        n = self._count(x)
        if n * math.prod(x.shape[2:]) < 2:
            raise ValueError(
                f"a batch must give at least 2 values per channel, got shape {tuple(x.shape)}; use "
                "more items"
            )
        return n

    def _uses_stored(self) -> bool:
        """Whether this pass normalises by the running averages."""
        return self.policy == "running" and not self.training and not _collecting.get()

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x minus the mean, and the biased variance, of the items that count. shapes: as x, (1, C,
        1, ...)
        """
        n = self.counted(x)
        axes = [0, *range(2, x.dim())]
        whole = n == x.shape[0]
        mean = (x if whole else x[:n]).mean(axes, keepdim=True)
        centred = x - mean
        basis = centred if whole else centred[:n]
        var = (basis * basis).mean(axes, keepdim=True)
        if _collecting.get():
            values = x.numel() // self.channels
            unbiased = var.flatten() * (values / (values - 1))
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return centred, var

    def _count(self, x: Tensor) -> int:
        """How many items, from the first, give the statistics."""
        first = _first.get()
        if first is None or self.policy != "support" or _collecting.get():
            return x.shape[0]
        n, of = first
        if of is not None and x.shape[0] != of:
            if x.shape[0] % of:
                raise ValueError(
                    f"a batch must give as many rows for each of its {of} items, got "
                    f"{x.shape[0]}; use norm='transductive'"
                )
            n *= x.shape[0] // of
        if x.shape[0] < n:
            raise ValueError(
                f"the batch must hold the {n} support items first, got {x.shape[0]} items; pass "
                "support and query"
            )
        return n

    def extra_repr(self) -> str:
        """Channels, policy and eps."""
        return f"{self.channels}, policy={self.policy!r}, eps={self.eps}"


class FixedStatNorm(BatchStatNorm):
    """Always the running averages, which never change: what a ``BatchNorm`` in evaluation mode is,
    for good.

    :func:`set_policy` and :func:`collecting_statistics` leave it alone; weight and bias may still
    be learned.
    """

    def _uses_stored(self) -> bool:
        return True


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    """One number per channel, shaped to meet x. shapes: (C,) -> (C, 1, ...)"""
    return v.view(-1, *(1,) * (x.dim() - 2))


def set_policy(model: nn.Module, policy: str) -> nn.Module:
    """Give every :class:`BatchStatNorm` of ``model`` (but not :class:`FixedStatNorm`) this policy;
    returns ``model``. Running averages that are used are part of the ``state_dict``.
    """
    check_policy(policy)
    for module in model.modules():
        if isinstance(module, BatchStatNorm) and not isinstance(module, FixedStatNorm):
            module.policy = policy
            if policy == "running":
                if module.momentum is None:
                    raise ValueError(
                        "a batch norm must have a momentum with norm='running', got None; set "
                        "momentum=0.1"
                    )
                module._non_persistent_buffers_set -= {"running_mean", "running_var"}
    return model
