"""What a geometry owes to an accelerator, examined without one: tensors that stay there, and no
waiting for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mdtheory.contract.setting import ContractViolation, Setting
from mdtheory.core import tree
from mdtheory.core.torch_private import TorchDispatchMode
from mdtheory.core.types import Episode, Params
from mdtheory.meta.learner import MetaLearner

WAITS = {
    "_local_scalar_dense": "reads a value into Python",
    "nonzero": "chooses entries by their values",
    "masked_select": "chooses entries by their values",
    "_unique2": "chooses entries by their values",
    "_linalg_svd": "computes singular values",
    "_linalg_eigh": "computes eigenvalues",
    "_linalg_check_errors": "asks whether a decomposition succeeded",
}
"""Operations for which the host waits for the device, and what the code that calls them does."""

AWAY = torch.device("meta")


class Watch(TorchDispatchMode):
    """Notes every operation for which the host would wait, and every tensor that is copied from one
    device to another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS:
            self.waits.append(WAITS[name])
        elif _masks(name, args):
            self.waits.append(WAITS["nonzero"])
        result = func(*args, **(kwargs or {}))
        if (
            name in ("_to_copy", "copy_")
            and len({each.device for each in (*args, result) if isinstance(each, Tensor)}) > 1
        ):
            self.waits.append("copies a tensor between host and device")
        return result


def _masks(name: str, args: Sequence[Any]) -> bool:
    """Whether a mask counts entries: an index of booleans, but for writing one number at all of
    them.
    """
    if not name.startswith("index") or len(args) < 2 or not isinstance(args[1], list | tuple):
        return False
    one_number = len(args) > 2 and args[2].numel() == 1
    return not one_number and any(each is not None and each.dtype == torch.bool for each in args[1])


def resident(setting: Setting) -> None:
    """on an accelerator, all tensors are there and nothing waits for them"""
    for estimator in ("unrolled", "stepwise"):
        waits = waits_of(setting.learner(estimator), setting.episodes(1)[0])
        if waits and setting.make().capturable:
            raise ContractViolation(
                f"a meta-gradient must not wait for the device, but with {estimator} one "
                f"{waits[0]}; "
                "keep values in tensors, or declare capturable = False"
            )


def waits_of(learner: MetaLearner, episode: Episode) -> list[str]:
    """What one task's meta-gradient waits for, run on torch's device "meta": shapes without values,
    a device beside the CPU.

    The second pass counts: the first, on the CPU, is also the network's probe. A value read ends
    the second. Errors: :class:`ContractViolation` where two tensors are on different devices; what
    is neither parameter nor buffer stays behind.
    """
    learner.meta_gradient([episode])
    drawn = learner.problem().noise(learner.meta(), learner.task(episode))
    noise: Params = {name: value.to(AWAY) for name, value in drawn.items()}
    learner, episode = learner.to(AWAY), episode.to(AWAY)
    with Watch() as watch:
        try:
            learner.estimator.task_gradient(
                learner.problem(), tree.detach(learner.meta()), learner.task(episode), noise
            )
        except RuntimeError as error:
            if not watch.waits:
                raise ContractViolation(
                    "a meta-gradient must keep its tensors on one device, but torch says: "
                    f"{str(error).splitlines()[0].rstrip('.')}; make buffers of constants, and new "
                    "tensors like those given"
                ) from error
    return watch.waits


RESIDENCE: dict[str, Callable[[Setting], None]] = {"resident": resident}
"""The property of this file by name; its docstring says what holds."""
