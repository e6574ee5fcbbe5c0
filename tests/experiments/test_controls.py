"""The controls are what they say: a gauge, and a doubled rate."""

from __future__ import annotations

import pytest
import torch

from experiments.controls import CONTROLS, DoubledCurvature, RedundantShift, Shift
from mdtheory.contract.geometry import PROPERTIES, examine
from mdtheory.contract.setting import Setting
from mdtheory.core import seeding, tree
from mdtheory.geometry.maml import MAML
from mdtheory.geometry.metacurvature import MetaCurvature
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.conv4 import Conv4


@pytest.mark.parametrize("name", list(PROPERTIES))
@pytest.mark.parametrize("slug", list(CONTROLS))
def test_controls_keep_the_contract(slug, name):
    assert examine(Setting(CONTROLS[slug], "mlp"), name).verdict != "broken"


def learner(geometry, seed=0) -> MetaLearner:
    made = MetaLearner(
        Conv4(in_channels=1, image_size=16, channels=2, seed=seed), geometry, n_steps=2, task_lr=0.1
    )
    return made.double()


def random_like(value: torch.Tensor, name: str) -> torch.Tensor:
    return 0.1 * torch.randn(value.shape, generator=seeding.generator(name), dtype=value.dtype)


def test_a_shift_is_a_mirror_map_and_its_own_inverse():
    shift, z = Shift(), {"a": torch.tensor([1.0, -2.0])}
    shift.build(z)
    meta = {"shift.a": torch.tensor([0.5, 0.25])}
    phi = shift.point(meta, z)
    assert torch.equal(shift.inverse(meta, phi)["a"], z["a"])
    # Fenchel's equality holds at phi = g(z), and an inequality elsewhere
    equal = shift.potential(meta, phi) + shift.conjugate(meta, z)
    assert torch.isclose(equal, tree.dot(phi, z))
    other = {"a": phi["a"] + 1}
    assert shift.potential(meta, other) + shift.conjugate(meta, z) > tree.dot(other, z)


def test_a_shift_is_redundant_with_the_anchor():
    """MAML from z_0 + b, and the shifted one from z_0 with b, adapt alike and share a gradient."""
    setting = Setting(MAML, "mlp")
    episode = setting.episodes(1)[0]
    plain, shifted = setting.learner(), Setting(RedundantShift, "mlp").learner()
    with torch.no_grad():
        for name, value in tree.sub(shifted.meta(), "anchor.").items():
            b = random_like(value, name)
            shifted.meta()[f"geometry.map.shift.{name}"].copy_(b)
            plain.meta()[f"anchor.{name}"].copy_(value + b)
    one, other = plain.meta_gradient([episode]).grads, shifted.meta_gradient([episode]).grads
    for name in tree.sub(plain.meta(), "anchor."):
        for key in (f"anchor.{name}", f"geometry.map.shift.{name}"):
            assert torch.allclose(other[key], one[f"anchor.{name}"], atol=1e-10)


def test_a_doubled_matrix_moves_twice_as_far():
    free, doubled = learner(MetaCurvature()), learner(DoubledCurvature())
    name = "blocks.0.conv.weight"
    meta = tree.sub(tree.detach(free.meta()), "geometry.rule.")
    moved = {key: value + random_like(value, key) for key, value in meta.items()}
    twice = {key: value + 2 * random_like(value, key) for key, value in meta.items()}
    g = random_like(free.meta()[f"anchor.{name}"], "gradient")
    got = doubled.geometry.rule.curved(moved, name, g)
    assert torch.allclose(got, free.geometry.rule.curved(twice, name, g), atol=1e-12)
    assert torch.allclose(doubled.geometry.rule.curved(meta, name, g), g)
