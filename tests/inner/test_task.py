"""A task as two functions, the share of right answers, and plain descent, each against plain torch
or by hand.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mdtheory import FunctionTask, descend
from mdtheory.geometry import Geometry, MetaSGD
from mdtheory.inner.task import accuracy, binary_accuracy, ignored
from mdtheory.maps import Identity

NAN, OUTPUTS = float("nan"), torch.eye(3).repeat(2, 1)  # the largest outputs: 0, 1, 2, 0, 1, 2


def test_a_function_task_is_judged_by_its_second_function_at_both_arguments():
    task = FunctionTask(lambda phi, theta: phi.sum() - theta, lambda phi, theta: phi.sum() * theta)
    meta, weights = {"shared.theta": torch.tensor(5.0)}, {"phi": torch.tensor([1.0, 2.0])}
    assert task.task_loss(meta, weights) == -2 and task.query_loss(meta, weights) == 15
    loss, share = task.score(meta, weights)
    assert loss == 15 and share.isnan()


def test_a_function_task_without_a_second_function_is_judged_by_its_first():
    task = FunctionTask(lambda phi: phi.square().sum())
    assert task.query_loss({}, {"phi": torch.tensor([3.0])}) == 9


@pytest.mark.parametrize(
    ("targets", "left_out", "share"),
    [
        ([0, 1, 2, 0, 1, 0], None, 5 / 6),
        ([0, 1, 2, 0, 1, -100], None, 1),  # no class: not counted
        ([0, 1, 2, 0, 1, -1], None, 1),
        ([0, 1, 2, 0, 1, 3], None, 1),
        ([0, 0, 2, 0, 2, 2], 2, 2 / 3),
        ([7, 7, 7, 7, 7, 7], None, NAN),
    ],
)
def test_accuracy_counts_what_is_a_class_and_not_left_out(targets, left_out, share):
    found = accuracy(OUTPUTS, torch.tensor(targets), ignore_index=left_out)
    assert found.item() == pytest.approx(share, nan_ok=True)


def test_outputs_that_are_no_numbers_are_wrong():
    """To torch the largest of three NaNs is the first: a lost task would be a guess."""
    broken = OUTPUTS.clone()
    broken[[0, 3]] = NAN
    assert accuracy(broken, torch.tensor([0, 1, 2, 0, 1, 2])).item() == pytest.approx(4 / 6)
    logits = torch.tensor([NAN, NAN, 1.0, -1.0])
    assert binary_accuracy(logits, torch.tensor([0.0, 1.0, 1.0, 0.0])).item() == 0.5


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_share_is_not_rounded_to_a_short_type(kind):
    share, exact = accuracy(torch.eye(3)[[0, 0, 1]].to(kind), torch.arange(3)), torch.tensor(1 / 3)
    binary = binary_accuracy(torch.tensor([1, 1, -1]).to(kind), torch.tensor([1.0, 0.0, 1.0]))
    for found in (share, binary):
        assert found.float() == exact
        assert found.dtype == torch.promote_types(kind, torch.float32)


@pytest.mark.parametrize(
    ("loss", "index"),
    [
        (nn.CrossEntropyLoss(ignore_index=4), 4),
        (partial(F.cross_entropy, ignore_index=5), 5),
        (partial(F.cross_entropy, label_smoothing=0.1), None),
        (F.cross_entropy, None),
    ],
)
def test_the_class_that_a_loss_leaves_out(loss, index):
    assert ignored(loss) == index


def test_descent_by_the_name_of_a_geometry_and_with_parameters():
    start = torch.tensor([4.0, -2.0], dtype=torch.float64)
    named = descend(lambda x: 0.5 * x.square().sum(), start, geometry="prior", n_steps=3, task_lr=1)
    precision = start.new_ones(())
    by_hand = [start]
    for _ in range(3):
        last = by_hand[-1]
        by_hand.append(last - last - precision * (last - start))
    assert torch.equal(named, torch.stack(by_hand))
    rates = MetaSGD()
    rates.build({"phi": start})
    with torch.no_grad():
        for value in rates.parameters():
            value.copy_(torch.tensor([0.5, 0.25]).log())
    learned = descend(lambda x: 0.5 * x.square().sum(), start, geometry=rates, n_steps=2, task_lr=1)
    halves = torch.tensor([[4, -2], [2, -1.5], [1, -1.125]], dtype=torch.float64)
    assert torch.allclose(learned, halves)


def test_the_identity_is_curved_by_one():
    assert Identity().curvature({}) == (1.0, 1.0)
    moved = descend(
        lambda x: x.sum(), torch.zeros(2), geometry=Geometry(map=Identity()), n_steps=1, task_lr=1.0
    )
    assert moved.tolist() == [[0, 0], [-1, -1]]
