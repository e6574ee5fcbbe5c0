"""A second, independent look at an interval certificate: other arithmetic, other derivatives, no
search.

Given the boxes of a :class:`~proofs_check.tools.intervals.Certificate`, checks (1) that they cover
the box, from the boxes alone; (2) the bound on every one of them, in float64 intervals whose ends
are moved outward after every operation, all boxes at once, with derivatives carried forward along
with the values; (3) that the witness does not contradict the value attained. What intervals are too
wide to confirm on a box is tried on its halves. Assumes that numpy's exp errs by less than 4 units
in the last place; the other operations are IEEE's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mdtheory.maps.iaf import MLPIAF
from proofs_check.tools.intervals import Box, Certificate

ROUNDS = 14
MOST = 4096  # boxes at a time; a false bound fails on ever more of them


class RejectedError(ValueError):
    """The certificate does not hold, or this routine cannot see that it does."""


@dataclass(frozen=True)
class Interval:
    """Arrays low <= high; every operation's result holds all results of exact operations on
    members.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray, steps: int = 1) -> Interval:
        """Rounded outward by so many floats."""
        for _ in range(steps):
            low, high = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
        return cls(low, high)

    def __getitem__(self, key: object) -> Interval:
        return Interval(self.low[key], self.high[key])

    def __add__(self, other: Interval) -> Interval:
        return Interval.of(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval.of(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        products = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval.of(np.minimum.reduce(products), np.maximum.reduce(products))

    def over(self, other: Interval) -> Interval:
        """Division by a positive interval."""
        return self * Interval.of(1 / other.high, 1 / other.low)

    def total(self, axis: int) -> Interval:
        """The sum along an axis, term by term."""
        pieces = [
            Interval(np.take(self.low, k, axis), np.take(self.high, k, axis))
            for k in range(self.low.shape[axis])
        ]
        result = pieces[0]
        for piece in pieces[1:]:
            result = result + piece
        return result


def point(values: np.ndarray | float) -> Interval:
    """Exact floats."""
    array = np.asarray(values, dtype=float)
    return Interval(array, array)


def root(x: Interval) -> Interval:
    """sqrt of a non-negative interval."""
    return Interval.of(np.sqrt(np.maximum(x.low, 0.0)), np.sqrt(x.high))


def exp(x: Interval) -> Interval:
    """e^x."""
    return Interval.of(np.exp(x.low), np.exp(x.high), steps=4)


def square(x: Interval) -> Interval:
    """x^2, never negative."""
    ends = np.minimum(np.abs(x.low), np.abs(x.high)), np.maximum(np.abs(x.low), np.abs(x.high))
    least = np.where((x.low <= 0) & (x.high >= 0), 0.0, ends[0])
    wide = Interval.of(least * least, ends[1] * ends[1])
    return Interval(np.maximum(wide.low, 0.0), wide.high)


def rising(function: Callable[[Interval], Interval], x: Interval) -> Interval:
    """The image under an increasing function, from its values at the two ends."""
    return Interval(function(point(x.low)).low, function(point(x.high)).high)


@dataclass(frozen=True)
class Dual:
    """Values and their derivatives in z. shapes: (n_boxes, k), (n_boxes, k, d)"""

    value: Interval
    slope: Interval

    def linear(self, weight: np.ndarray, bias: np.ndarray) -> Dual:
        """weight x + bias."""
        value = (point(weight) * self.value[:, None, :]).total(2) + point(bias)
        return Dual(value, (point(weight[:, :, None]) * self.slope[:, None, :, :]).total(2))

    def through(
        self, value: Callable[[Interval], Interval], slope: Callable[[Interval], Interval]
    ) -> Dual:
        """An increasing function of each entry; ``slope`` is an enclosure of its derivative."""
        return Dual(rising(value, self.value), slope(self.value)[:, :, None] * self.slope)


def _softened(x: Interval) -> Interval:
    return root(square(x) + point(1.0))


def unit(x: Dual) -> Dual:
    """The conditioners' rectifier x + sqrt(1 + x^2) / 2."""
    return x.through(
        lambda v: v + point(0.5) * _softened(v),
        lambda v: point(1.0) + point(0.5) * rising(lambda w: w.over(_softened(w)), v),
    )


def scaled(x: Dual, bounds: tuple[float, float] | None, offset: float) -> Dual:
    """s(x) of the library's scale."""
    if bounds is None:
        return x.through(exp, lambda v: rising(exp, v))
    low, span = point(bounds[0]), point(bounds[1]) - point(bounds[0])

    def sigmoid(v: Interval) -> Interval:
        return point(1.0).over(point(1.0) + exp(point(0.0) - (v + point(offset))))

    def bend(v: Interval) -> Interval:
        p = rising(sigmoid, v)
        inside = p * (point(1.0) - p)
        return span * Interval(np.maximum(inside.low, 0.0), np.minimum(inside.high, 0.25))

    return x.through(lambda v: low + span * sigmoid(v), bend)


def _join(duals: list[Dual]) -> Dual:
    def cat(parts: list[Interval]) -> Interval:
        return Interval(
            np.concatenate([p.low for p in parts], 1), np.concatenate([p.high for p in parts], 1)
        )

    return Dual(cat([d.value for d in duals]), cat([d.slope for d in duals]))


def jacobians(map: MLPIAF, low: np.ndarray, high: np.ndarray) -> Interval:
    """Enclosures of J on many boxes. shapes: (n_boxes, d) twice -> (n_boxes, d, d)"""
    own = {name: value.detach().double().numpy() for name, value in map.own().items()}
    bounds = map.scale.bounds
    offset = 0.0 if bounds is None else map.scale.offset
    n, d = low.shape
    identity = np.broadcast_to(np.eye(d), (n, d, d))
    z = Dual(Interval(low, high), point(identity))

    def mlp(prefix: str, x: Dual) -> Dual:
        hidden = unit(x.linear(own[f"{prefix}.0.weight"], own[f"{prefix}.0.bias"]))
        return hidden.linear(own[f"{prefix}.1.weight"], own[f"{prefix}.1.bias"])

    start, codes, rows = 0, [], []
    for i, size in enumerate(map.sizes):
        piece = Dual(z.value[:, start : start + size], z.slope[:, start : start + size])
        if i == 0:
            constant = np.broadcast_to(own["first.log_scale"], (n, size))
            factor = scaled(Dual(point(constant), point(np.zeros((n, size, d)))), bounds, offset)
            shift = point(np.zeros((n, size, d)))
        else:
            output = mlp(f"decoders.{i + 1}", _join(codes))
            factor = scaled(Dual(output.value[:, :size], output.slope[:, :size]), bounds, offset)
            shift = output.slope[:, size:]
        rows.append(
            piece.slope * factor.value[:, :, None] + piece.value[:, :, None] * factor.slope + shift
        )
        if i + 1 < len(map.sizes):
            codes.append(mlp(f"encoders.{i + 1}", piece))
        start += size
    return Interval(
        np.concatenate([r.low for r in rows], 1), np.concatenate([r.high for r in rows], 1)
    )


def _definite(matrix: Interval) -> np.ndarray:
    """Which of many symmetric matrices certainly have a Cholesky factorisation. shape: (n, d, d) ->
    (n,)
    """
    d = matrix.low.shape[1]
    rows = [[matrix[:, i, j] for j in range(d)] for i in range(d)]
    certain = np.ones(len(matrix.low), dtype=bool)
    for k in range(d):
        certain &= rows[k][k].low > 0
        pivot = Interval(
            np.where(certain, rows[k][k].low, 1.0), np.where(certain, rows[k][k].high, 1.0)
        )
        for i in range(k + 1, d):
            factor = rows[i][k].over(pivot)
            for j in range(k + 1, i + 1):
                rows[i][j] = rows[j][i] = rows[i][j] - factor * rows[k][j]
    return certain


def confirmed(
    map: MLPIAF, certificate: Certificate, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """On which of the boxes the bound is certain. shape: (n,)"""
    balls = jacobians(map, low, high)
    middle = (balls.low + balls.high) / 2
    rest = balls - point(middle)
    radius = point(np.maximum(np.abs(rest.low), np.abs(rest.high)))
    eye = point(np.eye(middle.shape[1]))
    if certificate.kind == "monotone":  # sym C - (bound + max row sum of R) I > 0
        rows = (
            (radius + Interval(radius.low.swapaxes(1, 2), radius.high.swapaxes(1, 2))) * point(0.5)
        ).total(2)
        level = point(certificate.bound) + point(rows.high.max(1))
        symmetric = (point(middle) + point(middle.swapaxes(1, 2))) * point(0.5)
        return _definite(symmetric - level[:, None, None] * eye)
    frobenius = root((radius * radius).total(2).total(1))  # (bound - ||R||_F)^2 I - C^T C > 0
    level = point(certificate.bound) - point(frobenius.high)
    gram = (point(middle[:, :, :, None]) * point(middle[:, :, None, :])).total(1)
    return (level.low > 0) & _definite((level * level)[:, None, None] * eye - gram)


def covers(box: Box, leaves: list[Box]) -> bool:
    """Whether the leaves fill the box: one is it, or a cut sends each of them to one side, and both
    sides are full.
    """
    if box in leaves:
        return True
    for side in range(len(box.low)):
        for cut in {leaf.high[side] for leaf in leaves} - {box.high[side]}:
            below = [leaf for leaf in leaves if leaf.high[side] <= cut]
            above = [leaf for leaf in leaves if leaf.low[side] >= cut]
            if below and above and len(below) + len(above) == len(leaves):
                left = Box(box.low, tuple(cut if c == side else v for c, v in enumerate(box.high)))
                right = Box(tuple(cut if c == side else v for c, v in enumerate(box.low)), box.high)
                return covers(left, below) and covers(right, above)
    return False


def recheck(map: MLPIAF, certificate: Certificate) -> int:
    """The number of boxes looked at; ``RejectedError`` where a leaf is missing, the bound cannot be
    confirmed, or the witness certainly does not attain the value.
    """
    if not covers(certificate.box, list(certificate.leaves)):
        raise RejectedError("the certificate's boxes do not cover its box")
    low = np.array([leaf.low for leaf in certificate.leaves])
    high = np.array([leaf.high for leaf in certificate.leaves])
    looked = 0
    for _ in range(ROUNDS):
        looked += len(low)
        failed = ~confirmed(map, certificate, low, high)
        if not failed.any():
            break
        low, high = _halved(low[failed], high[failed])
        if len(low) > MOST:
            break
    if failed.any():
        raise RejectedError(
            f"the bound {certificate.bound:.6g} could not be confirmed near z = "
            f"{((low[0] + high[0]) / 2).tolist()}"
        )
    _recheck_witness(map, certificate)
    return looked


def _halved(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index, side = np.arange(len(low)), np.argmax(high - low, axis=1)
    cut = low[index, side] + (high[index, side] - low[index, side]) / 2
    below, above = high.copy(), low.copy()
    below[index, side] = above[index, side] = cut
    return np.concatenate([low, above]), np.concatenate([below, high])


def _recheck_witness(map: MLPIAF, certificate: Certificate) -> None:
    at = np.array([certificate.witness])
    if not ((at >= certificate.box.low) & (at <= certificate.box.high)).all():
        raise RejectedError(f"the witness {certificate.witness} is outside the box")
    balls = jacobians(map, at, at)[0]
    middle = (balls.low + balls.high) / 2
    if certificate.kind == "monotone":
        v = np.linalg.eigh(middle + middle.T)[1][:, 0]
        value = (balls * point(np.outer(v, v))).total(1).total(0).over(square(point(v)).total(0))
        beyond = value.low > certificate.attained
    else:
        v = np.linalg.svd(middle)[2][0]
        value = root(square((balls * point(v)).total(1)).total(0).over(square(point(v)).total(0)))
        beyond = value.high < certificate.attained
    if beyond:
        raise RejectedError(f"the witness gives {value.low:.6g}, not {certificate.attained:.6g}")
