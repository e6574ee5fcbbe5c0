"""BlockIAF as the MetaMiDA authors build it: every conditioner is a stack of Kronecker-factored
linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from mdtheory.core import seeding
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params
from mdtheory.maps.iaf.at_once import at_once, suits
from mdtheory.maps.iaf.base import BlockIAF, Partition, ScaleForm, blocks_of_names
from mdtheory.maps.iaf.kronecker_init import (
    LAYERS,
    LiveStart,
    PublishedStart,
    Role,
    Shape,
    halved,
    kron_linear,
    modes,
)
from mdtheory.maps.iaf.plan import FLAT, plan_of


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The n tensors along a new first axis, shape (n, ...); one tensor alone is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


class KroneckerIAF(BlockIAF):
    """The official BlockIAF: blocks of whole tensors, Kronecker encoders and decoders, one linear
    layer a block between them.

    An encoder flattens three layers unit(kron_linear) that halve every mode; a block's linear layer
    ("IAR") maps the codes of all earlier blocks to one seed per tensor; a decoder applies unit,
    kron_linear, unit, kron_linear, unit and two heads (log-scale and shift), doubling every mode
    back. The first block is z * s(a) + m with free a and m.

    ``init``: "published" (:class:`~mdtheory.maps.iaf.kronecker_init.PublishedStart`; its ReLU units
    too) or "live" (:class:`~mdtheory.maps.iaf.kronecker_init.LiveStart`). Both start as the
    identity, with the same tensors. ``seed`` is the address of the random start.

    source: zhang2024metamida and its public code (zhangyilang/MetaMirrorDescent); there s(a) = e^a,
    on the poster s is bounded.
    """

    heads_only = False  # True: a form whose last step is another

    def __init__(
        self,
        partition: Partition = 4,
        *,
        init: Literal["live", "published"] = "live",
        scale: ScaleForm = "exp",
        seed: int = 0,
    ):
        super().__init__(scale)
        if init not in ("live", "published"):
            raise ValueError(
                f"init must be 'live' or 'published', got {init!r}; 'live' trains every parameter"
            )
        self.partition = partition
        self.init = init
        self.seed = seed
        self.start = LiveStart() if init == "live" else PublishedStart()

    def build(self, anchor: Params) -> None:
        self.blocks = blocks_of_names(list(anchor), self.partition)
        self.shapes = {name: tuple(value.shape) for name, value in anchor.items()}
        self.modes = {name: modes(shape) for name, shape in self.shapes.items()}
        self.encoded = [name for block in self.blocks[:-1] for name in block]
        self.decoded = [name for block in self.blocks[1:] for name in block]
        like = next(iter(anchor.values()))
        generator = seeding.generator("kronecker_iaf", self.seed)
        for part, tensors in (
            ("encoders", self._start_encoders(generator)),
            ("decoders", self._start_decoders(generator)),
            ("linears", self._start_linears(generator)),
            ("affine", self._start_affine()),
        ):
            self.add_module(part, ParameterTree({name: value.to(like) for name, value in tensors}))
        self.plan = plan_of(self, heads_only=self.heads_only)

    def codes(self) -> dict[str, Shape]:
        """The shape of every tensor's code."""
        return {name: halved(shape, LAYERS) for name, shape in self.modes.items()}

    def prepared(self, meta: Params) -> Params:
        if self.scale.bounds is None and suits(list(meta.values())):
            return {FLAT: self.plan.flattened(meta)}
        return meta

    def point(self, meta: Params, z: Params) -> Params:
        if FLAT not in meta:
            return super().point(meta, z)
        if not suits(list(z.values())):
            return super().point(self.plan.unflattened(meta[FLAT]), z)
        values = at_once([z[name] for name in self.plan.names], meta[FLAT], self.plan)
        return dict(zip(self.plan.names, values, strict=True))

    def _features(self, names: Sequence[str]) -> list[int]:
        return [math.prod(halved(self.modes[name], LAYERS)) for name in names]

    def _start_layer(
        self, name: str, role: Role, shapes: tuple[Shape, Shape], draw: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        factors, bias = self.start.layer(role, *shapes, draw)
        yield f"{name}.bias", bias
        yield from ((f"{name}.factors.{j}", factor) for j, factor in enumerate(factors))

    def _start_encoders(self, draw: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for name in self.encoded:
            sizes = [halved(self.modes[name], times) for times in range(LAYERS + 1)]
            for layer in range(LAYERS):
                yield from self._start_layer(
                    f"{name}.{layer}", "encoder", (sizes[layer], sizes[layer + 1]), draw
                )

    def _start_decoders(self, draw: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for name in self.decoded:
            sizes = [halved(self.modes[name], times) for times in range(LAYERS, -1, -1)]
            for layer in range(LAYERS - 1):
                yield from self._start_layer(
                    f"{name}.{layer}", "decoder", (sizes[layer], sizes[layer + 1]), draw
                )
            for head in ("log_scale", "shift"):
                yield from self._start_layer(f"{name}.{head}", "head", (sizes[-2], sizes[-1]), draw)

    def _start_linears(self, draw: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for i in range(1, len(self.blocks)):
            n_in = sum(self._features([name for block in self.blocks[:i] for name in block]))
            weight, bias = self.start.linear(n_in, sum(self._features(self.blocks[i])), draw)
            yield from ((f"block{i + 1}.weight", weight), (f"block{i + 1}.bias", bias))

    def _start_affine(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.blocks[0]:
            yield f"{name}.log_scale", torch.zeros(self.modes[name])
            yield f"{name}.shift", torch.zeros(self.modes[name])

    def split(self, z: Params) -> Params:
        return {name: value.reshape(self.modes[name]) for name, value in z.items()}

    def join(self, pieces: Params) -> Params:
        return {name: value.reshape(self.shapes[name]) for name, value in pieces.items()}

    def constants(self, meta: Params) -> tuple[Params, Params]:
        names = self.blocks[0]
        return {n: meta[f"affine.{n}.log_scale"] for n in names}, {
            n: meta[f"affine.{n}.shift"] for n in names
        }

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """Tensors of equal shape are computed together: about twice as fast, forward and backward,
        on Conv4-64.
        """
        groups: dict[Shape, list[str]] = {}
        for name in names:
            groups.setdefault(self.modes[name], []).append(name)
        return list(groups.values())

    def _kron(self, meta: Params, part: str, group: Sequence[str], layer: str, x: Tensor) -> Tensor:
        prefixes = [f"{part}.{name}.{layer}" for name in group]
        n_modes = len(self.modes[group[0]])
        factors = [
            stacked([meta[f"{prefix}.factors.{j}"] for prefix in prefixes]) for j in range(n_modes)
        ]
        return kron_linear(x, factors, stacked([meta[f"{prefix}.bias"] for prefix in prefixes]))

    def encode(self, meta: Params, pieces: Params, blocks: Sequence[int]) -> list[Tensor]:
        codes: Params = {}
        for group in self.groups([name for i in blocks for name in self.blocks[i]]):
            x = stacked([pieces[name] for name in group])
            x = self.start.unit(x) if self.start.live else x
            for layer in range(LAYERS):
                x = self.start.unit(self._kron(meta, "encoders", group, str(layer), x))
            codes.update(zip(group, x.flatten(1).unbind(), strict=True))
        return [torch.cat([codes[name] for name in self.blocks[i]]) for i in blocks]

    def decode(self, meta: Params, contexts: Mapping[int, Tensor]) -> tuple[Params, Params]:
        seeds: Params = {}
        for i, context in contexts.items():
            names = self.blocks[i]
            context = context * self.start.context_gain(context.numel())
            joint = linear(
                context, meta[f"linears.block{i + 1}.weight"], meta[f"linears.block{i + 1}.bias"]
            )
            seeds.update(zip(names, joint.split(self._features(names)), strict=True))
        log_scales: Params = {}
        shifts: Params = {}
        for group in self.groups(list(seeds)):
            x = stacked([seeds[name] for name in group]).reshape(
                len(group), *halved(self.modes[group[0]], LAYERS)
            )
            for layer in range(LAYERS - 1):
                x = self._kron(meta, "decoders", group, str(layer), self.start.unit(x))
            x = self.start.unit(x) * self.start.head_gain(x[0].numel())
            log_scales.update(
                zip(
                    group, self._kron(meta, "decoders", group, "log_scale", x).unbind(), strict=True
                )
            )
            shifts.update(
                zip(group, self._kron(meta, "decoders", group, "shift", x).unbind(), strict=True)
            )
        return log_scales, shifts

    def never_trained(self) -> tuple[str, ...]:
        """Names of own parameters whose gradient is zero for ever from the published start; none
        from the live one.

        A block's linear layer is listed only where *all* its seeds feed dead heads; elsewhere some
        of its rows are dead.
        """
        if self.start.live:
            return ()
        dead = [name for name in self.decoded if len(self.modes[name]) > 1]
        names = [n for n in self.own() if any(n.startswith(f"decoders.{name}.") for name in dead)]
        names = [n for n in names if not n.endswith((".log_scale.bias", ".shift.bias"))]
        live = [
            i
            for i, block in enumerate(self.blocks)
            if i and any(len(self.modes[name]) == 1 for name in block)
        ]
        for i, block in enumerate(self.blocks):
            if i and i not in live:
                names += [f"linears.block{i + 1}.weight", f"linears.block{i + 1}.bias"]
            if not any(j > i for j in live):
                names += [
                    n
                    for n in self.own()
                    if any(n.startswith(f"encoders.{name}.") for name in block)
                ]
        return tuple(names)

    def _official(self) -> list[list[str]]:
        """The official map's tensors in order; one made of several of ours is their concatenation
        as vectors.
        """
        own = list(self.own())

        def layer(prefix: str) -> list[list[str]]:
            return [[f"{prefix}.bias"], *([n] for n in own if n.startswith(f"{prefix}.factors."))]

        encoders = [
            t for name in self.encoded for i in range(LAYERS) for t in layer(f"encoders.{name}.{i}")
        ]
        stages = [str(i) for i in range(LAYERS - 1)] + ["log_scale", "shift"]
        decoders = [
            t
            for name in self.decoded
            for stage in stages
            for t in layer(f"decoders.{name}.{stage}")
        ]
        affine = [
            [f"affine.{name}.{kind}" for name in self.blocks[0]] for kind in ("log_scale", "shift")
        ]
        linears = [
            [f"linears.block{i + 1}.{kind}"]
            for i in range(1, len(self.blocks))
            for kind in ("weight", "bias")
        ]
        return encoders + decoders + affine + linears

    @torch.no_grad()
    def load_flat(self, tensors: Sequence[Tensor]) -> None:
        """Take the official map's tensors, in the order of its ``parameters()``.

        That order, read off the public code's module structure: for every encoder (tensors of all
        blocks but the last) its three layers, each as bias, W_1, ..., W_m; for every decoder (all
        blocks but the first) its two layers, the log-scale head and the shift head, each likewise;
        the first block's log-scale and shift, one vector each over the whole block; for every later
        block its linear layer's weight and bias. Kernels have the mode shape (out, in, k*k).
        """
        if self.start.live or self.scale.bounds is not None:
            raise ValueError(
                "load_flat needs the official map's own units and scale, got another form; "
                "build the map with init='published', scale='exp' (loading overwrites its dead "
                "start)"
            )
        own, wanted, tensors = self.own(), self._official(), list(tensors)
        if len(tensors) != len(wanted):
            raise ValueError(
                f"tensors must hold {len(wanted)} tensors for this partition, got {len(tensors)}; "
                "see load_flat"
            )
        for position, (names, value) in enumerate(zip(wanted, tensors, strict=True)):
            pieces = [own[name] for name in names]
            shape = (
                pieces[0].shape
                if names[0].split(".")[0] != "affine"
                else (sum(piece.numel() for piece in pieces),)
            )
            if tuple(value.shape) != tuple(shape):
                raise ValueError(
                    f"tensors[{position}] ({names[0]}) must have shape {tuple(shape)}, got "
                    f"{tuple(value.shape)}; "
                    "give the official map's tensors in the order of its parameters()"
                )
        for names, value in zip(wanted, tensors, strict=True):
            pieces = [own[name] for name in names]
            for piece, part in zip(
                pieces, value.reshape(-1).split([piece.numel() for piece in pieces]), strict=True
            ):
                piece.copy_(part.reshape(piece.shape))
