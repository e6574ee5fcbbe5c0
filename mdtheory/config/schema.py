"""What a run configuration may say, section by section."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mdtheory.config.writing import dump_toml
from mdtheory.core.objectives import Objective

if TYPE_CHECKING:
    from mdtheory.data.sources import DataSource

DEEPEST_OPTION = 8  # tables inside tables


def flatten(table: Mapping[str, Any], under: str = "") -> dict[str, str]:
    """The leaves of nested tables as JSON, by dotted key."""
    leaves: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{under}{key}.")
        else:
            leaves[under + key] = json.dumps(value, ensure_ascii=False)
    return leaves


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value has one canonical form in TOML and in JSON: no date, nan, inf or integer
    beyond 64 bits.
    """
    if isinstance(value, dict | list):
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        return depth < DEEPEST_OPTION and all(_is_plain(item, depth + 1) for item in inside)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    if not _is_plain(options):
        raise ValueError(
            "must hold finite numbers, strings, booleans, lists and (not too deep) tables only"
        )
    return options


def is_device(name: str) -> bool:
    """Whether this is a word for a device: auto, cpu, cuda or cuda:N."""
    return re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name) is not None


def _check_device(device: str) -> str:
    if not is_device(device):
        raise ValueError("must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return device


def _check_source(name: str) -> str:
    from mdtheory.data.sources import data_sources

    if name not in data_sources.names():
        *others, last = map(repr, data_sources.names())
        raise ValueError(f"must be {', '.join(others)} or {last}")
    return name


def _above_nothing(value: float) -> float:
    if value < 1e-30:
        raise ValueError("must be at least 1e-30, below which float32 cannot tell it from 0")
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_above_nothing)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Options = Annotated[dict[str, Any], AfterValidator(_check_options)]


LATER = object()
"""Marks a key that is younger than the first records: at its default it is neither written nor
digested, so that an old configuration keeps its text and its digest.
"""


class Section(BaseModel):
    """A table of the file: frozen, no unknown key, no silent conversion ("5" is no number, true is
    no 1), no nan or inf.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = plain(self)
        for name, field in type(self).model_fields.items():
            default = field.get_default(call_default_factory=True)
            if LATER in field.metadata and getattr(self, name) == default:
                data.pop(name, None)
        return data


class DataConfig(Section):
    """``[data]``: where the images come from. ``source``: a registered data source, with its own
    ``options``; ``image_size`` in pixels; ``strength``: the difficulty of a source that draws its
    images, as the glyphs are.
    """

    source: Annotated[Name, AfterValidator(_check_source)] = "glyphs"
    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    image_size: Annotated[int, Field(ge=8, le=1024)]
    strength: Annotated[float, Field(ge=0, le=10)] | None = None
    options: Annotated[Options, LATER] = {}

    @property
    def name(self) -> str:
        """The source's name, as every other part with options calls it."""
        return self.source

    @property
    def kind(self) -> type[DataSource]:
        """The data source that ``source`` names, as a class."""
        from mdtheory.data.sources import source_class

        return source_class(self.source)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        from mdtheory.data.sources import data_sources, source_class

        if not isinstance(given, Mapping):
            return given
        name = given.get("source", "glyphs")
        if not isinstance(name, str) or name not in data_sources.names():
            return {"image_size": 84, **given}
        kind = source_class(name)
        return {"image_size": kind.image_size, "strength": kind.strength, **given}

    @model_validator(mode="after")
    def _agree(self) -> DataConfig:
        kind = self.kind
        if self.path is None and kind.takes_path and not kind.variable:
            raise ValueError(
                f'path must name the image folder when source is "{self.source}", got none; add '
                'path = "..."'
            )
        if self.path is not None and not kind.takes_path:
            raise ValueError(
                f"path must be left out when source is {self.source!r}, which needs no folder; "
                "remove it"
            )
        if self.strength is not None and kind.strength is None:
            raise ValueError(
                f"strength must be left out when source is {self.source!r}, whose images are not "
                "drawn; remove it"
            )
        return self


class TaskConfig(Section):
    """``[task]``: the few-shot problem and the task solver.

    ``eval_n_query``: the test protocols, queries per class, on the same tasks (default: ``n_shot``
    as the official code does, and 15). ``eval_steps``: steps when testing (default: ``n_steps``).
    ``adapt``: patterns of the parameters that the task solver moves.
    """

    n_way: Annotated[int, Field(ge=2, lt=2**31)] = 5
    n_shot: Count = 1
    n_query: Count = 15
    eval_n_query: Annotated[tuple[Count, ...], BeforeValidator(_tuple), Field(min_length=1)]
    n_steps: CountOrZero = 5
    eval_steps: CountOrZero
    task_lr: Positive = 0.01
    inner_loss_scale: Positive = 1.0
    adapt: Annotated[tuple[Name, ...], BeforeValidator(_tuple), Field(min_length=1)] = ("*",)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        n_shot = given.get("n_shot", 1)
        protocols = sorted({n_shot, 15}) if isinstance(n_shot, int) else [15]
        return {"eval_n_query": protocols, "eval_steps": given.get("n_steps", 5), **given}

    @model_validator(mode="after")
    def _agree(self) -> TaskConfig:
        if len(set(self.eval_n_query)) < len(self.eval_n_query):
            raise ValueError(
                f"eval_n_query must not repeat a number, got {list(self.eval_n_query)}; remove the "
                "second one"
            )
        return self


