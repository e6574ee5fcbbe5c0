"""Modules of every kind that people bring: small, in float64, each with a batch of inputs.

``ZOO[name]`` makes (module, one task's inputs for ``n`` items). A name says what is special.
"""

from __future__ import annotations

import functools
import math
import types
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

W = 4  # features
Inputs = Callable[[int, torch.Generator], Tensor]


def features(n, draw):
    return torch.randn(n, W, generator=draw, dtype=torch.float64)


def signals(n, draw):
    return torch.randn(n, W, 6, generator=draw, dtype=torch.float64)


def images(n, draw):
    return torch.randn(n, 2, 8, 8, generator=draw, dtype=torch.float64)


def volumes(n, draw):
    return torch.randn(n, 2, 4, 4, 4, generator=draw, dtype=torch.float64)


def sequences(n, draw):
    return torch.randn(n, 5, W, generator=draw, dtype=torch.float64)


def tokens(n, draw):
    return torch.randint(0, 7, (n, 5), generator=draw)


def dictionaries(n, draw):
    return {"x": features(n, draw), "z": features(n, draw)}


def pairs(n, draw):
    return features(n, draw), features(n, draw)


class Net(nn.Module):
    """before, the thing under test, tanh, mean over what is left, a head."""

    def __init__(self, layer, before=None, width=W):
        super().__init__()
        self.before = nn.Identity() if before is None else before
        self.layer = layer
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        y = self.layer(self.before(x))
        y = y[0] if isinstance(y, tuple) else y
        return self.head(torch.tanh(y).flatten(2).mean(2) if y.dim() > 2 else torch.tanh(y))


class Last(Net):
    """The same for (N, T, features)."""

    def forward(self, x):
        y = self.layer(self.before(x))
        y = y[0] if isinstance(y, tuple) else y
        return self.head(torch.tanh(y).mean(1))


class Doing(nn.Module):
    """A linear layer, then what ``act(self, h)`` says, then a head."""

    def __init__(self, act, **attributes):
        super().__init__()
        self.linear, self.head = nn.Linear(W, W), nn.Linear(W, 3)
        for name, value in attributes.items():
            setattr(self, name, value)
        self.act = act

    def forward(self, x):
        return self.head(self.act(self, self.linear(x)))


ZOO: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {}


def add(name: str, make: Callable[[], nn.Module], inputs: Inputs) -> None:
    assert name not in ZOO, name
    ZOO[name] = make, inputs


def vector(name, layer, width=W):
    add(name, lambda: Net(layer(), nn.Linear(W, W), width), features)


def image(name, layer, width=W):
    add(name, lambda: Net(layer(), nn.Conv2d(2, W, 3, padding=1), width), images)


def signal(name, layer, width=W):
    add(name, lambda: Net(layer(), nn.Conv1d(W, W, 3, padding=1), width), signals)


def sequence(name, layer, width=W):
    add(name, lambda: Last(layer(), nn.Linear(W, W), width), sequences)


def doing(name, act, **attributes):
    add(name, lambda: Doing(act, **{k: v() for k, v in attributes.items()}), features)


# activations
for kind in (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.ReLU6, nn.PReLU,
):  # fmt: skip
    vector(kind.__name__, kind)
vector("ReLU in place", lambda: nn.ReLU(inplace=True))
vector("Softmax", lambda: nn.Softmax(1))
vector("LogSoftmax", lambda: nn.LogSoftmax(1))
vector("Softmin", lambda: nn.Softmin(1))
vector("GLU", lambda: nn.Sequential(nn.Linear(W, 2 * W), nn.GLU(1)))
vector("GELU by tanh", lambda: nn.GELU("tanh"))
vector("Threshold", lambda: nn.Threshold(0.1, 0.0))
vector("RReLU in training", nn.RReLU)
vector("RReLU in evaluation", lambda: nn.RReLU().eval())

