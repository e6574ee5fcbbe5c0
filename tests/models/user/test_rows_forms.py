"""What a task may look like, and what went wrong in silence: the right value or a sentence."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from mdtheory.core.functional import functional_call
from mdtheory.core.types import Episode
from mdtheory.meta.evaluate import evaluate
from tests.models.user import zoo
from tests.models.user.rows import N, draw, flat, learner_of, network, task


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
            Episode(*(part.numpy()[::-1].copy()[::-1] for part in four)),
            Episode(*(part.numpy().astype(part.numpy().dtype.newbyteorder()) for part in four)),
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

    def test_a_nested_tensor_is_one_sentence(self):
        one = task()
        given = torch.nested.nested_tensor(list(one.support_x), layout=torch.jagged)
        given = given, one.support_y, one.query_x, one.query_y
        with pytest.raises(ValueError, match="got a nested tensor; call to_dense"):
            learner_of(network()).meta_gradient(given)

    @pytest.mark.parametrize(("option", "value"), [("adapt", []), ("task_lr", "0.1")])
    def test_options_that_are_none(self, option, value):
        with pytest.raises(ValueError, match=f"{option} must"):
            learner_of(network(), **{option: value})

    @pytest.mark.parametrize("estimator", ["unrolled", "stepwise", "first_order"])
    def test_a_loss_that_no_weight_reaches_has_gradient_zero(self, estimator):
        learner = learner_of(
            network(), estimator=estimator, loss=lambda o, t: 1 + 0 * o.detach().sum()
        )
        assert not flat(learner.meta_gradient(task()).grads).any()

    def test_a_loss_that_writes_to_its_targets(self):
        loss = lambda o, t: cross_entropy(o, t.clamp_(0, 1))  # noqa: E731
        with pytest.raises(ValueError, match="or writes to its targets"):
            learner_of(network(), loss=loss).meta_gradient(task())


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

    def test_in_the_queries_a_later_task_or_behind_equal_classes(self):
        x, y, labels = draw(N, 4), draw(N, 1, seed=5), torch.arange(N) // (N // 2)
        good, bad = Episode(x, y, x, y), Episode(x, y, x, y[:, 0])
        single = Episode(x[:1], y[0, :1], x, y[:, 0])

        def learner():
            return learner_of(nn.Linear(4, 1).double(), loss=lambda o, t: (o - t).square().mean())

        wrong = "compared item by item"
        for tasks, where in (
            ([bad], "task 0, query set: "),
            ([good, Episode(x, y[:, 0], x, y)], "task 1, support set: "),
            ([single], "task 0, query set: "),
            ([Episode(x, labels, x, labels)], "task 0, support set: "),
        ):
            with pytest.raises(ValueError, match=where + ".*" + wrong):
                learner().meta_gradient(tasks)
        with pytest.raises(ValueError, match=wrong):
            evaluate(learner(), [good, bad].__getitem__, n_tasks=2)
        with pytest.raises(ValueError, match=wrong):
            learner().trace(bad)
        column = labels[:, None]
        learner().meta_gradient([good, Episode(x, column, x, column)])

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

    def test_running_statistics_are_those_of_a_loop_written_by_hand(self):
        """README's loop; torch's own layer moves its statistics in training mode, at the anchor."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
        own, tasks = model.double(), [task(s) for s in range(8)]
        learner = learner_of(copy.deepcopy(own), norm="running")
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        for one in tasks[:6]:
            optimizer.zero_grad()
            learner.backward(one)
            optimizer.step()
        for one in tasks[:6]:
            gradient = self.by_create_graph(own, one)
            own.train()
            own(one.support_x)  # moves the running statistics
            with torch.no_grad():
                for p, g in zip(own.parameters(), gradient, strict=True):
                    p -= 0.1 * g
        assert torch.allclose(learner.network[1].running_var, own[1].running_var, rtol=1e-12)
        (scores,) = evaluate(learner, lambda i: tasks[7], n_tasks=1)
        adapted, frozen = copy.deepcopy(own).eval(), copy.deepcopy(own)
        frozen[1].running_mean.zero_()
        frozen[1].running_var.fill_(1)
        found = [self.after_descent(each.eval(), tasks[7]) for each in (adapted, frozen)]
        assert float(scores.loss) == pytest.approx(found[0], rel=1e-9)
        assert abs(found[0] - found[1]) > 1e-3

    @staticmethod
    def by_create_graph(model, one):
        """The meta-gradient of two steps, statistics from each batch and put back."""
        pure, start = copy.deepcopy(model).train(), dict(model.named_parameters())
        weights = dict(start)
        for _ in range(2):
            value = cross_entropy(functional_call(pure, weights, (one.support_x,)), one.support_y)
            slopes = torch.autograd.grad(value, list(weights.values()), create_graph=True)
            weights = {n: w - 0.1 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
        value = cross_entropy(functional_call(pure, weights, (one.query_x,)), one.query_y)
        return torch.autograd.grad(value, list(start.values()))

    @staticmethod
    def after_descent(model, one):
        own = list(model.parameters())
        for _ in range(2):
            value = cross_entropy(model(one.support_x), one.support_y)
            with torch.no_grad():
                for p, g in zip(own, torch.autograd.grad(value, own), strict=True):
                    p -= 0.1 * g
        return float(cross_entropy(model(one.query_x), one.query_y).detach())

    def test_targets_in_a_row_are_refused_and_in_a_column_item_by_item(self):
        """A loop over single items in plain numbers; what broadcasting gave is another value."""
        torch.manual_seed(0)
        weight, bias = draw(1, 4, seed=9), draw(1, seed=10)
        model = nn.Linear(4, 1).double()
        with torch.no_grad():
            model.weight.copy_(weight)
            model.bias.copy_(bias)
        x, y, q, z = draw(N, 4), draw(N, seed=5), draw(N, 4, seed=1), draw(N, seed=6)

        def descended(pairs):
            w, b = weight[0].tolist(), float(bias)
            for _ in range(2):
                apart = [
                    (sum(a * c for a, c in zip(w, x[i].tolist(), strict=True)) + b - float(y[j]), i)
                    for i, j in pairs
                ]
                slope = [
                    sum(2 * e * float(x[i, k]) for e, i in apart) / len(pairs) for k in range(4)
                ]
                b -= 0.1 * sum(2 * e for e, _ in apart) / len(pairs)
                w = [a - 0.1 * s for a, s in zip(w, slope, strict=True)]
            errors = [
                (sum(a * c for a, c in zip(w, q[i].tolist(), strict=True)) + b - float(z[j])) ** 2
                for i, j in pairs
            ]
            return sum(errors) / len(errors)

        right = descended([(i, i) for i in range(N)])
        broadcast = descended([(i, j) for i in range(N) for j in range(N)])
        learner = learner_of(model, loss=lambda o, t: (o - t).square().mean())
        with pytest.raises(ValueError, match="compared item by item"):
            learner.meta_gradient(Episode(x, y, q, z))
        found = learner.meta_gradient(Episode(x, y[:, None], q, z[:, None])).value
        assert float(found) == pytest.approx(right, rel=1e-12)
        careless = learner_of(model, loss=learner.loss, probe="off")
        assert float(careless.meta_gradient(Episode(x, y, q, z)).value) == pytest.approx(
            broadcast, rel=1e-12
        )
        assert abs(right - broadcast) > 0.1 * right
