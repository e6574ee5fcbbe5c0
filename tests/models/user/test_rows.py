"""What went wrong with people's modules once, each with its number: the right value or a refusal.

The truth is a loop written by hand on the module itself (``sweep.descended``), or central
differences of it.
"""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.inner.task import accuracy
from mdtheory.meta import MetaLearner
from mdtheory.meta.evaluate import evaluate
from tests.models.user import sweep, zoo

N, WAYS = 6, 3


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def task(seed=0, n_query=N, dtype=torch.float64):
    labels = torch.arange(N) % WAYS
    return Episode(
        draw(N, zoo.W, seed=seed, dtype=dtype),
        labels,
        draw(n_query, zoo.W, seed=seed + 100, dtype=dtype),
        torch.arange(n_query) % WAYS,
        seed,
    )


def network(**kwargs):
    torch.manual_seed(3)
    return zoo.Net(nn.Linear(zoo.W, zoo.W), **kwargs).double()


def learner_of(model, geometry="maml", **options):
    return MetaLearner(model, geometry, **{"n_steps": 2, "task_lr": 0.1, **options})


def flat(grads):
    return torch.cat([g.reshape(-1) for _, g in sorted(grads.items())])


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


class TestForms:
    """Row 13: what a task may look like."""

    def test_one_a_generator_a_tuple_arrays(self):
        one, learner = task(), learner_of(network())
        expected = flat(learner.meta_gradient([one]).grads)
        four = (one.support_x, one.support_y, one.query_x, one.query_y)
        for given in (
            one,
            (one,),
            (e for e in [one]),
            four,
            [four],
            tuple(part.numpy() for part in four),
            Episode(*(part.numpy() for part in four)),
            Episode(*(part.tolist() for part in four)),
        ):
            assert torch.equal(flat(learner.meta_gradient(given).grads), expected)
        adapted = learner.adapt(four[0].numpy(), four[1].numpy())
        assert torch.equal(adapted(four[2].numpy()), learner.adapt(*four[:2])(four[2]))

    @pytest.mark.parametrize("given", ["episode", 3, {"x": 1}, [torch.zeros(3)], [None]])
    def test_anything_else_is_one_sentence(self, given):
        with pytest.raises(ValueError, match="Episode"):
            learner_of(network()).meta_gradient(given)

    def test_several_inputs_by_name_in_the_loop_batched_and_with_joint_statistics(self):
        torch.manual_seed(0)
        model = zoo._TwoInputs().double()
        y = task().support_y

        def inputs(seed):
            return {"x": draw(N, 4, seed=seed), "z": draw(N, 4, seed=seed + 1)}

        tasks = [Episode(inputs(s), y, inputs(s + 2), y) for s in (0, 10)]
        learner = learner_of(model)
        loop = flat(learner.meta_gradient(tasks).grads)
        learner.estimator.batched = True
        assert float((flat(learner.meta_gradient(tasks).grads) - loop).abs().max()) < 1e-12
        adapted = learner.adapt(inputs(0), y)
        named = inputs(5)
        assert torch.equal(adapted(named), adapted(**named))
        assert torch.equal(adapted(named), adapted(named["x"], named["z"]))
        support = learner_of(model, norm="support").adapt(inputs(0), y)
        assert torch.allclose(support(**named), adapted(**named))

    def test_unequal_numbers_of_queries_batched(self):
        tasks, learner = [task(0), task(1, n_query=4)], learner_of(network())
        loop = flat(learner.meta_gradient(tasks).grads)
        learner.estimator.batched = True
        assert torch.equal(flat(learner.meta_gradient(tasks).grads), loop)
        one = evaluate(learner, lambda i: tasks[i], n_tasks=2)
        two = evaluate(learner, lambda i: tasks[i], n_tasks=2, chunk=2)
        assert torch.equal(one[0].loss, two[0].loss)

    def test_recurrent_layers_batched_are_looped_over(self, caplog):
        torch.manual_seed(0)
        model = zoo.Last(nn.LSTM(4, 4, batch_first=True)).double()
        y = task().support_y
        tasks = [Episode(draw(N, 5, 4, seed=s), y, draw(N, 5, 4, seed=s + 1), y) for s in (0, 10)]
        loop = flat(learner_of(model).meta_gradient(tasks).grads)
        learner = learner_of(model)
        learner.estimator.batched = True
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert torch.equal(flat(learner.meta_gradient(tasks).grads), loop)
        assert sum("cannot be batched" in line for line in caplog.messages) == 1

    def test_inference_mode_and_no_grad(self):
        one = task()
        expected = flat(learner_of(network()).meta_gradient(one).grads)
        with torch.inference_mode():
            learner, inside = learner_of(network()), task()
            assert torch.equal(flat(learner.backward(inside).grads), expected)
            learner.adapt(inside.support_x, inside.support_y)(inside.query_x)
            evaluate(learner, lambda i: inside, n_tasks=1)
        with torch.no_grad():
            assert torch.equal(flat(learner_of(network()).meta_gradient(one).grads), expected)


