"""Optimizer and scheduler of a configuration: torch's classes by name, tried out before the run."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mdtheory.config import RunConfig
from mdtheory.config.construction import typed_options
from mdtheory.core.registry import unknown
from mdtheory.meta.learner import MetaLearner

UNSUITABLE = frozenset(
    {
        "Optimizer",
        "LBFGS",
        "Rprop",
        "SparseAdam",
        "LRScheduler",
        "LambdaLR",
        "MultiplicativeLR",
        "ChainedScheduler",
        "SequentialLR",
    }
)
"""What needs a closure, sparse gradients, functions or other schedulers, or takes no
weight_decay.
"""
FROM_ZERO = frozenset({"patience", "cooldown", "milestones"})
"""Whole-numbered options of schedulers for which 0 makes sense."""
ABOVE_ZERO = frozenset({"factor", "start_factor"})
"""What torch divides by later, though it takes a 0."""
ANY_SIGN = frozenset({"beta2_decay", "ns_coefficients"})
"""Options of optimizers that may be negative."""
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
    chosen = typed_options(factory, where, options)
    for key, value in chosen.items():
        least = 1 if isinstance(value, int) and key not in FROM_ZERO else 0
        _demand_least(f"{where}.options.{key}", value, least)
        if key in ABOVE_ZERO and value == 0:
            raise ValueError(f"{where}.options.{key} must be above 0, got {value!r}; correct it")
    if factory is ReduceLROnPlateau and chosen.get("mode", "min") == "max":
        raise ValueError(
            f"{where}.options.mode must be 'min', got 'max': what is watched is 1 - accuracy; "
            "leave it out"
        )
    with _refusals(where, name, options):
        return typing.cast(LRScheduler, factory(optimizer, **chosen))


def _demand_least(where: str, value: Any, least: int) -> None:
    numbers = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(n, int | float) and type(n) is not bool and n < least for n in numbers):
        raise ValueError(f"{where} must be at least {least}, got {value!r}; correct it")


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
    chosen = typed_options(factory, where, part.options)
    for key, value in chosen.items():
        if key not in ANY_SIGN:
            _demand_least(f"{where}.options.{key}", value, 0)
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
