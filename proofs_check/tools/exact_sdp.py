r"""Worst cases over whole function classes as proofs: the dual of each SDP of
:mod:`proofs_check.tools.sdp`, in rationals, checked exactly.

A worst case is $\max\,t(G,f)$ over Gram matrices $G\succeq0$ of points and gradients and over
function values $f$ with $a_i(G,f)\le0$ (the inequalities of the class) and $r(G,f)\le1$ (the
start). Multipliers $\lambda_i\ge0$ and a bound $b$ with

$$b\,r+\sum_i\lambda_ia_i-t=\langle S,G\rangle,\qquad S\succeq0,$$

prove $t\le b\,r$ in every dimension: the function values cancel exactly, and $S\succeq0$ is
decided by $LDL^\top$ over fractions. Nothing is rounded, and where the inequalities came from a
wrong class or the multipliers are off by anything, :func:`prove` refuses. The multipliers are known
in closed form (for ``convex_gap`` by Drori and Teboulle 2014, section 4); L = 1 throughout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

Vector = Mapping[str, Fraction]
"""Coordinates in the basis whose Gram matrix is the SDP's variable."""

STAR = "*"


class NotProvedError(AssertionError):
    """The multipliers do not prove the bound; the message says which condition fails."""


@dataclass(frozen=True)
class Form:
    """Linear in function values and in the Gram matrix; keys of ``gram`` are ordered pairs."""

    values: Mapping[str, Fraction]
    gram: Mapping[tuple[str, str], Fraction]

    def __add__(self, other: Form) -> Form:
        return Form(_sum(self.values, other.values), _sum(self.gram, other.gram))

    def __rmul__(self, factor: Fraction | int) -> Form:
        return Form(
            {key: factor * value for key, value in self.values.items()},
            {key: factor * value for key, value in self.gram.items()},
        )

    def __sub__(self, other: Form) -> Form:
        return self + (-1) * other


def _sum(first: Mapping, second: Mapping) -> dict:
    total: defaultdict = defaultdict(Fraction, first)
    for key, value in second.items():
        total[key] += value
    return {key: value for key, value in total.items() if value}


def combination(*terms: tuple[Fraction | int, Vector]) -> Vector:
    """sum c v."""
    total: Vector = {}
    for factor, vector in terms:
        total = _sum(total, {key: factor * value for key, value in vector.items()})
    return total


def unit(name: str) -> Vector:
    """One vector of the basis."""
    return {name: Fraction(1)}


def value(name: str) -> Form:
    """One function value."""
    return Form({name: Fraction(1)}, {})


def inner(v: Vector, w: Vector) -> Form:
    """<v, w>."""
    total: defaultdict = defaultdict(Fraction)
    for a, x in v.items():
        for b, y in w.items():
            total[min(a, b), max(a, b)] += x * y
    return Form({}, {key: entry for key, entry in total.items() if entry})


@dataclass(frozen=True)
class Problem:
    """``target`` is to be bounded where every inequality is <= 0; ``start`` is <= 1."""

    inequalities: Mapping[str, Form]
    target: Form
    start: Form


@dataclass(frozen=True)
class Certificate:
    """target <= bound start, by these multipliers of the inequalities."""

    bound: Fraction
    multipliers: Mapping[str, Fraction]


def pivots(matrix: Sequence[Sequence[Fraction]]) -> list[Fraction]:
    """The D of an exact L D L^T of a symmetric matrix: all non-negative iff it is positive
    semi-definite, and :class:`NotProvedError` otherwise. A zero pivot needs a zero row.
    """
    rows = [[Fraction(entry) for entry in row] for row in matrix]
    found = []
    for i, row in enumerate(rows):
        found.append(row[i])
        if row[i] < 0 or (row[i] == 0 and any(row[i + 1 :])):
            raise NotProvedError(
                f"the dual matrix must be semi-definite, got pivot {row[i]} at {i}"
            )
        for below in rows[i + 1 :] if row[i] else ():
            factor = below[i] / row[i]
            below[i:] = [x - factor * y for x, y in zip(below[i:], row[i:], strict=True)]
    return found


