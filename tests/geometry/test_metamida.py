"""The registered geometries: options, declared dead parameters, copies, and a meta-gradient at full
size.
"""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase

import pytest
import torch

from mdtheory.geometry import geometries
from mdtheory.maps import DualMap, MirrorMap
from mdtheory.maps.iaf import MLPIAF, KroneckerIAF
from tests.maps.iaf.cases import conv4_anchor, perturbed, random_point, small_anchor


def built(slug, **options):
    geometry = geometries.get(slug)(**options)
    geometry.build(small_anchor())
    return geometry


def test_slugs_and_forms():
    live, published, mlp = (
        built("metamida"),
        built("metamida-published"),
        built("metamida", form="mlp"),
    )
    assert (
        isinstance(live.map, KroneckerIAF)
        and live.map.init == "live"
        and live.map.scale.bounds is None
    )
    assert (
        isinstance(published.map, KroneckerIAF)
        and published.map.init == "published"
        and published.map.scale.bounds is None
    )
    assert isinstance(mlp.map, MLPIAF) and mlp.map.scale.bounds == (0.0, 2.0)
    assert built("metamida", scale=[0.5, 1.5]).map.scale.bounds == (0.5, 1.5)
    assert len(built("metamida", partition=3).map.blocks) == 3
    assert all(geometry.source for geometry in (live, published, mlp))
    with pytest.raises(ValueError, match="form must be 'kronecker' or 'mlp', got 'cnn'"):
        geometries.get("metamida")(form="cnn")


def test_a_bijection_is_not_sold_as_a_mirror_map():
    assert isinstance(built("metamida").map, DualMap) and not isinstance(
        built("metamida").map, MirrorMap
    )


def test_declared_dead_parameters():
    published = built("metamida-published")
    names = [name for name, _ in published.named_parameters()]
    matched = {
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in published.never_trained)
    }
    assert {f"map.{name}" for name in published.map.never_trained()} < matched
    assert {name.split(".")[1] for name in set(names) - matched} == {"affine"}
    assert built("metamida").never_trained == ()


@pytest.mark.parametrize("slug", ["metamida", "metamida-published"])
def test_copies_and_state_dicts(slug):
    geometry = built(slug)
    perturbed(geometry)
    twin = copy.deepcopy(geometry)
    fresh = built(slug)
    fresh.load_state_dict(geometry.state_dict())
    z = random_point(small_anchor(), "z")
    assert set(geometry.state_dict()) == {name for name, _ in geometry.named_parameters()}
    for other in (twin, fresh):
        assert all(
            torch.equal(other.map(z)[name], value) for name, value in geometry.map(z).items()
        )


@pytest.mark.parametrize("options", [{}, {"form": "mlp"}], ids=str)
def test_moves_between_precisions(options):
    geometry = perturbed(built("metamida", **options))
    z = random_point(small_anchor(), "z")
    single = copy.deepcopy(geometry).to(torch.float32)
    low = single.map({name: value.float() for name, value in z.items()})
    assert all(
        v.dtype == torch.float32 and torch.allclose(v.double(), geometry.map(z)[n], atol=1e-5)
        for n, v in low.items()
    )


def test_meta_gradient_through_two_steps_at_full_size():
    """z_2 = z_0 - sum of gradients at g(z_k), by hand with autograd, against the geometry's own
    hooks.
    """
    anchor = conv4_anchor(channels=8)
    geometry = geometries.get("metamida")()
    geometry.build(anchor)
    perturbed(geometry, scale=0.2)
    own = dict(geometry.named_parameters())
    target = random_point(anchor, "target", scale=0.1)

    def loss(phi):
        return sum(((phi[name] - target[name]) ** 2).sum() + (phi[name] ** 4).sum() for name in phi)

    def gradient(phi):
        return dict(
            zip(
                phi,
                torch.autograd.grad(loss(phi), list(phi.values()), create_graph=True),
                strict=True,
            )
        )

    state, z = geometry.init(own, anchor, {}), dict(anchor)
    for k in range(2):
        state = geometry.step(own, state, gradient(geometry.point(own, state)), task_lr=0.1, k=k)
        g = gradient(geometry.map(z))
        z = {name: value - 0.1 * g[name] for name, value in z.items()}
    ours = torch.autograd.grad(loss(geometry.point(own, state)), list(own.values()))
    by_hand = torch.autograd.grad(loss(geometry.map(z)), list(own.values()))
    assert all(
        torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(ours, by_hand, strict=True)
    )
    assert all(a.any() for a in ours)


def test_the_smallest_conditioners_are_allowed():
    made = MLPIAF(partition=1, hidden=1, code=1)
    made.build({"w": torch.zeros(2), "b": torch.zeros(1)})
    assert made({"w": torch.ones(2), "b": torch.ones(1)})["w"].tolist() == [1.0, 1.0]
    for options in ({"hidden": 0}, {"code": 0}):
        with pytest.raises(ValueError, match="hidden and code must be at least 1"):
            MLPIAF(**options)
