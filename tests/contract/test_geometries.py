"""Every geometry x model x property of the contract; ``mdtheory check`` runs the very same
functions.
"""

from __future__ import annotations

import pytest

from mdtheory.contract.geometry import PROPERTIES, examine
from mdtheory.contract.hooks import LIVE, gradient_sizes, silent
from mdtheory.contract.setting import MODELS, Setting
from mdtheory.geometry import Certified
from tests.contract.cases import SLUGS, build


@pytest.mark.parametrize("property", PROPERTIES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
def test_contract(slug, model, property, device):
    found = examine(Setting(lambda: build(slug), model, device), property)
    if found.verdict == "not applicable":
        pytest.skip(f"{slug}, {found.said}")
    assert found.verdict == "holds", found.said


def test_only_these_geometries_declare_exceptions():
    """A new exemption is a decision: it has to be written here too, and its reason into the
    geometry's docstring.
    """
    exceptions = {
        slug: (made.starts_as_maml, made.vmappable, made.never_trained)
        for slug in SLUGS
        if not ((made := build(slug)).starts_as_maml and made.vmappable and not made.never_trained)
    }
    assert exceptions == {
        "mtnet": (False, True, ()),
        "metamida-published": (True, True, ("map.encoders.*", "map.decoders.*", "map.linears.*")),
    }


def test_a_second_step_near_a_minimum_is_not_taken_for_none():
    """There three tensors have a gradient of 7e-7 to 9e-7 of the largest one."""
    setting = Setting(lambda: Certified(partition=3), "mlp")
    assert examine(setting, "learns").verdict == "holds"
    batches = [setting.episodes()] * 2
    sizes = gradient_sizes(setting.learner(perturbed=False), batches, meta_lr=0.03)
    assert min(sizes.values()) < 1e-6
    first = gradient_sizes(setting.learner(perturbed=False), batches[:1], meta_lr=0.03)
    assert silent(first, (), before_norm=False)


def test_what_stands_before_batch_statistics_is_silent_in_a_conv4_alone():
    """The exemption is needed, and covers nothing that learns: a convolution bias cancels, whatever
    moves it.
    """
    setting = Setting(lambda: build("metasgd"), "conv4")
    sizes = gradient_sizes(setting.learner(perturbed=False), [setting.episodes()] * 2, meta_lr=0.03)
    below = {name for name, size in sizes.items() if size <= LIVE}
    assert {name for name in below if name.startswith("geometry.")} == {
        f"geometry.rule.scale.blocks.{block}.conv.bias" for block in range(4)
    }
    assert silent(sizes, (), before_norm=False) and not silent(sizes, (), before_norm=True)
    assert silent({"geometry.map.encoders.blocks.0.conv.bias.0.bias": 0.0}, (), before_norm=True)
