"""The cheap half of the judgement: what it costs, what it may settle, and that it loses nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import flop_registry

from mdtheory.core.inputs import call, map_inputs
from mdtheory.core.torch_private import TorchDispatchMode
from mdtheory.meta import MetaLearner
from mdtheory.models import ResNet12, VisionTransformer
from mdtheory.models.user import gate, glance, graph, prepare, probe
from mdtheory.models.user.case import Case
from tests.models.user import sweep, zoo
from tests.models.user.operations import OPERATIONS
from tests.models.user.rows import draw, learner_of, task
from tests.models.user.test_sweep import LOSSES, smooth
from tests.models.user.zoo import NEVER, TO_FIRST_ORDER, ZOO
from tests.models.user.zoo_patterns import Sign, TwiceCube

ACCEPTED = [name for name in ZOO if name not in NEVER | TO_FIRST_ORDER]


class Flops(TorchDispatchMode):
    """torch's own formulas; its counter also hooks itself onto the graph."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def flops(run) -> int:
    with Flops() as counter:
        run()
    return counter.total


class _Then(nn.Module):
    """A network and a function of its outputs."""

    def __init__(self, body, act):
        super().__init__()
        self.body, self.act = body, act

    def forward(self, x):
        return self.act(self.body(x))


def residual():
    return ResNet12(image_size=32, widths=(4, 8, 8, 8))


def attentive():
    return VisionTransformer(image_size=28, width=16, depth=2, heads=2)


def encoder():
    return zoo.Last(nn.TransformerEncoderLayer(zoo.W, 2, 8, dropout=0.0, batch_first=True))


@pytest.mark.parametrize(("make", "size"), [(residual, 32), (attentive, 28), (encoder, None)])
@pytest.mark.parametrize(
    ("act", "most"),
    [
        (lambda h: h, 1.7),
        (torch.special.i0, 3.05),
        (TwiceCube.apply, 3.05),
        (lambda h: h + Sign.apply(h), 5.0),
    ],
)
def test_passes_over_the_smallest_support_set(make, size, act, most):
    """5-way 1-shot: in floating point operations, so whatever the machine is."""
    torch.manual_seed(0)
    model = prepare(_Then(make(), act), norm="transductive")
    x = torch.randn(5, 5, zoo.W) if size is None else torch.randn(5, 3, size, size)
    y = torch.arange(5) % 3
    own = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the formulas know no fused attention
        one = flops(lambda: torch.autograd.grad(cross_entropy(model(x), y), own))
    extra = 0.25 if make is encoder else 0.0  # a forward pass more to replace fused attention
    assert flops(lambda: probe(model, x, y, loss=cross_entropy)) < (most + extra) * one


def test_an_operation_that_is_not_trusted_gets_the_dear_look(monkeypatch):
    looks = []
    whole = Case.derivatives
    monkeypatch.setattr(
        Case, "derivatives", lambda c, p, o, w: looks.append((o, c.wide)) or whole(c, p, o, w)
    )
    y = task().support_y
    for act, expected in (
        (lambda m, h: torch.tanh(h), []),
        (lambda m, h: torch.special.i0(h), [(2, True)]),
    ):
        looks.clear()
        probe(zoo.Doing(act), draw(6, 4, dtype=torch.float32), y, loss=cross_entropy)
        assert looks == expected


def operations(model, x, loss, y) -> set[str]:
    return {type(node).__name__ for node in graph.nodes(loss(call(model, x), y))}


def some(act):
    """A scalar of an operation, with a second derivative even where the operation has none."""

    def value(h):
        out = act(h).reshape(-1)
        weights = torch.linspace(0.5, 1.5, len(out), dtype=h.dtype)
        return (weights * (out + 0.3 * out * out)).sum()

    return value


@pytest.mark.parametrize("name", OPERATIONS)
def test_second_derivatives_of_an_operation(name):
    """By ``torch.func`` against central differences of its gradients."""
    slope = torch.func.grad(some(OPERATIONS[name]))
    h, v = 0.2 + 0.6 * torch.rand(5, 4, generator=torch.Generator().manual_seed(0)), draw(5, 4)
    h = h.double()
    second = torch.func.grad(lambda h: (slope(h) * v).sum())(h)
    differences = (slope(h + 1e-6 * v) - slope(h - 1e-6 * v)) / 2e-6
    assert torch.allclose(second, differences, rtol=1e-5, atol=1e-7)


def test_what_is_trusted_occurs_in_the_tests():
    """Which compare it with central differences, as nothing else than right is accepted there."""
    h = (0.2 + 0.6 * torch.rand(5, 4, dtype=torch.float64)).requires_grad_()
    seen = {type(node).__name__ for f in OPERATIONS.values() for node in graph.nodes(some(f)(h))}
    for name in ACCEPTED:
        model = MetaLearner(sweep.built(ZOO[name][0]), dropout="off").network
        one = sweep.episode_of(ZOO[name][1])
        seen |= operations(model, one.support_x, cross_entropy, one.support_y)
    for loss, targets in LOSSES.values():
        y = targets(5, torch.Generator().manual_seed(8))
        seen |= operations(smooth().double(), draw(5, zoo.W), loss, y)
    assert not glance.TRUSTED - seen


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", ZOO)
def test_single_precision_is_refused_as_double_precision_is(name):
    one = sweep.episode_of(ZOO[name][1])
    x = map_inputs(lambda v: v.float() if v.is_floating_point() else v, one.support_x)

    def run():
        learner = MetaLearner(sweep.built(ZOO[name][0]).float(), n_steps=1)
        learner.meta_gradient(sweep.Episode(x, one.support_y, x, one.support_y))

    if name == "matrix inverse":
        pytest.skip("holds a constant in double precision")
    if name in NEVER | TO_FIRST_ORDER:
        with pytest.raises(ValueError):
            run()
    else:
        run()


