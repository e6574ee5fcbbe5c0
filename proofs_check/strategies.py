"""Directed generators as hypothesis strategies: what random sampling would never hit is drawn on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


def _profile(max_examples: int, *phases: Phase) -> settings:
    """Derandomised: the ledger must be the same on every run."""
    return settings(
        max_examples=max_examples,
        phases=(Phase.generate, Phase.target, *phases),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


PROFILES = {"dev": _profile(40), "ci": _profile(150), "nightly": _profile(3000, Phase.shrink)}
"""Number of examples by the environment's HYPOTHESIS_PROFILE; only ``nightly`` shrinks, since mutants fail on purpose."""


def for_all(**strategies: st.SearchStrategy) -> Callable[[Callable[..., None]], None]:
    """``@for_all(x=..., y=...)`` on an inner function runs it at once on drawn arguments."""
    name = os.environ.get("HYPOTHESIS_PROFILE", "dev")
    if name not in PROFILES:
        raise ValueError(f"HYPOTHESIS_PROFILE must be one of {sorted(PROFILES)}, got {name!r}; unset it or choose one")

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


def spectra(low: float = -1.0, high: float = 0.95, *, max_size: int = 5) -> st.SearchStrategy[np.ndarray]:
    """Eigenvalues of alpha H: exact zeros, both signs, and both ends of [low, high]. shape: (d,)"""
    special = [value for value in (0.0, low, high) if low <= value <= high]
    return st.lists(st.one_of(st.sampled_from(special), st.floats(low, high)), min_size=1, max_size=max_size).map(np.array)


@st.composite
def orthogonal(draw: st.DrawFn, size: int) -> np.ndarray:
    """A rotation, uniform over the group. shape: (size, size)"""
    q, r = np.linalg.qr(np.random.default_rng(draw(seeds())).standard_normal((size, size)))
    return q * np.sign(np.diag(r))


@st.composite
def hessians(draw: st.DrawFn, low: float = -1.0, high: float = 0.95, *, max_size: int = 5) -> np.ndarray:
    """A symmetric matrix with a spectrum of :func:`spectra`, in general position. shape: (d, d)"""
    spectrum = draw(spectra(low, high, max_size=max_size))
    q = draw(orthogonal(len(spectrum)))
    return (q * spectrum) @ q.T


@st.composite
def vectors(draw: st.DrawFn, size: int, *, scale: float = 1.0) -> np.ndarray:
    """A normal vector times a log-uniform factor in [0.1, 10]. shape: (size,)"""
    factor = scale * 10.0 ** draw(st.floats(-1.0, 1.0))
    return factor * np.random.default_rng(draw(seeds())).standard_normal(size)
