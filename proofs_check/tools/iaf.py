"""The library's point maps as functions of flat vectors, block-triangular maps with given
conditioners, and impostors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.core.types import Params
from mdtheory.maps.base import DualMap
from mdtheory.maps.iaf import MLPIAF, BlockIAF, KroneckerIAF
from proofs_check.run import CheckFailedError, Run
from proofs_check.tools.models import vector

Conditioner = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The coordinates before a block -> (a, m) of the block. shapes: (n,) -> (k,), (k,)"""


class Sigmoid:
    """The poster's scale: s(a) = 1 / (1 + e^-a), with s(0) = 1/2 (the library's own scales have
    s(0) = 1).
    """

    def __call__(self, a: Tensor) -> Tensor:
        return torch.sigmoid(a)

    def log(self, a: Tensor) -> Tensor:
        """log s(a)."""
        return torch.nn.functional.logsigmoid(a)


class Identity:
    """s(a) = a, for maps whose scales are written out."""

    def __call__(self, a: Tensor) -> Tensor:
        return a

    def log(self, a: Tensor) -> Tensor:
        """log a."""
        return a.log()


class Formula(BlockIAF):
    """The library's BlockIAF on one vector "phi", blocks of consecutive coordinates, *any*
    functions as conditioners.
    """

    def __init__(
        self, *conditioners: Conditioner, sizes: Sequence[int] | None = None, scale: object = None
    ):
        super().__init__("bounded")
        self.sizes = list(sizes) if sizes is not None else [1] * len(conditioners)
        self.functions = conditioners
        self.blocks = [[str(i)] for i in range(len(conditioners))]
        if scale is not None:
            self.scale = scale

    def split(self, z: Params) -> Params:
        return dict(zip((b[0] for b in self.blocks), z["phi"].split(self.sizes), strict=True))

    def join(self, pieces: Params) -> Params:
        return {"phi": torch.cat([pieces[block[0]] for block in self.blocks])}

    def constants(self, meta: Params) -> tuple[Params, Params]:
        a, m = self.functions[0](vector())
        return {"0": a}, {"0": m}

    def encode(self, meta: Params, pieces: Params, blocks: Sequence[int]) -> list[Tensor]:
        return [pieces[str(i)] for i in blocks]

    def decode(self, meta: Params, contexts: Mapping[int, Tensor]) -> tuple[Params, Params]:
        found = {str(i): self.functions[i](context) for i, context in contexts.items()}
        return {name: a for name, (a, _) in found.items()}, {
            name: m for name, (_, m) in found.items()
        }


class Linear(DualMap):
    """phi = A z. Not a mirror map unless A is symmetric positive definite: with a rotation, the
    classic impostor.
    """

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = matrix

    def point(self, meta: Params, z: Params) -> Params:
        return tree.unflatten(self.matrix @ tree.flatten(z), z)

    def inverse(self, meta: Params, phi: Params) -> Params:
        return tree.unflatten(torch.linalg.solve(self.matrix, tree.flatten(phi)), phi)

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        return torch.linalg.slogdet(self.matrix)[1]


@dataclass(frozen=True)
class Flat:
    """A point map with its own parameters, as a function of the flattened z. ``blocks``:
    coordinates, block after block.
    """

    map: DualMap
    like: Params
    blocks: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """d."""
        return sum(value.numel() for value in self.like.values())

    def own(self) -> Params:
        """The map's parameters, cut from their graph."""
        return tree.detach(self.map.own())

    def at(self, z: Tensor) -> Tensor:
        """g(z). shape: (d,)"""
        return tree.flatten(self.map.point(self.own(), tree.unflatten(z, self.like)))

    def inverse(self, phi: Tensor) -> Tensor:
        """g^{-1}(phi). shape: (d,)"""
        return tree.flatten(self.map.inverse(self.own(), tree.unflatten(phi, self.like)))

    def log_abs_det(self, z: Tensor) -> float:
        """log |det J(z)|, as the map says."""
        return float(self.map.log_abs_det(self.own(), tree.unflatten(z, self.like)))

    def jacobian(self, z: Tensor) -> Tensor:
        """dg/dz, dense. shape: (d, d)"""
        return jacrev(self.at)(z)

    def altered(self, change: Callable[[Tensor, Tensor], Tensor]) -> Flat:
        """Another map z -> change(z, g(z)) with everything else as it is: how mutants are made."""
        return _Altered(self.map, self.like, self.blocks, change)

    def inverted(self) -> Flat:
        """The map's inverse as a map."""
        return self.altered(lambda phi, _: self.inverse(phi))

    def random(self, *address: str | int, scale: float = 1.0) -> Tensor:
        """A normal point. shape: (d,)"""
        return scale * torch.randn(
            self.size, generator=generator("proofs", *address), dtype=torch.float64
        )


