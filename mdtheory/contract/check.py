"""The whole contract of one geometry: every property on every model, one finding each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from mdtheory.contract.device import RESIDENCE
from mdtheory.contract.gradients import GRADIENTS
from mdtheory.contract.hooks import HOOKS
from mdtheory.contract.setting import CPU, MODELS, Broken, NotOwed, Setting
from mdtheory.geometry.base import Geometry

PROPERTIES = {**HOOKS, **GRADIENTS, **RESIDENCE}
"""Every property by name. Each is a function of a :class:`Setting` that raises :class:`Broken` or
:class:`NotOwed`.
"""

FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a geometry's own code may raise where it is wrong."""


@dataclass(frozen=True)
class Finding:
    """Whether a property holds on all models, and what was found where it does not."""

    property: str
    verdict: Literal["holds", "not owed", "broken"]
    said: str


def examine(setting: Setting, name: str) -> Finding:
    """One property in one setting; an error in the geometry's own code is a finding, too."""
    try:
        PROPERTIES[name](setting)
    except NotOwed as reason:
        return Finding(name, "not owed", str(reason))
    except Broken as fault:
        return Finding(name, "broken", f"on {setting.model}: {fault}")
    except FOREIGN as error:
        said = " ".join(str(error).split())
        return Finding(
            name, "broken", f"on {setting.model}: its code raised {type(error).__name__}: {said}"
        )
    return Finding(name, "holds", PROPERTIES[name].__doc__ or "")


def check(make: Callable[[], Geometry], *, device: torch.device = CPU) -> Iterator[Finding]:
    """Every property in turn; the first model on which it is broken decides."""
    for name in PROPERTIES:
        found = [examine(Setting(make, model, device), name) for model in MODELS]
        yield next((one for one in found if one.verdict == "broken"), found[0])
