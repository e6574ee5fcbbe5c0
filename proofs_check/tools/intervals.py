"""Interval certificates for BlockIAF with MLP conditioners: what holds for every z of a box, by
ball arithmetic.

The Jacobian of the library's map, with the weights it has, is enclosed on a box (midpoint-radius
balls of 30 digits, every rounding accounted for by the flint library). If J = C + E with |E_ij| <=
R_ij, Weyl's inequality gives lambda_min(sym J) >= lambda_min(sym C) - ||R||_inf and ||J|| <= ||C||
+ ||R||_F; the two numbers of C are proved by Cholesky factorisation in balls. Bisection, worst box
first, narrows the rest. On a convex set these are the map's modulus of strong monotonicity and its
Lipschitz constant. A certificate keeps its boxes, so that
:mod:`proofs_check.tools.interval_recheck` can go over it by another arithmetic.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from flint import arb, arb_mat, ctx
from torch import Tensor
from torch.func import jacrev

from mdtheory.core import tree
from mdtheory.maps.iaf import MLPIAF
from mdtheory.maps.iaf.base import Scale

DIGITS = 30

Kind = Literal["monotone", "lipschitz"]


class UndecidedError(ValueError):
    """The certificate does not answer the question; a finer one might."""


@dataclass(frozen=True)
class Box:
    """The points with low <= z <= high, coordinate by coordinate, in the order of the map's
    blocks.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(
            math.isfinite(a) and math.isfinite(b) and a <= b
            for a, b in zip(self.low, self.high, strict=False)
        ):
            raise ValueError(
                f"a box must have finite low <= high of one length, got {self.low} and "
                f"{self.high}; "
                "order them"
            )

    @classmethod
    def cube(cls, radius: float, size: int) -> Box:
        """[-radius, radius]^size."""
        return cls((-radius,) * size, (radius,) * size)

    def middle(self) -> tuple[float, ...]:
        """The midpoint, as floats."""
        return tuple(a + (b - a) / 2 for a, b in zip(self.low, self.high, strict=True))

    def halves(self) -> tuple[Box, Box]:
        """Two boxes that share the face through the middle of the widest side."""
        side = max(range(len(self.low)), key=lambda c: self.high[c] - self.low[c])
        cut = self.middle()[side]
        below, above = list(self.high), list(self.low)
        below[side] = above[side] = cut
        return Box(self.low, tuple(below)), Box(tuple(above), self.high)

    def width(self) -> float:
        """The widest side."""
        return max(b - a for a, b in zip(self.low, self.high, strict=True))


@dataclass(frozen=True)
class Certificate:
    """For every z of ``box``: lambda_min(sym J(z)) >= ``bound`` (monotone), or ||J(z)|| <=
    ``bound`` (lipschitz).

    At ``witness`` the quantity is certainly on the other side of ``attained``, so that no bound can
    be better than that. ``leaves`` are boxes that cover ``box``, on each of which one enclosure
    gives ``bound``; ``width`` is the widest side of the smallest leaf. ``settled``: the search
    ended because it knew enough, not because it ran into its limits.
    """

    kind: Kind
    box: Box
    bound: float
    attained: float
    witness: tuple[float, ...]
    leaves: tuple[Box, ...]
    width: float
    settled: bool

    def decide(self, threshold: float = 0.0) -> bool:
        """Whether the quantity is above ``threshold`` everywhere (monotone) or below it
        (lipschitz); False if surely not.
        """
        sign = 1.0 if self.kind == "monotone" else -1.0
        if sign * (self.bound - threshold) >= 0:
            return True
        if sign * (self.attained - threshold) < 0:
            return False
        raise UndecidedError(
            f"{self.kind}: the worst value over the box is between {self.bound:.6g} and "
            f"{self.attained:.6g}, which does not "
            f"decide {threshold:.6g}; {len(self.leaves)} boxes down to width {self.width:.3g}: "
            "allow more or smaller ones"
        )


def rising(function: Callable[[arb], arb], x: arb) -> arb:
    """The image of a ball under an increasing function."""
    return function(x.lower()).union(function(x.upper()))


