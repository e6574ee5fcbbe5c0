"""The BlockIAF at once, on a card or in Triton's interpreter, against its ordinary operations."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.utils import _pytree as pytree

from mdtheory.core.types import Episode, Params
from mdtheory.geometry.base import Geometry
from mdtheory.geometry.metamida import MetaMiDA
from mdtheory.geometry.rules import PullbackStep
from mdtheory.kernels import many, plain
from mdtheory.maps.iaf import at_once
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF
from mdtheory.maps.iaf.kronecker import KroneckerIAF
from mdtheory.maps.iaf.plan import FLAT
from mdtheory.meta.learner import MetaLearner
from tests.kernels.conftest import CARD
from tests.kernels.test_triton_mutants import mutated

ANCHOR = {
    "conv0": (3, 2, 2, 2),
    "gamma0": (3,),
    "conv1": (3, 2, 2, 2),
    "gamma1": (3,),
    "gamma2": (3,),
    "matrix": (2, 5),
    "scalar": (),
}
MIXED = [["gamma2", "conv0"], ["gamma1", "scalar", "matrix"], ["gamma0", "conv1"]]
TASKS = 2
DEVICE = torch.device("cuda" if CARD else "cpu")


def drawn(shapes: dict[str, Any], seed: int, *lead: int) -> Params:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: 0.5 * torch.randn((*lead, *shape), generator=draw, dtype=torch.float64).to(DEVICE)
        for name, shape in shapes.items()
    }


def built(own: Any) -> tuple[Any, Params]:
    own.build(drawn(ANCHOR, 0))
    return own, drawn({name: value.shape for name, value in own.own().items()}, 1)


def slopes(own: Any, meta: Params, z: Params, g: Params) -> Any:
    """g(z), and the cotangents of the meta-parameters and of z, of one task."""
    value, pull = vjp(lambda meta, z: own.point(own.prepared(meta), z), meta, z)
    return value, pull(g)


def looped(own: Any, meta: Params, z: Params, g: Params) -> Tensor:
    rows = [
        slopes(own, meta, *({name: v[t] for name, v in each.items()} for each in (z, g)))
        for t in range(TASKS)
    ]
    return together(pytree.tree_map(lambda *parts: torch.stack(parts), *rows))


def together(found: Any) -> Tensor:
    return torch.cat([part.reshape(-1) for part in pytree.tree_leaves(found)])


def error(own: Any, meta: Params) -> float:
    """Of the vmap at once, relative to the largest entry."""
    z, g = drawn(ANCHOR, 2, TASKS), drawn(ANCHOR, 3, TASKS)
    with plain():
        expected = looped(own, meta, z, g)
    found = together(vmap(lambda z, g: slopes(own, meta, z, g))(z, g))
    return float((found - expected).abs().max() / expected.abs().max())


MAPS = {
    "three a block": lambda: KroneckerIAF(3),
    "as published": lambda: KroneckerIAF(3, init="published"),
    "one block": lambda: KroneckerIAF(7),
    "mixed blocks": lambda: KroneckerIAF(MIXED),
    "certified": lambda: CertifiedKroneckerIAF(3),
}


@pytest.mark.parametrize("name", MAPS)
def test_value_and_derivative_are_the_ordinary_ones(
    name: str, triton_machine: torch.device
) -> None:
    own, meta = built(MAPS[name]())
    assert FLAT in own.prepared(meta)
    assert error(own, meta) < 1e-12


def test_a_loop_and_parameters_of_every_task(triton_machine: torch.device) -> None:
    own, meta = built(KroneckerIAF(3))
    z, g = drawn(ANCHOR, 2, TASKS), drawn(ANCHOR, 3, TASKS)
    shared = together(vmap(lambda z, g: slopes(own, meta, z, g))(z, g))
    assert float((looped(own, meta, z, g) - shared).abs().max()) < 1e-12 * shared.abs().max()
    each = {name: value.expand(TASKS, *value.shape) for name, value in meta.items()}
    assert torch.equal(together(vmap(lambda *args: slopes(own, *args))(each, z, g)), shared)


def test_other_shapes_of_the_scale_stay_ordinary(triton_machine: torch.device) -> None:
    own, meta = built(KroneckerIAF(3, scale="bounded"))
    assert own.prepared(meta) is meta


def episode(seed: int) -> Episode:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    labels = torch.arange(4) % 2
    return Episode(x, labels, x.flip(0) + 1, labels).to(device=DEVICE)


def gradient(geometry: Geometry, *, ordinary: bool) -> Tensor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().to(DEVICE)
    own = MetaLearner(network, geometry, n_steps=2, task_lr=0.1, probe="off")
    for value in own.geometry.parameters():
        value.data += 0.1 * torch.randn_like(value)
    own.estimator.batched = True
    tasks = [episode(0), episode(1)]
    if not ordinary:
        found = own.meta_gradient(tasks).grads
        assert not own.estimator.unbatchable
        return together(found)
    with plain():
        return together(own.meta_gradient(tasks).grads)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MetaMiDA(2),
        lambda: Geometry(KroneckerIAF(2), PullbackStep()),  # its step differentiates the map itself
    ],
    ids=["metamida", "pullback"],
)
def test_a_meta_gradient_through_it(make: Any, triton_machine: torch.device) -> None:
    found, expected = gradient(make(), ordinary=False), gradient(make(), ordinary=True)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-12


def test_a_second_derivative_is_refused(triton_machine: torch.device) -> None:
    own, meta = built(KroneckerIAF(3))
    z = {name: v.requires_grad_() for name, v in drawn(ANCHOR, 2).items()}
    value = together(own.point(own.prepared(meta), z))
    (slope,) = torch.autograd.grad(value.sum(), z["conv0"], create_graph=True)
    with pytest.raises(RuntimeError, match="one derivative"):
        slope.sum().backward()


def test_many_tensors_move_and_are_averaged_as_one_by_one(triton_machine: torch.device) -> None:
    """Twice differentiated, under vmap, one of both without a batch axis."""
    x, by = drawn(ANCHOR, 4), drawn(ANCHOR, 5, TASKS)

    def slope(by: Params) -> Any:
        def moved(by: Params) -> Tensor:
            new = many.moved(list(x.values()), list(by.values()), -0.5)
            return together([value**3 for value in new]).sum()

        return torch.func.grad(lambda own: together(torch.func.grad(moved)(own)).sum())(by)

    found = vmap(slope)(by)
    for name, value in found.items():  # d/dby of the sum of -1.5 (x - by / 2)^2
        assert torch.allclose(value, 1.5 * (x[name] - 0.5 * by[name])), name
        assert torch.allclose(many.means(found)[name], value.mean(0))


KERNELS = {
    "the root's sign": ("return p * t + q * root", "return p * t - q * root"),
    "the slope's root": ("return p + q * t / root", "return p + q * t"),
    "the gain of a slope": ("slope = GAIN * ", "slope = "),
    "the shift": (", other=0.0) + shift", ", other=0.0)"),
    "z in the slope of the scale": ("to * tl.load(z + i, mask=i < n, other=0.0)", "to"),
    "one program of many": ("tl.program_id(0).to(tl.int64) * BN", "0 * BN"),
}
STEPS = {
    "the bias": ("x = torch.baddbmm(own, left, right)", "x = torch.bmm(left, right)"),
    "what a second head adds": ("and more is not None", "and False"),
    "the codes' order": ("reversed(list(self.encoders()))", "list(self.encoders())"),
    "a context's gain": ("beta=0, alpha=gain\n", "beta=0\n"),
    "earlier blocks' codes": ("total[:, :, :n].baddbmm_(g, weight, alpha=gain)", "pass"),
    "the codes' share of z": ("whole[:, :n].add_(share)", "pass"),
}


@pytest.mark.skipif(CARD, reason="the faults are planted in Triton's interpreter, without a card")
@pytest.mark.parametrize("fault", [*KERNELS, *STEPS])
def test_a_fault_is_seen(
    fault: str, triton_machine: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mdtheory.kernels import triton_maps

    module: Any
    if fault in KERNELS:
        monkeypatch.setattr(triton_maps, "VALUES", 16)
        module = mutated("mdtheory.kernels.triton_maps", *KERNELS[fault], tmp_path)
        module.VALUES = 16
        for name in ("unit", "unit_slope", "affine", "affine_slopes"):
            monkeypatch.setattr(at_once, name, getattr(module, name))
    else:
        module = mutated("mdtheory.maps.iaf.at_once", *STEPS[fault], tmp_path)
        monkeypatch.setattr("mdtheory.maps.iaf.kronecker.at_once", module.at_once)
    own, meta = built(KroneckerIAF(3))
    with suppress(RuntimeError, IndexError):  # seen as well
        assert not error(own, meta) < 1e-9