# linear maps
vector("Linear", lambda: nn.Linear(W, W))
vector("Linear without bias", lambda: nn.Linear(W, W, bias=False))
vector("Bilinear with itself", lambda: _Bilinear())
vector("Identity", nn.Identity)
vector("Flatten", nn.Flatten)
vector("CosineSimilarity", lambda: _Cosine())
vector("Residual", lambda: _Residual())
vector("frozen layer", lambda: nn.Linear(W, W).requires_grad_(False))
vector("Sequential of three", lambda: nn.Sequential(*[nn.Linear(W, W) for _ in range(3)]))
vector("one layer three times", lambda: nn.Sequential(*[nn.Linear(W, W)] * 3))
vector("ModuleList", lambda: _List())
vector("ModuleDict", lambda: _Dict())
vector("ParameterList", lambda: _Parameters())


class _Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(W, W, W)

    def forward(self, x):
        return self.layer(x, x)


class _Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(W, W))

    def forward(self, x):
        return F.cosine_similarity(x[:, None], self.weight[None], dim=-1)


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(W, W)

    def forward(self, x):
        y = self.layer(x)
        y += x
        return y


class _List(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(W, W) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class _Dict(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"a": nn.Linear(W, W), "b": nn.Linear(W, W)})

    def forward(self, x):
        return self.layers["a"](x) * self.layers["b"](x)


class _Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(W, W)) for _ in range(2)])

    def forward(self, x):
        return torch.tanh(x @ self.weights[0]) @ self.weights[1]


# convolution and pooling
image("Conv2d", lambda: nn.Conv2d(W, W, 3))
image("Conv2d grouped", lambda: nn.Conv2d(W, W, 3, groups=2))
image("Conv2d depthwise", lambda: nn.Conv2d(W, W, 3, groups=W))
image("Conv2d dilated and strided", lambda: nn.Conv2d(W, W, 3, stride=2, dilation=2, padding=2))
image("Conv2d circular", lambda: nn.Conv2d(W, W, 3, padding=1, padding_mode="circular"))
image("Conv2d reflecting", lambda: nn.Conv2d(W, W, 3, padding=1, padding_mode="reflect"))
image("ConvTranspose2d", lambda: nn.ConvTranspose2d(W, W, 2, stride=2))
signal("Conv1d", lambda: nn.Conv1d(W, W, 3))
signal("ConvTranspose1d", lambda: nn.ConvTranspose1d(W, W, 3))
add("Conv3d", lambda: Net(nn.Conv3d(2, W, 3, padding=1)), volumes)
add("ConvTranspose3d", lambda: Net(nn.ConvTranspose3d(2, W, 2)), volumes)
image("MaxPool2d", lambda: nn.MaxPool2d(2))
image("AvgPool2d", lambda: nn.AvgPool2d(2))
image("LPPool2d", lambda: nn.LPPool2d(2, 2))
image("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(2))
image("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d(2))
image("FractionalMaxPool2d", lambda: nn.FractionalMaxPool2d(2, output_size=3))
signal("MaxPool1d", lambda: nn.MaxPool1d(2))
signal("AvgPool1d", lambda: nn.AvgPool1d(2))
image("Upsample nearest", lambda: nn.Upsample(scale_factor=2))
image("Upsample bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"))
image("PixelShuffle", lambda: nn.Sequential(nn.Conv2d(W, 4 * W, 1), nn.PixelShuffle(2)))
image("Unfold", lambda: nn.Sequential(nn.Unfold(2), nn.Conv1d(4 * W, W, 1)))
image("ReflectionPad2d", lambda: nn.ReflectionPad2d(1))
image("ZeroPad2d", lambda: nn.ZeroPad2d(1))
image("ChannelShuffle", lambda: nn.ChannelShuffle(2))
image("grid_sample", lambda: _Grid())


class _Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[1.0, 0.1, 0.05], [-0.1, 0.9, 0.02]]))

    def forward(self, x):
        grid = F.affine_grid(self.theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


# normalisation
image("BatchNorm2d", lambda: nn.BatchNorm2d(W))
image("BatchNorm2d untracked", lambda: nn.BatchNorm2d(W, track_running_stats=False))
image("BatchNorm2d in evaluation", lambda: nn.BatchNorm2d(W).eval())
image("BatchNorm2d without affine", lambda: nn.BatchNorm2d(W, affine=False))
image("BatchNorm2d, momentum=None", lambda: nn.BatchNorm2d(W, momentum=None))
image("InstanceNorm2d", lambda: nn.InstanceNorm2d(W))
image("InstanceNorm2d affine", lambda: nn.InstanceNorm2d(W, affine=True))
image("InstanceNorm2d tracked", lambda: nn.InstanceNorm2d(W, track_running_stats=True))
image(
    "InstanceNorm2d tracked, in evaluation",
    lambda: nn.InstanceNorm2d(W, affine=True, track_running_stats=True).eval(),
)
image("GroupNorm", lambda: nn.GroupNorm(2, W))
image("LocalResponseNorm", lambda: nn.LocalResponseNorm(2))
vector("BatchNorm1d", lambda: nn.BatchNorm1d(W))
vector("LayerNorm", lambda: nn.LayerNorm(W))
vector("LayerNorm without bias", lambda: nn.LayerNorm(W, bias=False))
vector("LayerNorm without affine", lambda: nn.LayerNorm(W, elementwise_affine=False))
vector("RMSNorm", lambda: nn.RMSNorm(W))
vector("layer_norm, bias and no weight", lambda: _BiasOnly())
vector("F.normalize", lambda: _Function(lambda x: F.normalize(x, dim=1)))
vector("batch_norm by hand, frozen statistics", lambda: _HandNorm(frozen=True))
vector("batch_norm by hand, own statistics", lambda: _Function(
    lambda x: F.batch_norm(x, None, None, training=True)))  # fmt: skip


class _Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class _BiasOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(W))

    def forward(self, x):
        return F.layer_norm(x, (W,), None, self.bias)


