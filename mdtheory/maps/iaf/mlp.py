"""BlockIAF as the poster writes it: any partition of the coordinates, plain multi-layer perceptrons
as conditioners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear

from mdtheory.core import seeding, tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params
from mdtheory.maps.iaf.base import (
    BlockIAF,
    Partition,
    ScaleForm,
    blocks_of_names,
    centred_uniform,
    smooth_leaky,
)


class MLPIAF(BlockIAF):
    """e_i: |B_i| -> hidden -> code, d_i: (i - 1) code -> hidden -> 2 |B_i|, units
    :func:`smooth_leaky`.

    ``partition``: blocks of coordinates of the flattened vector (lists of indices), or of whole
    tensors as in :data:`~mdtheory.maps.iaf.base.Partition`. The identity at the start: the
    decoders' last layers are zero, and only they, so that everything else has a gradient as soon as
    they have moved. Parameters by block i = 1..B: ``first.log_scale``, ``first.shift``;
    ``encoders.<i>.<layer>.weight`` and ``.bias`` for i < B; ``decoders.<i>.<layer>...`` for i > 1,
    whose 2 |B_i| outputs are the log-scales, then the shifts.

    source: zhang2024metamida, "Learning inverse mirror map with a NN model"; widths and units are
    not given there.
    """

    order: Tensor  # coordinates of the flattened vector, block after block
    back: Tensor  # its inverse permutation

    def __init__(
        self,
        partition: Partition | Sequence[Sequence[int]] = 4,
        *,
        hidden: int = 32,
        code: int = 8,
        scale: ScaleForm = "bounded",
        seed: int = 0,
    ):
        super().__init__(scale)
        if hidden < 1 or code < 1:
            raise ValueError(
                f"hidden and code must be at least 1, got {hidden} and {code}; the defaults are 32 "
                "and 8"
            )
        self.partition = partition
        self.hidden = hidden
        self.code = code
        self.seed = seed

    def build(self, anchor: Params) -> None:
        self.like = {
            name: torch.empty(value.shape, device="meta") for name, value in anchor.items()
        }
        indices = self._indices(anchor)
        self.blocks = [[str(i + 1)] for i in range(len(indices))]
        self.sizes = [len(block) for block in indices]
        like = next(iter(anchor.values()))
        order = torch.tensor([index for block in indices for index in block], device=like.device)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", torch.argsort(order), persistent=False)
        generator = seeding.generator("mlp_iaf", self.seed)
        for part, tensors in (
            ("encoders", self._start_encoders(generator)),
            ("decoders", self._start_decoders(generator)),
            (
                "first",
                iter(
                    [
                        ("log_scale", torch.zeros(self.sizes[0])),
                        ("shift", torch.zeros(self.sizes[0])),
                    ]
                ),
            ),
        ):
            self.add_module(part, ParameterTree({name: value.to(like) for name, value in tensors}))

    def _indices(self, anchor: Params) -> list[list[int]]:
        ends = torch.tensor([value.numel() for value in anchor.values()]).cumsum(0).tolist()
        if isinstance(self.partition, int) or any(
            isinstance(item, str) for block in self.partition for item in block
        ):
            spans = {
                name: range(end - value.numel(), end)
                for (name, value), end in zip(anchor.items(), ends, strict=True)
            }
            blocks = blocks_of_names(list(anchor), self.partition)  # type: ignore[arg-type]
            return [[index for name in block for index in spans[name]] for block in blocks]
        indices = [[int(index) for index in block] for block in self.partition]
        if sorted(index for block in indices for index in block) != list(
            range(ends[-1])
        ) or not all(indices):
            raise ValueError(
                f"partition must hold every coordinate 0..{ends[-1] - 1} of the flattened tensors "
                "exactly once in non-empty "
                f"blocks, got {sum(map(len, indices))} entries in {len(indices)} blocks; list each "
                "index once"
            )
        return indices

    def _start_mlp(
        self, prefix: str, sizes: Sequence[int], generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
            yield (
                f"{prefix}.{layer}.weight",
                centred_uniform((n_out, n_in), bound=math.sqrt(3 / n_in), generator=generator),
            )
            yield (
                f"{prefix}.{layer}.bias",
                centred_uniform((n_out,), bound=1 / math.sqrt(n_in), generator=generator),
            )

    def _start_encoders(self, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for i, size in enumerate(self.sizes[:-1], start=1):
            yield from self._start_mlp(str(i), [size, self.hidden, self.code], generator)

    def _start_decoders(self, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for i, size in enumerate(self.sizes[1:], start=2):
            for name, value in self._start_mlp(
                str(i), [(i - 1) * self.code, self.hidden, 2 * size], generator
            ):
                yield name, torch.zeros_like(value) if name.startswith(f"{i}.1.") else value

    def split(self, z: Params) -> Params:
        parts = tree.flatten(z)[self.order].split(self.sizes)
        return {block[0]: part for block, part in zip(self.blocks, parts, strict=True)}

    def join(self, pieces: Params) -> Params:
        return tree.unflatten(tree.flatten(pieces)[self.back], self.like)

    def constants(self, meta: Params) -> tuple[Params, Params]:
        return {"1": meta["first.log_scale"]}, {"1": meta["first.shift"]}

    def _mlp(self, meta: Params, prefix: str, x: Tensor) -> Tensor:
        hidden = smooth_leaky(linear(x, meta[f"{prefix}.0.weight"], meta[f"{prefix}.0.bias"]))
        return linear(hidden, meta[f"{prefix}.1.weight"], meta[f"{prefix}.1.bias"])

    def encode(self, meta: Params, pieces: Params, blocks: Sequence[int]) -> list[Tensor]:
        return [self._mlp(meta, f"encoders.{i + 1}", pieces[str(i + 1)]) for i in blocks]

    def decode(self, meta: Params, contexts: Mapping[int, Tensor]) -> tuple[Params, Params]:
        log_scales: Params = {}
        shifts: Params = {}
        for i, context in contexts.items():
            log_scales[str(i + 1)], shifts[str(i + 1)] = self._mlp(
                meta, f"decoders.{i + 1}", context
            ).chunk(2)
        return log_scales, shifts