class TestSilence:
    """Row 11."""

    def test_empty_sets(self):
        one = task()
        nothing = one.support_x[:0], one.support_y[:0]
        for given in (
            Episode(one.support_x, one.support_y, *nothing),
            Episode(*nothing, one.query_x, one.query_y),
        ):
            with pytest.raises(ValueError, match="must hold the same number >= 1 of items"):
                learner_of(network()).meta_gradient(given)
        with pytest.raises(ValueError, match="query_x and query_y must hold"):
            evaluate(learner_of(network()), lambda i: Episode(
                one.support_x, one.support_y, *nothing), n_tasks=1)  # fmt: skip

    @pytest.mark.parametrize("loss", [mse_loss, lambda o, t: (o - t).square().mean(), F.l1_loss])
    def test_targets_that_the_loss_would_broadcast(self, loss):
        model = zoo.Net(nn.Linear(4, 4)).double()
        model.head = nn.Linear(4, 1).double()
        x, y = draw(N, 4), draw(N, seed=5)
        with pytest.raises(ValueError, match=r"compared item by item.* y\[:, None\]"):
            learner_of(model, loss=loss).meta_gradient(Episode(x, y, x, y))
        learner_of(model, loss=loss).meta_gradient(Episode(x, y[:, None], x, y[:, None]))
        learner_of(model, loss=lambda o, t: loss(o[:, 0], t)).meta_gradient(Episode(x, y, x, y))
        learner_of(model, loss=lambda o, t: loss(o.squeeze(-1), t)).meta_gradient(
            Episode(x, y, x, y)
        )

    def test_two_outputs_for_two_items_are_not_two_targets(self):
        torch.manual_seed(0)
        model, x, y = nn.Linear(4, 2).double(), draw(2, 4), draw(2, seed=5)
        with pytest.raises(ValueError, match="compared item by item"):
            learner_of(model, loss=lambda o, t: (o - t).square().mean()).meta_gradient(
                Episode(x, y, x, y)
            )

        def heteroscedastic(o, t):
            return ((o[:, 0] - t).square() * (-o[:, 1]).exp() + o[:, 1]).mean()

        learner_of(model, loss=heteroscedastic).meta_gradient(Episode(x, y, x, y))

    def test_a_cross_entropy_over_one_class(self):
        x, y = draw(N, 4), draw(N, 1)
        with pytest.raises(ValueError, match="at least 2 classes"):
            learner_of(nn.Linear(4, 1).double()).meta_gradient(Episode(x, y, x, y))

    def test_labels_out_of_range_in_any_task(self):
        one = task()
        learner = learner_of(network())
        wrong = Episode(one.support_x, one.support_y + 1, one.query_x, one.query_y)
        with pytest.raises(ValueError, match=r"int64 from 1 to 3; class labels"):
            learner.meta_gradient(wrong)
        late = Episode(one.support_x, one.support_y, one.query_x, one.query_y + 1)
        with pytest.raises(ValueError, match=r"task 1, query set: .* from 1 to 3"):
            learner.meta_gradient([one, late])

    def test_a_loss_with_a_parameter_of_its_own_is_said(self, caplog):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.log_scale = nn.Parameter(torch.zeros(()))

            def forward(self, outputs, targets):
                return cross_entropy(outputs * self.log_scale.exp(), targets)

        with caplog.at_level(logging.WARNING):
            learner = learner_of(network(), loss=Scaled())
            learner.meta_gradient(task())
            learner.meta_gradient(task())
        assert sum("the loss has trainable tensors" in line for line in caplog.messages) == 1

    def test_what_is_unfrozen_later_is_said(self, caplog):
        model = network()
        model.layer.requires_grad_(False)
        learner = learner_of(model)
        learner.network.layer.requires_grad_(True)
        with caplog.at_level(logging.WARNING):
            result = learner.meta_gradient(task())
        assert "shared.layer.weight" in result.grads
        assert any("'layer.weight' was frozen when" in line for line in caplog.messages)

    def test_what_reaches_no_output_is_said(self, caplog):
        model = network()
        model.spare = nn.Linear(4, 4).double()
        with caplog.at_level(logging.WARNING):
            learner_of(model).meta_gradient(task())
        assert any("no gradient reaches 'spare.weight'" in line for line in caplog.messages)

    def test_a_pattern_meets_a_tied_weight_under_any_of_its_names(self):
        model = zoo._GPT().double()
        learner = learner_of(model, adapt="head.*")
        assert [n for n in learner.meta() if n.startswith("anchor.")] == ["anchor.wte.weight"]

    def test_running_statistics_in_the_ordinary_loop(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
        learner, told = (learner_of(model, norm="running") for _ in range(2))
        tasks = [task(s) for s in range(20)]
        for one in tasks:
            learner.backward(one)
            told.update_statistics([one])
        assert torch.equal(learner.network[1].running_mean, told.network[1].running_mean)
        near, far = (
            evaluate(each, lambda i: tasks[i], n_tasks=5)[0].loss.mean()
            for each in (learner, learner_of(model, norm="running"))
        )
        assert abs(float(near) - float(far)) > 1e-3


class TestTools:
    """Row 7 and 8, and what hangs on ``.grad``."""

    def test_hooks_run(self):
        learner, seen = learner_of(network()), []
        weight = learner.network.head.weight
        weight.register_hook(lambda g: 0 * g)
        weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.norm()))
        learner.backward(task())
        assert len(seen) == 1 and float(weight.grad.norm()) == 0
        assert float(learner.network.head.bias.grad.norm()) > 0

    def test_a_scaler_takes_the_step_that_no_scaler_takes(self):
        moved = []
        for scaled in (False, True):
            torch.manual_seed(0)
            learner = learner_of(zoo.Net(nn.Linear(4, 4)))
            optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
            one = task(dtype=torch.float32)
            if scaled:
                scaler = torch.amp.GradScaler("cpu")
                learner.backward(one, scale=scaler)
                scaler.step(optimizer)
                scaler.update()
            else:
                learner.backward(one)
                optimizer.step()
            moved.append(learner.network.head.weight.detach().clone())
        assert torch.allclose(moved[0], moved[1], rtol=1e-5, atol=1e-7)

    def test_accumulation_adds_and_a_number_scales(self):
        learner, one = learner_of(network()), task()
        once = learner.backward(one).grads["anchor.head.weight"].clone()
        learner.backward(one, scale=0.5)
        assert torch.allclose(learner.network.head.weight.grad, 1.5 * once, rtol=1e-12)

    def test_groups_by_name(self):
        learner = learner_of(network(), "metasgd", adapt="head.*")
        optimizer = torch.optim.SGD(learner.parameter_groups(geometry_lr=0.0), lr=1.0)
        assert [g["name"] for g in optimizer.param_groups] == ["anchor", "shared", "geometry"]
        learner.backward(task())
        before = {n: v.detach().clone() for n, v in learner.meta().items()}
        optimizer.step()
        after = learner.meta()
        assert all(torch.equal(before[n], after[n]) == n.startswith("geometry.") for n in before)
        held = [p for g in optimizer.param_groups for p in g["params"]]
        assert {id(p) for p in held} == {id(p) for p in learner.parameters()}

    def test_threads_wait_for_each_other(self):
        model = network()
        model.register_buffer("scale", torch.ones(()))
        learner = learner_of(model)
        tasks = [task(s) for s in range(4)]
        expected = [flat(learner.meta_gradient(one).grads) for one in tasks]
        outputs = [learner.adapt(o.support_x, o.support_y)(o.query_x) for o in tasks]
        wrong = []

        def work(i):
            for _ in range(5):
                same = torch.equal(flat(learner.meta_gradient(tasks[i]).grads), expected[i])
                adapted = learner.adapt(tasks[i].support_x, tasks[i].support_y)
                if not same or not torch.equal(adapted(tasks[i].query_x), outputs[i]):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert torch.equal(flat(learner.meta_gradient(tasks[0]).grads), expected[0])

    @pytest.mark.parametrize("slug", geometries.names())
    def test_copies_and_pickles_of_a_learner_that_has_worked(self, slug):
        learner, one = learner_of(network(), slug), task()
        expected = flat(learner.backward(one).grads)
        for again in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
            assert torch.equal(flat(again.meta_gradient(one).grads), expected)
        adapted = learner.adapt(one.support_x, one.support_y)
        for again in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
            assert torch.equal(again(one.query_x), adapted(one.query_x))

    def test_autocast(self):
        torch.manual_seed(0)
        learner, one = learner_of(zoo.Net(nn.Linear(4, 4))), task(dtype=torch.float32)
        plain = flat(learner.meta_gradient(one).grads)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            short = flat(learner.meta_gradient(one).grads)
        assert 0 < float((short - plain).norm() / plain.norm()) < 0.03

    def test_a_compiled_part(self):
        function = torch.compile(lambda h: torch.tanh(h) * 2, backend="aot_eager")
        model = zoo.Doing(lambda m, h: torch.tanh(h) * 2).double()
        compiled = copy.deepcopy(model)
        compiled.act = lambda m, h: function(h)
        one = task()
        expected = flat(learner_of(model).meta_gradient(one).grads)
        assert torch.allclose(flat(learner_of(compiled).meta_gradient(one).grads), expected)

    def test_a_part_compiled_by_a_backend_without_derivatives_is_one_sentence(self):
        function = torch.compile(lambda h: torch.tanh(h) * 2, backend="eager")
        model = zoo.Doing(lambda m, h: function(h)).double()
        try:
            found = flat(learner_of(model).meta_gradient(task()).grads)
        except ValueError as refusal:
            assert "\n" not in str(refusal)
        else:
            plain = zoo.Doing(lambda m, h: torch.tanh(h) * 2).double()
            plain.load_state_dict(model.state_dict())
            assert torch.allclose(found, flat(learner_of(plain).meta_gradient(task()).grads))