def unit(x: arb) -> arb:
    """The library's smooth_leaky: x + sqrt(1 + x^2) / 2."""
    return x + (1 + x * x).sqrt() / 2


def unit_slope(x: arb) -> arb:
    """Its derivative, increasing in x."""
    return 1 + x / (1 + x * x).sqrt() / 2


def sigmoid(x: arb) -> arb:
    """1 / (1 + e^-x)."""
    return 1 / (1 + (-x).exp())


def scale_and_slope(scale: Scale, a: arb) -> tuple[arb, arb]:
    """s(a) and s'(a) over a ball a."""
    if scale.bounds is None:
        value = rising(arb.exp, a)
        return value, value
    low, high = (arb(value) for value in scale.bounds)
    p = rising(sigmoid, a + arb(scale.offset))
    ends = [end * (1 - end) for end in (p.lower(), p.upper())]
    bend = ends[0].union(ends[1])
    if p.contains(arb(0.5)):
        bend = bend.union(arb(0.25))
    return low + (high - low) * p, (high - low) * bend


def exact(tensor: Tensor) -> arb_mat:
    """A float tensor as an exact matrix; vectors are columns."""
    return arb_mat(
        [[arb(v) for v in row] for row in np.atleast_2d(tensor.detach().double().numpy()).tolist()]
    )


def column(balls: Sequence[arb]) -> arb_mat:
    """A column vector."""
    return arb_mat(len(balls), 1, list(balls))


class Enclosure:
    """The library's map with its own weights, prepared for balls. Coordinates block after block, as
    the map orders them.
    """

    def __init__(self, map: MLPIAF):
        own = map.own()
        self.sizes = map.sizes
        self.scale = map.scale
        self.first = own["first.log_scale"].detach().double().tolist()

        def layers(prefix: str) -> list[tuple[arb_mat, arb_mat]]:
            return [
                (exact(own[f"{prefix}.{k}.weight"]), exact(own[f"{prefix}.{k}.bias"]).transpose())
                for k in range(2)
            ]

        n = len(self.sizes)
        self.encoders = [layers(f"encoders.{i}") for i in range(1, n)]
        self.decoders = [layers(f"decoders.{i}") for i in range(2, n + 1)]

    @staticmethod
    def _mlp(layers: list[tuple[arb_mat, arb_mat]], x: arb_mat) -> tuple[arb_mat, arb_mat]:
        """The output of linear, unit, linear, and its Jacobian."""
        (w0, b0), (w1, b1) = layers
        hidden = (w0 * x + b0).entries()
        slopes = [rising(unit_slope, h) for h in hidden]
        inner = arb_mat(
            [[slope * w for w in row] for slope, row in zip(slopes, w0.tolist(), strict=True)]
        )
        return w1 * column([rising(unit, h) for h in hidden]) + b1, w1 * inner

    def jacobian(self, box: Box) -> arb_mat:
        """Balls that hold J_ij(z) for every z of the box. shape: (d, d)"""
        z = [arb(a).union(arb(b)) for a, b in zip(box.low, box.high, strict=True)]
        total, starts = sum(self.sizes), np.concatenate([[0], np.cumsum(self.sizes)]).tolist()
        rows = [[arb(0)] * total for _ in range(total)]
        for c, a in enumerate(self.first):
            rows[c][c] = scale_and_slope(self.scale, arb(a))[0]
        codes: list[arb] = []
        slopes: list[arb_mat] = []
        for i in range(1, len(self.sizes)):
            code, slope = self._mlp(self.encoders[i - 1], column(z[starts[i - 1] : starts[i]]))
            codes, slopes = codes + code.entries(), [*slopes, slope]
            output, pulled = self._mlp(self.decoders[i - 1], column(codes))
            size, width = self.sizes[i], len(codes) // i
            outputs, pulled_rows = output.entries(), pulled.tolist()
            for j, slope in enumerate(slopes):
                through = (
                    arb_mat([row[j * width : (j + 1) * width] for row in pulled_rows]) * slope
                ).tolist()
                for c in range(size):
                    at, bend = starts[i] + c, scale_and_slope(self.scale, outputs[c])[1]
                    for k in range(self.sizes[j]):
                        rows[at][starts[j] + k] = (
                            z[at] * bend * through[c][k] + through[size + c][k]
                        )
            for c in range(size):
                rows[starts[i] + c][starts[i] + c] = scale_and_slope(self.scale, outputs[c])[0]
        return arb_mat(rows)

    def same_as_library(self, map: MLPIAF, box: Box) -> None:
        """What is enclosed must be what the library computes: its own Jacobian at the middle of the
        box, to 1e-9.
        """
        point = box.middle()
        inside = self.jacobian(Box(point, point))
        found = library_jacobian(map, point)
        gaps = [
            abs(float(inside[i, j].mid()) - found[i, j])
            for i in range(len(point))
            for j in range(len(point))
        ]
        if not max(gaps) <= 1e-9 * (1 + np.abs(found).max()):
            raise ValueError(
                f"the map's Jacobian differs by {max(gaps):.3g} from what the intervals enclose; "
                "adapt Enclosure to it"
            )


