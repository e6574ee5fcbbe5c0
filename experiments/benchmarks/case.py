"""What is measured: one meta-iteration of a method on tasks and first weights that the description
alone decides.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import interpolate

from mdtheory.core import seeding
from mdtheory.core.types import Episode, Params
from mdtheory.models import models

METHODS = ("maml", "metasgd", "metacurvature", "metamida", "potential")
BLOCKS = 4
PATTERN = 6  # pixels of a class's pattern before it is enlarged

Precision = Literal["float32", "float64", "bf16"]


class Section(BaseModel):
    """A part of a description or of a record: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Size(Section):
    """A meta-iteration: ``n_tasks`` tasks of ``n_way`` classes, images of ``image_size`` pixels,
    Conv4 with ``channels``.
    """

    shot: int = Field(default=1, ge=1)
    n_steps: int = Field(default=5, ge=0)
    channels: int = Field(default=64, ge=1)
    image_size: int = Field(default=84, ge=2**BLOCKS)
    n_way: int = Field(default=5, ge=2)
    n_query: int = Field(default=15, ge=1)
    n_tasks: int = Field(default=4, ge=1)
    task_lr: float = Field(default=0.01, gt=0)
    seed: int = 0

    @property
    def n_support(self) -> int:
        """Support images of a task."""
        return self.n_way * self.shot

    @property
    def n_queries(self) -> int:
        """Query images of a task."""
        return self.n_way * self.n_query


class Work(Section):
    """A size, and who does it how. ``order``: of the derivatives that the meta-gradient needs."""

    implementation: str
    method: str = "maml"
    estimator: str | None = None
    precision: Precision = "float32"
    order: Literal[1, 2] = 2
    size: Size = Size()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and images; bf16 is a matter of the arithmetic between them."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(
            filter(None, [self.implementation, self.method, self.estimator, self.precision])
        )


def first_weights(size: Size, dtype: torch.dtype) -> Params:
    """The weights that everybody starts from, by the names of ``conv4``, drawn in float32."""
    network = models.get("conv4")(
        in_channels=3,
        image_size=size.image_size,
        n_way=size.n_way,
        channels=size.channels,
        seed=size.seed,
    )
    return {name: value.detach().to(dtype) for name, value in network.named_parameters()}


def episode(size: Size, index: int, dtype: torch.dtype) -> Episode:
    """A task whose classes are smooth patterns, and whose images are these with noise: float in [0,
    1], (n, 3, H, W).
    """
    rng = seeding.generator("benchmark", size.seed, index)
    small = torch.rand(size.n_way, 3, PATTERN, PATTERN, generator=rng)
    pattern = interpolate(
        small, size=(size.image_size, size.image_size), mode="bilinear", align_corners=False
    )

    def images(n_each: int) -> tuple[Tensor, Tensor]:
        own = pattern.repeat_interleave(n_each, dim=0)
        noisy = own + 0.3 * torch.randn(own.shape, generator=rng)
        return noisy.clamp(0, 1).to(dtype), torch.arange(size.n_way).repeat_interleave(n_each)

    return Episode(
        *images(size.shot), *images(size.n_query), seed=seeding.seed("benchmark", size.seed, index)
    )


def episodes(size: Size, dtype: torch.dtype, *, first: int = 0) -> list[Episode]:
    """The tasks of one meta-iteration."""
    return [episode(size, first + index, dtype) for index in range(size.n_tasks)]