@dataclass(frozen=True)
class _Altered(Flat):
    change: Callable[[Tensor, Tensor], Tensor]

    def at(self, z: Tensor) -> Tensor:
        return self.change(z, super().at(z))


class OnVector(DualMap):
    """Any flat map as a map on one vector "phi", for the library's solver."""

    def __init__(self, map: Flat):
        super().__init__()
        self.flat = map

    def point(self, meta: Params, z: Params) -> Params:
        return {"phi": self.flat.at(z["phi"])}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {"phi": self.flat.inverse(phi["phi"])}


def turned(z: Tensor) -> Tensor:
    """The quarter turn (-z_2, z_1, 0, ...): monotone, 1-Lipschitz, and no gradient. shape: (d,)"""
    return torch.cat([-z[1:2], z[:1], torch.zeros_like(z[2:])])


def flat(map: DualMap, size: int, blocks: Sequence[Sequence[int]] | None = None) -> Flat:
    """A map on one vector "phi"; blocks of single coordinates unless given."""
    chosen = [[c] for c in range(size)] if blocks is None else blocks
    return Flat(
        map,
        {"phi": torch.zeros(size, dtype=torch.float64)},
        tuple(tuple(block) for block in chosen),
    )


def formula(
    *conditioners: Conditioner, sizes: Sequence[int] | None = None, scale: object = None
) -> Flat:
    """A :class:`Formula` as a function of flat vectors."""
    map = Formula(*conditioners, sizes=sizes, scale=scale)
    ends = [0, *accumulate(map.sizes)]
    return flat(map, ends[-1], [range(a, b) for a, b in pairwise(ends)])


def constant(*values: float) -> Tensor:
    """A vector, for conditioners."""
    return vector(*values)


def shifted(slope: float, scale: float = 0.5) -> Flat:
    """g(z) = (s z_1, s z_2 + m z_1), exactly."""
    return formula(
        lambda _: (constant(scale), constant(0.0)),
        lambda z: (constant(scale), slope * z),
        scale=Identity(),
    )


def gated(first: float = 0.5) -> Flat:
    """g(z) = (s_1 z_1, z_2 sigmoid(z_1)): the poster's sigma, no shift."""
    logit = float(np.log(first / (1 - first)))
    return formula(
        lambda _: (constant(logit), constant(0.0)), lambda z: (z, 0 * z), scale=Sigmoid()
    )


@torch.no_grad()
def linear_mlp(*, first: float, level: float, bend: float = 0.0, slope: float = 0.0) -> Flat:
    """The library's MLP form with weights set by hand: scales s(first) and s(level + bend z_1),
    shift slope z_1.

    Its units are not linear, but u(x) - u(-x) = 2 x is. s is the library's bounded scale, 2
    sigmoid.
    """
    map = MLPIAF([[0], [1]], hidden=2, code=1)
    map.build({"phi": vector(0.0, 0.0)})
    own = map.own()
    for value in own.values():
        value.zero_()
    for name, weight in (
        ("encoders.1.0.weight", [[1.0], [-1.0]]),
        ("encoders.1.1.weight", [[0.5, -0.5]]),
        ("decoders.2.0.weight", [[1.0], [-1.0]]),
        ("decoders.2.1.weight", [[bend / 2, -bend / 2], [slope / 2, -slope / 2]]),
        ("decoders.2.1.bias", [level, 0.0]),
        ("first.log_scale", [first]),
    ):
        own[name].copy_(torch.tensor(weight, dtype=torch.float64))
    return flat(map, 2)


