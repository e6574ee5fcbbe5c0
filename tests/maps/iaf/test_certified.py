"""The certified block-triangular map: bounds, inverse, derivatives, and the mutants that must
fail.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad, jacrev

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.geometry import geometries
from mdtheory.inner.solver import solve
from mdtheory.maps.base import DualMap, MirrorMap
from mdtheory.maps.iaf.base import LEAKY_SLOPES, smooth_leaky
from mdtheory.maps.iaf.certified import monotone_modulus
from mdtheory.maps.iaf.certified_forms import (
    CertifiedKroneckerIAF,
    CertifiedMLPIAF,
    CertifiedStart,
    balanced,
)
from mdtheory.maps.iaf.mlp import MLPIAF
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.maps.adversary import extreme_modulus, extreme_slope, jacobian
from tests.maps.certified_cases import (
    built,
    distance,
    meta_of,
    perturbed,
    random_point,
    small_anchor,
    tiny_anchor,
    toy_episode,
    trained,
)

FORMS = {
    "kronecker": lambda **o: CertifiedKroneckerIAF(**{"partition": 1, **o}),
    "mlp": lambda **o: CertifiedMLPIAF(**{"partition": 1, "hidden": 4, "code": 3, **o}),
}
SLACK = 1e-10


def coupled(form, *, scale=1.0, size=50.0, anchor=None, **options):
    """A map whose conditioners use nearly the whole budget eta: heads blown up by ``size``."""
    made = perturbed(built(FORMS[form](**options), anchor), scale)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name in made.tail_names:
                value.mul_(size)
    return made, meta_of(made)


def directed_pairs(made, like, n=40):
    """The generator that falsifies every unsaturated scale: move earlier blocks a little, one
    coordinate to 1e6, tau = +-1.
    """
    draw = generator("beyond", "directed")
    names = list(like)
    for _ in range(n):
        z = {
            name: torch.randn(v.shape, generator=draw, dtype=torch.float64)
            for name, v in like.items()
        }
        moved = {name: v.clone() for name, v in z.items()}
        last = names[int(torch.randint(1, len(names), (), generator=draw))]
        for name in names[: names.index(last)]:
            moved[name] = z[name] + torch.randn(z[name].shape, generator=draw, dtype=torch.float64)
        at = int(torch.randint(z[last].numel(), (), generator=draw))
        sign = 1 if torch.rand((), generator=draw) < 0.5 else -1
        far = float(10 ** (6 * torch.rand((), generator=draw))) * sign
        for tau in (-1.0, 0.0, 1.0):
            a, b = {**z, last: z[last].clone()}, {**moved, last: moved[last].clone()}
            a[last].view(-1)[at], b[last].view(-1)[at] = far, far + tau
            yield a, b


def directed_bounds(made, meta, like):
    """(smallest <dg, dz> / |dz|^2, largest |dg| / |dz|) over the directed pairs."""
    low, high = math.inf, 0.0
    for a, b in directed_pairs(made, like):
        dz, dg = tree.axpy(-1.0, a, b), tree.axpy(-1.0, made.point(meta, a), made.point(meta, b))
        square = float(tree.dot(dz, dz))
        low, high = (
            min(low, float(tree.dot(dg, dz)) / square),
            max(high, math.sqrt(float(tree.dot(dg, dg)) / square)),
        )
    return low, high


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("form", FORMS)
def test_bounds_hold_for_wild_parameters(form, scale):
    made, meta = coupled(form, scale=scale, anchor=tiny_anchor())
    m, M = made.certificate(meta)
    assert made.m <= m < 1 < M <= made.M
    assert m - SLACK <= extreme_modulus(made, meta, tiny_anchor(), sign=-1, n=1, steps=15)
    assert extreme_slope(made, meta, tiny_anchor(), n=1, steps=15) <= M + SLACK
    low, high = directed_bounds(made, meta, tiny_anchor())
    assert m - 1e-8 <= low and high <= M + 1e-8


@pytest.mark.parametrize("form", FORMS)
def test_conditioners_are_alive_where_the_bounds_are_tested(form):
    """Otherwise the searches would certify a diagonal map."""
    made, meta = coupled(form, anchor=tiny_anchor())
    own = jacobian(made, meta, random_point(tiny_anchor(), "z", scale=0.3))
    assert (own - torch.diag(own.diagonal())).abs().max() > 0.01


class Unsaturated(CertifiedMLPIAF):
    """z in place of tanh(z): the scale is not constant, so by T2 no global bound can hold."""

    def point(self, meta, z):
        x, gate, shift = self._flat(meta, z)
        return tree.unflatten(self._diagonal(meta) * x + self.tau * x * gate + shift, z)


class Unscaled(CertifiedMLPIAF):
    """The last layers are not scaled into the budget."""

    def enforced(self, meta):
        return {**super().enforced(meta), **{name: meta[name] for name in self.tail_names}}


class WithoutContraction(CertifiedMLPIAF):
    """The last layers are scaled as if the other ones were contractions, which they are not."""

    def enforced(self, meta):
        return {**super().enforced(meta), **{name: meta[name] for name in self.body_names}}


@pytest.mark.parametrize("mutant", [CertifiedMLPIAF, Unsaturated, Unscaled, WithoutContraction])
def test_mutants_break_the_constructors_bounds(mutant):
    made = perturbed(built(mutant(partition=1, hidden=4, code=3), tiny_anchor()), 3.0)
    with torch.no_grad():
        for name in made.tail_names:
            made.get_parameter(name).mul_(50.0)
    low, high = directed_bounds(made, meta_of(made), tiny_anchor())
    assert (made.m - 1e-8 <= low and high <= made.M + 1e-8) == (mutant is CertifiedMLPIAF)


def test_plain_blockiaf_fails_the_same_check():
    made = perturbed(built(MLPIAF(partition=1, hidden=4, code=3), tiny_anchor()))
    low, high = directed_bounds(made, meta_of(made), tiny_anchor())
    assert low < 0 and high > 100


@pytest.mark.parametrize("n_blocks", [2, 3, 5, 8])
def test_the_modulus_is_sharp_and_the_cosine_is_not(n_blocks):
    """N_ij = -kappa for all j < i attains it; the older cos(pi / (B + 1)) agrees at B = 2 only."""
    kappa = 0.3
    below = -kappa * torch.ones(n_blocks, n_blocks, dtype=torch.float64).tril(-1)
    attained = float(
        torch.linalg.eigvalsh(torch.eye(n_blocks, dtype=torch.float64) + (below + below.T) / 2)[0]
    )
    eta = float(below.norm())
    sharp = monotone_modulus(diagonal=1.0, coupling=eta, n_blocks=n_blocks)
    assert abs(sharp - attained) < 1e-12
    cosine = 1 - eta * math.cos(math.pi / (n_blocks + 1))
    assert (abs(cosine - attained) < 1e-12) == (n_blocks == 2)
    assert sharp >= cosine - 1e-12


def test_a_smaller_modulus_constant_would_be_broken():
    """Random block-triangular matrices never beat the modulus, and a tenth less is beaten by the
    attaining case.
    """
    draw = generator("beyond", "modulus")
    for _ in range(200):
        below = torch.randn(4, 4, generator=draw, dtype=torch.float64).tril(-1)
        low = float(
            torch.linalg.eigvalsh(torch.eye(4, dtype=torch.float64) + (below + below.T) / 2)[0]
        )
        assert (
            low >= monotone_modulus(diagonal=1.0, coupling=float(below.norm()), n_blocks=4) - 1e-12
        )


@pytest.mark.parametrize("form", FORMS)
class TestMap:
    def test_start_is_exactly_the_identity(self, form):
        made, z = built(FORMS[form]()), random_point(small_anchor(), "z", scale=3.0)
        meta = meta_of(made)
        assert all(torch.equal(made.point(meta, z)[name], z[name]) for name in z)
        assert distance(perturbed(made)(z), z) > 0.01
        assert isinstance(made, DualMap) and not isinstance(made, MirrorMap)

    def test_jacobian_is_block_triangular_with_the_log_determinant(self, form):
        made, meta = coupled(form)
        z = random_point(small_anchor(), "z")
        own = jacobian(made, meta, z)
        names, ends = list(z), torch.tensor([v.numel() for v in z.values()]).cumsum(0).tolist()
        for i, name in enumerate(names):
            rows = own[ends[i] - z[name].numel() : ends[i]]
            block = rows[:, ends[i] - z[name].numel() :]
            square = block.shape[0] == block.shape[1]
            outside = block - torch.diag(block.diagonal()) if square else block[:, block.shape[0] :]
            assert outside.abs().max() == 0
        sign, log_det = torch.linalg.slogdet(own)
        assert sign == 1 and abs(float(log_det - made.log_abs_det(meta, z))) < 1e-12

    @pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
    def test_inverse(self, form, size):
        made, meta = coupled(form)
        z = random_point(small_anchor(), "z", scale=size)
        assert distance(made.inverse(meta, made.point(meta, z)), z) < 1e-12

    def test_inverse_is_differentiable_twice(self, form):
        made, meta = coupled(form, size=3.0, anchor=tiny_anchor())
        z, v = random_point(tiny_anchor(), "z", scale=0.5), random_point(tiny_anchor(), "v")
        phi = tree.flatten(made.point(meta, z))

        def outcome(x):
            return tree.dot(made.inverse(meta, tree.unflatten(x, z)), v)

        slope = grad(outcome)(phi)
        assert (
            slope - torch.linalg.solve(jacobian(made, meta, z).T, tree.flatten(v))
        ).abs().max() < 1e-10
        direction, h = tree.flatten(random_point(tiny_anchor(), "d")), 1e-5
        curve = grad(lambda x: grad(outcome)(x) @ direction)(phi)
        central = (grad(outcome)(phi + h * direction) - grad(outcome)(phi - h * direction)) / (
            2 * h
        )
        assert (curve - central).abs().max() < 1e-6 * central.abs().max()

    def test_inverse_learns(self, form):
        made, meta = coupled(form, size=3.0, anchor=tiny_anchor())
        phi, v = random_point(tiny_anchor(), "phi"), random_point(tiny_anchor(), "v")
        for name in (made.tail_names[0], "diagonal"):

            def outcome(value, name=name):
                return tree.dot(made.inverse({**meta, name: value}, phi), v)

            step = 1e-5 * torch.ones_like(meta[name])
            central = float(outcome(meta[name] + step) - outcome(meta[name] - step)) / 2e-5
            assert abs(float(grad(outcome)(meta[name]).sum()) - central) < 1e-6 * max(
                abs(central), 1e-3
            )


@pytest.mark.parametrize("form", FORMS)
def test_bounds_hold_after_training(form):
    learner, before, after = trained("certified", form=form, partition=1)
    made, meta = learner.geometry.map, meta_of(learner.geometry.map)
    like = {
        name[7:]: value.detach()
        for name, value in learner.meta().items()
        if name.startswith("anchor.")
    }
    m, M = made.certificate(meta)
    assert after < before
    assert made.m <= m < 0.9 and 1.1 < M <= made.M
    assert m - SLACK <= extreme_modulus(made, meta, like, sign=-1, n=1, steps=8)
    assert extreme_slope(made, meta, like, n=1, steps=8) <= M + SLACK
    low, high = directed_bounds(made, meta, like)
    assert m - 1e-8 <= low and high <= M + 1e-8


@pytest.mark.parametrize("form", FORMS)
def test_first_step_is_mamls_bit_for_bit(form):
    points = []
    for geometry in (geometries.get("certified")(form=form), "maml"):
        network = models.get("mlp")(in_features=6, n_way=2, hidden=(4,), seed=1).double()
        learner = MetaLearner(network, geometry, n_steps=1, task_lr=0.1)
        problem, meta = learner.problem(), tree.detach(learner.meta())
        points.append(problem.point(meta, solve(problem, meta, learner.task(toy_episode(0)))))
    assert all(torch.equal(points[0][name], points[1][name]) for name in points[1])


def test_units_have_the_slopes_that_the_certificate_assumes():
    x = torch.cat(
        [-torch.logspace(-6, 6, 200), torch.zeros(1), torch.logspace(-6, 6, 200)]
    ).double()
    for unit, most in ((CertifiedStart.unit, 1.0), (smooth_leaky, LEAKY_SLOPES[1])):
        slope = grad(lambda v, unit=unit: unit(v).sum())(x)
        assert slope.min() > 0 and slope.max() <= most * (1 + 1e-12)
    assert CertifiedStart().context_gain(7) == CertifiedStart().head_gain(7) == 1.0


def test_exact_lipschitz_constants_bound_the_conditioners():
    """The chain of norms against the dense Jacobian of the conditioners, at many points."""
    for form in FORMS:
        made, meta = coupled(form, anchor=tiny_anchor())
        enforced = made.enforced(meta)
        for _, z in zip(
            range(5), (random_point(tiny_anchor(), "c", i) for i in range(5)), strict=True
        ):

            def conditioners(x, made=made, enforced=enforced, z=z):
                gates, shifts = made.conditioners(enforced, made.split(tree.unflatten(x, z)))
                later = [name for block in made.blocks[1:] for name in block]
                return [each[name].reshape(-1) for each in (gates, shifts) for name in later]

            rows = jacrev(conditioners)(tree.flatten(z))
            half = len(rows) // 2
            for i, (gates, shifts) in enumerate(made.lipschitz(enforced)):
                assert torch.linalg.matrix_norm(rows[i], ord=2) <= gates * (1 + 1e-12)
                assert torch.linalg.matrix_norm(rows[half + i], ord=2) <= shifts * (1 + 1e-12)


def test_long_modes_are_split():
    assert (
        balanced((5, 1600)) == (5, 40, 40)
        and balanced((1600,)) == (40, 40)
        and balanced((257,)) == (257,)
    )
    assert (
        balanced((64, 64, 3, 3)) == (64, 64, 3, 3)
        and balanced((5, 200)) == (5, 200)
        and balanced(()) == ()
    )
    anchor = {"b": torch.ones(3, dtype=torch.float64), "w": torch.ones(2, 300, dtype=torch.float64)}
    made = perturbed(built(CertifiedKroneckerIAF(partition=1), anchor), 0.3)
    assert made(anchor)["w"].shape == (2, 300) and max(v.numel() for v in made.parameters()) <= 603


def test_refusals():
    for options in ({"m": 0.0}, {"m": 1.0}, {"M": 1.0}, {"M": math.inf}):
        with pytest.raises(ValueError, match="m and M must satisfy 0 < m < 1 < M"):
            geometries.get("certified")(**options)
    with pytest.raises(ValueError, match="form must be 'kronecker' or 'mlp'"):
        geometries.get("certified")(form="dense")
    with pytest.raises(ValueError, match="reach must be positive"):
        CertifiedMLPIAF(reach=0.0)


class HalvedLipschitz(CertifiedKroneckerIAF):
    """The conditioners count for half of what they may do."""

    def lipschitz(self, meta):
        return [(gates / 2, shifts / 2) for gates, shifts in super().lipschitz(meta)]


def saturated(made, *, gate):
    """Every gate at its limit, every layer at its largest slope, all coupling in the shift: two
    scalar blocks whose Jacobian is [[a, 0], [-eta, a]] with a = 1 + gate tau.
    """
    with torch.no_grad():
        for name, value in made.named_parameters():
            if ".factors." in name or name.endswith("weight"):
                value.fill_(1e3)
            elif "log_scale" in name:
                value.fill_(gate * 1e3)
        for name in made.tail_names:
            made.get_parameter(name).fill_(-1e3 if "shift" in name else 0.0)
    at = {"a": torch.tensor([30.0], dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    return jacobian(made, meta_of(made), at)


@pytest.mark.parametrize("kind", [CertifiedKroneckerIAF, HalvedLipschitz])
def test_saturated_gates_use_the_whole_budget_of_the_kronecker_form(kind):
    """m is attained to half a percent, so a certificate that counts the conditioners for half is
    broken; so is its M.
    """
    scalars = {name: torch.zeros(1, dtype=torch.float64) for name in ("a", "b")}
    made = built(kind(partition=1, reach=1e3), scalars)
    lowest = float(torch.linalg.eigvalsh((own := saturated(made, gate=-1)) + own.T)[0]) / 2
    m, _ = made.certificate(meta_of(made))
    steepest = float(torch.linalg.matrix_norm(saturated(made, gate=1), ord=2))
    _, M = made.certificate(meta_of(made))
    if kind is CertifiedKroneckerIAF:
        assert m <= lowest <= 1.005 * m and steepest <= M
    else:
        assert m > lowest + 0.1 and steepest > M
