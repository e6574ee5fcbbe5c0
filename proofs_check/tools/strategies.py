"""Directed generators as hypothesis strategies: what random sampling would never hit is drawn on
purpose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from torch import Tensor

from proofs_check.tools.extremal import huber


def _profile(max_examples: int, *phases: Phase) -> settings:
    """Derandomised, since the ledger must be the same on every run; which examples are drawn still
    depends on the modules that are loaded, whose constants Hypothesis tries too.
    """
    return settings(
        max_examples=max_examples,
        phases=(Phase.generate, Phase.target, *phases),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


PROFILES = {
    "dev": _profile(40),
    "mutation": _profile(40),
    "ci": _profile(150),
    "nightly": _profile(3000, Phase.shrink),
}
"""Number of examples by the environment's MDTHEORY_HYPOTHESIS, as for the tests; only ``nightly``
shrinks, since mutants fail on purpose.
"""


def for_all(**strategies: st.SearchStrategy) -> Callable[[Callable[..., None]], None]:
    """``@for_all(x=..., y=...)`` on an inner function runs it at once on drawn arguments."""
    name = os.environ.get("MDTHEORY_HYPOTHESIS", "dev")
    if name not in PROFILES:
        raise ValueError(
            f"MDTHEORY_HYPOTHESIS must be one of {sorted(PROFILES)}, got {name!r}; unset it or "
            "choose one"
        )

    def run(test: Callable[..., None]) -> None:
        PROFILES[name](given(**strategies)(test))()

    return run


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """A float of the closed interval, its ends included often."""
    return st.one_of(st.floats(low, high, allow_subnormal=False), st.sampled_from([low, high]))


def rates() -> st.SearchStrategy[float]:
    """A step size, log-uniform over [1e-3, 10]."""
    return st.floats(-3.0, 1.0).map(lambda e: 10.0**e)


def seeds() -> st.SearchStrategy[int]:
    """An address for a numpy generator."""
    return st.integers(0, 2**31 - 1)


def spectra(
    low: float = -1.0, high: float = 0.95, *, max_size: int = 5
) -> st.SearchStrategy[np.ndarray]:
    """Eigenvalues of alpha H: exact zeros, both signs, and both ends of [low, high]. shape: (d,)"""
    special = [value for value in (0.0, low, high) if low <= value <= high]
    return st.lists(
        st.one_of(st.sampled_from(special), st.floats(low, high)), min_size=1, max_size=max_size
    ).map(np.array)


@st.composite
def orthogonal(draw: st.DrawFn, size: int) -> np.ndarray:
    """A rotation, uniform over the group. shape: (size, size)"""
    q, r = np.linalg.qr(np.random.default_rng(draw(seeds())).standard_normal((size, size)))
    return q * np.sign(np.diag(r))


@st.composite
def hessians(
    draw: st.DrawFn, low: float = -1.0, high: float = 0.95, *, max_size: int = 5
) -> np.ndarray:
    """A symmetric matrix with a spectrum of :func:`spectra`, in general position. shape: (d, d)"""
    spectrum = draw(spectra(low, high, max_size=max_size))
    q = draw(orthogonal(len(spectrum)))
    return (q * spectrum) @ q.T


@st.composite
def vectors(draw: st.DrawFn, size: int, *, scale: float = 1.0) -> np.ndarray:
    """A normal vector times a log-uniform factor in [0.1, 10]. shape: (size,)"""
    factor = scale * 10.0 ** draw(st.floats(-1.0, 1.0))
    return factor * np.random.default_rng(draw(seeds())).standard_normal(size)


@dataclass(frozen=True)
class Loss:
    """A task loss with its constants: |Hessian| <= big_l, f >= lowest; mu: PL (or strong convexity)
    constant, 0 for none.

    ``start`` is where descent should begin: in the tight cases, where a bound is attained. shape:
    (d,)
    """

    function: Callable[[Tensor], Tensor]
    start: Tensor
    big_l: float
    mu: float = 0.0
    lowest: float = 0.0
    name: str = ""


def _bowl(hessian: np.ndarray, ripple: float) -> Callable[[Tensor], Tensor]:
    dense = torch.tensor(hessian)
    return lambda v: 0.5 * v @ dense @ v + ripple * torch.cos(v).sum()


@st.composite
def smooth_losses(draw: st.DrawFn, *, max_size: int = 4) -> Loss:
    """Any curvature in [-1, 1], exact zeros and both ends included, with or without a ripple; often
    started on the top eigenvector, where the quadratic upper bound is attained."""
    hessian, ripple = (
        draw(hessians(-1.0, 1.0, max_size=max_size)),
        draw(st.sampled_from([0.0, 0.3])),
    )
    values, columns = np.linalg.eigh(hessian)
    top = draw(st.booleans())
    start = columns[:, -1].copy() if top else draw(vectors(len(values)))
    big_l = max(float(np.abs(values).max()) + ripple, 1e-3)
    return Loss(
        _bowl(hessian, ripple),
        torch.tensor(start),
        big_l,
        lowest=float("-inf"),
        name="top" if top else "smooth",
    )


@st.composite
def convex_losses(draw: st.DrawFn, *, most_steps: int = 5) -> Loss:
    """Convex, L = 1, minimiser 0 with f = 0, |start| = 1: singular quadratics, and Huber functions
    whose kink 1/(2K+1) is the worst case for K = 1..``most_steps`` steps."""
    if draw(st.booleans()):
        kink = 1 / (2 * draw(st.integers(1, most_steps)) + 1)
        return Loss(huber(kink), torch.ones(1, dtype=torch.float64), 1.0, name="huber")
    hessian = draw(hessians(0.0, 1.0))
    start = torch.tensor(draw(vectors(len(hessian))))
    return Loss(_bowl(hessian, 0.0), start / torch.linalg.vector_norm(start), 1.0, name="quadratic")


@st.composite
def pl_losses(draw: st.DrawFn) -> Loss:
    """PL, not strongly convex: least squares with a kernel (mu exact), and x^2 + 3 sin^2 x (not
    convex) on [-6, 6].
    """
    if draw(st.booleans()):
        start = draw(numbers(-6.0, 6.0))
        return Loss(
            lambda v: (v**2 + 3 * torch.sin(v) ** 2).sum(),
            torch.tensor([start]).double(),
            8.0,
            0.1755,
            name="bumpy",
        )
    values = np.array([draw(st.floats(0.05, 1.0)), 1.0, 0.0])
    q = draw(orthogonal(3))
    start = torch.tensor(draw(vectors(3)))
    return Loss(_bowl((q * values) @ q.T, 0.0), start, 1.0, float(values[0]), name="least squares")


@st.composite
def directed_pairs(draw: st.DrawFn, size: int, coordinate: int) -> tuple[Tensor, Tensor]:
    """Two points that falsify what random pairs never do (theorem T2): the coordinates before
    ``coordinate`` move moderately, that one is log-uniform up to 1e6 and moves by -1, 0 or 1, the
    later ones are 0. shapes: (size,), (size,)"""
    rng = np.random.default_rng(draw(seeds()))
    first, second = np.zeros(size), np.zeros(size)
    first[:coordinate], second[:coordinate] = rng.standard_normal((2, coordinate))
    first[coordinate] = draw(st.sampled_from([-1.0, 1.0])) * 10.0 ** draw(st.floats(0.0, 6.0))
    second[coordinate] = first[coordinate] + draw(st.sampled_from([-1.0, 0.0, 1.0]))
    return torch.tensor(first), torch.tensor(second)
