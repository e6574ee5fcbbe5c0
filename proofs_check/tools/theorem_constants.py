"""The numbers in the kernel-checked theorems, from the objects that the claims and the library
compute with; :mod:`proofs_check.kernel` writes them to ``coq/constants.v``.
"""

from __future__ import annotations

import inspect
from fractions import Fraction
from typing import Any

import sympy as sp
import torch

from mdtheory.maps.iaf.certified import DIAGONAL, monotone_modulus
from mdtheory.maps.iaf.certified_forms import CertifiedMLPIAF
from proofs_check.claim import Check
from proofs_check.claims import t7_divergence
from proofs_check.tools import iaf

Constant = Fraction | tuple[Fraction, Fraction]


def ingredient(check: Check, name: str) -> Any:
    """The correct value of one ingredient of a claim's check."""
    return inspect.signature(check.function).parameters[name].default


def rational(value: Any) -> Fraction:
    """A sympy rational, or the decimal that a float of the library stands for."""
    if isinstance(value, sp.Basic):
        exact = sp.Rational(value)
        return Fraction(exact.p, exact.q)
    return Fraction(value).limit_denominator(10**6)


def divergence() -> dict[str, Constant]:
    """T7: the entries of g and A, and for both left eigenvectors of J A their minus eigenvalue."""
    slope = float(ingredient(t7_divergence.explicit_divergence, "slope"))
    jacobian = iaf.shifted(slope).jacobian(torch.zeros(2, dtype=torch.float64)).tolist()
    exact = sp.Matrix(2, 2, [sp.Rational(str(entry)) for row in jacobian for entry in row])
    a = t7_divergence.A
    found: dict[str, Constant] = {
        "scale": rational(exact[0, 0]),
        "shift_slope": rational(exact[1, 0]),
        "tilt_diagonal": rational(a[0, 0]),
        "tilt_coupling": rational(a[0, 1]),
    }
    spectrum = sorted((exact * a).T.eigenvects(), key=lambda item: -item[0])
    for number, (value, _, (vector,)) in enumerate(spectrum, start=1):
        found[f"left_{number}"] = (rational(vector[0] / vector[1]), Fraction(1))
        found[f"growth_{number}"] = rational(-value)
    found["gd_edge"] = rational(2 / max(a.eigenvals()))
    return found


def certified() -> dict[str, Constant]:
    """RB: the largest slopes of the two gates, the modulus's factor at B = 2, and the defaults of
    the library's certified map.
    """
    x = sp.Symbol("x")
    map = CertifiedMLPIAF([[0], [1]])
    map.build({"phi": torch.zeros(2, dtype=torch.float64)})
    return {
        "sigmoid_slope": rational(sp.diff(1 / (1 + sp.exp(-x)), x).subs(x, 0)),
        "gate_slope": rational(sp.diff(sp.tanh(x / 2), x).subs(x, 0)),
        "coupling_share": rational(-monotone_modulus(diagonal=0.0, coupling=1.0, n_blocks=2)),
        "certified_m": rational(map.m),
        "certified_M": rational(map.M),
        "certified_tau": rational(map.tau),
        "certified_eta": rational(map.eta),
        "certified_low": rational(1 - DIAGONAL * (1 - map.m)),
        "certified_high": rational(1 + DIAGONAL * (map.M - 1)),
        "certified_reach": rational(map.reach),
    }


def constants() -> dict[str, Constant]:
    """Every constant by its name in Coq."""
    return {**divergence(), **certified()}