def shifted_mlp(slope: float, scale: float = 0.5) -> Flat:
    """The same map as :func:`shifted`, as the library's MLP form."""
    level = float(np.log(scale / (2 - scale)))
    return linear_mlp(first=level, level=level, slope=slope)


def gated_mlp() -> Flat:
    """g(z) = (z_1, 2 z_2 sigmoid(z_1)) = 2 :func:`gated`, as the library's MLP form."""
    return linear_mlp(first=0.0, level=0.0, bend=1.0)


def is_head(name: str) -> bool:
    """Whether a parameter is (a factor of) the last weight of a decoder; zero heads make constant
    conditioners.
    """
    kronecker = name.endswith(".factors.0") and ("log_scale" in name or "shift" in name)
    return name.startswith("decoders.") and (kronecker or name.endswith(".1.weight"))


@torch.no_grad()
def perturb(map: BlockIAF, seed: int, size: float = 0.5) -> None:
    """Normal weights of variance 1/fan-in, heads and biases times ``size``; nothing of the
    library's own start is left.
    """
    draw = generator("proofs", "stir", seed)
    for name, parameter in map.named_parameters():
        fan_in = parameter.shape[-1] if parameter.ndim == 2 else 1
        gain = size if is_head(name) or parameter.ndim != 2 else 1.0
        parameter.copy_(
            gain / fan_in**0.5 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        )


def mlp(
    blocks: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    size: float = 0.5,
    hidden: int = 4,
    code: int = 2,
    **options,
) -> Flat:
    """The library's MLP form with random weights, for any partition of the coordinates."""
    map = MLPIAF([list(block) for block in blocks], hidden=hidden, code=code, **options)
    total = sum(len(block) for block in blocks)
    map.build({"phi": torch.zeros(total, dtype=torch.float64)})
    perturb(map, seed, size)
    return flat(map, total, blocks)


def kronecker(
    shapes: Sequence[Sequence[int]], *, seed: int = 0, size: float = 0.5, **options
) -> Flat:
    """The official Kronecker form with random weights; every tensor is a block."""
    like = {
        f"t{i}": torch.zeros(tuple(shape), dtype=torch.float64) for i, shape in enumerate(shapes)
    }
    map = KroneckerIAF(**{"partition": 1, **options})
    map.build(like)
    perturb(map, seed, size)
    ends = [0, *accumulate(value.numel() for value in like.values())]
    return Flat(map, like, tuple(tuple(range(a, b)) for a, b in pairwise(ends)))


@torch.no_grad()
def frozen(map: Flat) -> Flat:
    """The same library map with constant conditioners: the last weights of every decoder are zero,
    biases stay.
    """
    for name, parameter in map.map.named_parameters():
        if is_head(name):
            parameter.zero_()
    return map


@st.composite
def partitions(draw: st.DrawFn, *, max_size: int = 5, min_blocks: int = 1) -> list[list[int]]:
    """An ordered partition of the coordinates 0..d-1 into blocks, in any order and of any sizes."""
    d = draw(st.integers(max(min_blocks, 1), max_size))
    order = draw(st.permutations(range(d)))
    cuts = draw(st.sets(st.integers(1, d - 1), min_size=min_blocks - 1)) if d > 1 else set()
    return [list(order[a:b]) for a, b in pairwise([0, *sorted(cuts), d])]


@st.composite
def block_maps(draw: st.DrawFn, *, min_blocks: int = 1) -> Flat:
    """Both conditioner forms of the library, on random partitions, with random weights and each
    kind of scale.
    """
    seed, scale = draw(st.integers(0, 10**6)), draw(st.sampled_from(["exp", "bounded", (0.5, 1.5)]))
    if draw(st.booleans()):
        return mlp(draw(partitions(min_blocks=min_blocks)), seed=seed, scale=scale)
    shape = st.sampled_from([(), (1,), (2,), (2, 1), (1, 2, 2)])
    return kronecker(draw(st.lists(shape, min_size=min_blocks, max_size=3)), seed=seed, scale=scale)


