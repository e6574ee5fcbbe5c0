"""The Kronecker BlockIAF on a GPU: the whole map of T tasks as one operation with its exact first
derivative, in few launches.

The mathematics is that of ``base.py`` and ``kronecker.py``, whose ordinary operations are the
reference. What differs is the order of the work. Tensors of equal shape are stacked, T * n of
them; the meta-parameters are one vector, made once for all steps of a task, so that their
gradients over the steps are summed vector by vector. A layer is y = (W_1 x ... x W_m) x + b: with
x_0 = x and, mode by mode, x_j = x_{j-1}^T W_j^T (x_{j-1} being read as a matrix with the leading
mode as its rows), y = x_m + b. Its adjoints for a cotangent g of y:

    db = g,   dW_j = g_j^T x_{j-1}^T,   g_{j-1} = W_j^T g_j^T,   with g_m = g.

A bias rides on the last product, and what two layers add to one cotangent on the last of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from mdtheory.core.torch_private import gradient_levels
from mdtheory.core.types import Params
from mdtheory.kernels.conv_norm_pool import on_gpu, plain_only, traceable
from mdtheory.kernels.over_tasks import fold, unfold
from mdtheory.kernels.triton_maps import affine, affine_slopes, unit, unit_slope
from mdtheory.maps.iaf.plan import HEADS, Group, Plan


def suits(values: Sequence[Tensor]) -> bool:
    """Whether the map can be taken at once here: on a GPU, and differentiated once."""
    return (
        all(on_gpu(v) and v.dtype in (torch.float32, torch.float64) for v in values)
        and gradient_levels() <= 1
        and traceable()
        and not plain_only()
    )


def at_once(z: Sequence[Tensor], flat: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """g(z) tensor by tensor; with ``plan.heads_only`` the log-scales of all, then the shifts.
    shapes: as z
    """
    n = len(z) * (2 if plan.heads_only else 1)
    outputs = _Map.apply(plan, flat.unsqueeze(0), *(value.unsqueeze(0) for value in z))
    return tuple(value.squeeze(0) for value in outputs[:n])


class _AtOnce(Function):
    """Everything begins with the axis of tasks, but a vector that all tasks share stays one row."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """The operation itself on as many tasks more."""
        b = info.batch_size
        rows = [
            x if at is None and position == 1 else fold(x, at, b)
            for position, (x, at) in enumerate(zip(inputs, in_dims, strict=True))
        ]
        outputs = cls.apply(*rows)
        return tuple(unfold(x, b) for x in outputs), (0,) * len(outputs)


class _Map(_AtOnce):
    """(plan, flat, z) -> g(z), then everything that the derivative is made of."""

    @staticmethod
    def forward(plan: Plan, flat: Tensor, *z: Tensor) -> Any:
        run = _Forward(plan, flat, z)
        return *run.results(), *run.kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.plan, flat, *z = inputs
        ctx.n = len(z) * (2 if ctx.plan.heads_only else 1)
        ctx.mark_non_differentiable(*output[ctx.n :])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(flat, *output)

    @staticmethod
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        flat, *output = ctx.saved_tensors
        own = [
            torch.zeros_like(y) if v is None else v
            for v, y in zip(g[: ctx.n], output[: ctx.n], strict=True)
        ]
        return None, *_Adjoint.apply(ctx.plan, flat, *own, *output[ctx.n :])


class _Adjoint(_AtOnce):
    """(plan, flat, g, kept) -> the cotangents of flat, task by task, and of z."""

    @staticmethod
    def forward(plan: Plan, flat: Tensor, *rest: Tensor) -> Any:
        n = len(plan.names) * (2 if plan.heads_only else 1)
        return _Backward(plan, flat, rest[:n], rest[n:]).results()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "the BlockIAF at once has one derivative, a second was asked for; use "
            "mdtheory.kernels.plain()"
        )


def _layer(x: Tensor, factors: Sequence[Tensor], bias: Tensor, kept: list[Tensor]) -> Tensor:
    """y of the head of this file; x_0 .. x_{m-1} go to ``kept``. shape: (N, o_1, ..., o_m)"""
    for factor in factors:
        x = x.reshape(len(x), factor.shape[2], -1)
        kept.append(x)
        left, right = x.transpose(1, 2), factor.transpose(1, 2)
        if factor is factors[-1]:
            own = bias.reshape(len(x), -1, factor.shape[1])
            x = torch.baddbmm(own, left, right)
        else:
            x = torch.bmm(left, right)
    return x.reshape(bias.shape)


def _layer_adjoint(
    g: Tensor, factors: Sequence[Tensor], kept: Sequence[Tensor], more: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """To x, with ``more`` added, and to the factors. shapes: (N, i_1, rest), as factors"""
    to: list[Tensor] = []
    for factor, x in zip(reversed(factors), reversed(kept), strict=True):
        turned = g.reshape(len(x), -1, factor.shape[1]).transpose(1, 2)
        to.insert(0, torch.bmm(turned, x.transpose(1, 2)))
        left = factor.transpose(1, 2)
        if factor is factors[0] and more is not None:
            g = torch.baddbmm(more.reshape(x.shape), left, turned)
        else:
            g = torch.bmm(left, turned)
    return g, to


def _joint(parts: Sequence[Tensor], tasks: int, shape: Sequence[int]) -> Tensor:
    """The (tasks, ...) tensors of a group next to each other. shape: (tasks * n, *shape)"""
    if len(parts) == 1:
        return parts[0].reshape(tasks, *shape)
    return torch.stack([part.reshape(tasks, *shape) for part in parts], 1).flatten(0, 1)


class _Pass:
    """What both directions share: the plan, the parameters and the layers' names."""

    def __init__(self, plan: Plan, flat: Tensor, tasks: int):
        self.plan = plan
        self.tasks = tasks
        self.own = plan.stacked(flat, tasks)

    def factors(self, layer: str, modes: Sequence[int]) -> list[Tensor]:
        return [self.own[f"{layer}.factors.{j}"] for j in range(len(modes))]

    def per_tensor(self, x: Tensor, n: int) -> list[Tensor]:
        """Undo :func:`_joint`. shapes: (tasks, ...)"""
        return list(x.reshape(self.tasks, n, *x.shape[1:]).unbind(1))

    def encoders(self) -> Iterator[tuple[int, Group]]:
        return ((i, own) for i, own in enumerate(self.plan.groups) if own.encoded)

    def decoders(self) -> Iterator[tuple[int, Group]]:
        return ((i, own) for i, own in enumerate(self.plan.groups) if own.decoded)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The later blocks, and how many numbers their contexts have."""
        n = 0
        for i, before in enumerate(self.plan.blocks[:-1], start=1):
            n += sum(self.plan.features[name] for name in before)
            yield i, n


class _Forward(_Pass):
    """From z to the heads, or to g(z)."""

    def __init__(self, plan: Plan, flat: Tensor, z: Sequence[Tensor]):
        super().__init__(plan, flat, len(z[0]))
        self.kept: list[Tensor] = []
        self.z = dict(zip(plan.names, z, strict=True))
        self.stacks = [
            _joint([self.z[name] for name in own.names], self.tasks, own.modes)
            for own in plan.groups
        ]

    def part(self, x: Tensor, names: int, *, at: slice) -> Tensor:
        """Some tensors of a group's stack. shape: (tasks * n, ...)"""
        return x.reshape(self.tasks, names, *x.shape[1:])[:, at].flatten(0, 1)

    def encode(self) -> Params:
        """The codes. shapes: (tasks, features)"""
        form, codes = self.plan.form, Params()
        for i, own in self.encoders():
            n = len(own.encoded)
            x = self.part(self.stacks[i], len(own.names), at=slice(n))
            if self.plan.live:
                self.kept.append(x)
                x = unit(x, form)
            for layer in range(self.plan.layers):
                name = f"encoders.{i}.{layer}"
                t = _layer(x, self.factors(name, own.modes), self.own[f"{name}.bias"], self.kept)
                self.kept.append(t)
                x = unit(t, form)
            codes |= zip(own.encoded, self.per_tensor(x.flatten(1), n), strict=True)
        return codes

    def seeds(self, codes: Params) -> Params:
        """What the decoders start from. shapes: (tasks, features)"""
        found = Params()
        if len(self.plan.blocks) == 1:
            return found
        context = torch.cat([codes[name] for name in self.plan.encoded], 1)[:, None]
        self.kept.append(context)
        for i, n in self.blocks():
            weight, bias = (self.own[f"linears.block{i + 1}.{kind}"] for kind in ("weight", "bias"))
            gain = self.plan.context_gain[i]
            joint = torch.baddbmm(
                bias[:, None], context[:, :, :n], weight.transpose(1, 2), alpha=gain
            )[:, 0]
            names = self.plan.blocks[i]
            parts = joint.split([self.plan.features[name] for name in names], 1)
            found |= zip(names, parts, strict=True)
        return found

    def decode(self, seeds: Params) -> dict[int, tuple[Tensor, Tensor]]:
        """The heads of every group's later tensors. shapes: (tasks * n, ...)"""
        form, found = self.plan.form, {}
        for i, own in self.decoders():
            small = self.plan.small[own.names[0]]
            t = _joint([seeds[name] for name in own.decoded], self.tasks, small).contiguous()
            for layer in range(self.plan.layers - 1):
                self.kept.append(t)
                name = f"decoders.{i}.{layer}"
                t = _layer(
                    unit(t, form),
                    self.factors(name, own.modes),
                    self.own[f"{name}.bias"],
                    self.kept,
                )
            self.kept.append(t)
            x = unit(t, form, self.plan.head_gain[own.modes])
            a, m = (
                _layer(x, self.factors(name, own.modes), self.own[f"{name}.bias"], self.kept)
                for name in (f"decoders.{i}.{head}" for head in HEADS)
            )
            found[i] = a, m
        return found

    def results(self) -> list[Tensor]:
        heads = self.decode(self.seeds(self.encode()))
        found: list[Params] = [{}, {}] if self.plan.heads_only else [{}]
        for i, own in enumerate(self.plan.groups):
            kinds = []
            for number, head in enumerate(HEADS):
                parts = [self.own[f"affine.{i}.{head}"]] if own.first else []
                parts += [heads[i][number]] if own.decoded else []
                wide = [part.reshape(self.tasks, -1, *own.modes) for part in parts]
                kinds.append(wide[0] if len(wide) == 1 else torch.cat(wide, 1))
            if not self.plan.heads_only:
                self.kept += [self.stacks[i], kinds[0]]
                kinds = [affine(self.stacks[i], *kinds)]
            for named, kind in zip(found, kinds, strict=True):
                rows = kind.reshape(self.tasks, len(own.names), -1).unbind(1)
                named |= zip(own.names, rows, strict=True)
        return [
            each[name].reshape(self.z[name].shape) for each in found for name in self.plan.names
        ]


