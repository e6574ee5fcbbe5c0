"""The judge of all meta-gradients, judged: on gradients that are known, and on wrong ones."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks import correctness
from experiments.benchmarks.case import Size, Work, episodes, first_weights
from experiments.benchmarks.correctness import (
    KNOWN_TO_PLAIN,
    SMALL,
    distance,
    plain_by_steps,
    slope,
    slopes,
    truth_error,
)
from experiments.benchmarks.implementations import gradients, kind


def small(
    implementation: str = "plain", method: str = "maml", estimator: str | None = None
) -> Work:
    return Work(
        implementation=implementation,
        method=method,
        estimator=estimator,
        precision="float64",
        size=SMALL,
    )


def gradient(work: Work) -> dict[str, torch.Tensor]:
    made = kind(work.implementation)(work, first_weights(work.size, work.dtype))
    return made.meta_gradient(episodes(work.size, work.dtype))


def test_slopes_are_those_of_a_known_gradient():
    x = {
        "a": torch.tensor([1.0, 2.0], dtype=torch.float64),
        "b": torch.tensor([[0.5]], dtype=torch.float64),
    }
    before = {name: value.clone() for name, value in x.items()}

    def objective() -> float:
        return float((x["a"] ** 3).sum() + x["a"][0] * x["b"].sum().exp())

    known = {
        "a": 3 * x["a"] ** 2 + torch.tensor([x["b"].exp().item(), 0.0]),
        "b": x["a"][0] * x["b"].exp(),
    }
    found = slopes(objective, x)
    assert len(found) == correctness.DIRECTIONS
    for direction, value in found:
        assert value == pytest.approx(
            sum(float((known[name] * u).sum()) for name, u in direction.items()), rel=1e-8
        )
        assert value != pytest.approx(
            sum(float((known[name] * u).sum()) for name, u in direction.items() if name == "a"),
            rel=1e-3,
        )
    assert all(torch.equal(x[name], before[name]) for name in x)


def test_directions_across_a_jump_are_dropped():
    x = {"a": torch.tensor([0.0], dtype=torch.float64)}
    with pytest.raises(correctness.Kinks, match="0 smooth"):
        slopes(lambda: float(x["a"] >= 0), x)


def test_values_are_put_back_when_the_objective_fails():
    x = {"a": torch.tensor([3.0], dtype=torch.float64)}
    calls = []

    def objective() -> float:
        calls.append(float(x["a"]))
        if len(calls) == 1:
            raise ArithmeticError("no value here")
        return 0.0

    with pytest.raises(ArithmeticError, match="no value"):
        slope(objective, x, {"a": torch.ones(1, dtype=torch.float64)}, 0.5)
    assert float(x["a"]) == 3.0


@pytest.mark.parametrize("method", KNOWN_TO_PLAIN)
def test_the_plain_loop_is_right_and_its_truncation_is_not(method):
    work = small(method=method)
    right = gradient(work)
    assert truth_error(work, right) < 1e-7
    tasks, made = episodes(SMALL, work.dtype), kind("plain")(work, first_weights(SMALL, work.dtype))
    for task in tasks:
        (made.loss(made.weights, task.query_x, task.query_y) / len(tasks)).backward()
    assert truth_error(work, gradients(made.weights)) > 1e-2
    assert (
        truth_error(
            work, {name: value for name, value in right.items() if name != "blocks.3.norm.bias"}
        )
        > 1e-3
    )


@pytest.mark.parametrize("method", KNOWN_TO_PLAIN)
def test_the_reference_by_steps_is_the_unrolled_loop(method):
    work = small(method=method)
    found = plain_by_steps(work, episodes(SMALL, work.dtype))
    assert distance(found, gradient(work)) < 1e-12
    other = work.model_copy(update={"size": SMALL.model_copy(update={"n_steps": 1})})
    assert distance(plain_by_steps(other, episodes(SMALL, work.dtype)), gradient(work)) > 1e-3


@pytest.mark.parametrize("method", ["maml", "metasgd", "metacurvature", "metamida", "potential"])
def test_ours_is_right(method):
    work = small("ours", method, "unrolled")
    found = gradient(work)
    assert truth_error(work, found) < 1e-7
    assert truth_error(work, {name: 1.001 * value for name, value in found.items()}) > 5e-4


@pytest.mark.parametrize("name", ["higher", "torchopt"])
def test_the_other_libraries_are_right(name):
    pytest.importorskip(name, reason=f"{name} comes with mdtheory[bench]")
    assert distance(gradient(small(name)), gradient(small())) < 1e-12


def test_the_distance_counts_what_is_missing():
    reference = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert distance({"a": torch.tensor([3.0])}, reference) == pytest.approx(0.8)
    assert (
        distance(
            {"a": torch.tensor([3.0]), "b": torch.tensor([4.0]), "c": torch.ones(1)}, reference
        )
        == 0.0
    )


def test_the_small_problem_has_every_kind_of_layer():
    assert Size(**SMALL.model_dump()).image_size // 16 >= 1
    assert SMALL.n_steps >= 2 and SMALL.n_tasks >= 2
