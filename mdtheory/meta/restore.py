"""A checkpoint's weights, optimizer and scheduler put into those of a run, or refused in one
sentence.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mdtheory.meta.learner import MetaLearner

SCHEDULED = {"lr", "initial_lr", "max_lr", "min_lr", "momentum", "betas"}
SCHEDULED |= {"base_momentum", "max_momentum"}
"""Options of an optimizer that its scheduler changes."""


def check_counters(counters: dict[str, Any], iterations: int) -> None:
    """``ValueError`` for a checkpoint with more iterations behind it than its run has."""
    if counters["iteration"] > iterations:
        raise ValueError(
            f"the checkpoint must be of a run of {iterations} iterations, but it has "
            f"{counters['iteration']} behind it; use another copy"
        )


def check_images(state: dict[str, Any], own: dict[str, Any]) -> None:
    """``ValueError`` for a checkpoint of other images, pixels or splits than the run's ``own``, by
    the digests of both as far as they say them.
    """
    for name, said in {
        "data_digest": "the images must be those that the run began with, but the set has",
        "pixels_digest": "the images must be those that the run began with, but their pixels have",
        "split_digest": "train, validation and test must hold the classes that they held when the "
        "run began, but their lists have",
    }.items():
        said_by_both = name == "data_digest" or (state[name] and own[name])
        if said_by_both and state[name] != own[name]:
            raise ValueError(
                f"{said} another digest; restore them, or start again in another folder"
            )


def restore_weights(learner: MetaLearner, state: dict[str, Any]) -> None:
    """Copy a checkpoint's weights into a learner of the same configuration; ``ValueError`` if they
    do not fit.
    """
    own = learner.state_dict()
    for name, value in state["weights"].items():
        if name in own and own[name].dtype is not value.dtype:
            raise ValueError(
                f"the checkpoint's weights must fit its configuration, but {name} is "
                f"{value.dtype}, not {own[name].dtype}; use another copy"
            )
    try:
        learner.load_state_dict(state["weights"])
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint's weights must fit its configuration, but {short(error)}; use "
            "another copy"
        ) from error


def restore_optimizer(
    optimizer: Optimizer, scheduler: LRScheduler | None, state: dict[str, Any]
) -> None:
    """Load both. Errors: whatever torch raises for a state that does not fit."""
    _check_numbers(optimizer, state["optimizer"]["state"])
    _check_options(optimizer, state["optimizer"]["param_groups"], scheduled=scheduler is not None)
    optimizer.load_state_dict(state["optimizer"])
    _check_shapes(optimizer)
    _try_step(optimizer)
    if scheduler is not None:
        scheduler.load_state_dict(_as_types_of(scheduler.state_dict(), state["scheduler"]))


def _check_numbers(optimizer: Optimizer, stored: dict[int, dict[str, Any]]) -> None:
    """The same must be kept for every vector, and for every parameter of more dimensions (Adafactor
    tells these apart), and every tensor of it be finite and, but for single numbers, of the
    parameter's type: torch would cast it.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    names = defaultdict[bool, set[str]](set)
    for index, kept in stored.items():
        names[_is_vector(parameters[index])] |= kept.keys()
    for index, kept in stored.items():
        if lacking := names[_is_vector(parameters[index])] - kept.keys():
            raise ValueError(f"parameter {index} lacks {min(lacking)}")
    for index, kept in stored.items():
        own = parameters[index].dtype
        for name, value in kept.items():
            if not isinstance(value, Tensor):
                continue
            if value.dtype is not own and (value.dim() > 0 or not value.is_floating_point()):
                raise ValueError(f"{name} is {value.dtype}, kept for a parameter of {own}")
            if not torch.isfinite(value).all():
                raise ValueError(f"{name}, kept for a parameter, has a NaN or an infinity")


def _is_vector(parameter: Tensor) -> bool:
    return parameter.dim() < 2


def _check_options(optimizer: Optimizer, stored: list[dict[str, Any]], *, scheduled: bool) -> None:
    """Every option of an optimizer must be its own, but for those that a scheduler changes."""
    for group, found in zip(optimizer.param_groups, stored, strict=True):
        for name in group.keys() & found.keys() - {"params"} - (SCHEDULED if scheduled else set()):
            own = list(group[name]) if isinstance(group[name], tuple) else group[name]
            if type(own) is not type(found[name]) or own != found[name]:
                raise ValueError(f"the optimizer's {name} is {found[name]!r}, not {own!r}")


def _try_step(optimizer: Optimizer) -> None:
    """A step of a copy that has the first vector and the first other parameter of every group
    alone: whatever torch raises then, it raises now.
    """
    trial = copy.copy(optimizer)
    firsts = [
        list({_is_vector(each): each for each in reversed(group["params"])}.values())
        for group in optimizer.param_groups
    ]
    trial.param_groups = [
        {**group, "params": first}
        for group, first in zip(optimizer.param_groups, firsts, strict=True)
    ]
    trial.state = defaultdict(dict)
    trial.state.update({p: optimizer.state.get(p, {}) for first in firsts for p in first})
    trial = copy.deepcopy(trial)
    for group in trial.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    trial.step()


def _check_shapes(optimizer: Optimizer) -> None:
    """Every tensor that an optimizer keeps for a parameter must broadcast to it."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if (
                isinstance(value, Tensor)
                and torch.broadcast_shapes(value.shape, parameter.shape) != parameter.shape
            ):
                raise ValueError(
                    f"{name} of shape {tuple(value.shape)} is kept for a parameter of "
                    f"{tuple(parameter.shape)}"
                )


def _as_types_of(now: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """``stored`` with the dictionary classes that a scheduler needs (a ``Counter`` of milestones)
    and a checkpoint flattens.
    """
    return {k: type(now[k])(v) if isinstance(now.get(k), dict) else v for k, v in stored.items()}


def short(error: BaseException) -> str:
    """The beginning of what an error says, on one line."""
    return " ".join(str(error).split())[:200]