def test_the_list_matters(monkeypatch):
    """The mutant: with a wrong operation on the list the sweep goes wrong."""
    row = "torch._weight_norm by hand"
    assert sweep.row(row)["unrolled"][0] == "refused"
    monkeypatch.setattr(glance, "TRUSTED", glance.TRUSTED | {"WeightNormInterfaceBackward0"})
    assert sweep.row(row)["unrolled"][0] == "wrong"


def test_the_first_result_must_be_finite(monkeypatch):
    """What is not finite at the very weights: det at the identity, where the truth is finite."""
    monkeypatch.setattr(gate.Gate, "is_new", lambda *a: False)
    found = sweep.row("det at the identity")["unrolled"]
    assert found[0] == "wrong" and found[1].startswith("nan")


def test_a_norm_without_a_weight_is_not_trusted(monkeypatch):
    """In its functional form, which no rule sees."""
    model = zoo.Doing(lambda m, h: F.layer_norm(h, (4,), None, m.head.weight[0])).double()
    with pytest.raises(ValueError, match=r"must be twice differentiable under torch\.func"):
        probe(model, task().support_x, task().support_y, loss=cross_entropy)
    monkeypatch.setattr(glance, "WEIGHTED", set())
    probe(model, task().support_x, task().support_y, loss=cross_entropy)


def test_a_hook_that_is_no_constant_factor(monkeypatch):
    def squared(m, h):
        h = torch.tanh(h)
        if h.requires_grad:
            h.register_hook(lambda g: g * g)
        return h

    model = zoo.Doing(squared).double()
    with pytest.raises(ValueError, match=r"other ones than plain autograd's"):
        learner_of(model).meta_gradient(task())
    monkeypatch.setattr(glance, "_APART", set())
    learner_of(model).meta_gradient(task())


@pytest.mark.parametrize("share", [1e-4, 1.0])
def test_a_weight_that_is_partly_read_past_its_place(share):
    model = zoo.Doing(lambda m, h: h + share * h @ m.kept[0].T)
    model.kept = [model.linear.weight]
    with pytest.raises(ValueError, match=r"replacing 'linear.weight' does not replace"):
        probe(model, draw(6, 4, dtype=torch.float32), task().support_y, loss=cross_entropy)


def test_a_second_order_verdict_serves_for_adapting():
    learner, one = learner_of(zoo.Net(nn.Linear(4, 4)).double()), task()
    learner.meta_gradient(one)
    before = len(learner.gate._verdicts)
    learner.adapt(one.support_x, one.support_y)
    assert len(learner.gate._verdicts) == before


@pytest.mark.parametrize("constant", [lambda w: w.data, lambda w: w.clone().detach_()])
def test_a_constant_that_is_one_in_the_innermost_derivative_only(monkeypatch, constant):
    model = zoo.Doing(lambda m, h: torch.tanh(h) / constant(m.linear.weight).norm()).double()
    with pytest.raises(ValueError, match=r"other ones than plain autograd's"):
        probe(model, task().support_x, task().support_y, loss=cross_entropy)
    monkeypatch.setattr(glance, "_APART", set())
    probe(model, task().support_x, task().support_y, loss=cross_entropy)


def test_what_the_first_pass_computes_from_weights_is_no_cache():
    def remembered(m, h):
        if not hasattr(m, "scale"):
            m.scale = m.linear.weight.sum()
        return h * m.scale

    with pytest.raises(ValueError, match="changes the attribute 'scale', which later passes read"):
        learner_of(zoo.Doing(remembered).double()).meta_gradient(task())

    def constant(m, h):
        if not hasattr(m, "scale"):
            m.scale = torch.arange(4).to(h)
        return h * m.scale

    learner_of(zoo.Doing(constant).double()).meta_gradient(task())


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda o, t: cross_entropy(F.dropout(o, 0.3), t), "the loss must give the same value"),
        (lambda o, t: cross_entropy(o, t)[None], r"number of shape \(\), got \(1,\)"),
    ],
)
def test_a_loss_that_is_none_is_named(loss, said):
    with pytest.raises(ValueError, match=said):
        learner_of(zoo.Net(nn.Linear(4, 4)).double(), loss=loss).meta_gradient(task())


@pytest.mark.parametrize("kind", [lambda x: x.to_sparse(), lambda x: x.to("meta")])
def test_inputs_without_dense_numbers_are_one_sentence(kind):
    one = task()
    given = sweep.Episode(kind(one.support_x), one.support_y, one.query_x, one.query_y)
    with pytest.raises(ValueError, match="must be dense tensors that hold numbers"):
        learner_of(zoo.Net(nn.Linear(4, 4)).double()).meta_gradient(given)
