"""From a configuration to the things that it names: images, streams of tasks, learner, trainer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdtheory.config import RunConfig, construct, parse
from mdtheory.config.schema import is_device
from mdtheory.data.episodes import EpisodeStream, Source, TooSmallError
from mdtheory.data.splits import SPLITS
from mdtheory.geometry.base import geometries
from mdtheory.inner.estimators import Estimator, estimators
from mdtheory.meta import checkpoint
from mdtheory.meta.distributed import SINGLE_PROCESS, Processes
from mdtheory.meta.events import Listener
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.restore import restore_weights
from mdtheory.meta.trainer import (
    MetaTrainer,
    RunInfo,
    TrainerOptions,
    Validation,
)
from mdtheory.models.base import models
from mdtheory.run.optimizers import build_optimizer, build_scheduler, rehearse

EVALUATION_SEED = 0
"""Validation and test tasks never depend on a run's own seed, so that all runs on a data set are
compared on the same ones.
"""


def pick_device(name: str) -> torch.device:
    """The first GPU for "auto", or the CPU where there is none; ``ValueError`` for another word or
    a GPU that is not there.
    """
    if not is_device(name):
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}; cpu works everywhere"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must exist on this machine, got {name!r} with {torch.cuda.device_count()} "
            "GPUs; use cpu or auto"
        )
    return torch.device(name)


def build_learner(config: RunConfig, image_shape: Sequence[int]) -> MetaLearner:
    """The learner of a configuration for images of shape (C, H, W), with its first weights drawn
    from ``config.seed``.
    """
    task, device = config.task, pick_device(config.device)
    channels, height, width = image_shape
    if height != width:
        raise ValueError(f"images must be square, got {height} x {width}; set data.image_size")
    model = construct(
        models,
        config.model,
        in_channels=channels,
        image_size=height,
        in_features=channels * height * width,
        n_way=task.n_way,
        norm=config.norm,
        seed=config.seed,
    )
    return MetaLearner(
        model.to(device=device, dtype=getattr(torch, config.dtype)),
        construct(geometries, config.geometry),
        n_steps=task.n_steps,
        eval_steps=task.eval_steps,
        task_lr=task.task_lr,
        adapt=task.adapt,
        inner_loss_scale=task.inner_loss_scale,
        norm=config.norm,
        estimator=_estimator(config, device),
        objective=None if config.objective is None else config.objective.build(),
    )


def _estimator(config: RunConfig, device: torch.device) -> Estimator:
    """The estimator by name; tasks at once where asked for, or on a GPU where it can."""
    part, asked = config.meta.estimator, config.meta.batched
    if getattr(estimators.get(part.name), "can_batch", True):
        at_once = asked == "vmap" or (asked == "auto" and device.type != "cpu")
        return construct(estimators, part, batched=at_once)
    if asked == "vmap":
        raise ValueError(
            f"meta.batched must be auto or loop for the estimator {part.name!r}, got 'vmap'; "
            "change it"
        )
    return construct(estimators, part)


def build_stream(
    config: RunConfig, source: Source, *, split: str, n_query: int, trained: bool = False
) -> EpisodeStream:
    """The tasks of a split: training tasks by the run's seed, all others by
    :data:`EVALUATION_SEED`. ``trained``: whether the sizes of tasks are those of a run that is
    over, so that a split that is too small for them cannot be helped by lowering one.
    """
    try:
        return EpisodeStream(
            source,
            split=split,
            seed=config.seed if split == "train" else EVALUATION_SEED,
            n_way=config.task.n_way,
            n_shot=config.task.n_shot,
            n_query=n_query,
        )
    except TooSmallError as error:
        names = () if trained else ("n_way", "n_shot", "n_query")
        raise error.told({name: f"task.{name}" for name in names}) from error


def build_trainer(
    config: RunConfig,
    source: Source,
    *,
    out: str | Path | None = None,
    listeners: Sequence[Listener] = (),
    processes: Processes = SINGLE_PROCESS,
) -> MetaTrainer:
    """A fresh trainer for a configuration, at iteration 0; ``ValueError`` if it makes none."""
    rehearse(config, pick_device(config.device))
    learner = build_learner(config, source.image_shape)
    optimizer = build_optimizer(config, learner)
    n_query = config.task.n_query
    return MetaTrainer(
        learner,
        build_stream(config, source, split="train", n_query=n_query),
        TrainerOptions(
            iterations=config.meta.iterations,
            n_tasks=config.meta.n_tasks,
            clip_value=config.meta.clip_value,
            clip_norm=config.meta.clip_norm,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
            precision=config.precision,
            info=RunInfo(
                config=config.to_json(),
                config_digest=config.digest,
                data_digest=source.digest,
                pixels_digest=getattr(source, "pixels_digest", ""),
                split_digest=split_digest(source),
            ),
        ),
        optimizer=optimizer,
        scheduler=build_scheduler(config, optimizer),
        validation=_validation(config, source),
        out=out,
        listeners=listeners,
        processes=processes,
    )


def split_digest(source: Source) -> str:
    """What names the division of a source into train, validation and test, as hexadecimal digits:
    the sha256 of the lists of their classes.
    """
    names = [list(map(str, source.classes(split))) for split in SPLITS]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _validation(config: RunConfig, source: Source) -> Validation | None:
    plan = config.validation
    if not plan.enabled:
        return None
    return Validation(
        stream=build_stream(config, source, split="validation", n_query=config.task.n_query),
        every=plan.every,
        tasks=plan.tasks,
    )


def config_of(state: dict[str, Any], *, origin: str) -> RunConfig:
    """The configuration inside a checkpoint; ``ValueError`` if it makes no sense."""
    try:
        data = json.loads(state["config"])
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ValueError(
            f"{origin} must hold its run's configuration as JSON, which it does not; use another "
            "copy"
        )
    return parse(data, origin=origin)


def load_learner(path: str | Path, *, device: str = "cpu") -> tuple[MetaLearner, RunConfig]:
    """The trained learner of a checkpoint, or of an exported .safetensors file, without its images,
    and its configuration; in evaluation mode.
    """
    return load_trained(path, device=device)[:2]


def load_trained(
    path: str | Path, *, device: str = "cpu"
) -> tuple[MetaLearner, RunConfig, tuple[str, str]]:
    """As :func:`load_learner`, with the digests of the images that it was trained on and of their
    splits; '' where the file does not say one.
    """
    exported = Path(path).suffix == ".safetensors"
    state = checkpoint.load_safetensors(path) if exported else checkpoint.load(path)
    config = config_of(state, origin=str(path)).model_copy(update={"device": device})
    learner = build_learner(config, image_shape_of(config))
    restore_weights(learner, state)
    trained_on = state.get("data_digest", ""), state.get("split_digest", "")
    return learner.eval(), config, trained_on


def image_shape_of(config: RunConfig) -> tuple[int, int, int]:
    """(C, H, W) of the images that a run's network takes."""
    return config.data.kind.channels, config.data.image_size, config.data.image_size
