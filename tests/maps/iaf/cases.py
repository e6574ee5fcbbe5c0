"""Anchors and maps that the BlockIAF tests share."""

from __future__ import annotations

import torch

from mdtheory.core.seeding import generator
from mdtheory.maps.iaf import MLPIAF, KroneckerIAF


def conv4_anchor(channels=64, n_way=5, dtype=torch.float64):
    """Conv4's 18 tensors with torch's default initial sizes; norm weights 1 and norm biases 0, as
    at a real start.
    """
    draw, anchor, n_in = generator("blockiaf", "anchor"), {}, 3

    def uniform(*shape, fan_in):
        return ((2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1) / fan_in**0.5).to(
            dtype
        )

    for i in range(4):
        anchor[f"features.{i}.conv.weight"] = uniform(channels, n_in, 3, 3, fan_in=9 * n_in)
        anchor[f"features.{i}.conv.bias"] = uniform(channels, fan_in=9 * n_in)
        anchor[f"features.{i}.norm.weight"] = torch.ones(channels, dtype=dtype)
        anchor[f"features.{i}.norm.bias"] = torch.zeros(channels, dtype=dtype)
        n_in = channels
    anchor["classifier.weight"] = uniform(n_way, 25 * channels, fan_in=25 * channels)
    anchor["classifier.bias"] = uniform(n_way, fan_in=25 * channels)
    return anchor


def small_anchor(dtype=torch.float64):
    """One tensor of every kind, some equal in shape: 43 coordinates."""
    shapes = {
        "a.w": (3, 2, 2),
        "a.b": (3,),
        "b.w": (2, 3),
        "b.b": (3,),
        "c.w": (2, 3),
        "c.s": (),
        "c.k": (2, 1, 1, 2),
        "c.b": (4,),
    }
    draw = generator("blockiaf", "small")
    return {
        name: torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
    }


PARTITIONS = {
    "by tensor": 1,
    "by two": 2,
    "by four": 4,
    "one block": 8,
    "listed": [["c.k", "a.b"], ["b.w"], ["c.w", "a.w", "c.s", "b.b"], ["c.b"]],
}


def perturbed(built, scale=0.4, seed=0):
    """The same map with every parameter away from its special starting value; ReLU units are on,
    all else being positive.
    """
    draw, positive = generator("blockiaf", "stir", seed), getattr(built, "init", "") == "published"
    with torch.no_grad():
        for parameter in built.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(parameter)
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else 1
            parameter.copy_(
                2 * scale * noise.abs() / fan_in
                if positive
                else parameter + scale * noise / fan_in**0.5
            )
    return built


def kronecker(anchor, **options):
    built = KroneckerIAF(**options)
    built.build(anchor)
    return built


def mlp(anchor, **options):
    built = MLPIAF(**{"hidden": 6, "code": 3, **options})
    built.build(anchor)
    return built


def random_point(anchor, *address, scale=1.0):
    draw = generator("blockiaf", "point", *address)
    return {
        name: scale * torch.randn(v.shape, generator=draw, dtype=torch.float64).to(v)
        for name, v in anchor.items()
    }


def distance(a, b):
    """The largest difference over tensors, each relative to its largest entry of b."""
    return max(
        float(((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-300)).detach()) for n in b
    )
