"""What went wrong with people's modules once, each with its number: the right value or a refusal.

The truth is a loop written by hand on the module itself (``sweep.descended``), or central
differences of it.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy

from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.inner.task import accuracy, binary_accuracy
from mdtheory.meta.evaluate import evaluate
from tests.models.user import sweep, zoo
from tests.models.user.rows import draw, flat, learner_of, network, task


class TestModes:
    """Row 1 and 6."""

    def folding(self):
        torch.manual_seed(1)
        model = zoo.Net(zoo._Folding()).double()
        with torch.no_grad():
            model.layer.up.normal_()
        return model

    def test_evaluation_leaves_a_folding_layer_as_it_was_and_adapts_what_training_adapts(self):
        learner, one = learner_of(self.folding()), task()
        before = learner.meta_gradient(one)
        (scores,) = evaluate(learner, lambda i: one, n_tasks=1)
        truth = sweep.truth(self.folding, one, cross_entropy, "adapt", False)
        assert float(scores.loss) == pytest.approx(truth, rel=1e-9)
        assert float(before.value) == pytest.approx(truth, rel=1e-9)
        after = learner.meta_gradient(one)
        assert torch.equal(flat(before.grads), flat(after.grads))
        assert float(after.grads["anchor.layer.up"].abs().max()) > 1e-3

    def test_an_ordinary_override_of_train_is_still_called(self):
        class Freezing(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
                self.inner = nn.Sequential(nn.Identity())

            def train(self, mode=True):
                super().train(mode)
                self.inner.eval()
                return self

            def forward(self, x):
                return self.head(self.body(x))

        learner = learner_of(Freezing())
        learner.train()
        assert learner.network.training and not learner.network.inner.training

    def test_every_mode_is_probed(self):
        model = zoo.Doing(lambda m, h: F.dropout(h, 0.5, training=m.training)).double().eval()
        learner = learner_of(model)
        learner.adapt(task().support_x, task().support_y)
        learner.meta_gradient(task())
        learner.train()
        with pytest.raises(ValueError, match="draws from the global random generator"):
            learner.meta_gradient(task())
        learner.eval().meta_gradient(task())

    def test_a_probability_that_is_raised_later_is_noticed(self):
        model = zoo.Net(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0))).double()
        learner = learner_of(model)
        learner.meta_gradient(task())
        learner.network.layer[1].p = 0.5
        with pytest.raises(
            ValueError, match=r"random generator in submodule 'layer.1' \(Dropout\)"
        ):
            learner.meta_gradient(task())


class TestAccuracy:
    """Row 3."""

    def test_masks(self):
        outputs = draw(2, 3, 5, 4)
        targets = outputs.argmax(1)
        assert float(accuracy(outputs, targets)) == 1.0
        targets[0, 0, :2] = (targets[0, 0, :2] + 1) % 3
        assert float(accuracy(outputs, targets)) == pytest.approx(1 - 2 / 40)

    def test_segmentation_trains(self):
        model = nn.Conv2d(2, 3, 3, padding=1).double()
        x, y = draw(4, 2, 3, 3), torch.randint(0, 3, (4, 3, 3))
        one = Episode(x, y, x, y)
        found = learner_of(model).meta_gradient(one)
        expected = sweep.truth(lambda: copy.deepcopy(model), one, cross_entropy, "unrolled", False)
        way = sweep.directions(model)
        total = sum(float((found.grads[f"anchor.{n}"] * v).sum()) for n, v in way.items())
        assert total == pytest.approx(expected, rel=1e-6)
        assert 0 <= float(found.stats["query_accuracy"]) <= 1

    def test_ignored_items_do_not_count(self):
        outputs = torch.eye(3).double()[[0, 1, 2, 0, 1, 2, 0, 1]]
        targets = torch.tensor([0, 1, 2, 0, 1, -100, -100, -100])
        assert float(accuracy(outputs, targets)) == 1.0
        assert float(accuracy(outputs, torch.tensor([0, 1, 2, 0, 1, 2, 2, 255]))) == 6 / 7
        assert (
            float(accuracy(outputs, torch.tensor([0, 1, 2, 0, 0, 0, 0, 0]), ignore_index=0)) == 1.0
        )

    @pytest.mark.parametrize("shape", [(8, 1), (8,), (8, 3), (8, 3, 1)])
    def test_what_are_no_classes_is_nan(self, shape):
        outputs, targets = draw(8, 1), torch.zeros(shape, dtype=torch.int64)
        assert bool(accuracy(outputs, targets).isnan())
        assert bool(accuracy(draw(8, 3), torch.zeros(8, 1, dtype=torch.int64)).isnan())

    def test_a_loss_that_leaves_out_a_class_says_so(self):
        y = torch.tensor([0, 1, 2, 0, 1, 2])
        one = Episode(draw(6, 4), y, draw(6, 4, seed=1), y)
        for loss in (partial(cross_entropy, ignore_index=0), nn.CrossEntropyLoss(ignore_index=0)):
            stats = learner_of(network(), loss=loss).meta_gradient(one).stats
            assert float(4 * stats["query_accuracy"]) % 1 == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize(
        "loss",
        [
            F.binary_cross_entropy_with_logits,
            partial(F.binary_cross_entropy_with_logits, reduction="mean"),
            nn.BCEWithLogitsLoss(),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float64])
    def test_one_logit_is_judged_by_its_sign(self, loss, dtype):
        torch.manual_seed(0)
        model, x = nn.Linear(4, 1).double(), draw(6, 4)
        y = (x[:, :1] > 0).to(dtype)
        learner = learner_of(model, loss=loss)
        result = learner.meta_gradient(Episode(x, y, x, y))
        assert torch.equal(
            flat(result.grads),
            flat(learner.meta_gradient(Episode(x, y.double(), x, y.double())).grads),
        )
        adapted = learner.adapt(x, y)
        each = [float(o > 0) == float(t) for o, t in zip(adapted(x), y, strict=True)]
        assert float(result.stats["query_accuracy"]) == pytest.approx(sum(each) / 6)
        assert sum(each) > 0
        (scores,) = evaluate(learner, lambda i: Episode(x, y, x, y), n_tasks=1)
        assert float(scores.accuracy) == pytest.approx(sum(each) / 6)

    def test_several_labels_soft_ones_and_other_shapes(self):
        logits = torch.tensor([[1.0, -1.0], [2.0, 0.5], [-0.1, 0.0]])
        labels = torch.tensor([[1.0, 0.0], [0.0, 0.3], [0.0, 0.0]])
        assert float(binary_accuracy(logits, labels)) == pytest.approx(4 / 5)
        assert bool(binary_accuracy(logits, labels[:, 0]).isnan())
        assert bool(binary_accuracy(logits, labels + 0.5).isnan())

    def test_a_row_of_labels_against_a_column_of_logits_is_one_sentence(self):
        model, x, y = nn.Linear(4, 1).double(), draw(6, 4), torch.arange(6) % 2
        with pytest.raises(ValueError, match=r"shape of the outputs, for instance y\[:"):
            learner_of(model, loss=nn.BCEWithLogitsLoss()).meta_gradient(Episode(x, y, x, y))

    def test_a_loss_of_ones_own_says_nothing_about_its_threshold(self):
        model, x = nn.Linear(4, 1).double(), draw(6, 4)
        y = (torch.arange(6) % 2)[:, None]
        learner = learner_of(
            model, loss=lambda o, t: F.binary_cross_entropy(o.sigmoid(), t.double())
        )
        stats = learner.meta_gradient(Episode(x, y, x, y)).stats
        assert bool(stats["query_accuracy"].isnan())


class TestTypes:
    """Row 4 and 13."""

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float64])
    def test_half_of_mtnets_units_move_whatever_the_inputs_are(self, dtype):
        model = zoo.Last(nn.Embedding(7, 4)).double()
        learner = learner_of(model, "mtnet")
        y = torch.zeros(4, dtype=torch.int64)
        shares = []
        for seed in range(200):
            one = Episode(torch.zeros(4, 5).to(dtype), y, torch.zeros(4, 5).to(dtype), y, seed)
            noise = learner.problem().noise(learner.meta(), learner.task(one))
            start = learner.problem().start(learner.meta(), noise)
            shares += [
                v.detach().double().mean() for n, v in start.items() if n.startswith("mask.")
            ]
        assert float(torch.stack(shares).mean()) == pytest.approx(0.5, abs=0.05)

    @pytest.mark.parametrize("slug", geometries.names())
    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_short_body_before_a_long_head(self, slug, frozen):
        class Mixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 4).to(torch.bfloat16).requires_grad_(not frozen)
                self.head = nn.Linear(4, 3)

            def forward(self, x):
                return self.head(torch.tanh(self.body(x.to(torch.bfloat16))).float())

        torch.manual_seed(0)
        if not frozen and slug in ("certified", "potential"):
            with pytest.raises(ValueError, match="must be of one type for"):
                learner_of(Mixed(), slug)
            return
        geometry = geometries.get(slug)(after=("body",)) if slug == "warpgrad" else slug
        learner = learner_of(Mixed(), geometry)
        one = task(dtype=torch.float32)
        result = learner.backward(one)
        own = dict(learner.network.named_parameters())
        for name, gradient in result.grads.items():
            assert bool(torch.isfinite(gradient).all()), name
            if name.startswith("anchor."):
                assert gradient.dtype == own[name.removeprefix("anchor.")].dtype
            elif frozen and name.startswith("geometry."):
                assert gradient.dtype == torch.float32, name
        adapted = learner.adapt(one.support_x, one.support_y)
        assert {n: p.dtype for n, p in adapted.network.named_parameters()} == {
            n: p.dtype for n, p in own.items()
        }

    def test_a_float64_task_in_a_float32_model(self):
        torch.manual_seed(0)
        model, one = zoo.Net(nn.Linear(4, 4)), task()
        found = flat(learner_of(model).meta_gradient(one).grads)
        expected = flat(learner_of(model).meta_gradient(one.to(dtype=torch.float32)).grads)
        assert torch.equal(found, expected)
        learner_of(model).adapt(one.support_x, one.support_y)(one.query_x)

    def test_whole_numbers_of_any_kind_are_labels(self):
        one = task()
        expected = flat(learner_of(network()).meta_gradient(one).grads)
        for kind in (torch.int32, torch.uint8, torch.int16):
            other = Episode(
                one.support_x, one.support_y.to(kind), one.query_x, one.query_y.to(kind)
            )
            assert torch.equal(flat(learner_of(network()).meta_gradient(other).grads), expected)

    def test_byte_images_are_one_sentence(self):
        model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
        x = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
        with pytest.raises(
            ValueError, match=r"give floating inputs, for instance x.float\(\) / 255"
        ):
            learner_of(model).meta_gradient(Episode(x, task().support_y, x, task().support_y))

    def test_an_empty_parameter(self):
        class Empty(zoo.Net):
            def __init__(self):
                super().__init__(nn.Linear(4, 4))
                self.none = nn.Parameter(torch.zeros(0))

        for slug in geometries.names():
            result = learner_of(Empty().double(), slug).backward(task())
            assert result.grads["shared.none"].shape == (0,)

    def test_the_state_dict_of_an_untracked_batch_norm_loads(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
        learner = learner_of(model)
        assert learner.network.load_state_dict(model.state_dict())
        assert model.load_state_dict(learner.network.state_dict())
