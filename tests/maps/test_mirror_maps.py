"""Every registered mirror map is one: h, h*, grad h, grad h* and the divergence fit together.
Mutants do not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from torch.func import grad, vmap

from mdtheory.core import tree
from mdtheory.maps.base import maps
from mdtheory.maps.entropy import NegativeEntropy
from mdtheory.maps.hypentropy import Hypentropy
from mdtheory.maps.log_barrier import LogBarrier
from mdtheory.maps.pnorm import PNorm
from mdtheory.maps.quadratic import Quadratic
from tests.maps.mirror_cases import (
    SHAPES,
    apart,
    build,
    close,
    defects,
    dual_point,
    hessian_of_conjugate,
    label,
    mirror_maps,
    spd,
)

CASES = mirror_maps()
CLASSICAL = [
    case
    for case in CASES
    if case[0] in ("identity", "quadratic", "entropy", "pnorm", "hypentropy", "barrier")
]
every_map = pytest.mark.parametrize("case", CASES, ids=label)
every_classical_map = pytest.mark.parametrize("case", CLASSICAL, ids=label)


def test_the_classical_maps_are_registered():
    assert {slug for slug, _ in CASES} >= {
        "identity",
        "quadratic",
        "entropy",
        "pnorm",
        "hypentropy",
        "barrier",
    }


@every_map
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_mirror_map_properties(case, scale):
    for seed in range(3):
        assert (
            defects(
                build(case),
                dual_point(case[0], seed, scale=scale),
                dual_point(case[0], seed, "other"),
            )
            == []
        )


class ForgottenMass(NegativeEntropy):
    def potential(self, meta, phi):
        return torch.stack([(v * v.log()).sum() for v in phi.values()]).sum()


class HalvedConstant(Hypentropy):
    def conjugate(self, meta, z):
        return 0.5 * super().conjugate(meta, z)


class SwappedGradients(Hypentropy):
    def point(self, meta, z):
        return Hypentropy.inverse(self, meta, z)

    def inverse(self, meta, phi):
        return Hypentropy.point(self, meta, phi)


class SwappedArguments(NegativeEntropy):
    def bregman(self, meta, x, y):
        return super().bregman(meta, y, x)


class FlippedSign(LogBarrier):
    def bregman(self, meta, x, y):
        return -super().bregman(meta, x, y)


class TooTight(PNorm):
    def curvature(self, meta):
        low, high = super().curvature(meta)
        return low, high / 2


class SamePower(PNorm):
    def conjugate(self, meta, z):
        return super().potential(meta, z)


class Rotation(Quadratic):
    """Monotone and Lipschitz, but no gradient: C24."""

    def point(self, meta, z):
        return {**z, "b": z["b"][[1, 2, 0]]}

    def inverse(self, meta, phi):
        return {**phi, "b": phi["b"][[2, 0, 1]]}


class WrongVolume(LogBarrier):
    def log_abs_det(self, meta, z):
        return -super().log_abs_det(meta, z)


class Inexact(NegativeEntropy):
    def inverse(self, meta, phi):
        return {name: value * (1 + 1e-8) for name, value in super().inverse(meta, phi).items()}


@pytest.mark.parametrize(
    "mutant,broken",
    [
        (ForgottenMass, ["inverse = grad h", "Fenchel-Young equality"]),
        (HalvedConstant, ["point = grad h*", "Fenchel-Young equality", "duality", "curvature"]),
        (SwappedGradients, ["point = grad h*", "inverse = grad h", "Fenchel-Young equality"]),
        (SwappedArguments, ["duality"]),
        (FlippedSign, ["Bregman >= 0", "duality"]),
        (TooTight, ["curvature"]),
        (SamePower, ["point = grad h*", "Fenchel-Young equality"]),
        (Rotation, ["point = grad h*", "symmetric Jacobian"]),
        (WrongVolume, ["log-determinant"]),
        (Inexact, ["round trip"]),
    ],
)
def test_properties_reject_mutants(mutant, broken):
    made = mutant()
    made.build({name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()})
    slug = next(slug for slug, _ in CLASSICAL if isinstance(made, maps.get(slug)))
    found = {
        name
        for seed in range(5)
        for name in defects(made, dual_point(slug, seed), dual_point(slug, seed, "other"))
    }
    assert set(broken) <= found


def test_curvature_bounds_are_attained():
    """A bound that nothing attains can hide a wrong constant."""
    blocks = (
        "quadratic",
        {"matrix": {"w": spd(6), "b": torch.tensor([0.5, 1.0, 3.0]), "s": torch.tensor(9.0)}},
    )
    for case, z in (
        (blocks, dual_point("quadratic")),
        (("hypentropy", {"beta": 0.1}), dual_point("hypentropy", scale=0.0)),
    ):
        made = build(case)
        spectrum, (low, high) = (
            torch.linalg.eigvalsh(hessian_of_conjugate(made, {}, z)),
            made.curvature({}),
        )
        assert math.isclose(float(spectrum.min()), low, rel_tol=1e-9)
        assert high == math.inf or math.isclose(float(spectrum.max()), high, rel_tol=1e-9)
    assert PNorm(2.0).curvature({}) == (1.0, 1.0) and PNorm(1.5).curvature({}) == (0.0, 2.0)
    assert PNorm(3.0).curvature({}) == (0.5, math.inf) and NegativeEntropy().curvature({}) == (
        0.0,
        math.inf,
    )


@pytest.mark.parametrize("p", [1.2, 1.5, 1.9])
def test_p_norm_bound_is_near(p):
    """Two equal coordinates reach (q - 1) 2^(-(q - 2)/q), so that q - 1 cannot be lowered by more
    than a factor 2.
    """
    made = PNorm(p)
    z = {"x": torch.tensor([0.7, 0.7, 0.0], dtype=torch.float64)}
    top = float(torch.linalg.eigvalsh(hessian_of_conjugate(made, {}, z)).max())
    assert math.isclose(top, (made.q - 1) * 2 ** (-(made.q - 2) / made.q), rel_tol=1e-9)
    assert 0.5 * made.curvature({})[1] < top < made.curvature({})[1]


@every_classical_map
def test_conjugate_is_the_supremum(case):
    """h*(z) = sup <phi, z> - h(phi), by a bounded one-dimensional search that knows no
    gradients.
    """
    slug, options = case
    if isinstance(options.get("matrix"), dict):
        options = {"matrix": {"x": torch.tensor([1.7])}}
    made = maps.get(slug)(**options)
    made.build({"x": torch.zeros(1, dtype=torch.float64)})
    for value in (-1.3, -0.4, 0.7):
        z = {"x": torch.tensor([-abs(value) if slug == "barrier" else value], dtype=torch.float64)}
        phi = float(made.point({}, z)["x"])
        positive = slug in ("entropy", "barrier")
        bounds = (1e-6, 3 * abs(phi) + 1) if positive else (-3 * abs(phi) - 1, 3 * abs(phi) + 1)

        def loss(x, z=z):
            point = {"x": torch.tensor([x], dtype=torch.float64)}
            return float(made.potential({}, point) - tree.dot(point, z))

        found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10})
        assert math.isclose(-found.fun, float(made.conjugate({}, z)), rel_tol=1e-8, abs_tol=1e-9)
        assert abs(found.x - phi) < 1e-4


@every_classical_map
def test_dual_step_is_the_proximal_step(case):
    """grad h*(grad h(phi) - a u) minimises a <u, x> + D_h(x, phi): C19, against a quasi-Newton
    search.
    """
    slug, _ = case
    made, z = build(case), dual_point(slug, "prox", scale=0.5)
    step = 0.1
    u = dual_point("identity", "slope", scale=0.5)
    if slug == "barrier":
        u = {name: value.abs() for name, value in u.items()}
    phi, expected = made.point({}, z), made.point({}, tree.axpy(-step, u, z))

    def loss(x):
        point = tree.unflatten(torch.from_numpy(x), phi)
        if slug in ("entropy", "barrier") and not (tree.flatten(point) > 0).all():
            return np.inf, np.zeros_like(x)
        objective = lambda p: step * tree.dot(u, p) + made.bregman({}, p, phi)  # noqa: E731
        return float(objective(point)), tree.flatten(grad(objective)(point)).numpy()

    found = minimize(
        loss, tree.flatten(phi).numpy(), jac=True, method="BFGS", options={"gtol": 1e-10}
    )
    assert apart(expected, tree.unflatten(torch.from_numpy(found.x), phi)) < 1e-5


def test_divergences_have_their_textbook_forms():
    x, y = ({"x": torch.rand(5, dtype=torch.float64) + 0.1} for _ in range(2))
    a, b = x["x"], y["x"]
    assert close(
        NegativeEntropy().bregman({}, x, y), (a * (a / b).log() - a + b).sum()
    )  # Kullback-Leibler
    assert close(LogBarrier().bregman({}, x, y), (a / b - (a / b).log() - 1).sum())  # Itakura-Saito
    metric = spd(5)
    made = Quadratic({"x": metric})
    made.build(x)
    assert close(made.bregman({}, x, y), 0.5 * (a - b) @ torch.linalg.solve(metric, a - b))


def test_limits_that_are_known():
    z = dual_point("pnorm", "limit")
    assert apart(PNorm(2.0).point({}, z), z) < 1e-12
    big = Hypentropy(beta=1e4)
    assert (
        apart(big.point({}, {n: v / 1e4 for n, v in z.items()}), z) < 1e-6
    )  # about gradient descent
    assert (
        apart(
            build(("quadratic", {"matrix": 2.5})).point({}, z), {n: 2.5 * v for n, v in z.items()}
        )
        < 1e-12
    )


@pytest.mark.parametrize("p", [1.1, 1.5, 4.0])
def test_p_norm_at_zero_and_at_extreme_sizes(p):
    made, zero = PNorm(p), {"x": torch.zeros(3, dtype=torch.float64)}
    assert not made.point({}, zero)["x"].any() and made.conjugate({}, zero) == 0
    assert not grad(lambda x: made.conjugate({}, x))(zero)["x"].any()
    assert not grad(lambda x: made.potential({}, x))(zero)["x"].any()
    for size in (1e-150, 1e150):
        z = {"x": size * torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=torch.float64)}
        back = made.inverse({}, made.point({}, z))["x"]
        assert torch.allclose(back / size, z["x"] / size, rtol=1e-10, atol=1e-10)


@every_classical_map
def test_vmap_is_the_loop(case):
    made, points = build(case), [dual_point(case[0], "vmap", i) for i in range(3)]
    together = {name: torch.stack([z[name] for z in points]) for name in SHAPES}
    images = vmap(lambda z: made.inverse({}, made.point({}, z)))(together)
    values = vmap(lambda z: made.bregman({}, made.point({}, z), made.point({}, points[0])))(
        together
    )
    for i, z in enumerate(points):
        assert apart({name: value[i] for name, value in images.items()}, z) < 1e-10
        assert close(values[i], made.bregman({}, made.point({}, z), made.point({}, points[0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_classical_map
def test_precision_is_kept(case, dtype):
    made = build(case).to(dtype)
    z = {name: value.to(dtype) for name, value in dual_point(case[0], "precision").items()}
    outputs = [
        *made.point({}, z).values(),
        made.conjugate({}, z),
        made.potential({}, made.point({}, z)),
        made.log_abs_det({}, z),
    ]
    assert all(value.dtype == dtype for value in outputs)


POSITIVE = "must be positive, got -0.5 in 'b'; start from positive values"
NAMES = {"entropy": "phi of the negative entropy", "barrier": "phi of the log-barrier"}
NEGATIVE = (
    "z of the log-barrier must be negative, got 0.5 in 'b'; a dual step left the domain: "
    "take a smaller task_lr"
)


@pytest.mark.parametrize("slug", ["entropy", "barrier"])
@pytest.mark.parametrize("method", ["inverse", "potential"])
def test_points_outside_the_domain_are_refused(slug, method):
    made, phi = maps.get(slug)(), {"a": torch.ones(2), "b": torch.tensor([1.0, -0.5])}
    with pytest.raises(ValueError, match=f"^{NAMES[slug]} {POSITIVE}"):
        getattr(made, method)({}, phi)
    inside = {name: value.abs() for name, value in phi.items()}
    assert torch.isfinite(made.bregman({}, inside, inside))
    with pytest.raises(ValueError, match="got nan"):
        getattr(made, method)({}, {"b": torch.tensor([float("nan")])})


@pytest.mark.parametrize("method", ["point", "conjugate", "log_abs_det"])
def test_dual_points_outside_the_domain_are_refused(method):
    z = {"a": -torch.ones(2), "b": torch.tensor([-1.0, 0.5])}
    with pytest.raises(ValueError, match=NEGATIVE):
        getattr(LogBarrier(), method)({}, z)
    getattr(LogBarrier(), method)({}, {name: -value.abs() for name, value in z.items()})


def test_outside_the_domain_inside_vmap_is_not_a_number():
    z = torch.tensor([[-1.0, -2.0], [-1.0, 0.5]])
    images = vmap(lambda value: LogBarrier().point({}, {"x": value})["x"])(z)
    assert torch.equal(images[0], torch.tensor([1.0, 0.5]))
    assert images[1, 0] == 1 and images[1, 1].isnan()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_symmetry_is_judged_relative_to_the_matrix(scale):
    """Rounding is forgiven and an asymmetry is not, whatever the units of the matrix."""
    matrix, skew = (
        scale * spd(3),
        scale * torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    Quadratic({"x": matrix + 1e-8 * skew}).build({"x": torch.zeros(3, dtype=torch.float64)})
    with pytest.raises(ValueError, match="must be symmetric"):
        Quadratic({"x": matrix + 1e-4 * skew}).build({"x": torch.zeros(3, dtype=torch.float64)})


@pytest.mark.parametrize(
    "made,sentence",
    [
        (lambda: PNorm(1.0), r"p must be in \(1, inf\), got 1.0"),
        (lambda: PNorm(math.inf), r"p must be in \(1, inf\), got inf"),
        (lambda: Hypentropy(0.0), "beta must be positive and finite, got 0.0"),
        (lambda: Quadratic(-1.0), "matrix must be positive and finite, got -1.0"),
        (
            lambda: Quadratic({"y": torch.ones(3)}),
            r"matrix must have an entry for each of \['x'\], got \['y'\]",
        ),
        (
            lambda: Quadratic({"x": torch.ones(2)}),
            r"matrix\['x'\] must have shape \(3,\) \(a diagonal\) or \(3, 3\), got \(2,\)",
        ),
        (
            lambda: Quadratic({"x": torch.tensor([1.0, 0.0, 1.0])}),
            "positive definite, got smallest eigenvalue 0",
        ),
        (
            lambda: Quadratic({"x": torch.diag(torch.tensor([1.0, -2.0, 1.0]))}),
            "positive definite, got smallest eigenvalue -2",
        ),
        (lambda: Quadratic({"x": torch.ones(3, 3).triu()}), r"matrix\['x'\] must be symmetric"),
        (
            lambda: Quadratic({"x": torch.full((3,), math.nan)}),
            "positive definite, got smallest eigenvalue nan",
        ),
    ],
)
def test_impossible_options_are_refused(made, sentence):
    with pytest.raises(ValueError, match=sentence):
        made().build({"x": torch.zeros(3)})
