"""Evaluation: per-task scores against a serial loop of the public face, protocols, intervals,
pairing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mdtheory.core import seeding
from mdtheory.core.types import Episode
from mdtheory.meta.evaluate import Scores, estimate, evaluate, first_queries, paired
from tests.meta.fakes import FEATURES, N_WAY, Switch, blobs, learner


def test_scores_equal_a_loop_over_adapted_modules():
    one = learner(n_steps=3)
    (scores,) = evaluate(one, blobs, n_tasks=5)
    for index in range(5):
        task = blobs(index)
        outputs = one.adapt(task.support_x, task.support_y)(task.query_x)
        correct = (outputs.argmax(-1) == task.query_y).double().mean().item()
        assert scores.accuracy[index].item() == pytest.approx(correct, rel=1e-6)
        assert scores.loss[index].item() == pytest.approx(
            nn.functional.cross_entropy(outputs, task.query_y).item(), rel=1e-6
        )


def test_evaluation_takes_eval_steps():
    long, short = learner(n_steps=1, eval_steps=4), learner(n_steps=4)
    assert torch.equal(
        evaluate(long, blobs, n_tasks=3)[0].loss, evaluate(short, blobs, n_tasks=3)[0].loss
    )
    assert not torch.equal(
        evaluate(learner(n_steps=1), blobs, n_tasks=3)[0].loss,
        evaluate(short, blobs, n_tasks=3)[0].loss,
    )


@pytest.mark.parametrize("geometry", ["maml", "metasgd", "mtnet"])
@pytest.mark.parametrize("norm", ["transductive", "support", "running"])
def test_tasks_at_once_equal_one_after_the_other(geometry, norm):
    one = learner(geometry, network=Switch().double(), norm=norm)

    def stream(index: int) -> Episode:
        return blobs(index).to(dtype=torch.float64)

    loop = evaluate(one, stream, n_tasks=7, protocols=(2, 6), chunk=1)
    together = evaluate(one, stream, n_tasks=7, protocols=(2, 6), chunk=3)
    for a, b in zip(loop, together, strict=True):
        torch.testing.assert_close(a.loss, b.loss, rtol=1e-12, atol=1e-12)
        assert torch.equal(a.accuracy, b.accuracy)


def test_a_protocol_is_the_same_task_with_fewer_queries():
    """Two queries of the six equal a stream that draws two, to the bit."""
    one = learner()
    two, six = evaluate(one, blobs, n_tasks=4, protocols=(2, 6))

    def fewer(index: int) -> Episode:
        task = blobs(index)
        keep = torch.tensor([0, 1, 6, 7, 12, 13])
        return replace(task, query_x=task.query_x[keep], query_y=task.query_y[keep])

    assert torch.equal(evaluate(one, fewer, n_tasks=4)[0].loss, two.loss)
    assert torch.equal(evaluate(one, blobs, n_tasks=4)[0].loss, six.loss)
    assert not torch.equal(two.loss, six.loss)


def test_first_queries_of_mixed_labels_and_of_regression():
    x, y = torch.arange(6.0)[:, None], torch.tensor([1, 0, 1, 0, 1, 0])
    task = Episode(x, y, x, y)
    assert first_queries(task, 2).query_x.flatten().tolist() == [1.0, 3.0, 0.0, 2.0]
    assert first_queries(task, None) is task
    assert first_queries(Episode(x, x, x, x), 4).query_y.flatten().tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="n_query must be at most the 3"):
        first_queries(task, 4)


def test_first_queries_of_masks_are_items_and_of_binary_labels_of_each_class():
    """A mask's rows have all classes, so an item would be counted once for each."""
    x, masks = torch.arange(4.0)[:, None], torch.tensor([[0, 1]] * 4)
    assert first_queries(Episode(x, masks, x, masks), 2).query_x.flatten().tolist() == [0.0, 1.0]
    binary = torch.tensor([0.0, 0.0, 1.0, 1.0])
    loss = nn.functional.binary_cross_entropy_with_logits
    for labels in (binary, binary[:, None]):
        task = Episode(x, labels, x, labels)
        assert first_queries(task, 1, loss=loss).query_x.flatten().tolist() == [0.0, 2.0]
        assert first_queries(task, 1).query_x.flatten().tolist() == [0.0]


def test_a_constant_answer_is_half_right_on_binary_labels_by_every_protocol():
    def halves(index: int) -> Episode:
        x = torch.zeros(10, FEATURES)
        y = torch.tensor([0] * 5 + [1] * 5)[:, None]
        return Episode(x, y, x, y)

    loss = nn.functional.binary_cross_entropy_with_logits
    network = nn.Linear(FEATURES, 1)
    nn.init.constant_(network.bias, -5.0)
    one = learner(network=network, loss=loss, n_steps=0)
    for scores in evaluate(one, halves, n_tasks=2, protocols=(None, 3)):
        assert scores.accuracy.tolist() == [0.5, 0.5]


