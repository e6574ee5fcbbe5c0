"""Every kind of module that ``prepare`` and ``probe`` refuse: where, why, and what to do, in one
sentence.
"""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from mdtheory import Episode, MetaLearner
from mdtheory.models.user import prepare, probe


def behind(layer: nn.Module) -> nn.Module:
    """The layer as submodule "body.1" of a model with something to learn."""
    return nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 3), layer)})


def old_style(wrap, *args) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in circulation
        return wrap(nn.Linear(3, 3), *args)


def script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(3, 3))


def compiled_in_place() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.compile(backend="eager")
    return layer


def bias_only() -> nn.Module:
    layer = nn.LayerNorm(3)
    layer.weight = None
    return layer


class OwnBatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class PlainTensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.ones(3, requires_grad=True)


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)
        self.lock = threading.Lock()


class Integers(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.arange(3), requires_grad=False)


SUBMODULES = {
    "dropout": (
        nn.Dropout(0.2),
        "(Dropout) .* draws from the global random generator.*; set p=0, or call eval() on it",
    ),
    "dropout of channels": (
        nn.Dropout2d(),
        "(Dropout2d) .* draws from the global random generator",
    ),
    "dropout of attention": (
        nn.MultiheadAttention(2, 1, dropout=0.1),
        "(MultiheadAttention) .* set dropout=0",
    ),
    "dropout of a recurrent layer": (
        nn.LSTM(2, 2, num_layers=2, dropout=0.1),
        "(LSTM) .* set dropout=0",
    ),
    "random slopes": (nn.RReLU(), "(RReLU) .*; use nn.LeakyReLU"),
    "random pooling": (
        nn.FractionalMaxPool2d(2, output_size=2),
        "(FractionalMaxPool2d) .* ordinary pooling",
    ),
    "tracked instance norm": (
        nn.InstanceNorm2d(3, track_running_stats=True),
        "set track_running_stats=False",
    ),
    "embedding with max_norm": (
        nn.Embedding(4, 3, max_norm=1.0),
        "set max_norm=None and sparse=False",
    ),
    "sparse embedding": (nn.EmbeddingBag(4, 3, sparse=True), "set max_norm=None and sparse=False"),
    "own batch norm": (
        OwnBatchNorm(3),
        "(OwnBatchNorm) .* batch norm of another class.*; use nn.BatchNorm1d",
    ),
    "cumulative batch norm": (
        nn.BatchNorm1d(3, momentum=None),
        "momentum=None.*; set momentum=0.1",
    ),
    "old weight norm": (
        old_style(nn.utils.weight_norm),
        "old-style hook .*; use torch.nn.utils.parametrizations",
    ),
    "old spectral norm": (old_style(nn.utils.spectral_norm), "old-style hook"),
    "pruning": (old_style(prune.l1_unstructured, "weight", 0.5), "old-style hook"),
    "script": (script(), "compiled by TorchScript; pass the Python module"),
    "compiled": (
        torch.compile(nn.Linear(3, 3), backend="eager"),
        "would ignore replaced parameters; pass the uncompiled",
    ),
    "compiled in place": (compiled_in_place(), "would ignore replaced parameters"),
    "parallel wrapper": (
        nn.DataParallel(nn.Linear(3, 3)),
        "is a parallel wrapper; pass its .module",
    ),
    "bias without weight": (
        bias_only(),
        "(LayerNorm) .* torch's second derivatives are wrong; give it a weight of ones",
    ),
    "plain tensor": (
        PlainTensor(),
        "(PlainTensor) must register its weights, but 'scale' .* make it an nn.Parameter",
    ),
}


@pytest.mark.parametrize("name", SUBMODULES)
def test_submodules(name):
    layer, message = SUBMODULES[name]
    with pytest.raises(ValueError) as refusal:
        prepare(behind(layer), norm="transductive")
    text = str(refusal.value)
    assert "submodule 'body.1" in text and "\n" not in text
    for fragment in message.split(".*"):
        assert fragment.strip() in text


def test_new_spectral_norm_changes_buffers_in_training_only():
    layer = parametrizations.spectral_norm(nn.Linear(3, 3))
    with pytest.raises(
        ValueError, match=r"submodule '1.parametrizations.weight.0' .* call eval\(\)"
    ):
        prepare(nn.Sequential(nn.Linear(3, 3), layer), norm="transductive")
    model = prepare(nn.Sequential(nn.Linear(3, 3), layer.eval()), norm="transductive")
    with pytest.raises(
        ValueError, match=r"buffer '1.parametrizations.weight.0._\w' must stay constant"
    ):
        model.train()(torch.randn(4, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Dropout(0.5), r"the model itself \(Dropout\)"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(2)),
            "'1.weight' must have a shape, .* run one batch",
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d()), "'1.weight' must have a shape"),
        (
            nn.Sequential(nn.Flatten(), nn.ReLU()),
            r"must have a parameter that requires a gradient, got none; call requires",
        ),
        (nn.Linear(3, 3).requires_grad_(False), "must have a parameter that requires a gradient"),
        (
            nn.Sequential(nn.Linear(3, 3), Integers()),
            "'1.table' must be real floating point, got torch.int64; make it a buffer",
        ),
        (
            nn.Linear(3, 3, dtype=torch.complex64),
            "'weight' must be real floating point, got torch.complex64",
        ),
        (
            nn.Linear(3, 3, device="meta"),
            "'weight' must hold numbers, but it is on the meta device",
        ),
        (Locked(), r"the model itself \(Locked\) must allow copy.deepcopy, but: .*lock"),
        (F.relu, "model must be a torch.nn.Module, got function"),
        (nn.Linear, "model must be a torch.nn.Module, got type"),
    ],
)
def test_models(model, message):
    with pytest.raises(ValueError, match=message):
        prepare(model, norm="transductive")