def number_of(map: Flat) -> Tensor:
    """The block of every coordinate. shape: (d,)"""
    numbers = torch.zeros(map.size, dtype=torch.long)
    for i, block in enumerate(map.blocks):
        numbers[list(block)] = i
    return numbers


def alive(run: Run, map: Flat, z: Tensor) -> None:
    """The conditioners must depend on their input at z, else a test of the map would say
    nothing.
    """
    number = number_of(map)
    below = map.jacobian(z)[number[:, None] > number[None, :]]
    if not (below.numel() and float(below.abs().max()) > 1e-12):
        raise CheckFailedError("the conditioners are dead: no block depends on an earlier one")


@dataclass(frozen=True)
class Pair:
    """Two points and what T2 predicts for them: <g(z') - g(z), z' - z> = ``product``; delta =
    s_c(a') - s_c(a).
    """

    z: Tensor
    other: Tensor
    product: float
    delta: float


def directed_pair(
    map: Flat, a: Tensor, other: Tensor, *, tau: float = 1.0, product: float = -1.0
) -> Pair:
    """The pair of theorem T2: prefixes a, a' differ moderately; in the last block z_c = t and t +
    tau with t solved for.

    <g(z') - g(z), z' - z> = C_0 + tau [t delta + tau s_c(a') + mu_c(a') - mu_c(a)] is linear in t:
    it takes any value. ``a`` and ``other`` are full vectors of which only the coordinates before
    the last block are used; c is the coordinate of the last block with the largest |delta|.
    """
    last, before = list(map.blocks[-1]), [c for block in map.blocks[:-1] for c in block]
    base, moved, ones = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
    base[before], moved[before], ones[last] = a[before], other[before], 1.0
    at, at_moved = map.at(base), map.at(moved)
    s, s_moved = map.at(base + ones) - at, map.at(moved + ones) - at_moved
    c = max(last, key=lambda k: abs(float(s_moved[k] - s[k])))
    delta = float(s_moved[c] - s[c])
    if delta == 0:
        raise CheckFailedError(
            "the scales are constant between the two prefixes: T2 does not speak of this pair"
        )
    c_0 = float((at_moved - at)[before] @ (moved - base)[before])
    t = (product - c_0 - tau * (tau * float(s_moved[c]) + float(at_moved[c] - at[c]))) / (
        tau * delta
    )
    lift = torch.zeros_like(a)
    lift[c] = 1.0
    return Pair(base + t * lift, moved + (t + tau) * lift, product, delta)


def told_apart(map: Flat, a: Tensor, other: Tensor) -> bool:
    """Whether float64 tells the scales at the two prefixes apart: :func:`directed_pair` has one."""
    try:
        directed_pair(map, a, other)
    except CheckFailedError:
        return False
    return True


def least(jacobian: Tensor) -> float:
    """lambda_min of sym J."""
    return float(torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0])


def norm(matrix: Tensor) -> float:
    """||A||_2."""
    return float(torch.linalg.matrix_norm(matrix, 2))


def inner(map: Flat, z: Tensor, other: Tensor) -> float:
    """<g(z') - g(z), z' - z>."""
    return float((map.at(other) - map.at(z)) @ (other - z))


def resolved(map: Flat, pair: Pair) -> bool:
    """Whether float64 tells the inner product of a pair to about 1e-4: t may be so large that it is
    a difference of numbers far above 1, or overflow.
    """
    ends = (pair.z, pair.other)
    size = torch.stack([*ends, *(map.at(end) for end in ends)]).abs().max()
    return bool(size * (pair.other - pair.z).abs().max() < 1e11)


def ratio(map: Flat, z: Tensor, other: Tensor) -> float:
    """||g(z') - g(z)|| / ||z' - z||."""
    return float(
        torch.linalg.vector_norm(map.at(other) - map.at(z)) / torch.linalg.vector_norm(other - z)
    )