PROTOCOLS = [5, (), (0,), (-1,), (True,), "15"]
SIZES = [{"protocols": one} for one in PROTOCOLS] + [{"chunk": one} for one in (0, -2, 1.0)]


@pytest.mark.parametrize("bad", SIZES, ids=str)
def test_sizes_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be a (whole number|sequence)"):
        evaluate(learner(), blobs, n_tasks=2, **bad)


@pytest.mark.parametrize("part", ["support_x", "query_x"])
def test_a_task_that_ends_without_a_number_is_told_and_no_guess(part, caplog):
    def spoilt(index: int) -> Episode:
        task = blobs(index)
        lost = getattr(task, part) * math.nan
        return replace(task, **{part: lost}) if index == 2 else task

    (scores,) = evaluate(learner(), spoilt, n_tasks=4)
    assert scores.accuracy[2] == 0 and scores.loss[[0, 1, 3]].isfinite().all()
    assert "in 1 of 4 tasks, first in task 2" in caplog.text


def test_regression_has_a_loss_and_no_accuracy():
    def lines(index: int) -> Episode:
        x = torch.randn(8, FEATURES, generator=seeding.generator("line", index))
        y = x.sum(1, keepdim=True)
        return Episode(x[:3], y[:3], x[3:], y[3:])

    one = learner(network=nn.Linear(FEATURES, 1), loss=nn.functional.mse_loss)
    (scores,) = evaluate(one, lines, n_tasks=3)
    assert torch.isfinite(scores.loss).all()
    assert torch.isnan(scores.accuracy).all()


def test_estimate_is_the_textbook_interval():
    values = [0.2, 0.4, 0.4, 0.8]
    mean = sum(values) / 4
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / 3)
    found = estimate(torch.tensor(values))
    assert found.mean == pytest.approx(mean, rel=1e-6)
    assert found.half_width == pytest.approx(1.96 * sd / 2, rel=1e-6)
    assert found.n == 4
    with pytest.raises(ValueError, match=r"at least 2 tasks, one value each, got the shape \(1,\)"):
        estimate(torch.ones(1))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """2000 sets of 50 uniform values: a coverage outside 93%..96.5% has probability below 1e-3 at
    the nominal 94.4%.
    """
    values = torch.rand(2000, 50, generator=seeding.generator("coverage"), dtype=torch.float64)
    hits = sum(abs(e.mean - 0.5) <= e.half_width for e in map(estimate, values))
    assert 0.93 < hits / 2000 < 0.965


def test_paired_differences_are_narrower_and_need_the_same_tasks():
    common = torch.rand(100, generator=seeding.generator("paired"), dtype=torch.float64)
    first, second = Scores(15, common, common), Scores(15, common, common + 0.1)
    difference = paired(first, second)
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width < 1e-9 < first.estimate().half_width
    for other in (Scores(5, common, common), Scores(15, common[:50], common[:50])):
        with pytest.raises(ValueError, match="same tasks and protocol"):
            paired(first, other)


def test_the_first_600_are_a_prefix():
    accuracy = torch.rand(1000, generator=seeding.generator("prefix"), dtype=torch.float64)
    scores = Scores(15, accuracy, accuracy)
    assert scores.estimate(600) == estimate(accuracy[:600])
    assert scores.estimate().n == 1000


def test_modes_are_put_back_part_by_part():
    one = learner(network=Switch())
    one.train()
    one.network.norm.eval()
    evaluate(one, blobs, n_tasks=1)
    assert one.network.first.training
    assert not one.network.norm.training


def test_evaluation_leaves_no_trace_on_the_learner():
    one = learner("metasgd", network=Switch(), norm="running")
    before = {name: value.clone() for name, value in one.state_dict().items()}
    evaluate(one, blobs, n_tasks=2)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert all(parameter.grad is None for parameter in one.parameters())


def test_it_stops_when_asked_and_tells_progress():
    done: list[int] = []
    assert (
        evaluate(learner(), blobs, n_tasks=9, stopping=lambda: len(done) == 3, progress=done.append)
        is None
    )
    assert done == [1, 2, 3]
    with pytest.raises(ValueError, match="n_tasks must be a whole number of at least 1, got 0"):
        evaluate(learner(), blobs, n_tasks=0)


def test_labels_do_not_leak():
    """Negative control: with the support labels shuffled, trained accuracy falls to chance."""
    one = learner(n_steps=5, task_lr=0.5)

    def shuffled(index: int) -> Episode:
        task = blobs(index)
        order = torch.randperm(N_WAY, generator=seeding.generator("shuffle", index))
        return replace(task, support_y=order)

    honest, wrong = (
        evaluate(one, blobs, n_tasks=60)[0].estimate(),
        evaluate(one, shuffled, n_tasks=60)[0].estimate(),
    )
    assert honest.mean > 0.7
    assert abs(wrong.mean - 1 / N_WAY) < 0.15
