"""The transforms of Meta-Curvature and MetaKFO, and ECML's spectrum, one property at a time."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, vjp, vmap

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.geometry.ecml import ECML, log_spread, residuals
from mdtheory.geometry.metacurvature import CurvatureStep
from mdtheory.geometry.metakfo import KroneckerStep, MetaKFO
from mdtheory.maps.quadratic import Quadratic
from mdtheory.meta import MetaLearner
from tests.geometry.cases import conv4, episode_of, learner_of

pytestmark = pytest.mark.usefixtures("float64")


def perturbed(hidden):
    shapes = {"a.weight": (4, 3, 3, 3), "b.weight": (2, 5), "b.bias": (2,)}
    rule = KroneckerStep(hidden)
    rule.build({name: torch.zeros(shape) for name, shape in shapes.items()})
    xi = {
        name: value.detach() + 0.3 * torch.randn_like(value)
        for name, value in rule.transform.named_parameters()
    }
    return rule, xi, {name: torch.randn(shape) for name, shape in shapes.items()}


def test_linear_transform_never_reverses_a_gradient():
    for _ in range(20):
        rule, xi, g = perturbed(0)
        moved = rule.transformed(xi, g)
        assert all(float((moved[name] * g[name]).sum()) >= 0 for name in g)


def stirred_curvature(form):
    """A rule away from its start, its parameters, a gradient, and the transform as one dense matrix
    a tensor.
    """
    shapes = {"a.weight": (4, 3, 2, 2), "b.weight": (2, 5), "b.bias": (3,)}
    rule, random = CurvatureStep(form), generator("rivals", "curvature")
    rule.build({name: torch.zeros(shape) for name, shape in shapes.items()})
    own = {
        name: value + 0.8 * torch.randn(value.shape, generator=random)
        for name, value in rule.named_parameters()
    }
    own = tree.detach(own)
    gradient = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}

    def columns(name):
        units = torch.eye(gradient[name].numel()).reshape(-1, *shapes[name])
        return torch.stack([rule.curved(own, name, unit).flatten() for unit in units]).T

    return rule, own, gradient, {name: columns(name) for name in shapes}


def test_symmetric_curvature_is_mirror_descent_with_a_quadratic_potential():
    rule, own, gradient, matrices = stirred_curvature("symmetric")
    potential = Quadratic(
        {name: matrix if name != "b.bias" else matrix.diag() for name, matrix in matrices.items()}
    )
    potential.build(gradient)
    phi = {name: torch.ones_like(value) for name, value in gradient.items()}
    dual = tree.axpy(-0.1, gradient, potential.inverse({}, phi))
    moved = rule.step(own, tree.prefixed("z.", phi), gradient, task_lr=0.1, k=0, pull=lambda v: v)
    expected = potential.point({}, dual)
    assert all(torch.allclose(moved[f"z.{name}"], expected[name], rtol=1e-8) for name in phi)


def test_free_curvature_is_neither_symmetric_nor_positive():
    matrix = stirred_curvature("free")[3]["a.weight"]
    assert not torch.allclose(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix + matrix.T)[0] < 0


def test_an_unknown_form_is_one_sentence():
    with pytest.raises(ValueError, match="form must be 'free' or 'symmetric', got 'spd'"):
        CurvatureStep("spd")


@pytest.mark.parametrize("hidden", [0, 2])
def test_transform_is_homogeneous(hidden):
    rule, xi, g = perturbed(hidden)
    scaled = rule.transformed(xi, {name: 3 * value for name, value in g.items()})
    assert all(
        torch.allclose(scaled[name], 3 * value) for name, value in rule.transformed(xi, g).items()
    )


def test_hidden_layers_are_not_linear():
    rule, xi, g = perturbed(2)
    xi = {name: value * 0.5 if "slope" in name else value for name, value in xi.items()}
    opposite = rule.transformed(xi, {name: -value for name, value in g.items()})
    assert not torch.allclose(opposite["a.weight"], -rule.transformed(xi, g)["a.weight"])


@pytest.mark.parametrize("hidden", [-1, 10**7])
def test_an_impossible_number_of_hidden_layers_is_refused(hidden):
    with pytest.raises(
        ValueError, match=f"hidden must be >= 0 layers, and at most 100, got {hidden}"
    ):
        MetaKFO(hidden=hidden)


def with_eigenvalues(values):
    """A matrix J of shape (6, 9) such that J J^T has these eigenvalues."""
    (left, _), (right, _) = torch.linalg.qr(torch.randn(6, 6)), torch.linalg.qr(torch.randn(9, 6))
    return left @ torch.diag(values.sqrt()) @ right.T


def test_log_spread_is_zero_for_equal_eigenvalues_and_knows_no_scale():
    assert float(log_spread(with_eigenvalues(torch.full((6,), 4.0)), trivial=1e-10)) < 1e-25
    values = torch.rand(6) + 0.1
    jacobian = with_eigenvalues(values)
    spreads = [log_spread(scale * jacobian, trivial=1e-10) for scale in (1.0, 1e-6, 1e6)]
    assert torch.allclose(torch.stack(spreads), values.log().var(correction=0).expand(3), rtol=1e-9)


def test_trivial_eigenvalues_do_not_count():
    values = torch.tensor([2.0, 1.0, 0.5, 0.1, 0.0, 0.0])
    jacobian, expected = with_eigenvalues(values), values[:4].log().var(correction=0)
    assert torch.allclose(log_spread(jacobian, trivial=1e-10), expected)
    assert abs(float(log_spread(jacobian, trivial=0.0) - expected)) > 1  # logs of rounding errors


def test_gradient_is_finite_at_equal_and_at_zero_eigenvalues():
    for start in (torch.eye(4), torch.zeros(4, 4), torch.ones(4, 4)):
        slope = grad(lambda j: log_spread(j, trivial=1e-10))(start)
        assert bool(torch.isfinite(slope).all())


def test_residuals_give_the_loss_back_and_survive_a_loss_of_zero():
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    mean = torch.nn.functional.cross_entropy(outputs, targets)
    assert torch.allclose(0.5 * (residuals(outputs, targets) ** 2).mean(), mean, atol=1e-11)
    assert torch.allclose(residuals(outputs, targets, "loss").mean(), mean)
    sure = torch.tensor([[1e4, 0.0, 0.0]])
    assert bool(torch.isfinite(grad(lambda o: residuals(o, targets[:1]).sum())(sure)).all())


def test_regression_residuals_are_the_errors():
    outputs, targets = torch.randn(4, 2), torch.randn(4, 2)
    assert torch.equal(residuals(outputs, targets), (outputs - targets).reshape(-1))


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_rows_one_by_one_are_right_for_native_norms_and_vmapped_rows_are_not(norm):
    """Why the Jacobian is a loop: differentiated from outside, a vmapped pass through a native norm
    layer is wrong.
    """
    made = (
        torch.nn.LayerNorm(8)
        if norm == "layer"
        else torch.nn.BatchNorm1d(8, track_running_stats=False)
    )
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), made, torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ).double()
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    point = {name: value.detach() for name, value in net.named_parameters()}
    geometry = ECML(conditioned="*")
    geometry.build(point)

    def spread_of(jacobian):
        return log_spread(jacobian, trivial=1e-10)

    def looped(p):
        return spread_of(geometry.jacobian(p, lambda own: functional_call(net, own, (x,)), y))

    def vmapped(p):
        values, pullback = vjp(lambda own: residuals(functional_call(net, own, (x,)), y), p)
        rows = vmap(lambda row: pullback(row)[0])(torch.eye(len(values)))
        return spread_of(torch.cat([part.flatten(1) for part in rows.values()], dim=1))

    along, step = {name: torch.randn_like(value) for name, value in point.items()}, 1e-6

    def error(function):
        slope = sum((value * along[name]).sum() for name, value in grad(function)(point).items())
        ends = [
            function({name: value + sign * step * along[name] for name, value in point.items()})
            for sign in (1, -1)
        ]
        return abs(float(slope / ((ends[0] - ends[1]) / (2 * step)) - 1))

    assert error(looped) < 1e-6
    assert error(vmapped) > 1e-3


def test_more_residuals_than_independent_columns_leave_no_trivial_zero():
    """A classifier's bias alone: 12 residuals, and slopes of a softmax that sum to 0, so rank 2 of
    12.
    """
    learner, episode = learner_of(ECML(conditioned="classifier.bias")), episode_of(n_shot=4)
    point = tree.sub(tree.detach(learner.meta()), "anchor.")
    weights = {"classifier.bias": point.pop("classifier.bias")}

    def outputs(own):
        return functional_call(learner.network, {**point, **own}, (episode.support_x,))

    rows = learner.geometry.jacobian(weights, outputs, episode.support_y)
    values = torch.linalg.eigvalsh(rows @ rows.T)
    assert int((values > 1e-12).sum()) == 2
    found = learner.geometry.meta_penalty({}, weights, outputs, episode.support_y, 0)
    assert torch.allclose(found, values[-2:].log().var(correction=0))


def test_default_is_the_last_layer_and_no_match_is_refused():
    assert MetaLearner(conv4(), "ecml").geometry.conditioned == [
        "classifier.weight",
        "classifier.bias",
    ]
    with pytest.raises(ValueError, match="conditioned must match adapted parameters"):
        MetaLearner(conv4(), ECML(conditioned="head.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "gamma must be >= 0 and trivial in"),
        ({"residual": "square"}, "residual must be one of"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ECML(**options)


def test_the_penalty_is_what_conditions():
    """Meta-training on the penalty alone lowers it; with gamma = 0 the gradient is MAML's."""
    learner = learner_of(ECML(gamma=0.0))
    plain = learner_of("maml")
    found, expected = (
        learner.meta_gradient([episode_of()]).grads,
        plain.meta_gradient([episode_of()]).grads,
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    strong = learner_of(ECML(gamma=10.0), n_steps=1)
    optimizer = torch.optim.Adam(strong.parameters(), lr=0.01)

    def penalty():
        meta = tree.detach(strong.meta())
        return float(
            strong.problem().meta_penalty(
                meta, strong.problem().start(meta, {}), strong.task(episode_of()), 0
            )
        )

    before = penalty()
    for _ in range(20):
        optimizer.zero_grad()
        strong.backward([episode_of()])
        optimizer.step()
    assert penalty() < 0.5 * before


def test_residuals_of_several_labels_an_item_are_one_each():
    """Per token, as the loss has them; the least-squares form is twice their sum."""
    from torch.nn.functional import cross_entropy

    outputs, targets = torch.randn(2, 3, 5, dtype=torch.float64), torch.randint(3, (2, 5))
    found = residuals(outputs, targets)
    wanted = 2 * cross_entropy(outputs, targets, reduction="sum")
    assert found.shape == (10,)
    assert torch.isclose(found.square().sum(), wanted)