class _Backward(_Pass):
    """From cotangents of the results to those of z and of the vector, in the opposite order."""

    def __init__(self, plan: Plan, flat: Tensor, g: Sequence[Tensor], kept: Sequence[Tensor]):
        super().__init__(plan, flat, len(g[0]))
        self.kept = list(kept)
        self.shapes = {name: own.shape for name, own in zip(plan.names, g, strict=False)}
        n = len(plan.names)
        self.g = [dict(zip(plan.names, g[i : i + n], strict=True)) for i in range(0, len(g), n)]
        self.to_own: dict[str, Tensor] = {}
        self.to_z: dict[int, Tensor] = {}

    def layer(self, name: str, own: Group, g: Tensor, more: Tensor | None = None) -> Tensor:
        """Back through a layer, whose parameters' shares are kept."""
        m = len(own.modes)
        kept, self.kept = self.kept[-m:], self.kept[:-m]
        x, to = _layer_adjoint(g, self.factors(name, own.modes), kept, more)
        self.to_own |= {f"{name}.factors.{j}": share for j, share in enumerate(to)}
        self.to_own[f"{name}.bias"] = g
        return x

    def affine(self) -> dict[int, list[Tensor]]:
        """The cotangents of the heads. shapes: (tasks, n, ...)"""
        found = {}
        for i, own in reversed(list(enumerate(self.plan.groups))):
            n = len(own.names)
            kinds = [
                _joint([each[name] for name in own.names], self.tasks, own.modes) for each in self.g
            ]
            if not self.plan.heads_only:
                a, z = self.kept.pop(), self.kept.pop()
                self.to_z[i], to_a = affine_slopes(kinds[0], z, a.reshape(z.shape))
                kinds = [to_a, kinds[0]]
            found[i] = [kind.reshape(self.tasks, n, *own.modes) for kind in kinds]
        return found

    def decode(self, heads: dict[int, list[Tensor]]) -> Params:
        """The cotangents of the seeds. shapes: (tasks, features)"""
        form, seeds = self.plan.form, Params()
        for i, own in reversed(list(self.decoders())):
            a, m = (kind[:, own.first :].flatten(0, 1).contiguous() for kind in heads[i])
            x = self.layer(f"decoders.{i}.shift", own, m)
            x = self.layer(f"decoders.{i}.log_scale", own, a, x)
            g = unit_slope(x, self.kept.pop(), form, self.plan.head_gain[own.modes])
            for layer in reversed(range(self.plan.layers - 1)):
                x = self.layer(f"decoders.{i}.{layer}", own, g)
                g = unit_slope(x, self.kept.pop(), form)
            parts = self.per_tensor(g.flatten(1), len(own.decoded))
            seeds |= zip(own.decoded, parts, strict=True)
        for i, own in enumerate(self.plan.groups):
            if own.first:
                for head, kind in zip(HEADS, heads[i], strict=True):
                    self.to_own[f"affine.{i}.{head}"] = kind[:, : own.first]
        return seeds

    def codes(self, seeds: Params) -> Params:
        """The cotangents of the codes. shapes: (tasks, features)"""
        if len(self.plan.blocks) == 1:
            return {}
        context, total = self.kept.pop(), torch.empty(0)
        for i, n in reversed(list(self.blocks())):
            g = torch.cat([seeds[name] for name in self.plan.blocks[i]], 1)[:, None]
            weight, gain = self.own[f"linears.block{i + 1}.weight"], self.plan.context_gain[i]
            self.to_own[f"linears.block{i + 1}.bias"] = g
            self.to_own[f"linears.block{i + 1}.weight"] = torch.baddbmm(
                weight, g.transpose(1, 2), context[:, :, :n], beta=0, alpha=gain
            )
            if i == len(self.plan.blocks) - 1:  # it reads all codes
                total = torch.baddbmm(context, g, weight, beta=0, alpha=gain)
            else:
                total[:, :, :n].baddbmm_(g, weight, alpha=gain)
        sizes = [self.plan.features[name] for name in self.plan.encoded]
        return dict(zip(self.plan.encoded, total[:, 0].split(sizes, 1), strict=True))

    def encode(self, codes: Params) -> None:
        """The codes' shares of the cotangents of z."""
        form = self.plan.form
        for i, own in reversed(list(self.encoders())):
            n, small = len(own.encoded), self.plan.small[own.names[0]]
            g = _joint([codes[name] for name in own.encoded], self.tasks, small)
            for layer in reversed(range(self.plan.layers)):
                g = unit_slope(g, self.kept.pop(), form)
                g = self.layer(f"encoders.{i}.{layer}", own, g)
            if self.plan.live:
                g = unit_slope(g, self.kept.pop(), form)
            share = g.reshape(self.tasks, n, *own.modes)
            if i in self.to_z:
                whole = self.to_z[i].reshape(self.tasks, -1, *own.modes)
                whole[:, :n].add_(share)
            elif own.last:  # what nobody reads has no share
                room = share.new_zeros(self.tasks, own.last, *own.modes)
                self.to_z[i] = torch.cat([share, room], 1)
            else:
                self.to_z[i] = share

    def results(self) -> Any:
        seeds = self.decode(self.affine())
        self.encode(self.codes(seeds))
        rows = [self.to_own[key].reshape(self.tasks, -1) for key in self.plan.segments]
        to_z = Params()
        for i, own in enumerate(self.plan.groups):
            if i in self.to_z:
                whole = self.to_z[i].reshape(self.tasks, len(own.names), -1)
                to_z |= zip(own.names, whole.unbind(1), strict=True)
        like = next(iter(self.g[0].values()))
        shares = [
            to_z[name].reshape(self.shapes[name])
            if name in to_z
            else like.new_zeros(self.shapes[name])
            for name in self.plan.names
        ]
        return torch.cat(rows, 1), *shares
