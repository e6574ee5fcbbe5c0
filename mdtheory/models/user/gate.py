"""The one place where a foreign module is judged: when, and what follows from it."""

from __future__ import annotations

import copy
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mdtheory.core.inputs import Inputs, leaves
from mdtheory.core.torch_private import is_caching
from mdtheory.core.types import Episode
from mdtheory.models.user import attributes, targets
from mdtheory.models.user.case import FAILURES, Case, Loss
from mdtheory.models.user.probe import probe
from mdtheory.models.user.verdict import Verdict

log = logging.getLogger(__name__)
PROBE = ("on", "off")
"""Whether a module is probed; what can be seen without running it is always checked."""

MOST = 40
"""Verdicts kept, and looks at one layout of targets that settle nothing: a model whose numbers
somebody sets before every call is not probed for ever.
"""


class Lock:
    """A re-entrant lock that can be copied and pickled with its owner: the copy has its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: Any) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()


class Gate:
    """Probes a prepared model at the first call, and again whenever it has changed in anything but
    values: modes, hooks, plain numbers, names, shapes, types, devices, the kind of inputs.
    """

    def __init__(self, *, on: bool):
        self.on = on
        self._verdicts: dict[Any, Verdict] = {}
        self._stashed: set[attributes.Place] = set()
        self._said: set[str] = set()
        self._untried: set[int] = set()
        self._paired: set[Any] = set()
        self._undecided = Counter[Any]()

    @property
    def switched(self) -> bool:
        """Whether fused kernels without second derivatives are being replaced."""
        return any(v.plain_attention or v.plain_recurrence for v in self._verdicts.values())

    def admit(self, model: nn.Module, x: Inputs, y: Any, *, loss: Loss, order: int) -> Verdict:
        """How to run the model on such a task, to this order of derivatives; ``ValueError`` if not
        at all. Cost once admitted: one walk over the modules.
        """
        if not self.on:
            return Verdict()
        kind = tuple((v.dtype, v.dim()) for v in (*leaves(x), *leaves(y)) if isinstance(v, Tensor))
        key = (signature(model), kind, order, id(loss))
        found = self._verdicts.get(key)
        if found is None and order == 1:
            found = self._verdicts.get((key[0], kind, 2, id(loss)))
        if found is None:
            if len(self._verdicts) >= MOST:
                return next(reversed(self._verdicts.values()))
            found = probe(model, x, y, loss=loss, order=order)
            self._follow(model, found)
            self._untried.add(id(found))
            self._paired.clear()
            self._verdicts[key] = self._verdicts[(signature(model), *key[1:])] = found
        return found

    def demand_pairs(self, model: nn.Module, tasks: Sequence[Episode], *, loss: Loss) -> None:
        """Refuse targets of any task that the loss broadcasts against the outputs. Cost: one
        forward pass for every layout of targets, then a look at the shapes; while a layout is not
        settled, one for every set whose targets differ, :data:`MOST` at most.
        """
        if not self.on or targets.is_cross_entropy(loss):
            return
        for index, task in enumerate(tasks):
            for name, x, y in (
                ("support", task.support_x, task.support_y),
                ("query", task.query_x, task.query_y),
            ):
                if not isinstance(y, Tensor) or len(y) < 2:
                    continue
                key = id(loss), targets.layout(y)
                if key in self._paired or self._undecided[key] >= MOST or _recording():
                    continue
                if self._undecided[key] and targets.constant(y):
                    continue
                if _paired(Case(copy.deepcopy(model), x, y, loss), f"task {index}, {name} set"):
                    self._paired.add(key)
                else:
                    self._undecided[key] += 1

    def is_new(self, verdict: Verdict) -> bool:
        """Whether nothing was computed by this verdict yet; asking makes it old."""
        new = id(verdict) in self._untried
        self._untried.discard(id(verdict))
        return new

    def say(self, text: str) -> None:
        """Log a sentence unless it was logged before."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text)

    def _follow(self, model: nn.Module, verdict: Verdict) -> None:
        new = [place for place in verdict.stashes if place not in self._stashed]
        if new:
            attributes.Stash(new).watch(model)
            self._stashed.update(new)
        if verdict.plain_attention:
            self.say(
                "fused attention has no second derivatives: torch's plain implementation takes its "
                "place (estimator='first_order' needs none)"
            )
        if verdict.plain_recurrence:
            self.say(
                "cuDNN's recurrent layers have no second derivatives: torch's plain ones take "
                "their place (estimator='first_order' needs none)"
            )
        if verdict.unused:
            self.say(
                f"no gradient reaches {', '.join(map(repr, verdict.unused[:3]))}"
                f"{' and others' if len(verdict.unused) > 3 else ''} from the few items tried: if "
                "the outputs never depend on them, freeze them, or use them in forward"
            )
        if verdict.loss_learns:
            self.say(
                "the loss has trainable tensors of its own, which are not meta-learned; put them "
                "into the model, or freeze them"
            )


def demand_uncached(model: nn.Module) -> None:
    """Refuse to replace weights inside ``parametrize.cached()``, which keeps what others gave."""
    if is_caching() and any(map(is_parametrized, model.modules())):
        raise ValueError(
            "a parametrized model must compute its weights anew for every task, got a call inside "
            "torch.nn.utils.parametrize.cached(), which would keep those of the first; leave it"
        )


def _recording() -> bool:
    """Whether operations go into a CUDA graph now, where no value can be looked at."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _paired(case: Case, where: str) -> bool:
    try:
        outputs = case.outputs()
    except FAILURES:  # said in the pass that follows
        return False
    try:
        return isinstance(outputs, Tensor) and targets.check(case.loss, outputs, case.y)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def signature(model: nn.Module) -> int:
    """A number that changes with the structure of a model and not with its values."""
    parts: list[Any] = []
    for path, module in model.named_modules():
        own = vars(module)
        parts.append(
            (path, type(module), len(own["_forward_hooks"]), len(own["_forward_pre_hooks"]))
        )
        for name, value in own.items():
            if isinstance(value, attributes.SIMPLE):
                parts.append((name, value))
        for kind in (own["_parameters"], own["_buffers"]):
            for name, value in kind.items():
                if value is not None:
                    parts.append(
                        (name, value.shape, value.dtype, value.device, value.requires_grad)
                    )
    parts.append(torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"))
    return hash(tuple(parts))