class _HandNorm(nn.Module):
    def __init__(self, frozen):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(W), requires_grad=False)
        self.var = nn.Parameter(torch.ones(W), requires_grad=False)

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var, training=self.training)


# reparametrised weights
vector("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(W, W)))
vector(
    "spectral_norm in evaluation", lambda: parametrizations.spectral_norm(nn.Linear(W, W)).eval()
)
vector("spectral_norm in training", lambda: parametrizations.spectral_norm(nn.Linear(W, W)))
vector("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(W, W), orthogonal_map="cayley"))
vector("torch._weight_norm by hand", lambda: _HandWeightNorm())
vector("own parametrization", lambda: _symmetric())
vector("old weight_norm", lambda: _old(nn.utils.weight_norm))
vector("old spectral_norm", lambda: _old(nn.utils.spectral_norm))
vector("low-rank update", lambda: _LowRank())
vector("low-rank update folded by train(False)", lambda: _Folding())


class _HandWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(W, W)), nn.Parameter(torch.ones(W, 1))

    def forward(self, x):
        return x @ torch._weight_norm(self.v, self.g, 0).T


class _Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def _symmetric():
    layer = nn.Linear(W, W)
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return layer


def _old(wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wrap(nn.Linear(W, W))


class _LowRank(nn.Linear):
    def __init__(self):
        super().__init__(W, W)
        self.up, self.down = nn.Parameter(torch.zeros(W, 2)), nn.Parameter(torch.randn(2, W))

    def forward(self, x):
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class _Folding(_LowRank):
    folded = False

    def train(self, mode=True):
        super().train(mode)
        if mode and self.folded:
            self.weight.data -= (self.up @ self.down).data
        if not mode and not self.folded:
            self.weight.data += (self.up @ self.down).data
        self.folded = not mode
        return self

    def forward(self, x):
        weight = self.weight if self.folded else self.weight + self.up @ self.down
        return F.linear(x, weight, self.bias)


# sequences
for kind in (nn.RNN, nn.LSTM, nn.GRU):
    sequence(kind.__name__, functools.partial(kind, W, W, batch_first=True))
sequence("LSTM, two layers, both ways", lambda: nn.LSTM(
    W, 2, num_layers=2, bidirectional=True, batch_first=True))  # fmt: skip
sequence("LSTM projected", lambda: nn.LSTM(W, 6, proj_size=W, batch_first=True))
sequence("LSTM with dropout", lambda: nn.LSTM(W, W, num_layers=2, dropout=0.2, batch_first=True))
sequence("LSTMCell", lambda: _Cell())
sequence("MultiheadAttention", lambda: _Attention())
sequence("MultiheadAttention without weights", lambda: _Attention(need_weights=False))
sequence("fused attention", lambda: _Function(_attend))
sequence("fused causal attention", lambda: _Function(functools.partial(_attend, causal=True)))
sequence("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, dropout=0.0, batch_first=True))  # fmt: skip
sequence("TransformerEncoderLayer, norm first", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, dropout=0.0, batch_first=True, norm_first=True))  # fmt: skip
sequence("TransformerEncoderLayer with dropout", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, batch_first=True))  # fmt: skip
sequence("packed sequence", lambda: _Packed())
add("Embedding", lambda: Last(nn.Embedding(7, W)), tokens)
add("Embedding with padding", lambda: Last(nn.Embedding(7, W, padding_idx=0)), tokens)
add("Embedding with max_norm", lambda: Last(nn.Embedding(7, W, max_norm=1.0)), tokens)
add("Embedding, sparse", lambda: Last(nn.Embedding(7, W, sparse=True)), tokens)
add("EmbeddingBag", lambda: Net(nn.EmbeddingBag(7, W)), tokens)
add("EmbeddingBag, sum", lambda: Net(nn.EmbeddingBag(7, W, mode="sum")), tokens)
add("GPT-like block", lambda: _GPT(), tokens)
add("BERT-like block", lambda: _BERT(), tokens)


class _Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(W, W)

    def forward(self, x):
        h = c = x.new_zeros(len(x), W)
        rows = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            rows.append(h)
        return torch.stack(rows, 1)


class _Attention(nn.Module):
    def __init__(self, need_weights=True):
        super().__init__()
        self.attention, self.need_weights = (
            nn.MultiheadAttention(W, 2, batch_first=True),
            need_weights,
        )

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


def _attend(x, causal=False):
    return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=causal)[
        :, 0
    ]


