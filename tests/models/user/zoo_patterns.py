"""What people write in forward: operations, closures, hooks, state."""

from __future__ import annotations

import functools
import types

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.models.user.zoo_base import (
    Net,
    W,
    add,
    dictionaries,
    doing,
    features,
    pairs,
)

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


# how deep torch.func is nested, other levels and gradients inside of forward
def _level():
    return torch._C._functorch.maybe_current_level() or 0


class _SavedTooLate(torch.autograd.Function):
    """Its backward reads a number that forward computed, which has no derivative there."""

    @staticmethod
    def forward(x):
        y = x.exp()
        return y, y.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx, g, _):
        return g * ctx.saved_tensors[0]


class _Reversal(Sign):
    @staticmethod
    def forward(x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -0.5 * g


def _energy(m, h):
    z = h.detach().requires_grad_()
    energy = torch.tanh(z @ m.linear.weight).square().sum()
    return h - torch.autograd.grad(energy, z, create_graph=True)[0]


def _experts(m, h):
    best, which = h.softmax(1).max(1, keepdim=True)
    y = torch.zeros_like(h)
    for i in range(W):
        mine = which[:, 0] == i
        y[mine] = best[mine] * torch.tanh(h[mine] * (i + 1))
    return y


for name, act in {
    "other at two levels of torch.func": lambda m, h: h * (1.1 if _level() >= 2 else 1.0),
    "other at one level of torch.func": lambda m, h: h * (1.1 if _level() == 1 else 1.0),
    "detached at one level": lambda m, h: torch.tanh(h) + (h.detach() if _level() == 1 else h),
    "other for weights that are leaves": lambda m, h: h * (1.1 if m.linear.weight.is_leaf else 1.0),
    "the same at every level": lambda m, h: h * h.tanh() if _level() == 1 else h.tanh() * h,
    "Function that saves an intermediate": lambda m, h: _SavedTooLate.apply(torch.tanh(h))[0],
    "the same behind a zero gate": lambda m, h: h + m.gate * _SavedTooLate.apply(h)[0],
    "gradient reversal": lambda m, h: torch.tanh(h) + _Reversal.apply(h),
    "gradient inside by autograd": _energy,
    "gradient inside by torch.func": lambda m, h: h - torch.func.grad(
        lambda z: torch.tanh(z @ m.linear.weight).square().sum())(h),
    "constant by .data": lambda m, h: h @ m.linear.weight.data,
    "sparse buffer": lambda m, h: torch.sparse.mm(m.graph, h.T).T,
    "experts by a mask": _experts,
}.items():  # fmt: skip
    doing(
        name,
        act,
        gate=lambda: nn.Parameter(torch.zeros(())),
        graph=lambda: nn.Buffer(torch.eye(W).roll(1, 0).to_sparse()),
    )
