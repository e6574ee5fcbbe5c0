"""The same work for all: weights, tasks, network, and how many operations it needs."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.case import Size, Work, episode, episodes, first_weights
from experiments.benchmarks.correctness import SMALL
from experiments.benchmarks.implementations import kind
from experiments.benchmarks.lower_bound import best_throughput, convolution_flops
from experiments.benchmarks.network import Conv4
from mdtheory.models import models


def test_tasks_and_weights_follow_from_the_size_alone():
    state = torch.random.get_rng_state()
    for one, other in zip(
        episodes(SMALL, torch.float32), episodes(SMALL, torch.float32), strict=True
    ):
        assert torch.equal(one.support_x, other.support_x) and torch.equal(
            one.query_x, other.query_x
        )
    weights = first_weights(SMALL, torch.float64)
    assert all(
        torch.equal(value, first_weights(SMALL, torch.float64)[name])
        for name, value in weights.items()
    )
    assert not torch.equal(
        episode(SMALL, 0, torch.float32).query_x, episode(SMALL, 1, torch.float32).query_x
    )
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_task_s_shapes_and_range():
    task = episode(Size(shot=2, image_size=16, n_query=3), 0, torch.float32)
    assert task.support_x.shape == (10, 3, 16, 16) and task.query_x.shape == (15, 3, 16, 16)
    assert task.query_y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert task.support_x.min() >= 0 and task.support_x.max() <= 1


def test_the_network_of_the_others_is_ours():
    weights = first_weights(SMALL, torch.float64)
    ours = models.get("conv4")(
        in_channels=3, image_size=SMALL.image_size, n_way=SMALL.n_way, channels=SMALL.channels
    ).double()
    ours.load_state_dict({**ours.state_dict(), **weights})
    x = episode(SMALL, 0, torch.float64).query_x
    torch.testing.assert_close(Conv4(SMALL, weights)(x), ours(x), rtol=1e-12, atol=1e-12)


def test_operations_of_the_query_pass_are_those_that_torch_counts():
    size = SMALL.model_copy(update={"n_steps": 0})
    work = Work(implementation="plain", size=size)
    plain = kind("plain")(work, first_weights(size, work.dtype))
    with FlopCounterMode(display=False) as counter:
        plain.meta_gradient(episodes(size, work.dtype))
    counted = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op)
    )
    assert convolution_flops(size) == counted


def test_operations_are_linear_in_the_steps_and_no_more_than_the_plain_loop_s():
    sizes = [SMALL.model_copy(update={"n_steps": k}) for k in range(3)]
    one, two, three = (convolution_flops(size) for size in sizes)
    assert two - one == three - two > 0
    work = Work(implementation="plain", size=sizes[2])
    with FlopCounterMode(display=False) as counter:
        kind("plain")(work, first_weights(sizes[2], work.dtype)).meta_gradient(
            episodes(sizes[2], work.dtype)
        )
    counted = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op)
    )
    assert 0.7 * counted < three <= counted


def test_a_throughput_is_positive_in_both_precisions():
    assert all(
        best_throughput(SMALL, precision, seconds=0.005) > 0 for precision in ("float32", "bf16")
    )