class TestResults:
    """Row 10."""

    def test_features_that_forward_keeps(self):
        model = zoo.Doing(zoo._keep).double()
        learner, one = learner_of(model), task()
        expected = flat(learner.backward(one).grads)
        assert not hasattr(learner.network, "features")
        assert torch.equal(flat(copy.deepcopy(learner).meta_gradient(one).grads), expected)
        adapted = learner.adapt(one.support_x, one.support_y)
        adapted(one.query_x)
        assert adapted.network.features.shape == (N, 4)

    def test_a_model_that_was_run_before(self):
        model = zoo.Doing(zoo._keep).double()
        expected = flat(learner_of(copy.deepcopy(model)).meta_gradient(task()).grads)
        model(task().support_x)
        assert torch.equal(flat(learner_of(model).meta_gradient(task()).grads), expected)

    def test_a_weight_computed_once(self):
        model = zoo.Doing(lambda m, h: h * m.derived).double()
        model.derived = model.linear.weight.diagonal() * 2
        with pytest.raises(
            ValueError, match="reads 'derived', which was computed from them before"
        ):
            learner_of(model).meta_gradient(task())


def test_dropout_can_be_switched_off():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = zoo.Last(layer).double()
    y = task().support_y
    one = Episode(draw(N, 5, 4), y, draw(N, 5, 4, seed=1), y)
    with pytest.raises(ValueError, match="dropout='off'"):
        learner_of(model)
    learner = learner_of(model, dropout="off")
    again = zoo.Last(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(
        flat(learner.meta_gradient(one).grads), flat(learner_of(again).meta_gradient(one).grads)
    )
    with pytest.raises(ValueError, match="dropout must be one of"):
        learner_of(model, dropout="of")


def test_the_probe_can_be_switched_off():
    model = zoo.Doing(lambda m, h: h + 0.1 * torch.randn_like(h)).double()
    learner_of(model, probe="off").meta_gradient(task())
    with pytest.raises(ValueError, match="probe must be one of"):
        learner_of(model, probe="never")


def test_the_probe_runs_once_for_each_mode(monkeypatch):
    from mdtheory.models.user import gate

    calls = []
    monkeypatch.setattr(gate, "probe", lambda *a, **k: calls.append(1) or gate.Verdict())
    learner = learner_of(network())
    for _ in range(3):
        learner.backward(task())
        torch.optim.SGD(learner.parameters(), lr=0.1).step()
        evaluate(learner, lambda i: task(i), n_tasks=2)
    assert len(calls) == 2


@pytest.mark.parametrize("loss", ["ctc", "multi_margin"])
def test_losses_without_second_derivatives_are_one_sentence(loss):
    if loss == "multi_margin":
        made, y = F.multi_margin_loss, task().support_y
    else:
        y = torch.ones(N, 1, dtype=torch.int64)

        def made(o, t):
            rows = F.log_softmax(o, 1)[None].repeat(3, 1, 1)
            sizes = torch.full((len(o),), 3), torch.full((len(o),), 1)
            return F.ctc_loss(rows, t, *sizes)

    one = Episode(draw(N, 4), y, draw(N, 4, seed=1), y)
    model = network()
    learner_of(model, loss=made, estimator="first_order").meta_gradient(one)
    with pytest.raises(ValueError, match=r"twice differentiable|second derivatives") as refusal:
        learner_of(model, loss=made).meta_gradient(one)
    assert "\n" not in str(refusal.value)


def test_numpy_noise_is_refused():
    model = zoo.Doing(lambda m, h: h + 0.1 * torch.from_numpy(np.random.randn(4)).to(h)).double()
    with pytest.raises(ValueError, match="draws from numpy's global random generator"):
        learner_of(model).meta_gradient(task())
    source = np.random.default_rng(0)
    model = zoo.Doing(lambda m, h: h + 0.1 * torch.from_numpy(source.normal(size=4)).to(h)).double()
    with pytest.raises(ValueError, match="equal calls differ"):
        learner_of(model).meta_gradient(task())
