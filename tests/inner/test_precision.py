"""What is computed has the data's precision, whatever torch's default is."""

from __future__ import annotations

import pytest
import torch

from mdtheory.contract.gradients import ESTIMATORS
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.inner.estimators import estimators
from mdtheory.inner.solver import solve
from mdtheory.meta import MetaLearner
from mdtheory.models import models

DTYPES = (torch.float32, torch.float64)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    """The data's; the default is the other one meanwhile."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(next(other for other in DTYPES if other != request.param))
    yield request.param
    torch.set_default_dtype(before)


def episode(dtype: torch.dtype) -> Episode:
    draw, labels = torch.Generator().manual_seed(0), torch.tensor([0, 1])
    support, query = (
        torch.randn(2, 3, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2)
    )
    return Episode(support, labels, query, labels, 0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("slug", ["maml", "mtnet", "ecml", "potential", "metamida"])
def test_a_meta_gradient_has_the_precision_of_the_data(slug, estimator, dtype):
    geometry = geometries.get(slug)()
    network = models.get("mlp")(in_features=3, n_way=2, hidden=(2,), activation="tanh", seed=0).to(
        dtype
    )
    for objective in (geometry.objective, Objective(schedule="every", penalty=1.0)):
        learner = MetaLearner(network, geometries.get(slug)(), n_steps=2, objective=objective)
        found = estimators.get(estimator)()(
            learner.problem(), learner.meta(), [learner.task(episode(dtype))]
        )
        everything = {"value": found.value, **found.grads, **found.stats}
        assert {
            name: value.dtype for name, value in everything.items() if value.dtype != dtype
        } == {}


def test_noise_and_states_have_the_precision_of_the_data(dtype):
    network = models.get("mlp")(in_features=3, n_way=2, hidden=(2,), activation="tanh", seed=0).to(
        dtype
    )
    learner = MetaLearner(network, geometries.get("mtnet")(), n_steps=1)
    task = episode(dtype)
    noise = learner.problem().noise(learner.meta(), learner.task(task))
    assert noise and {value.dtype for value in noise.values()} == {dtype}
    assert {
        value.dtype
        for value in solve(learner.problem(), learner.meta(), learner.task(task)).values()
    } == {dtype}
