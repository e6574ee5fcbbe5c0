"""The certified map in both forms: the conditioners of MetaMiDA, and a bound on each from its
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mdtheory.core.types import Params
from mdtheory.maps.iaf.at_once import at_once, suits
from mdtheory.maps.iaf.base import LEAKY_SLOPES, Partition
from mdtheory.maps.iaf.certified import UNIT, CertifiedIAF, Heads, spectral
from mdtheory.maps.iaf.kronecker import KroneckerIAF
from mdtheory.maps.iaf.kronecker_init import LAYERS, PublishedStart, Role, Shape
from mdtheory.maps.iaf.mlp import MLPIAF
from mdtheory.maps.iaf.plan import FLAT
from mdtheory.maps.spectral_bounds import semi_orthogonal

LONGEST_MODE = 256  # a longer mode of a vector or matrix is seen as two, so that norms stay cheap


def balanced(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a vector or matrix with its longest mode, if long, split into two factors as
    equal as possible.
    """
    shape = tuple(shape)
    longest = max(shape, default=1)
    if len(shape) > 2 or longest <= LONGEST_MODE:
        return shape
    first = next(n for n in range(math.isqrt(longest), 0, -1) if longest % n == 0)
    at = shape.index(longest)
    return shape if first == 1 else (*shape[:at], first, longest // first, *shape[at + 1 :])


class CertifiedStart(PublishedStart):
    """1-Lipschitz units, no gain above 1, and near-orthogonal factors; the first factor of every
    head is zero.

    Units are u(x) = (3 x + sqrt(1 + x^2)) / 4: C^infinity, slopes in (1/2, 1) and u(0) = 1/4, so
    nowhere dead.
    """

    live = True
    form = (0.75, 0.25)

    @staticmethod
    def unit(x: Tensor) -> Tensor:
        """u(x), elementwise. shape: as x"""
        return 0.75 * x + 0.25 * torch.sqrt(1 + x * x)

    def layer(
        self, role: Role, small: Shape, large: Shape, draw: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        factors = [UNIT * semi_orthogonal(o, i, draw) for o, i in zip(large, small, strict=True)]
        if role == "head":
            factors[0] = torch.zeros_like(factors[0])
        return factors, torch.zeros(large)

    def linear(self, n_in: int, n_out: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        return UNIT * semi_orthogonal(n_out, n_in, draw), torch.zeros(n_out)


class CertifiedKroneckerIAF(CertifiedIAF, KroneckerIAF):
    """The Kronecker conditioners of :class:`~mdtheory.maps.iaf.kronecker.KroneckerIAF` inside
    certified bounds.

    Norms of Kronecker products are products of norms, so the certificate costs a few small matrix
    products. Units are those of :class:`CertifiedStart`; of every head all factors but the first
    are contracted, and the first carries its size.
    """

    heads_only = True

    def __init__(
        self,
        partition: Partition = 4,
        *,
        m: float = 0.1,
        M: float = 4.0,
        reach: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(partition, seed=seed)
        self._set_bounds(m=m, M=M, reach=reach)
        self.start = CertifiedStart()

    def build(self, anchor: Params) -> None:
        super().build(
            {name: value.reshape(balanced(value.shape)) for name, value in anchor.items()}
        )
        self.shapes = {name: tuple(value.shape) for name, value in anchor.items()}

    def prepared(self, meta: Params) -> Params:
        if not suits(list(meta.values())):
            return meta
        flat = self.plan.flattened(self.enforced(meta))
        return {FLAT: flat, "diagonal": meta["diagonal"]}

    def read(self, meta: Params, z: Params) -> tuple[Params, Params]:
        if FLAT not in meta:
            return super().read(meta, z)
        if not suits(list(z.values())):
            enforced = self.plan.unflattened(meta[FLAT])
            gates, shifts = self.conditioners(enforced, self.split(z))
            return self.join(gates), self.join(shifts)
        names = self.plan.names
        values = at_once([z[name] for name in names], meta[FLAT], self.plan)
        halves = values[: len(names)], values[len(names) :]
        gates, shifts = (dict(zip(names, half, strict=True)) for half in halves)
        return gates, shifts

    def bodies(self) -> list[str]:
        tails = set(self.tails())
        return [
            name
            for name in self.own()
            if (".factors." in name or name.endswith(".weight")) and name not in tails
        ]

    def tails(self) -> list[str]:
        return [
            f"decoders.{name}.{head}.factors.0"
            for head in ("log_scale", "shift")
            for name in self.decoded
        ]

    def heads(self, meta: Params) -> list[Heads]:
        def of(kind: str, block: Sequence[str]) -> list[Tensor]:
            return [meta[f"decoders.{name}.{kind}.factors.0"] for name in block]

        return [(of("log_scale", block), of("shift", block)) for block in self.blocks[1:]]

    def lipschitz(self, meta: Params) -> list[tuple[float, float]]:
        def norm(prefix: str, layers: Sequence[object]) -> float:
            names = [f"{prefix}.{layer}.factors.{j}" for layer in layers for j in range(3)]
            return math.prod(spectral(meta[name]) for name in names if name in meta)

        encoders, found = [0.0], []
        for i, block in enumerate(self.blocks[1:], start=1):
            encoders += [norm(f"encoders.{name}", range(LAYERS)) for name in self.blocks[i - 1]]
            common = max(encoders) * spectral(meta[f"linears.block{i + 1}.weight"])
            gates, shifts = (
                common * max(norm(f"decoders.{name}", [*range(LAYERS - 1), head]) for name in block)
                for head in ("log_scale", "shift")
            )
            found.append((gates, shifts))
        return found


class CertifiedMLPIAF(CertifiedIAF, MLPIAF):
    """The multi-layer perceptrons of :class:`~mdtheory.maps.iaf.mlp.MLPIAF` inside certified
    bounds: for small d.

    One unit behind another in encoder and decoder: their slopes multiply to at most the square of
    the largest.
    """

    gain = LEAKY_SLOPES[1] ** 2

    def __init__(
        self,
        partition: Partition | Sequence[Sequence[int]] = 4,
        *,
        m: float = 0.1,
        M: float = 4.0,
        reach: float = 1.0,
        hidden: int = 32,
        code: int = 8,
        seed: int = 0,
    ):
        super().__init__(partition, hidden=hidden, code=code, seed=seed)
        self._set_bounds(m=m, M=M, reach=reach)

    def bodies(self) -> list[str]:
        n_blocks = len(self.blocks)
        encoders = [f"encoders.{i}.{layer}.weight" for i in range(1, n_blocks) for layer in (0, 1)]
        return encoders + [f"decoders.{i}.0.weight" for i in range(2, n_blocks + 1)]

    def tails(self) -> list[str]:
        return [f"decoders.{i}.1.weight" for i in range(2, len(self.blocks) + 1)]

    def heads(self, meta: Params) -> list[Heads]:
        halves = [meta[name].chunk(2) for name in self.tail_names]
        return [([gates], [shifts]) for gates, shifts in halves]

    def lipschitz(self, meta: Params) -> list[tuple[float, float]]:
        encoders, found = 0.0, []
        for i, ((gates,), (shifts,)) in enumerate(self.heads(meta), start=2):
            encoders = max(
                encoders,
                math.prod(spectral(meta[f"encoders.{i - 1}.{layer}.weight"]) for layer in (0, 1)),
            )
            common = self.gain * encoders * spectral(meta[f"decoders.{i}.0.weight"])
            found.append((common * spectral(gates), common * spectral(shifts)))
        return found
