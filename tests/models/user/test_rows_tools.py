"""What hangs on gradients, copies and modes: hooks, scalers, threads, pickles, kept results."""

from __future__ import annotations

import copy
import pickle
import pkgutil
import re
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.meta.evaluate import evaluate
from mdtheory.models.user import probe
from tests.meta import processes
from tests.models.user import zoo
from tests.models.user.rows import N, draw, flat, learner_of, network, task


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

    def test_evaluation_and_state_wait_for_a_task_at_work(self):
        """While a task is solved its own weights are in the network, for others to read."""
        learner = learner_of(network())
        (expected,) = evaluate(learner, task, n_tasks=1)
        held = {name: value.clone() for name, value in learner.state_dict().items()}
        meanwhile = []
        whole = type(learner.estimator).task_gradient

        def look():
            meanwhile.append(evaluate(learner, task, n_tasks=1)[0].loss)
            meanwhile.append(learner.state_dict()["network.head.weight"].clone())

        def gradient(*given):
            threads.append(threading.Thread(target=look))
            threads[-1].start()
            return whole(*given)

        threads: list[threading.Thread] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(learner.estimator), "task_gradient", gradient)
            for _ in range(5):
                learner.meta_gradient(task())
                threads[-1].join()
        assert all(torch.equal(loss, expected.loss) for loss in meanwhile[::2])
        assert all(torch.equal(w, held["network.head.weight"]) for w in meanwhile[1::2])

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


def in_a_group(group):
    """What a learner says in a real process group: wrapped at once or later, and about a wrapped
    model.
    """
    said, parallel = [], nn.parallel.DistributedDataParallel
    for calls in (0, 3):
        learner = learner_of(network())
        for _ in range(calls):
            learner.backward(task())
        wrapper = parallel(learner)
        with pytest.raises(ValueError) as refusal:
            wrapper.module.backward(task())
        said.append(str(refusal.value))
    with pytest.raises(ValueError) as refusal:
        learner_of(parallel(network()))
    return [*said, str(refusal.value)]


def test_distributed_data_parallel_is_sent_to_torchrun():
    for said in processes.run(2, in_a_group):
        assert len(said) == 3, said
        assert all("in processes started by torchrun" in one for one in said[:2])
        advised = re.findall(r"use (mdtheory\.[\w.]+)", " ".join(said[:2]))
        assert len(advised) == 2 and all(map(callable, map(pkgutil.resolve_name, advised)))
        assert "share out tasks by torchrun as mdtheory.meta.distributed does" in said[2]


def test_recurrent_layers_on_a_card_leave_cudnn_for_second_derivatives(monkeypatch):
    """Without a card: parameters that say they lie on one."""

    class OnACard(nn.Parameter):
        is_cuda = property(lambda self: True)

    seen = []

    class Watched(nn.LSTM):
        def forward(self, *args):
            seen.append(torch.backends.cudnn.enabled)
            return super().forward(*args)

    torch.manual_seed(0)
    model = zoo.Last(Watched(zoo.W, zoo.W, batch_first=True)).double()
    expected = probe(model, draw(N, 5, zoo.W), task().support_y, loss=F.cross_entropy)
    assert not expected.plain_recurrence and all(seen)
    for name, value in list(model.layer._parameters.items()):
        model.layer._parameters[name] = OnACard(value.detach())
    for order in (1, 2):
        seen.clear()
        verdict = probe(
            model, draw(N, 5, zoo.W), task().support_y, loss=F.cross_entropy, order=order
        )
        assert verdict.plain_recurrence == (order == 2)
        assert all(seen) == (order == 1)
    with verdict.kernels():
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled
