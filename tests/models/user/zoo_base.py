"""Modules of every kind that people bring: small, in float64, each with a batch of inputs.

``ZOO[name]`` makes (module, one task's inputs for ``n`` items). A name says what is special.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

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


class _Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
