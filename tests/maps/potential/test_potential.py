"""The convex potentials as mirror maps: gradient, symmetry, inverse, Fenchel and Bregman, start,
sizes, refusals.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad, vmap

from mdtheory.core import tree
from mdtheory.geometry import geometries
from mdtheory.inner.solver import solve
from mdtheory.maps.base import MirrorMap, maps
from mdtheory.maps.iaf import MLPIAF
from mdtheory.maps.iaf.certified_forms import CertifiedMLPIAF
from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential, mode_products, modes
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.maps.adversary import jacobian
from tests.maps.certified_cases import (
    built,
    distance,
    meta_of,
    perturbed,
    random_point,
    small_anchor,
)

FORMS = {
    "ridge": lambda **o: ConvexPotential(**{"rank": 2, "units": 5, **o}),
    "icnn": lambda **o: InputConvexPotential(**{"width": 4, **o}),
    "icnn of one layer": lambda **o: InputConvexPotential(**{"width": 4, "depth": 1, **o}),
    "icnn of three layers": lambda **o: InputConvexPotential(**{"width": 4, "depth": 3, **o}),
}


def case(form, scale=0.5, **options):
    made = perturbed(built(FORMS[form](**options)), scale)
    with torch.no_grad():
        if form != "ridge":
            made.gate.fill_(3.0)  # wide open
    return made, meta_of(made), random_point(small_anchor(), "z")


@pytest.mark.parametrize("form", FORMS)
class TestMirrorMap:
    def test_point_is_the_gradient_of_the_conjugate(self, form):
        made, meta, z = case(form)
        assert (
            distance(made.point(meta, z), grad(lambda value: made.conjugate(meta, value))(z))
            < 1e-13
        )

    def test_jacobian_is_symmetric_and_not_diagonal(self, form):
        made, meta, z = case(form)
        own = jacobian(made, meta, z)
        assert (own - own.T).abs().max() < 1e-13
        off = own - torch.diag(own.diagonal())
        assert (
            off[:12, 12:].abs().max() > 1e-3
        )  # what no MetaSGD has: one tensor's dual variable moves another's point

    def test_inverse_and_its_derivative(self, form):
        made, meta, z = case(form)
        phi = made.point(meta, z)
        assert distance(made.inverse(meta, phi), z) < 1e-9
        v = random_point(small_anchor(), "v")
        pulled = grad(lambda value: tree.dot(made.inverse(meta, value), v))(phi)
        solved = torch.linalg.solve(jacobian(made, meta, z), tree.flatten(v))
        assert (tree.flatten(pulled) - solved).abs().max() < 1e-8 * solved.abs().max()

    def test_inverse_learns(self, form):
        made, meta, z = case(form)
        phi, name = made.point(meta, z), "amplitude" if form == "ridge" else "gate"
        v = random_point(small_anchor(), "v")

        def outcome(value):
            return tree.dot(made.inverse({**meta, name: value}, phi), v)

        slope, step = grad(outcome)(meta[name]), 1e-5
        direction = torch.ones_like(meta[name])
        central = (
            outcome(meta[name] + step * direction) - outcome(meta[name] - step * direction)
        ) / (2 * step)
        assert abs(float((slope * direction).sum() - central)) < 1e-6 * abs(float(central))

    def test_potential_by_fenchel_and_bregman_by_duality(self, form):
        made, meta, z = case(form)
        other = random_point(small_anchor(), "other")
        phi, psi = made.point(meta, z), made.point(meta, other)
        low, high = made.curvature(meta)
        assert (
            abs(float(made.potential(meta, phi) + made.conjugate(meta, z) - tree.dot(phi, z)))
            < 1e-9
        )
        assert (
            made.potential(meta, psi) + made.conjugate(meta, z) > tree.dot(psi, z) + 1e-3
        )  # Fenchel's inequality is strict
        divergence = float(made.bregman(meta, phi, psi))
        dual = (
            made.conjugate(meta, other)
            - made.conjugate(meta, z)
            - tree.dot(phi, tree.axpy(-1.0, z, other))
        )
        assert abs(divergence - float(dual)) < 1e-8 * divergence
        gap = float(tree.norm(tree.axpy(-1.0, psi, phi))) ** 2
        assert gap / (2 * high) <= divergence <= gap / (2 * low)
        assert abs(float(made.bregman(meta, phi, phi))) < 1e-8

    def test_start_is_exactly_the_identity(self, form):
        made, z = built(FORMS[form]()), random_point(small_anchor(), "z", scale=3.0)
        meta = meta_of(made)
        assert all(torch.equal(made.point(meta, z)[name], z[name]) for name in z)
        assert made.curvature(meta) == (1.0, 1.0)
        assert distance(perturbed(made)(z), z) > 0.01

    def test_vmap_over_points_is_the_loop(self, form):
        made, meta, _ = case(form)
        points = [random_point(small_anchor(), "batch", i) for i in range(3)]
        batch = {name: torch.stack([point[name] for point in points]) for name in points[0]}
        together = vmap(lambda z: made.point(meta, z))(batch)
        for i, point in enumerate(points):
            assert (
                distance(
                    {name: value[i] for name, value in together.items()}, made.point(meta, point)
                )
                < 1e-14
            )


@pytest.mark.parametrize(
    "make", [lambda: MLPIAF(partition=2), lambda: CertifiedMLPIAF(partition=2)]
)
def test_block_triangular_maps_are_not_symmetric(make):
    """Negative control of the symmetry test: by T3 they cannot be."""
    made = perturbed(built(make()))
    assert not isinstance(made, MirrorMap)
    own = jacobian(made, meta_of(made), random_point(small_anchor(), "z"))
    assert (own - own.T).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["ridge", "icnn"])
def test_first_step_is_mamls_bit_for_bit(form):
    from tests.maps.certified_cases import toy_episode

    points = []
    for geometry in (geometries.get("potential")(form=form), "maml"):
        network = models.get("mlp")(in_features=6, n_way=2, hidden=(4,), seed=1).double()
        learner = MetaLearner(network, geometry, n_steps=1, task_lr=0.1)
        problem, meta = learner.problem(), tree.detach(learner.meta())
        points.append(problem.point(meta, solve(problem, meta, learner.task(toy_episode(0)))))
    assert all(torch.equal(points[0][name], points[1][name]) for name in points[1])


def test_parameters_on_conv4_64():
    learner = MetaLearner(models.get("conv4")(), "potential")
    own = dict(learner.geometry.map.named_parameters())
    sizes = {
        part: sum(v.numel() for n, v in own.items() if n.split(".")[0] == part)
        for part in {n.split(".")[0] for n in own}
    }
    codes = (
        3 * 8**3 + 8 * 3 * 8 + 12 * 8 + 5 * 8 + 5
    )  # three kernels, the first kernel, vectors, classifier
    vectors = {"amplitude": codes + 64, "offset": codes + 64, "log_sharpness": codes + 64}
    assert sizes == {"quadratic": 121_093, "mixing": 64 * codes, "factors": 22_875, **vectors}
    assert sum(sizes.values()) == 269_383


def test_projection_is_the_dense_kronecker_product():
    """P, its transpose and the mixing against explicit matrices, tensor by tensor."""
    made, meta, z = case("ridge")
    factors, scale = made._projections(meta)
    blocks = []
    for name in made.order:
        dense = torch.ones(1, 1, dtype=torch.float64)
        for j in range(len(made.modes[name])):
            dense = torch.kron(dense, meta[f"factors.{name}.{j}"])
        blocks.append(dense)
    dense = scale[:, None] * torch.block_diag(*blocks)
    ordered = torch.cat([z[name].reshape(-1) for name in made.order])
    codes = made._encode(z, factors, scale)
    assert torch.allclose(codes, dense @ ordered, rtol=1e-12)
    back = made._decode(codes, factors, scale)
    assert torch.allclose(
        torch.cat([back[name] for name in made.order]), dense.T @ codes, rtol=1e-12
    )
    assert 0.5 < torch.linalg.matrix_norm(dense, ord=2) <= 1 + 1e-12
    through = made._mixing(meta) @ dense
    assert torch.allclose(
        made._through(made._mixing(meta), factors, scale),
        through @ through.T,
        rtol=1e-10,
        atol=1e-14,
    )


def test_mode_products_and_modes():
    x, a, b = (
        torch.randn(2, 3, 4).double(),
        torch.randn(2, 5, 3).double(),
        torch.randn(2, 2, 4).double(),
    )
    expected = torch.stack([a[i] @ x[i] @ b[i].T for i in range(2)]).reshape(2, -1)
    assert torch.allclose(mode_products(x, [a, b]), expected, rtol=1e-13)
    assert (
        modes((6, 1, 3, 3)) == (6, 9)
        and modes((4, 1)) == (4,)
        and modes(()) == ()
        and modes((1,)) == ()
    )


def test_precisions_and_zero_anchors():
    anchor = {name: value.float() for name, value in small_anchor().items()}
    single, double = ConvexPotential(rank=2, units=5), built(ConvexPotential(rank=2, units=5))
    single.build(anchor)
    assert all(value.dtype == torch.float32 for value in single.parameters())
    assert all(
        torch.allclose(value.double(), double.own()[n], rtol=1e-5, atol=1e-6)
        for n, value in single.own().items()
    )
    empty = built(ConvexPotential(rank=2, units=5), {"w": torch.zeros(3, 2, dtype=torch.float64)})
    assert all(torch.isfinite(value).all() for value in empty.parameters())
    numbers = perturbed(
        built(ConvexPotential(rank=2, units=2), {"s": torch.ones((), dtype=torch.float64)})
    )
    assert math.isfinite(numbers({"s": torch.ones((), dtype=torch.float64)})["s"].item())


def test_registered_and_refused():
    assert maps.get("potential") is ConvexPotential and maps.get("icnn") is InputConvexPotential
    for options in ({"mu": 0.0}, {"mu": 1.0}, {"L": 1.0}, {"L": math.inf}, {"mu": 2.0, "L": 3.0}):
        with pytest.raises(ValueError, match="mu and L must satisfy 0 < mu < 1 < L"):
            geometries.get("potential")(**options)
    with pytest.raises(ValueError, match="form must be 'ridge' or 'icnn'"):
        geometries.get("potential")(form="dense")
    with pytest.raises(ValueError, match="rank and units must be at least 1"):
        ConvexPotential(rank=0)
    with pytest.raises(ValueError, match="width and depth must be at least 1"):
        InputConvexPotential(depth=0)


def test_ridge_potential_written_out():
    """F(z) = sum c psi(s t + b) / s^2 with psi = log cosh over t = (P z, V P z), unit by unit: no
    constant is added.
    """
    made, meta, z = case("ridge")
    codes = made._encode(z, *made._projections(meta))
    own = torch.cat([codes, made._mixing(meta) @ codes])
    low, high = (1 - made.mu) / 4, (made.L - 1) / 4
    expected = 0.0
    for a, b, log_s, t in zip(
        meta["amplitude"], meta["offset"], meta["log_sharpness"], own, strict=True
    ):
        s, rise = math.exp(log_s), math.exp(a * (1 / low + 1 / high))
        c = (
            low * high * (rise - 1) / (low * rise + high)
        )  # logistic from -low to high, 0 at 0, with slope 1 there
        expected += c * math.log(math.cosh(s * t + b)) / s**2
    assert abs(float(made.learned(meta, z)) - expected) < 1e-10 * abs(expected)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_icnn_and_its_bound_written_out(depth):
    """The recursion of the docstring in numbers, layer by layer, from the outside to the inside for
    v.
    """
    made = perturbed(built(InputConvexPotential(width=3, depth=depth)), 0.5)
    meta, z = meta_of(made), tree.flatten(random_point(small_anchor(), "z"))
    direct = [meta[f"layers.{l}.direct"] for l in range(depth)]
    through = [None, *(torch.log1p(meta[f"layers.{l}.through"].exp()) for l in range(1, depth))]
    v = torch.log1p(meta["output"].exp())
    y, reach = torch.zeros(3).double(), []
    for l in range(depth):
        p = direct[l] @ z + meta[f"layers.{l}.bias"]
        y = torch.log1p((p if l == 0 else p + through[l] @ y).exp())
        norm = torch.linalg.matrix_norm(direct[l], ord=2)
        reach.append(
            norm if l == 0 else torch.linalg.matrix_norm(through[l], ord=2) * reach[-1] + norm
        )
    assert torch.allclose(made._network(meta, z), v @ y, rtol=1e-12)
    total = torch.zeros(()).double()
    for l in reversed(range(depth)):
        total = total + v.max() * reach[l] ** 2 / 4
        v = through[l].T @ v if l else v
    assert torch.allclose(made.bound(meta, exact=True), total, rtol=1e-12)
    assert total <= made.bound(meta) < 1.6**2 * total


@pytest.mark.parametrize(("gate", "end"), [(-50.0, -0.5 * (1 - 0.2)), (50.0, 0.5 * (7.0 - 1))])
def test_gate_ends_where_the_share_of_the_curvature_does(gate, end):
    made = built(InputConvexPotential(width=3, mu=0.2, L=7.0))
    meta = {**meta_of(made), "gate": torch.tensor(gate, dtype=torch.float64)}
    assert float(made._gate(meta)) == pytest.approx(end, rel=1e-9)