class _Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(W, W, batch_first=True)

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)[0]


class _GPT(nn.Module):
    """Token and position embeddings, a causal block, a head tied to the embedding; the mask is
    built at the first call and kept.
    """

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(7, W), nn.Embedding(5, W)
        self.norm1, self.norm2 = nn.LayerNorm(W), nn.LayerNorm(W)
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)
        self.mlp = nn.Sequential(nn.Linear(W, 8), nn.GELU("tanh"), nn.Linear(8, W))
        self.head = nn.Linear(W, 7, bias=False)
        self.head.weight = self.wte.weight
        self.mask = None

    def forward(self, ids):
        t = ids.shape[1]
        if self.mask is None:
            self.mask = torch.ones(t, t).tril().bool()
        x = self.wte(ids) + self.wpe(torch.arange(t))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask))
        x = x + self.mlp(self.norm2(x))
        return self.head(x).mean(1)


class _BERT(nn.Module):
    """Embeddings, an encoder layer, a pooled first token; attention weights are kept."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, W, padding_idx=0)
        self.register_buffer("position", torch.randn(1, 5, W))
        self.query, self.key, self.value = (nn.Linear(W, W) for _ in range(3))
        self.norm, self.pooler, self.head = nn.LayerNorm(W), nn.Linear(W, W), nn.Linear(W, 3)

    def forward(self, ids):
        x = self.embedding(ids) + self.position
        scores = self.query(x) @ self.key(x).mT / math.sqrt(W)
        self.attention = scores.softmax(-1)
        x = self.norm(x + self.attention @ self.value(x))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


# operations
for name, act in {
    "sort": lambda m, h: h.sort(1)[0],
    "topk": lambda m, h: torch.cat([h.topk(2, 1)[0]] * 2, 1),
    "cumsum": lambda m, h: h.cumsum(1),
    "logsumexp": lambda m, h: h + h.logsumexp(1, keepdim=True),
    "einsum": lambda m, h: torch.einsum("ni,nj->ni", h, h),
    "where": lambda m, h: torch.where(h > 0, h, 0.1 * h),
    "clamp": lambda m, h: h.clamp(-0.5, 0.5),
    "roll": lambda m, h: h.roll(1, 1) * h,
    "gather": lambda m, h: h.gather(1, h.argsort(1)),
    "index_add": lambda m, h: torch.zeros_like(h).index_add(0, torch.arange(len(h)), h),
    "scatter": lambda m, h: torch.zeros_like(h).scatter(1, h.argsort(1), h),
    "in place on a clone": lambda m, h: h.clone().mul_(2).add_(1),
    "assignment into zeros": lambda m, h: _assigned(h),
    "matrix inverse": lambda m, h: (
        h @ torch.linalg.inv(torch.eye(W).double() * 3 + m.head.weight.T @ m.head.weight)
    ),
    "cdist": lambda m, h: torch.cdist(h, m.linear.weight),
    "cdist by hand": lambda m, h: (h[:, None] - m.linear.weight).square().sum(-1).add(1e-3).sqrt(),
    "straight through": lambda m, h: h + (h.round() - h).detach(),
    "detached half": lambda m, h: torch.cat([h[:, :2].detach(), h[:, 2:]], 1),
    "data-dependent branch": lambda m, h: h * 2 if bool(h.sum() > 0) else h * 3,
    "python loop": lambda m, h: functools.reduce(lambda a, _: torch.tanh(a), range(3), h),
    "complex numbers": lambda m, h: torch.fft.ifft(torch.fft.fft(h) * (1 + 0.5j)).real,
    "rfft": lambda m, h: torch.fft.irfft(torch.fft.rfft(h) * 2, n=W),
    "eigh": lambda m, h: h * torch.linalg.eigvalsh(m.linear.weight + m.linear.weight.T).sum(),
    "slogdet": lambda m, h: h * torch.linalg.slogdet(m.linear.weight)[1],
    "checkpoint": lambda m, h: checkpoint(torch.tanh, h, use_reentrant=False),
    "dropout(training=True)": lambda m, h: F.dropout(h, 0.5),
    "dropout(training=self.training)": lambda m, h: F.dropout(h, 0.5, training=m.training),
    "noise": lambda m, h: h + 0.1 * torch.randn_like(h),
    "bernoulli gates": lambda m, h: h * torch.bernoulli(torch.full_like(h, 0.5)),
    "no_grad half": lambda m, h: h + _under_no_grad(h),
    "features kept": lambda m, h: _keep(m, h),
    "buffer changed": lambda m, h: _change(m, h),
}.items():  # fmt: skip
    doing(name, act)


def _assigned(h):
    y = torch.zeros(h.shape, dtype=h.dtype)
    y[:, :2] = h[:, 2:]
    return y + h


def _under_no_grad(h):
    with torch.no_grad():
        return h.mean(1, keepdim=True)


def _keep(m, h):
    m.features = h
    return h * 2


def _change(m, h):
    if "seen" not in m._buffers:
        m.register_buffer("seen", torch.zeros(1))
    m.seen += 1
    return h


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class TwiceCube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class OnceCube(TwiceCube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g


doing("straight through by a Function", lambda m, h: Sign.apply(h) + h)
doing("autograd.Function, old style", lambda m, h: Cube.apply(h))
doing("autograd.Function", lambda m, h: TwiceCube.apply(h))
doing("autograd.Function, once differentiable", lambda m, h: OnceCube.apply(h))


class _Det(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.eye(W)), nn.Linear(W, 3)

    def forward(self, x):
        return self.head(x @ self.weight) * torch.linalg.det(self.weight)


add("det at the identity", _Det, features)


# where weights are read from
class _Lambdas(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(W, W), nn.Linear(W, 3)
        self.steps = [lambda x: torch.tanh(self.a(x)), lambda x: self.b(x)]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


class _Methods(_Lambdas):
    def __init__(self):
        super().__init__()
        self.steps = [self.a, torch.tanh, self.b]


class _Slope(nn.Module):
    """A lambda over self that reads a number only."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.slope = nn.Linear(W, W), nn.Linear(W, 3), 0.2
        self.act = lambda x: F.leaky_relu(x, self.slope)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


