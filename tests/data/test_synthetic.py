"""Least squares against loops, finite differences and the library's own solver; sinusoids against
their definition.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mdtheory.core import tree
from mdtheory.core.types import Episode, Params
from mdtheory.data.synthetic import (
    LeastSquaresStream,
    SinusoidStream,
    best_start,
    descend,
    meta_gradient,
    quadratic,
)
from mdtheory.geometry.base import Geometry
from mdtheory.geometry.maml import MAML
from mdtheory.geometry.metasgd import MetaSGD
from mdtheory.inner.estimators import estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import solve
from mdtheory.inner.task import EpisodeTask

D = 4
START = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
RATES = torch.tensor([0.05, 0.1, 0.02, 0.08], dtype=torch.float64)
TASKS = LeastSquaresStream(seed=1, n_features=D, n_support=6, n_query=5, noise=0.3)


def descend_by_loop(x: Tensor, y: Tensor, start: Tensor, rates: Tensor, n_steps: int) -> Tensor:
    """K steps with the gradient written out for every example."""
    phi = start
    for _ in range(n_steps):
        gradient = sum(
            2 * (row @ phi - target) * row for row, target in zip(x, y[:, 0], strict=True)
        ) / len(x)
        phi = phi - rates * gradient
    return phi


def query_loss(episode, start: Tensor, rates: Tensor, n_steps: int) -> float:
    """F(start, rates) by the loop."""
    phi = descend_by_loop(episode.support_x, episode.support_y, start, rates, n_steps)
    return float(((episode.query_x @ phi - episode.query_y[:, 0]) ** 2).mean())


def central(function, at: Tensor, width: float = 1e-5) -> Tensor:
    """Central finite differences of a scalar function."""
    unit = torch.eye(len(at), dtype=at.dtype)
    return torch.tensor(
        [(function(at + width * e) - function(at - width * e)) / (2 * width) for e in unit],
        dtype=at.dtype,
    )


def on_library(geometry: Geometry, n_steps: int, *, task_lr: float) -> tuple[Problem, Params]:
    """The library's own problem for a linear model that starts at ``START``, and its
    meta-parameters.
    """
    anchor = {"weight": START[None]}
    geometry.build(anchor)
    problem = Problem(geometry=geometry, n_steps=n_steps, task_lr=task_lr)
    own = tree.prefixed(
        "geometry.", {name: value.detach() for name, value in geometry.named_parameters()}
    )
    return problem, {**tree.prefixed("anchor.", anchor), **own}


def posed(episode: Episode) -> EpisodeTask:
    """A linear model on the episode."""
    model = nn.Linear(D, 1, bias=False, dtype=torch.float64)
    return EpisodeTask(model=model, loss=mse_loss, episode=episode)


def test_the_quadratic_is_the_mean_squared_error():
    episode = TASKS(0)
    task = quadratic(episode.support_x, episode.support_y)
    phi = START.clone().requires_grad_()
    loss = mse_loss(episode.support_x @ phi[:, None], episode.support_y)
    [gradient] = torch.autograd.grad(loss, phi)
    assert torch.allclose(task.value(START), loss, rtol=1e-13)
    assert torch.allclose(task.gradient(START), gradient, rtol=1e-12)
    assert task.gradient(task.optimum()).abs().max() < 1e-12


def test_the_optimum_of_a_singular_task_is_the_shortest():
    episode = LeastSquaresStream(seed=2, n_features=6, n_support=3, noise=0.0)(0)
    expected = torch.linalg.pinv(episode.support_x) @ episode.support_y
    found = quadratic(episode.support_x, episode.support_y).optimum()
    assert torch.allclose(found, expected[:, 0], atol=1e-10)


def test_without_noise_support_and_query_have_one_optimum():
    episode = LeastSquaresStream(seed=3, noise=0.0)(4)
    support, query = (
        quadratic(episode.support_x, episode.support_y),
        quadratic(episode.query_x, episode.query_y),
    )
    assert torch.allclose(support.optimum(), query.optimum(), atol=1e-9)
    assert abs(support.value(query.optimum())) < 1e-12


@pytest.mark.parametrize("n_steps", [0, 1, 5])
def test_descent_is_the_loop_and_the_library(n_steps):
    episode = TASKS(3)
    task = quadratic(episode.support_x, episode.support_y)
    loop = descend_by_loop(episode.support_x, episode.support_y, START, RATES, n_steps)
    assert torch.allclose(descend(task, START, RATES, n_steps=n_steps), loop, rtol=1e-12)
    problem, meta = on_library(MAML(), n_steps, task_lr=0.1)
    state = solve(problem, meta, posed(episode))
    assert torch.allclose(
        state["z.weight"][0],
        descend(task, START, torch.tensor(0.1).double(), n_steps=n_steps),
        rtol=1e-12,
    )


def test_long_descent_reaches_the_optimum():
    episode = TASKS(0)
    task = quadratic(episode.support_x, episode.support_y)
    rate = 1 / torch.linalg.eigvalsh(task.hessian)[-1]
    assert torch.allclose(descend(task, START, rate, n_steps=20000), task.optimum(), atol=1e-9)


@pytest.mark.parametrize("n_steps", [0, 1, 2, 5])
def test_meta_gradients_against_finite_differences(n_steps):
    episode = TASKS(7)
    value, by_start, by_rates = meta_gradient(episode, START, RATES, n_steps=n_steps)
    assert math.isclose(float(value), query_loss(episode, START, RATES, n_steps), rel_tol=1e-12)
    assert torch.allclose(
        by_start,
        central(lambda at: query_loss(episode, at, RATES, n_steps), START),
        rtol=1e-7,
        atol=1e-8,
    )
    assert torch.allclose(
        by_rates,
        central(lambda at: query_loss(episode, START, at, n_steps), RATES),
        rtol=1e-6,
        atol=1e-8,
    )


def test_the_first_order_gradient_fails_the_same_check():
    episode = TASKS(7)
    task = quadratic(episode.query_x, episode.query_y)
    support = quadratic(episode.support_x, episode.support_y)
    truncated = task.gradient(descend(support, START, RATES, n_steps=5))
    exact = central(lambda at: query_loss(episode, at, RATES, 5), START)
    assert not torch.allclose(truncated, exact, rtol=1e-1)
    problem, meta = on_library(MAML(), 5, task_lr=0.05)
    own = estimators.get("first_order")()(problem, meta, [posed(episode)])
    _, by_start, _ = meta_gradient(episode, START, torch.tensor(0.05).double(), n_steps=5)
    assert not torch.allclose(own.grads["anchor.weight"][0], by_start, rtol=1e-1)


@pytest.mark.parametrize("estimator", ["unrolled", "stepwise"])
def test_the_library_finds_the_meta_gradient_of_the_start(estimator):
    episodes = [TASKS(index) for index in range(3)]
    rate = torch.tensor(0.05, dtype=torch.float64)
    problem, meta = on_library(MAML(), 5, task_lr=0.05)
    found = estimators.get(estimator)()(problem, meta, list(map(posed, episodes)))
    expected = [meta_gradient(episode, START, rate, n_steps=5) for episode in episodes]
    assert torch.allclose(
        found.value, torch.stack([value for value, _, _ in expected]).mean(), rtol=1e-12
    )
    assert torch.allclose(
        found.grads["anchor.weight"][0],
        torch.stack([g for _, g, _ in expected]).mean(0),
        rtol=1e-10,
    )


def test_the_library_finds_the_meta_gradient_of_the_rates():
    episode = TASKS(2)
    problem, meta = on_library(MetaSGD(form="free"), 3, task_lr=1.0)
    [name] = [name for name in meta if name.startswith("geometry.")]
    found = estimators.get("unrolled")()(
        problem, {**meta, name: RATES[None]}, [posed(episode)]
    ).grads
    _, by_start, by_rates = meta_gradient(episode, START, RATES, n_steps=3)
    assert torch.allclose(found[name][0], by_rates, rtol=1e-10)
    assert torch.allclose(found["anchor.weight"][0], by_start, rtol=1e-10)


def test_one_common_rate_has_the_sum_of_the_derivatives():
    episode, rate = TASKS(5), torch.tensor(0.05, dtype=torch.float64)
    _, _, by_rates = meta_gradient(episode, START, rate, n_steps=4)
    numeric = central(lambda at: query_loss(episode, START, at[0], 4), rate[None])
    assert torch.allclose(by_rates.sum(), numeric[0], rtol=1e-7)


def test_the_best_start_is_stationary_and_the_best():
    episodes = [TASKS(index) for index in range(6)]
    rate = torch.tensor(0.05, dtype=torch.float64)
    best = best_start(episodes, rate, n_steps=3)

    def mean_loss(start: Tensor) -> float:
        return sum(query_loss(episode, start, rate, 3) for episode in episodes) / len(episodes)

    gradient = torch.stack(
        [meta_gradient(episode, best, rate, n_steps=3)[1] for episode in episodes]
    ).mean(0)
    assert gradient.abs().max() < 1e-12
    for e in torch.eye(D, dtype=torch.float64):
        assert min(mean_loss(best + 0.01 * e), mean_loss(best - 0.01 * e)) > mean_loss(best) + 1e-8
    elsewhere = torch.stack(
        [meta_gradient(episode, START, rate, n_steps=3)[1] for episode in episodes]
    ).mean(0)
    assert elsewhere.abs().max() > 1e-3


@pytest.mark.parametrize("stream", [LeastSquaresStream(seed=9), SinusoidStream(seed=9)])
def test_an_address_decides_a_task(stream):
    first, again, other = stream(3), stream(3), stream(4)
    names = ("support_x", "support_y", "query_x", "query_y")
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in names)
    assert not any(torch.equal(getattr(first, name), getattr(other, name)) for name in names)
    assert first.seed == again.seed != other.seed
    assert not torch.equal(first.support_x, first.query_x)
    assert not torch.equal(first.support_x, type(stream)(seed=10)(3).support_x)


def test_no_draw_touches_the_global_generator():
    before = torch.get_rng_state()
    LeastSquaresStream(seed=0)(0)
    SinusoidStream(seed=0)(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_size_of_the_query_set_leaves_the_support_alone():
    few, many = LeastSquaresStream(seed=0, n_query=2)(1), LeastSquaresStream(seed=0, n_query=30)(1)
    assert torch.equal(few.support_x, many.support_x)
    assert torch.equal(few.support_y, many.support_y)
    few, many = SinusoidStream(seed=0, n_query=2)(1), SinusoidStream(seed=0, n_query=30)(1)
    assert torch.equal(few.support_y, many.support_y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types(dtype):
    line = LeastSquaresStream(seed=0, n_features=3, n_support=5, n_query=7, dtype=dtype)(0)
    wave = SinusoidStream(seed=0, n_shot=5, n_query=7, dtype=dtype)(0)
    assert (line.support_x.shape, line.query_x.shape) == ((5, 3), (7, 3))
    assert (wave.support_x.shape, wave.query_x.shape) == ((5, 1), (7, 1))
    for episode in (line, wave):
        assert (episode.support_y.shape, episode.query_y.shape) == ((5, 1), (7, 1))
        assert {
            episode.support_x.dtype,
            episode.support_y.dtype,
            episode.query_x.dtype,
            episode.query_y.dtype,
        } == {dtype}


def test_sinusoids_are_what_the_paper_says():
    stream = SinusoidStream(seed=4, n_shot=10, n_query=10, dtype=torch.float64)
    waves = torch.tensor([stream.wave(index) for index in range(400)], dtype=torch.float64)
    for index in range(20):
        episode, (amplitude, phase) = stream(index), waves[index]
        assert torch.allclose(
            episode.support_y, amplitude * torch.sin(episode.support_x - phase), atol=1e-12
        )
        assert torch.allclose(
            episode.query_y, amplitude * torch.sin(episode.query_x - phase), atol=1e-12
        )
        assert episode.support_x.abs().max() <= 5
    # Uniform: the mean of 400 draws is within 4 standard errors of the middle (fails by chance once
    # in 16,000 seeds).
    for column, low, high in ((waves[:, 0], 0.1, 5.0), (waves[:, 1], 0.0, math.pi)):
        assert low <= column.min() < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < column.max() <= high
        assert abs(column.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 400)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeastSquaresStream(seed=0, n_support=0), "n_support must be at least 1"),
        (lambda: LeastSquaresStream(seed=0, n_features=0), "n_features must be at least 1"),
        (lambda: SinusoidStream(seed=0, n_query=0), "n_query must be at least 1"),
        (lambda: SinusoidStream(seed=0)(-1), "index must be a whole number >= 0"),
        (lambda: LeastSquaresStream(seed=0)(-1), "index must be a whole number >= 0"),
    ],
)
def test_wrong_sizes_are_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
