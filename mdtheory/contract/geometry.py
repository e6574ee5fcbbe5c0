"""The whole contract of one geometry: every property on every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from mdtheory.contract.check import Finding, examine_property, findings
from mdtheory.contract.device import RESIDENCE
from mdtheory.contract.gradients import GRADIENTS
from mdtheory.contract.hooks import HOOKS
from mdtheory.contract.setting import CPU, MODELS, Setting
from mdtheory.geometry.base import Geometry

PROPERTIES: dict[str, Callable[[Setting], None]] = {**HOOKS, **GRADIENTS, **RESIDENCE}
"""Every property by name. Each is a function of a :class:`Setting`."""


def examine(setting: Setting, name: str) -> Finding:
    """One property of a geometry in one setting. shapes, units: none."""
    return examine_property(setting, name, PROPERTIES[name])


def check_geometry(
    make: Callable[[], Geometry], *, device: torch.device = CPU
) -> Iterator[Finding]:
    """Every property in turn; the first model on which it is broken decides."""
    return findings(lambda: [Setting(make, model, device) for model in MODELS], PROPERTIES)