class _Listed(nn.Module):
    """The weight itself in a list besides its registered place."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(W, W), nn.Linear(W, 3)
        self.weights = [self.a.weight]

    def forward(self, x):
        return self.b(torch.tanh(F.linear(x, self.weights[0], self.a.bias)))


class _Patched(nn.Module):
    """forward replaced on the instance by a bound function."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(W, W), nn.Linear(W, 3)
        self.forward = types.MethodType(lambda s, x: s.b(torch.tanh(s.a(x))), self)


class _Hooked(nn.Module):
    """A forward hook; ``closing`` over self, or with what it is given."""

    def __init__(self, closing):
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(W, W), nn.Linear(W, 3), nn.Parameter(torch.ones(W))
        if closing:
            self.a.register_forward_hook(lambda m, args, out: out * self.scale)
        else:
            self.a.register_forward_hook(lambda m, args, out: torch.tanh(out))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def _backward_hook():
    net = Net(nn.Linear(W, W))
    net.layer.register_full_backward_hook(lambda m, gi, go: None)
    return net


def _gradient_hook():
    net = Net(nn.Linear(W, W))
    net.layer.weight.register_hook(lambda g: 0 * g)
    return net


add("lambdas over self", _Lambdas, features)
add("methods in a list", _Methods, features)
add("lambda over self for a number", _Slope, features)
add("weight kept in a list", _Listed, features)
add("forward patched on the instance", _Patched, features)
add("forward hook over self", functools.partial(_Hooked, True), features)
add("forward hook", functools.partial(_Hooked, False), features)
add("full backward hook", _backward_hook, features)
add("gradient hook on a parameter", _gradient_hook, features)


