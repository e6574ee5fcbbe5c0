"""How the Kronecker BlockIAF of several tasks is taken at once: which tensors are stacked, and
where every parameter lies in one vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mdtheory.core.types import Params
from mdtheory.maps.iaf.kronecker_init import LAYERS, halved

if TYPE_CHECKING:
    from mdtheory.maps.iaf.kronecker import KroneckerIAF

FLAT = "flat"
"""The name of the one vector among prepared meta-parameters."""

HEADS = ("log_scale", "shift")


@dataclass(frozen=True)
class Group:
    """Tensors of equal modes, in order: the first ``first`` are of the first block, the last
    ``last`` of the last.
    """

    names: tuple[str, ...]
    modes: tuple[int, ...]
    first: int
    last: int

    @property
    def encoded(self) -> tuple[str, ...]:
        """Those that later blocks read."""
        return self.names[: len(self.names) - self.last]

    @property
    def decoded(self) -> tuple[str, ...]:
        """Those that read earlier blocks."""
        return self.names[self.first :]


@dataclass(frozen=True)
class Plan:
    """What is no tensor. ``blocks``: the names, block by block; ``small``: the shape of a name's
    code; ``form``: of the units; ``live``: whether one stands before the first layer;
    ``head_gain`` by modes, ``context_gain`` by block; ``heads_only``: without the affine step;
    ``segments``: which parameters lie together in the vector, ``shapes``: of one of them.
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    groups: tuple[Group, ...]
    small: dict[str, tuple[int, ...]]
    layers: int
    form: tuple[float, float] | None
    live: bool
    head_gain: dict[tuple[int, ...], float]
    context_gain: tuple[float, ...]
    heads_only: bool
    segments: dict[str, tuple[str, ...]]
    shapes: dict[str, torch.Size]

    @cached_property
    def features(self) -> dict[str, int]:
        """Numbers in the code of a name."""
        return {name: math.prod(shape) for name, shape in self.small.items()}

    @cached_property
    def encoded(self) -> list[str]:
        """The names that contexts are made of, in order."""
        return [name for block in self.blocks[:-1] for name in block]

    @cached_property
    def sizes(self) -> list[int]:
        """Values of every segment."""
        return [len(names) * self.shapes[key].numel() for key, names in self.segments.items()]

    def flattened(self, meta: Params) -> Tensor:
        """All parameters as one vector, segment after segment. shape: (d,)"""
        return torch.cat([meta[n].reshape(-1) for names in self.segments.values() for n in names])

    def unflattened(self, flat: Tensor) -> Params:
        """Undo :meth:`flattened`."""
        meta: Params = {}
        for (key, names), part in zip(self.segments.items(), flat.split(self.sizes), strict=True):
            shape = self.shapes[key]
            meta |= zip(names, part.view(len(names), *shape).unbind(), strict=True)
        return meta

    def stacked(self, flat: Tensor, tasks: int) -> dict[str, Tensor]:
        """The segments for every task, those of several tensors stacked; ``flat`` has one row, or
        one for so many tasks. shapes: (1 or P, d) -> (tasks * n, ...)
        """
        cuts = list(pairwise(accumulate(self.sizes, initial=0)))
        if tasks == 1:
            rows = [flat[0, a:b] for a, b in cuts]
        else:
            row_of = [t * len(flat) // tasks for t in range(tasks)]
            whole = torch.cat([flat[p, a:b] for a, b in cuts for p in row_of])
            rows = list(whole.split([tasks * size for size in self.sizes]))
        pairs = zip(self.segments, rows, strict=True)
        return {key: row.view(-1, *self.shapes[key]) for key, row in pairs}


def plan_of(own: KroneckerIAF, *, heads_only: bool) -> Plan:
    """The plan of a built map."""
    blocks = tuple(map(tuple, own.blocks))
    groups = []
    for same in own.groups([name for block in blocks for name in block]):
        first = sum(name in blocks[0] for name in same)
        last = sum(name in blocks[-1] for name in same)
        groups.append(Group(tuple(same), own.modes[same[0]], first, last))
    segments = dict(_segments(groups, own, len(blocks)))
    tensors = own.own()
    small = own.codes()
    n_in = list(accumulate(sum(math.prod(small[n]) for n in block) for block in blocks))
    before = {shape: math.prod(halved(shape, 1)) for shape in own.modes.values()}
    return Plan(
        names=tuple(own.modes),
        blocks=blocks,
        groups=tuple(groups),
        small=small,
        layers=LAYERS,
        form=own.start.form,
        live=own.start.live,
        head_gain={modes: own.start.head_gain(n) for modes, n in before.items()},
        context_gain=(1.0, *(own.start.context_gain(n) for n in n_in[:-1])),
        heads_only=heads_only,
        segments=segments,
        shapes={key: tensors[names[0]].shape for key, names in segments.items()},
    )


def _segments(
    groups: list[Group], own: KroneckerIAF, n_blocks: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    def layer(part: str, i: int, names: tuple[str, ...], stage: str) -> Iterator[tuple[str, tuple]]:
        kinds = ["bias", *(f"factors.{j}" for j in range(len(groups[i].modes)))]
        for kind in kinds:
            yield f"{part}.{i}.{stage}.{kind}", tuple(f"{part}.{n}.{stage}.{kind}" for n in names)

    for i, group in enumerate(groups):
        for stage in range(LAYERS if group.encoded else 0):
            yield from layer("encoders", i, group.encoded, str(stage))
        for name in (*map(str, range(LAYERS - 1)), *HEADS) if group.decoded else ():
            yield from layer("decoders", i, group.decoded, name)
        for head in HEADS if group.first else ():
            yield (
                f"affine.{i}.{head}",
                tuple(f"affine.{n}.{head}" for n in group.names[: group.first]),
            )
    for i in range(1, n_blocks):
        for kind in ("weight", "bias"):
            name = f"linears.block{i + 1}.{kind}"
            yield name, (name,)