def library_jacobian(map: MLPIAF, point: Sequence[float]) -> np.ndarray:
    """The Jacobian at a point by automatic differentiation, block after block. shape: (d, d)"""
    own = tree.detach(map.own())

    def of_blocks(z: Tensor) -> Tensor:
        return tree.flatten(map.point(own, tree.unflatten(z[map.back], map.like)))[map.order]

    return jacrev(of_blocks)(torch.tensor(point, dtype=torch.float64)).numpy()


def definite(matrix: arb_mat) -> bool:
    """Whether a symmetric matrix of balls is certainly positive definite: all pivots of its LDL^T
    factorisation are.
    """
    rows, n = matrix.tolist(), matrix.nrows()
    for k in range(n):
        if not rows[k][k] > 0:
            return False
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            for j in range(k + 1, i + 1):
                rows[i][j] = rows[j][i] = rows[i][j] - factor * rows[k][j]
    return True


def least_eigenvalue(symmetric: np.ndarray) -> arb:
    """A number certainly below every eigenvalue of an exact symmetric matrix, and nearly the
    least.
    """
    n, size = len(symmetric), float(np.abs(symmetric).sum()) + 1.0
    guess, slack = float(np.linalg.eigvalsh(symmetric)[0]), 1e-12 * size
    balls = arb_mat([[arb(v) for v in row] for row in symmetric.tolist()])
    while not definite(
        balls
        - arb_mat(
            n, n, [arb(guess - slack) if i == j else arb(0) for i in range(n) for j in range(n)]
        )
    ):
        slack *= 10
    return arb(guess - slack)


def greatest_norm(matrix: np.ndarray) -> arb:
    """A number certainly above the spectral norm of an exact matrix, and nearly that."""
    balls = arb_mat([[arb(v) for v in row] for row in matrix.tolist()])
    gram, n = balls.transpose() * balls, matrix.shape[1]
    guess = float(np.linalg.norm(matrix, 2))
    slack = 1e-12 * (guess + 1e-300) + 1e-300
    while True:
        bound = arb(guess + slack)
        if definite(
            arb_mat(n, n, [bound * bound if i == j else arb(0) for i in range(n) for j in range(n)])
            - gram
        ):
            return bound
        slack *= 10


def _centre(balls: arb_mat) -> tuple[np.ndarray, np.ndarray]:
    """Float midpoints C and radii R (rounded up) with |J_ij - C_ij| <= R_ij."""
    centre = np.array([[float(ball.mid()) for ball in row] for row in balls.tolist()])
    radius = [
        [upward((ball - arb(mid)).abs_upper()) for ball, mid in zip(row, mids, strict=True)]
        for row, mids in zip(balls.tolist(), centre.tolist(), strict=True)
    ]
    return centre, np.array(radius)


def upward(x: arb) -> float:
    """A float that is certainly at least x."""
    return math.nextafter(float(x.upper()), math.inf)


def downward(x: arb) -> float:
    """A float that is certainly at most x."""
    return math.nextafter(float(x.lower()), -math.inf)


