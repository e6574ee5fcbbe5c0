"""A number that is none is refused before it spoils what was learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mdtheory.core.inputs import leaves
from mdtheory.core.types import Episode

PARTS = ("support_x", "support_y", "query_x", "query_y")


def demand_finite(what: str, values: Iterable[Tensor], tasks: Sequence[Episode]) -> None:
    """``FloatingPointError`` where a value of any shape is nan or infinite; it names the task whose
    data is, or says that none is.
    """
    if bool(torch.stack([_finite(value) for value in values]).all()):
        return
    places = ((k, part) for k in range(len(tasks)) for part in PARTS)
    spoilt = next((place for place in places if not _sound(tasks[place[0]], place[1])), None)
    remedy = (
        "the data of all tasks is finite: lower task_lr, n_steps or the optimizer's rate"
        if spoilt is None
        else f"{spoilt[1]} of task {spoilt[0]} holds such a number: clean the data"
    )
    raise FloatingPointError(f"{what} must be finite, got nan or inf; {remedy}")


def _sound(task: Episode, part: str) -> bool:
    return all(bool(_finite(value)) for value in leaves(getattr(task, part)))


def _finite(value: Tensor) -> Tensor:
    return torch.isfinite(value.detach()).all()
