"""mu <= curvature <= L, and m, M, under adversarial search: for wild parameters, after training,
and not for mutants.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad, jacrev

from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential
from proofs_check.tools.adversary import unit_centres
from tests.maps.adversary import extreme_modulus, jacobian
from tests.maps.certified_cases import built, meta_of, perturbed, tiny_anchor, trained

SLACK = 1e-10
FORMS = {
    "ridge": lambda: ConvexPotential(rank=2, units=6),
    "icnn": lambda: InputConvexPotential(width=5),
}


def found(made, meta, like, **effort):
    """(smallest, largest) eigenvalue of the Hessian of h* that the adversary finds."""
    extra = {
        sign: [unit_centres(made, meta, like, sign=sign)]
        if isinstance(made, ConvexPotential)
        else []
        for sign in (-1, 1)
    }
    return tuple(
        extreme_modulus(made, meta, like, sign=sign, extra=extra[sign], **effort)
        for sign in (-1, 1)
    )


def holds(made, meta, like, bounds, **effort):
    """Whether the adversary fails to break these bounds."""
    low, high = found(made, meta, like, **effort)
    return bounds[0] - SLACK <= low and high <= bounds[1] + SLACK


def learned_alone(meta):
    """The parameters with the diagonal at 1, so that nothing hides behind it."""
    return {**meta, "quadratic": torch.zeros_like(meta["quadratic"])}


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("form", FORMS)
def test_wild_parameters(form, scale):
    made = perturbed(built(FORMS[form](), tiny_anchor()), scale)
    meta = meta_of(made)
    low, high = made.curvature(meta)
    assert made.mu < low < 1 < high < made.L
    assert holds(made, meta, tiny_anchor(), (low, high), n=1, steps=20)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_ridge_certificate_is_tight(scale):
    made = perturbed(built(FORMS["ridge"](), tiny_anchor()), scale)
    alone = learned_alone(meta_of(made))
    certified, realised = (
        made.learned_curvature(alone),
        found(made, alone, tiny_anchor(), n=0, steps=15),
    )
    assert certified[1] <= 4 * (realised[1] - 1)
    assert -certified[0] <= 4 * (1 - realised[0])


def saturated(sign, *, anchor=None):
    """Every amplitude and every rate at its limit, all units centred at 0: the case that uses the
    whole budget.
    """
    made = built(
        ConvexPotential(rank=4, units=3), anchor or {"w": torch.ones(4, dtype=torch.float64)}
    )
    with torch.no_grad():
        made.quadratic.fill_(sign * 1e3)
        made.amplitude.fill_(sign * 1e3)
        made.offset.zero_()
    return made, meta_of(made)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_ridge_certificate_is_attained(sign):
    made, meta = saturated(sign)
    like = {"w": torch.zeros(4, dtype=torch.float64)}
    low, high = made.curvature(meta)
    at_zero = torch.linalg.eigvalsh(jacobian(made, meta, like))
    if sign > 0:
        assert abs(float(at_zero[-1]) - high) < 1e-10 and 0.85 * made.L < high <= made.L
    else:
        assert abs(float(at_zero[0]) - low) < 1e-10 and made.mu <= low < made.mu + 0.15 * (
            1 - made.mu
        )
    halved = (1 - (1 - low) / 2, 1 + (high - 1) / 2)
    assert holds(made, meta, like, (low, high), n=1, steps=5)
    assert not holds(made, meta, like, halved, n=1, steps=5)


class DoubledBudget(ConvexPotential):
    def _amplitudes(self, meta):
        return 2 * super()._amplitudes(meta)


class DroppedFactor(ConvexPotential):
    """The norm of the last factor of every tensor is left out of Gamma."""

    def _index(self, like):
        super()._index(like)
        self.incidence[:, -1] = 0


class RootOfTheNorm(ConvexPotential):
    """Codes divided by the square root of the norm, as if Gamma held ||W|| and not ||W||^2."""

    def _projections(self, meta):
        factors, scale = super()._projections(meta)
        return factors, scale.sqrt()


@pytest.mark.parametrize("mutant", [ConvexPotential, DoubledBudget, DroppedFactor, RootOfTheNorm])
def test_mutants_of_the_construction_break_the_constructors_bounds(mutant):
    made = built(mutant(rank=4, units=3), {"w": torch.ones(3, 3, dtype=torch.float64)})
    with torch.no_grad():
        made.quadratic.fill_(1e3)
        made.amplitude.fill_(1e3)
        made.offset.zero_()
        for factor in made.factors.parameters():
            factor.mul_(3.0)
    zero = {"w": torch.zeros(3, 3, dtype=torch.float64)}
    assert holds(made, meta_of(made), zero, (made.mu, made.L), n=1, steps=5) == (
        mutant is ConvexPotential
    )


def one_unit(through=None):
    """An input-convex network of one unit a layer, all in the direction e_1; ``through``: A_1 of a
    second layer.
    """
    like = {"w": torch.ones(2, dtype=torch.float64)}
    made = built(InputConvexPotential(width=1, depth=1 if through is None else 2), like)
    direct = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        made.gate.fill_(1e3)
        for l in range(made.depth):
            made.layers.get_parameter(f"{l}.direct").copy_(direct)
            made.layers.get_parameter(f"{l}.bias").zero_()
        if through is not None:
            made.layers.get_parameter("1.through").fill_(through)  # softplus(50) = 50
            made.layers.get_parameter("1.bias").fill_(
                -(through + 1) * 12.0
            )  # second layer centred where the first is linear
    return made, meta_of(made), like


@pytest.mark.parametrize("through", [None, 50.0])
def test_the_icnn_bound_is_attained(through):
    made, meta, like = one_unit(through)
    centre = torch.tensor([0.0 if through is None else 12.0, 0.0], dtype=torch.float64)
    network = jacrev(grad(lambda z: made._network(meta, z)))(centre)
    realised, bound = float(torch.linalg.eigvalsh(network)[-1]), float(made.bound(meta, exact=True))
    assert 0.97 * bound < realised <= bound * (1 + 1e-12)
    assert realised > 0.5 * bound  # half the constant (1/8 in place of 1/4) would be broken
    if through is not None:  # and so would the bound without the path through the first layer
        without = float(
            made.bound(
                {**meta, "layers.1.through": torch.full((1, 1), -50.0, dtype=torch.float64)},
                exact=True,
            )
        )
        assert realised > 100 * without
    assert made.bound(meta) >= bound * (1 - 1e-12)
    assert holds(made, meta, like, made.curvature(meta), n=1, steps=10)


@pytest.mark.parametrize("slug", ["potential", "certified"])
@pytest.mark.parametrize("form", [0, 1])
def test_single_precision_trains_from_the_neutral_start(slug, form):
    """Zeros and ties meet every quotient, root and logarithm here, with the range of float32."""
    options = {
        "potential": [{"form": "ridge"}, {"form": "icnn"}],
        "certified": [{"form": "kronecker", "partition": 1}, {"form": "mlp", "partition": 1}],
    }
    learner, before, after = trained(
        slug, n_iterations=2, dtype=torch.float32, **options[slug][form]
    )
    assert math.isfinite(before) and math.isfinite(after)
    assert all(
        torch.isfinite(value).all() and value.dtype == torch.float32
        for value in learner.meta().values()
    )
    made = learner.geometry.map
    low, high = (
        made.curvature(meta_of(made)) if slug == "potential" else made.certificate(meta_of(made))
    )
    assert low < 1 < high


@pytest.fixture(scope="module", params=FORMS)
def learned(request):
    learner, before, after = trained("potential", form=request.param)
    like = {
        name[7:]: value.detach()
        for name, value in learner.meta().items()
        if name.startswith("anchor.")
    }
    return learner.geometry.map, like, before, after


def test_certificate_after_training(learned):
    made, like, before, after = learned
    meta = meta_of(made)
    low, high = made.curvature(meta)
    assert after < before
    assert made.mu < low < 0.97 and 1.03 < high < made.L  # it has moved
    realised = found(made, meta, like, n=1, steps=8)
    assert low - SLACK <= realised[0] and realised[1] <= high + SLACK
    assert high <= 4 * realised[1] and 1 / low <= 4 / realised[0]
    if isinstance(made, ConvexPotential):
        alone = learned_alone(meta)
        (less, more), realised = (
            made.learned_curvature(alone),
            found(made, alone, like, n=1, steps=8),
        )
        assert 0.01 < more <= 4 * (realised[1] - 1) and 0.01 < -less <= 4 * (1 - realised[0])
        assert math.isfinite(more)
