"""Optimizer and scheduler of a configuration: torch's classes by name, tried out before the run."""

from __future__ import annotations

import collections.abc
import copy
import typing
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mdtheory.config import RunConfig
from mdtheory.core.registry import unknown
from mdtheory.meta.learner import MetaLearner

UNSUITABLE = frozenset(
    {
        "Optimizer",
        "LBFGS",
        "SparseAdam",
        "LRScheduler",
        "LambdaLR",
        "MultiplicativeLR",
        "ChainedScheduler",
        "SequentialLR",
    }
)
"""What needs a closure, sparse gradients, functions or other schedulers."""
FROM_ZERO = frozenset({"patience", "cooldown", "milestones"})
"""Whole-numbered options of schedulers for which 0 makes sense."""
ERRORS = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    AssertionError,
)
"""How torch refuses an option: at once, or in the first step."""
STEPS = 3


def build_optimizer(config: RunConfig, learner: MetaLearner) -> Optimizer:
    """The class of ``torch.optim`` that ``[meta.optimizer]`` names, over all meta-parameters."""
    return _optimizer(config, list(learner.meta().values()))


def build_scheduler(config: RunConfig, optimizer: Optimizer) -> LRScheduler | None:
    """The class of ``torch.optim.lr_scheduler`` that ``[meta.scheduler]`` names."""
    part = config.meta.scheduler
    if part is None:
        return None
    name, options = part.name, part.options
    where = "meta.scheduler"
    factory = _find(lr_scheduler, LRScheduler, where, name)
    if "last_epoch" in options:
        raise ValueError(
            f"{where}.options must not hold 'last_epoch', which --resume sets; remove it"
        )
    chosen = _checked(factory, where, options)
    for key, value in chosen.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        least = 1 if isinstance(value, int) and key not in FROM_ZERO else 0
        if any(isinstance(n, int | float) and type(n) is not bool and n < least for n in numbers):
            raise ValueError(
                f"{where}.options.{key} must be at least {least}, got {options[key]!r}; correct it"
            )
    with _refusals(where, name, options):
        return typing.cast(LRScheduler, factory(optimizer, **chosen))


def rehearse(config: RunConfig, device: torch.device) -> None:
    """Some steps of optimizer and scheduler on a few numbers, the last one that of the last
    iteration; ``ValueError`` in one sentence for options that would end a run later.
    """
    dtype = getattr(torch, config.dtype)
    values = [nn.Parameter(torch.ones(2, 2, dtype=dtype, device=device)) for _ in range(2)]
    optimizer = _optimizer(config, values)
    scheduler = build_scheduler(config, optimizer)
    total = config.meta.iterations
    for done in range(min(STEPS, total)):
        for value in values:
            value.grad = torch.full_like(value, 1e-3)
        part = config.meta.optimizer
        with _refusals("meta.optimizer", part.name, part.options):
            optimizer.step()
        if scheduler is not None and config.meta.scheduler is not None:
            chosen = config.meta.scheduler
            with _refusals("meta.scheduler", chosen.name, chosen.options):
                if done == STEPS - 1 and not isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.last_epoch = total - 1
                _step(scheduler)
        _demand_rates(optimizer)


def _step(scheduler: LRScheduler) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(0.5)
    else:
        scheduler.step()


def _demand_rates(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        rate, most = float(group["lr"]), torch.finfo(group["params"][0].dtype).max
        if not 0 <= rate <= most:
            raise ValueError(
                f"meta_lr must stay between 0 and {most:.2g}, got {rate:g} in a later iteration; "
                "correct meta.scheduler"
            )


def _optimizer(config: RunConfig, values: list[Tensor] | list[nn.Parameter]) -> Optimizer:
    part, where = config.meta.optimizer, "meta.optimizer"
    factory = _find(torch.optim, Optimizer, where, part.name)
    chosen = _checked(factory, where, part.options)
    with _refusals(where, part.name, part.options):
        return typing.cast(
            Optimizer,
            factory(values, lr=part.meta_lr, weight_decay=part.weight_decay, **chosen),
        )


def _find(module: Any, base: type, where: str, name: str) -> Any:
    known = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and not key.startswith("_")
        and key not in UNSUITABLE
    ]
    if name not in known:
        raise unknown(f"{where}.name", name, known)
    return getattr(module, name)


@contextmanager
def _refusals(where: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """torch's refusal as one sentence; its advice on the order of steps is not ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ERRORS as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{where} must suit torch's {name}, got options {dict(options)}: {said}"
        ) from error


def _checked(factory: Any, where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the types that torch's annotations demand; ``ValueError`` for another type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            names = {name: getattr(collections.abc, name) for name in collections.abc.__all__}
            hints = typing.get_type_hints(factory.__init__, localns=names)
        except (NameError, TypeError, AttributeError):
            hints = {}
    chosen = copy.deepcopy(dict(options))
    for key, value in chosen.items():
        if key not in hints:
            continue
        try:
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            continue
        given = tuple(value) if isinstance(value, list) else value
        try:
            found = adapter.validate_python(given, strict=True)
            if isinstance(found, Iterator):  # of an Iterable the items are checked as they are read
                list(found)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise ValueError(
                f"{where}.options.{key} must be what torch takes, got {value!r} ({said}); correct "
                "it"
            ) from error
    return chosen