class _TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(W, W)
        self.second, self.head = self.first, nn.Linear(W, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class _TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(W, W), nn.Linear(W, 3)

    def forward(self, x, z):
        return self.b(torch.tanh(self.a(x) * z))


class _OneArgument(_TwoInputs):
    def forward(self, batch):
        x, z = batch.values() if isinstance(batch, dict) else batch
        return super().forward(x, z)


add("a module under two names", _TwoNames, features)
add("dictionary inputs", _TwoInputs, dictionaries)
add("dictionary in one argument", _OneArgument, dictionaries)
add("two inputs", _TwoInputs, pairs)
add("two inputs in one argument", _OneArgument, pairs)


# state
class _Counter(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.linear, self.calls, self.read = nn.Linear(W, 3), 0, read

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (1 + 0.01 * self.calls) if self.read else self.linear(x)


class _Average(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.linear, self.average, self.read = nn.Linear(W, 3), torch.zeros(()), read

    def forward(self, x):
        y = self.linear(x)
        self.average = 0.9 * self.average + 0.1 * y.mean()
        return y + self.average if self.read else y


class _Log(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.log = nn.Linear(W, 3), []

    def forward(self, x):
        y = self.linear(x)
        self.log.append(y.detach().mean())
        return y


class _OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.draw = nn.Linear(W, 3), torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.linear(x) + 0.1 * torch.randn(3, generator=self.draw, dtype=x.dtype)


class _Seeded(_OwnGenerator):
    def forward(self, x):
        self.draw.manual_seed(3)
        return super().forward(x)


add("call counter that is read", functools.partial(_Counter, True), features)
add("call counter that is not read", functools.partial(_Counter, False), features)
add("moving average that is read", functools.partial(_Average, True), features)
add("moving average that is not read", functools.partial(_Average, False), features)
add("a list of detached means", _Log, features)
add("own generator", _OwnGenerator, features)
add("own generator, seeded anew", _Seeded, features)


NEVER = {
    "RReLU in training",
    "FractionalMaxPool2d",
    "BatchNorm2d, momentum=None",
    "InstanceNorm2d tracked",
    "batch_norm by hand, frozen statistics",
    "spectral_norm in training",
    "old weight_norm",
    "old spectral_norm",
    "LSTM with dropout",
    "TransformerEncoderLayer with dropout",
    "packed sequence",
    "Embedding with max_norm",
    "Embedding, sparse",
    "checkpoint",
    "dropout(training=True)",
    "dropout(training=self.training)",
    "noise",
    "bernoulli gates",
    "buffer changed",
    "autograd.Function, old style",
    "lambdas over self",
    "weight kept in a list",
    "forward hook over self",
    "full backward hook",
    "gradient hook on a parameter",
    "call counter that is read",
    "moving average that is read",
    "own generator",
}
"""What has no meta-gradient, or none that torch.func can take: refused."""
TO_FIRST_ORDER = {
    "Hardsigmoid",
    "layer_norm, bias and no weight",
    "torch._weight_norm by hand",
    "EmbeddingBag",
    "EmbeddingBag, sum",
    "cdist",
    "autograd.Function, once differentiable",
    "det at the identity",
}
"""What has no right second derivatives in torch: accepted by "first_order" and adapt() alone."""