class Component(Section):
    """A registered component with its own options. It may be written as its name alone."""

    name: Name
    options: Options = {}

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class ModelConfig(Component):
    """``[model]``: a registered network and its own options, e.g. ``channels``."""

    name: Name = "conv4"


class GeometryConfig(Component):
    """``[geometry]``: a registered geometry and its own options."""

    name: Name = "maml"


class EstimatorConfig(Component):
    """``meta.estimator``: a registered estimator and its own options; written as its name alone
    where it has none.
    """

    name: Name = "unrolled"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, plain: SerializerFunctionWrapHandler) -> Any:
        return plain(self) if self.options else self.name


class ObjectiveConfig(Section):
    """``[objective]``: replaces the objective that the geometry's authors train it with."""

    schedule: Literal["last", "every", "warp"]
    penalty: NotNegative = 0.0

    def build(self) -> Objective:
        """The objective that these settings describe."""
        return Objective(schedule=self.schedule, penalty=self.penalty)


class OptimizerConfig(Section):
    """``[meta.optimizer]``: a class of torch.optim by name, its rate meta_lr, and its other
    arguments as ``options``.
    """

    name: Name = "Adam"
    meta_lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    options: Options = {}

    @model_validator(mode="after")
    def _agree(self) -> OptimizerConfig:
        for key, own in (("lr", "meta_lr"), ("weight_decay", "weight_decay")):
            if key in self.options:
                raise ValueError(
                    f"options must not hold {key!r}, which is meta.optimizer.{own}; move it there"
                )
        return self


class SchedulerConfig(Section):
    """``[meta.scheduler]``: a class of torch.optim.lr_scheduler by name and its arguments, stepped
    once per iteration.
    """

    name: Name
    options: Options = {}


class MetaConfig(Section):
    """``[meta]``: meta-training. ``clip_value``: bound on every gradient element; ``clip_norm``: on
    the whole norm.
    """

    estimator: EstimatorConfig = EstimatorConfig()
    batched: Literal["auto", "loop", "vmap"] = "auto"
    n_tasks: Count = 4
    iterations: CountOrZero = 60_000
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig | None = None
    clip_value: Positive | None = None
    clip_norm: Positive | None = None


class ValidationConfig(Section):
    """``[validation]``: every so many iterations, on so many tasks; the best of these is kept. Not
    ``enabled``: never, and no best.pt.
    """

    enabled: Annotated[bool, LATER] = True
    every: Count = 1000
    tasks: Annotated[int, Field(ge=2, lt=2**31)] = 200


class TestConfig(Section):
    """``[test]``: the number of tasks behind the reported interval."""

    __test__ = False  # not a pytest class

    tasks: Annotated[int, Field(ge=2, lt=2**31)] = 1000


class RunConfig(Section):
    """Everything that decides a run. ``norm``: where batch statistics come from; ``dtype``: of
    parameters and images. ``precision``: of the products of float32 numbers on a GPU, where "tf32"
    is faster and a meta-gradient several percent off.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    norm: Literal["transductive", "support", "running"] = "transductive"
    dtype: Literal["float32", "float64"] = "float32"
    precision: Annotated[Literal["float32", "tf32"], LATER] = "float32"
    device: Annotated[str, AfterValidator(_check_device)] = "cpu"
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    checkpoint_every: Count = 100
    data: DataConfig = Field(default_factory=lambda: DataConfig.model_validate({}))
    task: TaskConfig = Field(default_factory=lambda: TaskConfig.model_validate({}))
    model: ModelConfig = ModelConfig()
    geometry: GeometryConfig = GeometryConfig()
    objective: ObjectiveConfig | None = None
    meta: MetaConfig = MetaConfig()
    validation: ValidationConfig = ValidationConfig()
    test: TestConfig = TestConfig()

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON of all that changes the result: no device, threads,
        paths or saving rhythm.
        """
        text = json.dumps(self._result(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _result(self) -> dict[str, Any]:
        idle: dict[str, Any] = {
            "device": True,
            "threads": True,
            "checkpoint_every": True,
            "data": {"path"},
        }
        return self.model_dump(mode="json", exclude=idle)

    def changes(self, before: RunConfig) -> list[str]:
        """What of the digest was otherwise ``before``, as "meta.n_tasks was 4 and is 2"."""
        was, now = flatten(before._result()), flatten(self._result())
        return [
            f"{key} was {was.get(key, 'not there')} and is {now.get(key, 'not there')}"
            for key in sorted(was.keys() | now.keys())
            if was.get(key) != now.get(key)
        ]

    def to_json(self) -> str:
        """Canonical JSON of every key, defaults included; :func:`parse` of it gives an equal
        object.
        """
        return (
            json.dumps(
                self.model_dump(mode="json", exclude_none=True),
                sort_keys=True,
                indent=2,
                allow_nan=False,
            )
            + "\n"
        )

    def to_toml(self) -> str:
        """TOML of every key, defaults included; :func:`load` of it gives an equal object."""
        return dump_toml(self.model_dump(mode="json", exclude_none=True))