def test_an_unknown_policy():
    with pytest.raises(ValueError, match=r"norm policy must be one of .* did you mean 'support'"):
        prepare(nn.Linear(3, 3), norm="suport")


class Doing(nn.Module):
    """A linear layer followed by what the test says."""

    def __init__(self, act) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(3))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self, x)


def add_in_place(model, x):
    model.seen += 1
    return model.linear(x)


def reassign(model, x):
    model.seen = model.seen + x.mean(0)
    return model.linear(x)


def native_running_statistics(model, x):
    return F.batch_norm(model.linear(x), model.seen, torch.ones(3), training=True)


def new_buffer(model, x):
    model.register_buffer("cache", x)
    return model.linear(x)


@pytest.mark.parametrize("act", [add_in_place, reassign, native_running_statistics, new_buffer])
class TestChangedBuffers:
    def test_refused_with_an_example(self, act):
        with pytest.raises(
            ValueError,
            match=r"buffer '(seen|cache)' must stay constant, but the forward pass changed it",
        ):
            prepare(Doing(act), norm="transductive", example=torch.randn(4, 3))

    def test_refused_at_the_first_pass_without_one_and_in_copies(self, act):
        original = Doing(act)
        model = copy.deepcopy(prepare(original, norm="transductive"))
        with pytest.raises(ValueError, match="must stay constant"):
            model(torch.randn(4, 3))
        assert torch.equal(original.seen, torch.zeros(3))


def test_a_constant_buffer_is_fine():
    model = prepare(
        Doing(lambda m, x: m.linear(x) + m.seen), norm="transductive", example=torch.randn(4, 3)
    )
    assert model(torch.randn(4, 3)).shape == (4, 3)
    model.seen.add_(1)  # between passes a buffer may change: loading, moving, casting
    assert model.double()(torch.randn(4, 3).double()).dtype == torch.float64


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_output):
        return 2 * grad_output * ctx.saved_tensors[0]


def fused_attention(model, x):
    y = model.linear(x)[:, None, None]
    return F.scaled_dot_product_attention(y, y, y)[:, 0, 0]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda m, x: F.dropout(m.linear(x), 0.5),
            r"draws from the global random generator in the model itself \(Doing\); "
            "remove the dropout",
        ),
        (
            lambda m, x: m.linear(F.relu_(x)),
            "must leave its input as it is, but it writes to it; set inplace=False",
        ),
        (lambda m, x: (m.linear(x), x), r"one float tensor of 4 rows for 4 items, got tuple"),
        (lambda m, x: m.linear(x).mean(0), r"one float tensor of 4 rows for 4 items, got \(3,\)"),
        (lambda m, x: m.linear(x).argmax(1), r"one float tensor of 4 rows"),
        (
            lambda m, x: checkpoint(m.linear, x, use_reentrant=False),
            "must be twice differentiable .* do not checkpoint",
        ),
        (lambda m, x: Square.apply(m.linear(x)), "must be twice differentiable .* a setup_context"),
    ],
)
def test_what_only_an_example_can_show(act, message):
    with pytest.raises(ValueError, match=message):
        prepare(Doing(act), norm="transductive", example=torch.randn(4, 3))


def test_fused_attention_is_switched_for_second_derivatives_only():
    model = prepare(Doing(fused_attention), norm="transductive")
    assert probe(model, torch.randn(4, 3)).plain_attention
    assert not probe(model, torch.randn(4, 3), order=1).plain_attention


def test_the_example_is_not_changed_and_no_random_number_is_drawn():
    model, example = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(4, 3)
    before, state = example.clone(), torch.get_rng_state()
    prepare(model, norm="transductive", example=example)
    assert torch.equal(example, before) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("call", ["meta_gradient", "adapt", "trace"])
def test_cached_parametrizations(call):
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    given = (x, y) if call == "adapt" else (Episode(x, y, x, y),)
    learner = MetaLearner(parametrizations.weight_norm(nn.Linear(3, 3)), n_steps=1, probe="off")
    with parametrize.cached(), pytest.raises(ValueError, match=r"inside .*cached\(\).*; leave it"):
        getattr(learner, call)(*given)
    getattr(learner, call)(*given)
    with parametrize.cached():
        getattr(MetaLearner(nn.Linear(3, 3), n_steps=1), call)(*given)
