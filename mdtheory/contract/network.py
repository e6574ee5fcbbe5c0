"""What a registered network owes: scores of every item, addresses for its first weights, and exact
meta-gradients through it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from mdtheory.contract.check import Finding, findings
from mdtheory.contract.device import RESIDENCE
from mdtheory.contract.gradients import GRADIENTS
from mdtheory.contract.hooks import HOOKS
from mdtheory.contract.setting import CPU, N_WAY, ContractViolation, Setting
from mdtheory.geometry.maml import MAML

IMAGE = (1, 16, 16)
"""The shape of one input, as a configuration gives it to a network."""
WORDS: dict[str, Any] = {
    "in_channels": IMAGE[0],
    "image_size": IMAGE[1],
    "in_features": IMAGE[1] * IMAGE[2],
    "n_way": N_WAY,
}
"""What a configuration tells a network; it takes what it needs."""
SMALL = {"channels": 4, "width": 8, "patch": 4, "widths": (4, 6, 8, 10), "depth": 1, "hidden": (5,)}
"""Sizes by which networks of the library are made small, where a network has them."""


@dataclass(frozen=True)
class NetworkSetting:
    """A network for grey images of 16 x 16 pixels."""

    make: Callable[..., nn.Module]
    device: torch.device = CPU

    def network(self, seed: int = 1) -> nn.Module:
        """The network in float64 with the first weights of a seed."""
        known = inspect.signature(self.make).parameters
        given = {key: value for key, value in {**SMALL, **WORDS}.items() if key in known}
        if "seed" in known:
            given["seed"] = seed
        return self.make(**given).double().to(self.device)

    @property
    def setting(self) -> Setting:
        """MAML on the network."""
        return Setting(MAML, "this network", self.device, network=(self.network, IMAGE))


def scores(setting: NetworkSetting) -> None:
    """n_way finite scores for every image, whatever the number of images"""
    network = setting.network()
    for n in (1, 5):
        with torch.no_grad():
            found = network(torch.rand(n, *IMAGE, dtype=torch.float64, device=setting.device))
        if found.shape != (n, N_WAY) or not bool(torch.isfinite(found).all()):
            raise ContractViolation(
                f"{n} images must give finite scores of shape {(n, N_WAY)}, got shape "
                f"{tuple(found.shape)}; end in a layer of n_way outputs"
            )


def addressed(setting: NetworkSetting) -> None:
    """the seed alone decides the first weights; the global generator is left alone"""
    before = torch.get_rng_state()
    first, again, other = (
        {name: value.clone() for name, value in setting.network(seed).state_dict().items()}
        for seed in (1, 1, 2)
    )
    if any(not torch.equal(value, again[name]) for name, value in first.items()):
        raise ContractViolation(
            "the same seed must give the same weights, got others; draw them inside "
            "mdtheory.models.base.seeded(seed)"
        )
    if all(torch.equal(value, other[name]) for name, value in first.items()):
        raise ContractViolation("another seed must give other weights, got the same; take `seed`")
    if not torch.equal(before, torch.get_rng_state()):
        raise ContractViolation(
            "the global generator must be left alone, but it has moved; draw inside "
            "mdtheory.models.base.seeded(seed)"
        )


def _on_the_network(holds: Callable[[Setting], None], setting: NetworkSetting) -> None:
    holds(setting.setting)


USED = ("repeatable", "saved", "adapted", "differentiable", "stepwise", "batched", "resident")
"""Properties of a geometry that are examined with MAML on the network."""

PROPERTIES: dict[str, Callable[[NetworkSetting], None]] = {
    "scores": scores,
    "addressed": addressed,
    **{
        name: partial(_on_the_network, holds)
        for name, holds in {**HOOKS, **GRADIENTS, **RESIDENCE}.items()
        if name in USED
    },
}
"""Every property of a network by name."""


def check_network(
    make: Callable[..., nn.Module], *, device: torch.device = CPU
) -> Iterator[Finding]:
    """One finding for every property of a network, in their order."""
    return findings(lambda: [NetworkSetting(make, device)], PROPERTIES)
