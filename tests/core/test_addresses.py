"""A seed is an address: random starts and constructor defaults are the same numbers in every
version, precision and order.

The numbers were made by this code once; a change of them changes what recorded seeds mean, and must
be said.
"""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch

from mdtheory.core.objectives import Objective
from mdtheory.core.types import Params
from mdtheory.geometry.base import geometries
from mdtheory.inner.estimators import estimators
from mdtheory.inner.problem import Problem
from mdtheory.maps.base import maps
from mdtheory.maps.iaf.kronecker import KroneckerIAF
from mdtheory.maps.iaf.mlp import MLPIAF
from mdtheory.maps.newton import Budget
from tests.maps.iaf.cases import small_anchor

REGISTRIES = {"map": maps, "geometry": geometries, "estimator": estimators}
BUILDERS = {
    "potential": lambda **seed: maps.get("potential")(rank=2, units=3, **seed),
    "icnn": lambda **seed: maps.get("icnn")(width=3, **seed),
    "metamida": lambda **seed: geometries.get("metamida")(partition=3, **seed).map,
    "metamida-published": lambda **seed: (
        geometries.get("metamida-published")(partition=3, **seed).map
    ),
    "metamida-mlp": lambda **seed: geometries.get("metamida")(partition=3, form="mlp", **seed).map,
    "mlp": lambda **seed: MLPIAF(3, hidden=4, code=2, **seed),
}
FROZEN = {
    "potential": (17, -4.6499152126, -0.9894090341),
    "icnn": (8, 6.6122098379, -0.5212830522),
    "metamida": (110, 1.1225665275, 2.7015150966),
    "metamida-published": (110, 7.4981835967, 2.0388284059),
    "metamida-mlp": (18, 5.0487169015, 14.2113056498),
    "mlp": (18, 0.6384507849, -0.3118703793),
}
DEFAULTS = {
    "map:hypentropy": {"beta": 1.0},
    "map:icnn": {"mu": 0.1, "L": 10.0, "width": 16, "depth": 2, "seed": 0},
    "map:pnorm": {"p": 1.5},
    "map:potential": {"mu": 0.1, "L": 10.0, "rank": 8, "units": 64, "seed": 0},
    "map:quadratic": {"matrix": 1.0},
    "geometry:metamida": {"partition": 4, "form": "kronecker", "scale": None, "seed": 0},
    "geometry:metamida-published": {"partition": 4, "seed": 0},
    "geometry:potential": {"form": "ridge", "mu": 0.1, "L": 10.0, "seed": 0},
    "estimator:first_order": {"batched": False, "chunk": None},
    "estimator:implicit": {"tolerance": 1e-08, "cg_steps": 100, "cg_tolerance": 1e-10},
    "estimator:stepwise": {"batched": False, "chunk": None},
    "estimator:unrolled": {"batched": False, "chunk": None},
    "KroneckerIAF": {"partition": 4, "init": "live", "scale": "exp", "seed": 0},
    "Budget": {"tol": 1e-10, "newton_steps": 100, "cg_steps": 1000},
    "Problem": {"inner_loss_scale": 1.0},
    "MLPIAF": {"partition": 4, "hidden": 32, "code": 8, "scale": "bounded", "seed": 0},
}


def built(name: str, dtype: torch.dtype = torch.float64, **seed: int) -> torch.nn.Module:
    made = BUILDERS[name](**seed)
    made.build(small_anchor(dtype))
    return made


def fingerprint(own: Params) -> float:
    """A sum over all entries with irregular weights: any change of an entry, an order or a name's
    place shows.
    """
    flat = torch.cat([value.detach().double().reshape(-1) for value in own.values()])
    return float((flat * torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64))).sum())


def defaults(factory) -> dict[str, object]:
    """The default of every option of a constructor."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_start_is_what_it_was(name):
    numbers = (
        len(list(built(name).parameters())),
        fingerprint(built(name).own()),
        fingerprint(built(name, seed=1).own()),
    )
    assert numbers == pytest.approx(FROZEN[name], abs=1e-9)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_start_is_drawn_in_float64_and_rounded_once(name):
    """The anchor's own rounding enters where the start looks at it, so there only closeness is
    asked.
    """
    exact, rounded = built(name).own(), built(name, torch.float32).own()
    looks = name in ("potential", "icnn")
    for key, value in rounded.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, exact[key].float(), rtol=1e-5 if looks else 0.0, atol=1e-6 if looks else 0.0
        )


@pytest.mark.parametrize("name", BUILDERS)
def test_the_state_is_the_parameters_alone(name):
    """Buffers follow from the anchor's shapes; in a checkpoint they would only be in the way."""
    made = built(name)
    assert list(made.state_dict()) == [key for key, _ in made.named_parameters()]


def test_defaults_are_what_they_were():
    found = {
        f"{kind}:{slug}": defaults(registry.get(slug))
        for kind, registry in REGISTRIES.items()
        for slug in registry
    }
    found |= {
        factory.__name__: defaults(factory) for factory in (MLPIAF, KroneckerIAF, Budget, Problem)
    }
    found["Problem"] = {
        name: value for name, value in found["Problem"].items() if isinstance(value, float | bool)
    }
    assert {slug: options for slug, options in found.items() if slug in DEFAULTS} == DEFAULTS
    made = {
        field.name: field.default_factory()
        for field in fields(Problem)
        if callable(field.default_factory)
    }
    assert made == {"objective": Objective()}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_an_unknown_name_says_of_what_kind_it_is(kind):
    with pytest.raises(
        ValueError, match=f"^{kind} must be one of the registered names, got 'nope'"
    ):
        REGISTRIES[kind].get("nope")
