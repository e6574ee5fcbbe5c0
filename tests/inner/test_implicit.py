"""The implicit estimator against closed forms, against unrolling to convergence, and its
refusals.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Episode
from mdtheory.geometry import Geometry, geometries
from mdtheory.inner.estimators import estimators
from mdtheory.inner.estimators.implicit import NegativeCurvatureError, conjugate_gradients
from mdtheory.meta import MetaLearner
from tests.contract.cases import distance

pytestmark = pytest.mark.usefixtures("float64")


def least_squares(seed: int = 0) -> tuple[MetaLearner, Episode]:
    """phi -> mean (x phi - y)^2 with fewer rows than columns: only the prior makes the minimiser
    unique.
    """
    rng = torch.Generator().manual_seed(seed)
    support_x, query_x = torch.randn(3, 5, generator=rng), torch.randn(7, 5, generator=rng)
    episode = Episode(
        support_x, torch.randn(3, 1, generator=rng), query_x, torch.randn(7, 1, generator=rng)
    )
    model = nn.Linear(5, 1, bias=False)
    prior = geometries.get("prior")(precision=0.7)
    learner = MetaLearner(model, prior, n_steps=4000, task_lr=0.1, loss=nn.functional.mse_loss)
    learner.estimator = estimators.get("implicit")(tolerance=1e-12)
    with torch.no_grad():
        learner.geometry.log_precision.weight.copy_(torch.linspace(-1.0, 1.0, 5).reshape(1, 5))
    return learner, episode


def closed_form(learner: MetaLearner, episode: Episode) -> dict[str, torch.Tensor]:
    """phi* = (H + Lambda)^{-1} (b + Lambda theta), differentiated by autograd through the dense
    solve.
    """
    meta = learner.meta()
    theta, log_precision = meta["anchor.weight"], meta["geometry.log_precision.weight"]
    precision = torch.diag(log_precision.exp().reshape(-1))
    x, y = episode.support_x, episode.support_y
    hessian, b = 2 * x.T @ x / len(x), 2 * x.T @ y.reshape(-1) / len(x)
    phi = torch.linalg.solve(hessian + precision, b + precision @ theta.reshape(-1))
    value = (episode.query_x @ phi - episode.query_y.reshape(-1)).square().mean()
    grads = torch.autograd.grad(value, [theta, log_precision])
    return {"anchor.weight": grads[0], "geometry.log_precision.weight": grads[1]}


def test_equals_the_closed_form_of_ridge_regression():
    learner, episode = least_squares()
    found = learner.meta_gradient([episode])
    assert distance(found.grads, closed_form(learner, episode)) < 1e-9
    assert float(found.stats["solve_residual"]) <= 1e-12
    assert float(found.stats["cg_residual"]) <= 1e-10
    assert float(found.stats["solve_steps"]) < 4000


def test_a_sign_error_in_the_implicit_term_would_be_seen(monkeypatch):
    """Negative control: + in place of - before the mixed derivative."""
    learner, episode = least_squares()
    solve = conjugate_gradients

    def flipped(*args, **options):
        v, residual = solve(*args, **options)
        return tree.tree_map(torch.neg, v), residual

    monkeypatch.setattr("mdtheory.inner.estimators.implicit.conjugate_gradients", flipped)
    with pytest.raises(ValueError, match=r"a solution of its linear system with the residual 2"):
        learner.meta_gradient([episode])
    monkeypatch.setattr("mdtheory.inner.estimators.implicit._demand_solution", lambda *a: None)
    assert distance(learner.meta_gradient([episode]).grads, closed_form(learner, episode)) > 0.1


def test_error_is_linear_in_the_distance_to_the_minimiser():
    """Ledger C08a on ridge regression, where gradient descent contracts: errors and distances
    shrink together.
    """
    learner, episode = least_squares()
    expected = closed_form(learner, episode)
    errors = []
    for steps in (20, 40, 80):
        learner.n_steps = steps
        errors.append(distance(learner.meta_gradient([episode]).grads, expected))
    assert errors[0] > errors[1] > errors[2] > 0
    learner.n_steps = 80
    assert errors[2] < 0.2 * errors[0]


def test_agrees_with_unrolling_to_convergence_on_a_network():
    """tanh network, strong prior: the unrolled gradient of 300 steps is that of the minimiser."""
    rng = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 1, 0, 1])
    episode = Episode(
        torch.randn(4, 3, generator=rng), labels, torch.randn(4, 3, generator=rng), labels
    )
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    grads = {}
    for estimator in ("implicit", "unrolled"):
        learner = MetaLearner(
            network,
            geometries.get("prior")(precision=2.0),
            n_steps=120,
            task_lr=0.2,
            estimator=estimator,
        )
        grads[estimator] = learner.meta_gradient([episode]).grads
    assert distance(grads["implicit"], grads["unrolled"]) < 1e-6


def test_parameters_that_are_not_adapted_have_their_direct_term():
    """The first layer is shared: the query loss depends on it directly as well as through the
    minimiser.
    """
    rng = torch.Generator().manual_seed(4)
    labels = torch.tensor([0, 1, 0, 1])
    episode = Episode(
        torch.randn(4, 3, generator=rng), labels, torch.randn(4, 3, generator=rng), labels
    )
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    grads = {}
    for estimator in ("implicit", "unrolled"):
        prior = geometries.get("prior")(precision=2.0)
        learner = MetaLearner(
            network, prior, n_steps=120, task_lr=0.2, adapt="2.*", estimator=estimator
        )
        grads[estimator] = learner.meta_gradient([episode]).grads
    assert {name.split(".")[0] for name in grads["implicit"]} == {"anchor", "shared", "geometry"}
    assert distance(grads["implicit"], grads["unrolled"]) < 1e-6


def test_negative_curvature_is_refused_in_one_sentence():
    class Saddle(nn.Module):
        def __init__(self):
            super().__init__()
            self.phi = nn.Parameter(torch.tensor([0.1, 0.1]))

        def forward(self, x):
            return x @ torch.stack([self.phi[0].square(), -4 * self.phi[1].square()])

    one = torch.ones(1, 2)
    learner = MetaLearner(
        Saddle(),
        geometries.get("prior")(precision=1.0),
        n_steps=0,
        loss=lambda outputs, targets: outputs.mean() + targets.mean(),
        estimator="implicit",
    )
    with pytest.raises(
        NegativeCurvatureError, match=r"strongly convex at its minimiser, got curvature -"
    ):
        learner.meta_gradient(
            [Episode(one, torch.zeros(1), torch.tensor([[0.0, 1.0]]) + one, torch.zeros(1))]
        )


@pytest.mark.parametrize(
    ("slug", "objective", "message"),
    [
        ("maml", Objective(), "must have a task penalty"),
        ("metasgd", Objective(), "must have a task penalty"),
        ("prior", Objective(schedule="every"), "must have the objective 'last'"),
    ],
)
def test_meaningless_problems_are_refused(slug, objective, message):
    labels = torch.tensor([0, 1])
    episode = Episode(torch.randn(2, 3), labels, torch.randn(2, 3), labels)
    learner = MetaLearner(nn.Linear(3, 2), slug, estimator="implicit", objective=objective)
    with pytest.raises(ValueError, match=message):
        learner.meta_gradient([episode])


def test_parameters_of_a_rule_are_refused_because_the_minimiser_ignores_them():
    prior, rule = geometries.get("prior")(), geometries.get("metasgd")().rule
    prior.rule = rule
    labels = torch.tensor([0, 1])
    learner = MetaLearner(nn.Linear(3, 2), prior, estimator="implicit")
    with pytest.raises(ValueError, match=r"geometry\.rule\.scale.*does not depend on the path"):
        learner.meta_gradient([Episode(torch.randn(2, 3), labels, torch.randn(2, 3), labels)])
    assert isinstance(prior, Geometry)


def test_conjugate_gradients_solve_and_report_their_residual():
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=rng)
    matrix, b = root @ root.T + torch.eye(6), torch.randn(6, generator=rng)
    solved, residual = conjugate_gradients(
        lambda v: {"x": matrix @ v["x"]}, {"x": b}, steps=50, tolerance=1e-12
    )
    assert torch.allclose(solved["x"], torch.linalg.solve(matrix, b), rtol=1e-9)
    short, reported = conjugate_gradients(
        lambda v: {"x": matrix @ v["x"]}, {"x": b}, steps=2, tolerance=1e-12
    )
    true = float((matrix @ short["x"] - b).norm() / b.norm())
    assert math.isclose(float(reported), true, rel_tol=1e-9)
    assert true > 1e-4 > float(residual)


def test_nothing_to_solve_is_solved_by_zero():
    solved, residual = conjugate_gradients(
        lambda v: v, {"x": torch.zeros(3)}, steps=5, tolerance=1e-12
    )
    assert torch.equal(solved["x"], torch.zeros(3)) and residual == 0


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_no_more_steps_than_allowed(steps):
    """A tolerance out of reach: the point is where so many steps of gradient descent end, and the
    residual says so.
    """
    learner, episode = least_squares()
    learner.n_steps, learner.estimator.tolerance = steps, 0.0
    found, meta = learner.meta_gradient([episode]).stats, learner.meta()
    x, y, precision = (
        episode.support_x,
        episode.support_y,
        meta["geometry.log_precision.weight"].exp(),
    )
    phi, slopes = meta["anchor.weight"].detach(), []
    for _ in range(steps + 1):
        slopes.append(
            2 * (phi @ x.T - y.T) @ x / len(x) + precision * (phi - meta["anchor.weight"])
        )
        phi = phi - 0.1 * slopes[-1]
    assert found["solve_steps"] == steps
    assert torch.allclose(found["solve_residual"], (slopes[-1].norm() / slopes[0].norm()).detach())


@pytest.mark.parametrize("precision", [0.0, -1.0, math.inf, math.nan])
def test_precision_must_be_positive_and_finite(precision):
    with pytest.raises(ValueError, match="precision must be positive and finite"):
        geometries.get("prior")(precision=precision)


def test_the_registry_knows_every_estimator():
    assert set(estimators.names()) == {"unrolled", "first_order", "stepwise", "implicit"}
