"""What a newcomer passes in is taken where its meaning is clear, and refused by one sentence where
it is not.
"""

from __future__ import annotations

import copy
import re
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mdtheory import Episode, EpisodeStream, GlyphSet, MetaLearner, evaluate, geometry
from mdtheory.data import SinusoidStream
from mdtheory.inner import solve

X = torch.rand(10, 3, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(5).repeat(2)
SIZES = {"seed": 0, "n_way": 5, "n_shot": 1, "n_query": 1}


class Named(nn.Module):
    """A network that takes a dictionary."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, batch):
        return self.inner(batch["x"])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))


def learner(geometry="maml", model=None, **options):
    return MetaLearner(
        model or network(), geometry, **{"n_steps": 2, "task_lr": 0.1, "probe": "off"} | options
    )


def backward(*episodes):
    return float(learner().backward(list(episodes)).value)


def task(x=X, y=Y):
    return Episode(x, y, x, y)


@pytest.mark.parametrize(
    "given",
    [
        task(),
        (X, Y, X, Y),
        [(X, Y, X, Y)],
        iter([task()]),
        [task(X.numpy(), Y.numpy())],
        (X.numpy(), Y.numpy(), X.numpy(), Y.numpy()),
        [task(y=Y.int())],
        [task(y=Y.to(torch.uint8))],
        [task(X.double())],
    ],
)
def test_what_is_clear_is_taken(given):
    value = learner().backward(given).value
    assert torch.equal(value, learner().backward([task()]).value)


def test_lists_dictionaries_and_numbers_of_other_types_are_taken():
    expected = learner().adapt(X, Y)(X)
    adapted = learner().adapt(X.tolist(), Y.tolist())
    assert torch.equal(adapted(X), expected) and torch.equal(adapted(X.numpy()), expected)
    assert torch.equal(learner(model=Named()).adapt({"x": X}, Y)({"x": X}), expected)
    same = learner(n_steps=np.int64(2), task_lr=torch.tensor(0.1, dtype=torch.float64))
    assert (same.n_steps, same.task_lr) == (2, 0.1)
    assert torch.equal(same.adapt(X, Y)(X), expected)
    torch.testing.assert_close(learner().adapt(X.double(), Y)(X.double()), expected)


REFUSED = [
    (lambda: backward(task(y=Y + 1)), "targets of shape (10,) int64 from 1 to 5; class labels are"),
    (lambda: learner().adapt(X, Y - 1), "int64 from -1 to 3; class labels are int64 from 0"),
    (lambda: backward(task(y=Y.float())), "float32; class labels are int64"),
    (lambda: backward(task((255 * X).to(torch.uint8))), "for instance x.float() / 255"),
    (lambda: learner().adapt(X, Y)((255 * X).to(torch.uint8)), "for instance x.float() / 255"),
    (lambda: learner().adapt(X, list("abcdeabcde")), "arrays of numbers, got list"),
    (
        lambda: learner().adapt(X, np.array(list("abcde") * 2)),
        "got ndarray of <U1; convert th",
    ),
    (lambda: learner().backward({"support_x": X}), "got dict; put tensors into an Episode"),
    (lambda: learner().backward(None), "got NoneType; put tensors into an Episode"),
    (lambda: learner().backward([[X]]), "a tuple of these four, got list"),
    (lambda: learner(None), "geometry must be a Geometry or the name of one, got None"),
    (lambda: learner(3), "geometry must be a Geometry or the name of one, got 3"),
    (lambda: learner(geometry.MAML), "got the class MAML; call it: MAML()"),
    (lambda: learner("MetaMiDA"), "did you mean 'metamida'?"),
    (lambda: learner("MAML"), "did you mean 'maml'?"),
    (lambda: learner("Meta-SGD"), "did you mean 'metasgd'?"),
    (lambda: learner("MetaMiDA published"), "did you mean 'metamida-published'?"),
    (lambda: learner(norm="Transductive"), "did you mean 'transductive'?"),
    (lambda: learner(n_steps=1.5), "n_steps must be a whole number >= 0, got 1.5"),
    (lambda: learner(n_steps=True), "n_steps must be a whole number >= 0, got True"),
    (lambda: learner(eval_steps="3"), "eval_steps must be a whole number >= 0, got '3'"),
    (lambda: learner().adapt(X, Y, n_steps=1.5), "n_steps must be a whole number >= 0, got 1.5"),
    (lambda: learner(task_lr="0.1"), "task_lr must be a number > 0 and finite, got '0.1'"),
    (lambda: learner(task_lr=-1), "task_lr must be a number > 0 and finite, got -1"),
    (lambda: learner(task_lr=X), "task_lr must be a number > 0 and finite, got tensor"),
    (lambda: learner(inner_loss_scale=0), "inner_loss_scale must be a number > 0 and finite"),
    (lambda: learner(inner_loss_scale=float("nan")), "inner_loss_scale must be a number > 0"),
    (lambda: learner(inner_loss_scale="x"), "inner_loss_scale must be a number > 0"),
    (lambda: learner(adapt=None), "adapt must be a pattern of names or several, got None"),
    (lambda: learner(adapt=[3]), "adapt must be a pattern of names or several, got [3]"),
    (lambda: learner(estimator=3), "estimator must be of the class Estimator, got 3"),
    (lambda: learner(objective="every"), "objective must be of the class Objective, got 'every'"),
    (lambda: backward(task(y=Y + 0j)), "support_y must be real numbers or classes, got complex"),
    (lambda: backward(task(np.ma.masked_less(X.numpy(), 0.5))), "plain arrays, got a masked one"),
    (lambda: learner().backward([task()], scale=float("nan")), "scale must be a finite number"),
    (lambda: learner().backward([task()], scale="2"), "scale must be a finite number, got '2'"),
    (lambda: learner().parameter_groups(anchor_lr=-1.0), "anchor_lr must be a number > 0"),
    (
        lambda: learner().parameter_groups(shared_lr=float("nan")),
        "shared_lr must be a finite",
    ),
    (lambda: EpisodeStream("glyphs", split="train", **SIZES), "source must be a Source, such as"),
    (lambda: EpisodeStream(GlyphSet, split="train", **SIZES), "GlyphSet(), got GlyphSet; make"),
    (lambda: learner().parameter_groups(anchor_lr=X), "anchor_lr must be a finite number, got te"),
    (lambda: EpisodeStream(GlyphSet(), split="val", **SIZES), "did you mean 'validation'?"),
    (lambda: EpisodeStream(GlyphSet(), split="Test", **SIZES), "did you mean 'test'?"),
    (lambda: EpisodeStream(GlyphSet(), split="other", **SIZES), "correct it"),
    (lambda: evaluate(learner(), "test", n_tasks=2), "stream must be a function"),
    (lambda: evaluate(learner(), [task()], n_tasks=1), "pass its __getitem__"),
    (lambda: evaluate(learner(), lambda k: task(), n_tasks=1.5), "got 1.5; 600 and 1000"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED, ids=[said[:44] for _, said in REFUSED])
def test_what_is_not_clear_is_one_sentence(call, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_forgotten_loss_and_targets_that_broadcast_are_refused():
    line, waves = (
        nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)),
        SinusoidStream(seed=0, n_shot=5),
    )
    with pytest.raises(ValueError, match="pass loss="):
        learner("metasgd", line, probe="on").backward([waves(0)])
    flat = Episode(*(part.squeeze(1) if k % 2 else part for k, part in enumerate(parts(waves(0)))))
    squares = learner("metasgd", line, loss=nn.functional.mse_loss, probe="on")
    with pytest.raises(ValueError, match=r"y\[:, None\]"):
        squares.backward([flat])
    assert squares.backward([waves(0)]).value > 0


def test_targets_that_broadcast_are_refused_behind_any_number_of_equal_ones():
    """What settles nothing is no look; and what does, in one layout, leaves the others alone."""
    x, classes = torch.randn(6, 4), torch.arange(6) % 2
    loss = lambda outputs, targets: (outputs - targets).square().mean()  # noqa: E731
    one = learner("maml", nn.Linear(4, 1), loss=loss, probe="on", n_steps=1)
    nothing = torch.zeros(6, dtype=torch.int64)
    for _ in range(60):
        one.adapt(x, nothing)
    with pytest.raises(ValueError, match=r"compared item by item.*y\[:, None\]"):
        one.adapt(x, classes)


def test_a_geometry_that_cannot_be_copied_is_one_sentence():
    for held in (threading.Lock(), 2 * torch.ones(1, requires_grad=True)):
        own = geometry.MetaSGD()
        own.held = held
        with pytest.raises(ValueError, match=r"must allow copy.deepcopy, but MetaSGD does not"):
            learner(own)


def test_a_keyword_that_is_none_is_told_the_nearest_of_all():
    with pytest.raises(TypeError, match="did you mean 'n_steps'"):
        learner(nsteps=3)


def parts(one):
    return one.support_x, one.support_y, one.query_x, one.query_y


def spoilt(value):
    bad = X.clone()
    bad[3, 0, 1, 1] = value
    return bad


@pytest.mark.parametrize("estimator", ["unrolled", "stepwise", "first_order"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_nan_spoils_neither_gradients_nor_weights(estimator, value):
    one = learner("metasgd", estimator=estimator)
    one.backward([task()])
    before = {name: p.grad.clone() for name, p in one.named_parameters()}
    bad = Episode(spoilt(value), Y, X, Y)
    with pytest.raises(FloatingPointError, match="support_x of task 1 holds such a number"):
        one.backward([task(), bad])
    assert all(torch.equal(p.grad, before[name]) for name, p in one.named_parameters())
    with pytest.raises(FloatingPointError, match="support_x of task 0"):
        one.adapt(spoilt(value), Y)


def test_sound_data_that_diverges_names_the_rates():
    with pytest.raises(FloatingPointError, match="lower task_lr"):
        learner(task_lr=1e30, n_steps=5).backward([task()])


def test_a_gradient_scaler_sees_the_numbers_that_are_none():
    scaler = torch.amp.GradScaler("cpu")
    one = learner()
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    before = [p.detach().clone() for p in one.parameters()]
    one.backward([Episode(spoilt(float("nan")), Y, X, Y)], scale=scaler)
    scaler.step(optimizer)
    assert all(torch.equal(p, old) for p, old in zip(one.parameters(), before, strict=True))


def test_learners_from_one_geometry_do_not_share_it():
    given = geometry.MetaSGD()
    first = learner(given)
    before = {name: value.detach().clone() for name, value in first.meta().items()}
    other = learner(given, nn.Sequential(nn.Flatten(), nn.Linear(12, 5)))
    assert first.geometry is not other.geometry
    assert not list(given.parameters())
    first.backward(task())
    assert all(value.grad is not None for value in first.geometry.parameters())
    assert all(torch.equal(value, before[name]) for name, value in first.meta().items())


@pytest.mark.parametrize("part", ["", "geometry", "network"])
@pytest.mark.parametrize("slug", ["maml", "metasgd", "mtnet"])
def test_a_learner_that_was_frozen_solves_tasks_as_before(slug, part):
    whole, frozen = (learner(slug, probe="on") for _ in range(2))
    frozen.get_submodule(part).requires_grad_(False)
    expected, found = whole.meta_gradient(task()).grads, frozen.meta_gradient(task()).grads
    assert set(found) == set(frozen.meta())
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert torch.equal(frozen.adapt(X, Y)(X), whole.adapt(X, Y)(X))
    one, other = (evaluate(own, lambda i: task(), n_tasks=1)[0] for own in (frozen, whole))
    assert torch.equal(one.loss, other.loss)
    assert not any(value.requires_grad for value in frozen.get_submodule(part).parameters())
    if found:
        frozen.backward(task())
        assert all(value.grad is not None for value in frozen.meta().values())
    else:
        with pytest.raises(ValueError, match=r"must require a gradient.*call requires_grad_\(\)"):
            frozen.backward(task())


def test_a_problem_without_an_anchor_is_one_sentence():
    own = learner()
    own.network.requires_grad_(False)
    with pytest.raises(ValueError, match=r"meta must hold .* anchor.*call requires_grad_\(\)"):
        solve(own.problem(), own.meta(), own.task(task()))


class Normalised(nn.Module):
    """A network with a batch normalisation, of one input or of two."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x, shift=None):
        shift = 0 if shift is None else shift
        return self.last(self.norm(self.first(x.flatten(1)) + shift).tanh())


SHIFT = torch.linspace(-3, 3, 10)[:, None]


@pytest.mark.parametrize(
    "form",
    [lambda x: x, lambda x: (x, SHIFT), lambda x: {"x": x}, lambda x: {"x": x, "shift": SHIFT}],
)
def test_an_adapted_model_owns_its_support_set(form):
    own, given = learner(model=Normalised(), norm="support"), X.clone()
    adapted, other = own.adapt(form(given), Y), own.adapt(form(1 - X.square()), Y)
    before = adapted(form(X))
    assert not torch.equal(other(form(X)), before)
    given.zero_()
    assert torch.equal(adapted(form(X)), before)
    other.load_state_dict(adapted.state_dict())
    assert torch.equal(other(form(X)), before)
    assert adapted.double()(form(X)).dtype == torch.float64


def test_an_adapted_model_does_not_keep_the_graph_of_its_support_set():
    given = (2 * X).requires_grad_() * 1
    adapted = learner(model=Normalised(), norm="support").adapt(given, Y)
    assert torch.equal(copy.deepcopy(adapted)(X), adapted(X))


@pytest.mark.parametrize("norm", ["transductive", "support"])
@pytest.mark.parametrize("form", [lambda x: (x, SHIFT), lambda x: {"x": x, "shift": SHIFT}])
def test_an_adapted_model_takes_inputs_by_position_and_by_name(form, norm):
    adapted = learner(model=Normalised(), norm=norm).adapt(form(X), Y)
    expected = adapted(form(X))
    assert torch.equal(adapted(X, shift=SHIFT), expected)
    assert torch.equal(adapted(x=X, shift=SHIFT), expected)
    assert not torch.equal(adapted(X, shift=SHIFT.flip(0)), expected)


@pytest.mark.parametrize("probe", ["on", "off"])
@pytest.mark.parametrize(
    ("form", "parts"),
    [
        (lambda y, w: {"y": y, "w": w}, lambda t: (t["y"], t["w"])),
        (lambda y, w: (y, w), lambda t: t),
    ],
)
def test_targets_of_several_parts(form, parts, probe):
    def weighted(outputs, targets):
        y, w = parts(targets)
        return (w * cross_entropy(outputs, y, reduction="none")).mean()

    plain = learner(probe=probe)
    own = learner(probe=probe, loss=weighted)
    one, y = task(), form(Y, torch.ones(len(Y)))
    given = task(y=y)
    assert torch.allclose(own.adapt(X, y)(X), plain.adapt(X, Y)(X))
    assert torch.allclose(own.meta_gradient(given).value, plain.meta_gradient(one).value)
    found, expected = own.trace(given), plain.trace(one)
    assert torch.allclose(found.query_loss, expected.query_loss)
    assert found.query_accuracy.isnan().all()
    (scores,) = evaluate(own, lambda i: given, n_tasks=2)
    assert torch.allclose(scores.loss, evaluate(plain, lambda i: one, n_tasks=2)[0].loss)