def prove(problem: Problem, certificate: Certificate) -> list[Fraction]:
    """Check a certificate exactly: the pivots of the dual matrix S, or :class:`NotProvedError`."""
    slack = certificate.bound * problem.start - problem.target
    for name, multiplier in certificate.multipliers.items():
        if multiplier < 0:
            raise NotProvedError(f"multipliers must be non-negative, got {multiplier} for {name}")
        slack += multiplier * problem.inequalities[name]
    if slack.values:
        raise NotProvedError(f"function values must cancel, left over: {dict(slack.values)}")
    basis = sorted({name for pair in slack.gram for name in pair})
    half = Fraction(1, 2)

    def entry(a: str, b: str) -> Fraction:
        weight = slack.gram.get((min(a, b), max(a, b)), Fraction(0))
        return weight if a == b else half * weight

    return pivots([[entry(a, b) for b in basis] for a in basis])


def interpolation(
    points: Mapping[str, tuple[Vector, Vector]], mu: Fraction, name: str = "f"
) -> dict[str, Form]:
    """Every inequality between two points (x, gradient) of a 1-smooth function with f - mu |.|^2/2
    convex, mu < 1: necessary and sufficient (Taylor et al. 2017, theorem 4); keys "i,j".
    """
    found = {}
    for (i, (x, g)), (j, (y, u)) in permutations(points.items(), 2):
        gap, change = combination((1, x), (-1, y)), combination((1, g), (-1, u))
        bent = inner(change, change) + mu * inner(gap, gap) - 2 * mu * inner(change, gap)
        found[f"{i},{j}"] = (
            value(f"{name}{j}")
            - value(f"{name}{i}")
            + inner(u, gap)
            + Fraction(1, 2 * (1 - mu)) * bent
        )
    return found


def _descent(n_steps: int) -> dict[str, tuple[Vector, Vector]]:
    """x_0 and the gradients are the basis; x_{k+1} = x_k - g_k."""
    x, points = unit("x"), {}
    for k in range(n_steps + 1):
        points[str(k)] = (x, unit(f"g{k}"))
        x = combination((1, x), (-1, unit(f"g{k}")))
    return points


def convex_gap(n_steps: int) -> tuple[Problem, Certificate]:
    """f(x_K) - f* <= |x_0 - x*|^2/(4K + 2) for convex 1-smooth f."""
    points = {STAR: ({}, {}), **_descent(n_steps)}
    problem = Problem(
        interpolation(points, Fraction(0)),
        value(f"f{n_steps}") - value(f"f{STAR}"),
        inner(unit("x"), unit("x")),
    )
    chain = [Fraction(i, 2 * n_steps + 1 - i) for i in range(n_steps + 1)] + [Fraction(1)]
    multipliers = {f"{i - 1},{i}": chain[i] for i in range(1, n_steps + 1)}
    multipliers |= {f"{STAR},{i}": chain[i + 1] - chain[i] for i in range(n_steps + 1)}
    return problem, Certificate(Fraction(1, 4 * n_steps + 2), multipliers)


def distance(n_steps: int, mu: Fraction) -> tuple[Problem, Certificate]:
    """|x_K - x*|^2 <= (1 - mu)^{2K} |x_0 - x*|^2 for 1-smooth, mu-strongly convex f."""
    points = {STAR: ({}, {}), **_descent(n_steps)}
    x, _ = points[str(n_steps)]
    problem = Problem(interpolation(points, mu), inner(x, x), inner(unit("x"), unit("x")))
    rate = (1 - mu) ** 2
    multipliers = {
        name: 2 * (1 - mu) * rate ** (n_steps - 1 - k)
        for k in range(n_steps)
        for name in (f"{STAR},{k}", f"{k},{STAR}")
    }
    return problem, Certificate(rate**n_steps, multipliers)


def nonconvex_gradient(n_steps: int) -> tuple[Problem, Certificate]:
    """min_k |g_k|^2 <= 4/(3K + 2) times f(x_0) - f(x_K) + |g_K|^2/2, for 1-smooth f."""
    points = _descent(n_steps)
    squares = [inner(unit(f"g{k}"), unit(f"g{k}")) for k in range(n_steps + 1)]
    least = {f"least,{k}": value("least") - square for k, square in enumerate(squares)}
    start = value("f0") - value(f"f{n_steps}") + Fraction(1, 2) * squares[-1]
    problem = Problem(
        {**interpolation(points, Fraction(-1)), **least},
        value("least"),
        start,
    )
    bound = Fraction(4, 3 * n_steps + 2)
    multipliers = {f"{k},{k + 1}": bound for k in range(n_steps)}
    weights = [Fraction(1, 2)] + [Fraction(3, 4)] * n_steps
    multipliers |= {f"least,{k}": bound * weight for k, weight in enumerate(weights)}
    return problem, Certificate(bound, multipliers)