def modulus_on(balls: arb_mat) -> float:
    """lambda_min(sym J) >= this for every J among the balls."""
    centre, radius = _centre((balls + balls.transpose()) * arb(0.5))
    row_sums = [sum((arb(v) for v in row), arb(0)).upper() for row in radius.tolist()]
    return downward(least_eigenvalue((centre + centre.T) / 2) - max(row_sums, key=float))


def norm_on(balls: arb_mat) -> float:
    """||J|| <= this for every J among the balls."""
    centre, radius = _centre(balls)
    frobenius = sum((arb(v) * arb(v) for v in radius.ravel().tolist()), arb(0)).sqrt()
    return upward(greatest_norm(centre) + frobenius)


def modulus_at(balls: arb_mat) -> float:
    """lambda_min(sym J) <= this for every J among the balls: a Rayleigh quotient."""
    centre, _ = _centre(balls)
    v = exact_column(np.linalg.eigh(centre + centre.T)[1][:, 0])
    return upward((v.transpose() * balls * v)[0, 0] / (v.transpose() * v)[0, 0])


def norm_at(balls: arb_mat) -> float:
    """||J|| >= this for every J among the balls: ||J v|| / ||v||."""
    centre, _ = _centre(balls)
    v = exact_column(np.linalg.svd(centre)[2][0])
    image = balls * v
    return downward(((image.transpose() * image)[0, 0] / (v.transpose() * v)[0, 0]).sqrt())


def exact_column(vector: np.ndarray) -> arb_mat:
    """A float vector as an exact column."""
    return column([arb(v) for v in vector.tolist()])


def certify(
    map: MLPIAF,
    box: Box,
    kind: Kind,
    *,
    tolerance: float = 1e-2,
    threshold: float | None = None,
    min_width: float = 1e-3,
    max_boxes: int = 2000,
) -> Certificate:
    """Bound lambda_min(sym J) below, or ||J|| above, on the box.

    Stops when the bound is within ``tolerance`` of a value attained, or, with a ``threshold``, as
    soon as that is decided; unsettled when a box of ``min_width`` would have to be split, or after
    ``max_boxes`` enclosures.
    """
    sign = 1.0 if kind == "monotone" else -1.0
    whole, at_point = (modulus_on, modulus_at) if kind == "monotone" else (norm_on, norm_at)
    with ctx.workdps(DIGITS):
        enclosure = Enclosure(map)
        enclosure.same_as_library(map, box)
        best, witness = math.inf, box.middle()
        heap: list[tuple[float, int, Box]] = []
        pending, made = [box], 0
        settled = False
        while True:
            for part in pending:
                point = part.middle()
                value = sign * at_point(enclosure.jacobian(Box(point, point)))
                if value < best:
                    best, witness = value, point
                made += 1
                heapq.heappush(heap, (sign * whole(enclosure.jacobian(part)), made, part))
            bound, _, worst = heap[0]
            decided = threshold is not None and (
                bound >= sign * threshold or best < sign * threshold
            )
            settled = decided or (threshold is None and bound >= best - tolerance)
            if settled or worst.width() <= min_width or made >= max_boxes:
                break
            heapq.heappop(heap)
            pending = list(worst.halves())
    leaves = tuple(part for _, _, part in heap)
    smallest = min(part.width() for part in leaves)
    return Certificate(kind, box, sign * bound, sign * best, witness, leaves, smallest, settled)


def entry_bounds(map: MLPIAF, box: Box, *, parts: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """low <= J_ij(z) <= high for every z of the box, entry by entry, from enclosures on equal parts
    of it. shapes: (d, d)
    """
    boxes = [box]
    while len(boxes) < parts:
        boxes = [half for part in boxes for half in part.halves()]
    with ctx.workdps(DIGITS):
        enclosure = Enclosure(map)
        enclosure.same_as_library(map, box)
        found = [enclosure.jacobian(part).tolist() for part in boxes]
        low = [[[downward(ball) for ball in row] for row in rows] for rows in found]
        high = [[[upward(ball) for ball in row] for row in rows] for rows in found]
    return np.min(low, axis=0), np.max(high, axis=0)
