"""The poster's block-triangular bijection (BlockIAF): what its Kronecker and MLP forms share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mdtheory.core.types import Params
from mdtheory.maps.base import DualMap

ScaleForm = Literal["exp", "bounded"] | Sequence[float]
"""``exp``: s(a) = e^a, the official code's; ``bounded``: the range (0, 2); or any (low, high) with
0 <= low < 1 < high.
"""

Partition = int | Sequence[Sequence[str]]
"""n: blocks of n tensors in order (1 is "by tensor"); or the blocks themselves, as lists of tensor
names.
"""


def _range(form: Any) -> tuple[float, float]:
    bounds = (0.0, 2.0) if form == "bounded" else form
    if isinstance(bounds, str) or len(bounds) != 2 or not 0 <= bounds[0] < 1 < bounds[1] < math.inf:
        raise ValueError(
            "scale must be 'exp', 'bounded' or (low, high) with 0 <= low < 1 < high, got "
            f"{form!r}; "
            "take 'exp'"
        )
    return float(bounds[0]), float(bounds[1])


class Scale:
    """A positive function s with s(0) = 1: e^a, or low + (high - low) sigmoid(a + c) with c =
    log((1 - low) / (high - 1)).

    A floor low > 0 bounds 1/s, but makes neither g nor its inverse Lipschitz on
    R^d.
    """

    def __init__(self, form: ScaleForm):
        self.bounds = None if form == "exp" else _range(form)
        if self.bounds is not None:
            low, high = self.bounds
            self.offset = math.log((1 - low) / (high - 1))

    def __call__(self, a: Tensor) -> Tensor:
        """s(a), elementwise. shape: that of a"""
        if self.bounds is None:
            return a.exp()
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(a + self.offset)

    def log(self, a: Tensor) -> Tensor:
        """log s(a), elementwise (shape: that of a); finite also where s underflows."""
        if self.bounds is None:
            return a
        low, high = self.bounds
        return torch.log(self(a)) if low > 0 else math.log(high) + logsigmoid(a + self.offset)


LEAKY_SLOPES = (0.5, 1.5)
"""The slopes of :func:`smooth_leaky` lie strictly between these."""


def smooth_leaky(x: Tensor) -> Tensor:
    """u(x) = x + sqrt(1 + x^2) / 2: a rectifier that is C^infinity, with slope in (1/2, 3/2)
    everywhere and u(0) = 1/2.

    So no unit is dead at any input, and the weights behind it have a gradient also where the dual
    variable is zero, as the biases of norms are at the start. Elementwise; shape: that of x.
    """
    return x + 0.5 * torch.sqrt(1 + x * x)


def centred_uniform(shape: Sequence[int], *, bound: float, generator: torch.Generator) -> Tensor:
    """U(-bound, bound) of the given shape, drawn in float64 on the CPU: the same numbers for every
    precision and device.
    """
    return (2 * torch.rand(tuple(shape), generator=generator, dtype=torch.float64) - 1) * bound


def blocks_of_names(names: Sequence[str], partition: Partition) -> list[list[str]]:
    """The blocks of a partition of ``names``; every name is in exactly one."""
    if isinstance(partition, int):
        if partition < 1:
            raise ValueError(
                f"partition must be at least 1 tensor a block, got {partition}; 1 makes every "
                "tensor a block"
            )
        return [list(names[i : i + partition]) for i in range(0, len(names), partition)]
    blocks = [list(block) for block in partition]
    listed = [name for block in blocks for name in block]
    unknown = sorted(set(listed) - set(names))
    missing = sorted(set(names) - set(listed))
    if unknown or missing or len(listed) != len(names) or not all(blocks):
        wrong = (
            f"unknown {unknown[:3]}"
            if unknown
            else f"without {missing[:3]}"
            if missing
            else "an empty block or a name twice"
        )
        raise ValueError(
            f"partition must hold every adapted tensor exactly once, got {wrong}; the tensors are "
            f"{list(names)}"
        )
    return blocks


class BlockIAF(DualMap):
    """g_i(z) = s(a_i) * z_i + m_i with (a_i, m_i) = d_i(e_1(z_1), ..., e_{i-1}(z_{i-1})), constants
    for i = 1.

    For any partition and any conditioners, g is a bijection of R^d: its Jacobian is block lower
    triangular with the positive diagonal s, so log|det J| = sum of log s. It is *not* the
    gradient of a convex potential unless all conditioners are constant; hence a ``DualMap``
    and no ``MirrorMap``. All conditioners read the *input* z, so all blocks are computed at once;
    the inverse goes block by block.

    A form says how z falls into pieces (``split``, ``join``; ``blocks`` lists the pieces' names),
    and gives ``constants``, ``encode`` and ``decode``.

    source: zhang2024metamida, "Block-wise autoregression".
    """

    blocks: list[list[str]]

    def __init__(self, scale: ScaleForm):
        super().__init__()
        self.scale = Scale(scale)

    @abstractmethod
    def split(self, z: Params) -> Params:
        """The pieces of z, by name."""

    @abstractmethod
    def join(self, pieces: Params) -> Params:
        """Undo :meth:`split`."""

    @abstractmethod
    def constants(self, meta: Params) -> tuple[Params, Params]:
        """(a, m) of the first block's pieces."""

    @abstractmethod
    def encode(self, meta: Params, pieces: Params, blocks: Sequence[int]) -> list[Tensor]:
        """e_i(z_i) for these blocks (counted from 0). shapes: (features_i,)"""

    @abstractmethod
    def decode(self, meta: Params, contexts: Mapping[int, Tensor]) -> tuple[Params, Params]:
        """(a, m) of the pieces of these blocks, from their contexts. context shape: (features_0 +
        ... + features_{i-1},)
        """

    def conditioners(self, meta: Params, pieces: Params) -> tuple[Params, Params]:
        """(a, m) of every piece, all blocks at once."""
        log_scales, shifts = self.constants(meta)
        later = range(1, len(self.blocks))
        if later:
            codes = self.encode(meta, pieces, [i - 1 for i in later])
            more_scales, more_shifts = self.decode(meta, {i: torch.cat(codes[:i]) for i in later})
            log_scales, shifts = {**log_scales, **more_scales}, {**shifts, **more_shifts}
        return log_scales, shifts

    def point(self, meta: Params, z: Params) -> Params:
        pieces = self.split(z)
        log_scales, shifts = self.conditioners(meta, pieces)
        return self.join(
            {
                name: piece * self.scale(log_scales[name]) + shifts[name]
                for name, piece in pieces.items()
            }
        )

    def inverse(self, meta: Params, phi: Params) -> Params:
        """z_i = (phi_i - m_i) / s(a_i), block by block. Exact; every phi is in the range."""
        targets, pieces, codes = self.split(phi), Params(), list[Tensor]()
        for i, names in enumerate(self.blocks):
            log_scales, shifts = (
                self.decode(meta, {i: torch.cat(codes)}) if i else self.constants(meta)
            )
            for name in names:
                pieces[name] = (targets[name] - shifts[name]) / self.scale(log_scales[name])
            if i + 1 < len(self.blocks):
                codes += self.encode(meta, pieces, [i])
        return self.join({name: pieces[name] for name in targets})

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        log_scales, _ = self.conditioners(meta, self.split(z))
        return torch.stack([self.scale.log(a).sum() for a in log_scales.values()]).sum()