def _mirror(n_steps: int, mu: Fraction) -> dict[str, tuple[Vector, Vector, Vector]]:
    """(point, gradient of f, gradient of h) with dh(x_{k+1}) = dh(x_k) - df(x_k)."""
    states = {STAR: ({}, {}, unit(f"h{STAR}"))}
    slope = unit("h0")
    for k in range(n_steps + 1):
        states[str(k)] = (unit(f"x{k}"), unit(f"g{k}"), slope)
        slope = combination((1, slope), (-1, unit(f"g{k}")))
    return states


def _bregman(of: str, at: str, states: Mapping[str, tuple[Vector, Vector, Vector]]) -> Form:
    (x, _, _), (y, _, slope) = states[of], states[at]
    return value(f"h{of}") - value(f"h{at}") - inner(slope, combination((1, x), (-1, y)))


def mirror_descent(
    n_steps: int, mu: Fraction = Fraction(0), measure: str = "gap"
) -> tuple[Problem, Certificate]:
    """The gap f(x_K) - f*, or D_h(x*, x_K), against D_h(x*, x_0) for all h and all f such that
    f - mu h and h - f are convex: 1/sum_{k=1}^K (1 - mu)^{-k}, or (1 - mu)^K.
    """
    states = _mirror(n_steps, mu)
    inequalities: dict[str, Form] = {}
    for i, j in permutations(states, 2):
        (x, _, _), (y, u, slope) = states[i], states[j]
        step, values = combination((1, x), (-1, y)), {}
        for letter in "fh":
            values[letter] = value(f"{letter}{j}") - value(f"{letter}{i}")
        f, h = values["f"] + inner(u, step), values["h"] + inner(slope, step)
        inequalities[f"above {i},{j}"] = f - mu * h
        inequalities[f"below {i},{j}"] = h - f
    gap = value(f"f{n_steps}") - value(f"f{STAR}")
    target = gap if measure == "gap" else _bregman(STAR, str(n_steps), states)
    problem = Problem(inequalities, target, _bregman(STAR, "0", states))
    certificate = _gap(n_steps, mu) if measure == "gap" else _divergence(n_steps, mu)
    return problem, certificate


def _add(total: defaultdict, weight: Fraction, *names: str) -> None:
    for name in names:
        total[name] += weight


def _gap(n_steps: int, mu: Fraction) -> Certificate:
    """Weights growth^k on the steps, D_h(x*, x_K) >= 0, and f decreases: compare with f_K."""
    growth = 1 / (1 - mu)
    sums = [sum((growth**j for j in range(1, k + 1)), Fraction(0)) for k in range(n_steps + 1)]
    whole, total = sums[n_steps], defaultdict(Fraction)
    for k in range(n_steps):
        _add(total, growth ** (k + 1) / whole, f"below {k + 1},{k}", f"above {STAR},{k}")
    last = growth ** (n_steps + 1) / whole
    _add(total, last, f"above {STAR},{n_steps}", f"below {STAR},{n_steps}")
    for k in range(1, n_steps):
        _add(total, sums[k] / whole, f"below {k + 1},{k}")
        _add(total, growth * sums[k] / whole, f"above {k},{k + 1}", f"below {k},{k + 1}")
    return Certificate(1 / whole, dict(total))


def _divergence(n_steps: int, mu: Fraction) -> Certificate:
    """Weights (1 - mu)^{K-1-k} on the steps, and f(x_{k+1}) >= f*."""
    growth, total = 1 / (1 - mu), defaultdict(Fraction)
    for k in range(n_steps):
        weight = (1 - mu) ** (n_steps - 1 - k)
        _add(total, weight, f"below {k + 1},{k}", f"above {STAR},{k}", f"above {k + 1},{STAR}")
        _add(total, weight * mu * growth, f"above {k + 1},{STAR}", f"below {k + 1},{STAR}")
    return Certificate((1 - mu) ** n_steps, dict(total))
