"""Paths, starts and the monotonicity of maps against slower and more obvious computations."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save
from torch.func import jacrev

from experiments import probes
from experiments.records import WEIGHTS
from mdtheory.core import seeding, tree
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.glyphs import GlyphSet
from mdtheory.geometry import geometries
from mdtheory.maps.iaf import MLPIAF
from mdtheory.meta.evaluate import evaluate
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.conv4 import Conv4


def learner(name: str, *, seed: int = 0) -> MetaLearner:
    """A tiny learner whose geometry is no longer neutral."""
    made = MetaLearner(
        Conv4(in_channels=1, image_size=16, channels=2, seed=seed),
        geometries.get(name)(),
        n_steps=2,
        task_lr=0.1,
    )
    rng = seeding.generator("perturbed", name)
    with torch.no_grad():
        for value in made.geometry.parameters():
            value += 0.05 * torch.randn(value.shape, generator=rng)
    return made.eval()


@pytest.fixture(scope="module")
def stream():
    return EpisodeStream(
        GlyphSet(image_size=16), split="test", seed=0, n_way=5, n_shot=1, n_query=3
    )


@pytest.mark.parametrize("name", ["maml", "mtnet", "metamida"])
def test_paths_pass_through_the_scores_of_the_test(stream, name):
    own = learner(name)
    found = probes.paths(own, tree.detach(own.meta()), stream, n_tasks=4, n_steps=3)
    (scores,) = evaluate(own, stream, n_tasks=4)
    assert [row[2] for row in found.correct] == [round(float(a) * 15) for a in scores.accuracy]
    assert len(found.support_loss) == 4 and {len(row) for row in found.grad_norm} == {4}


def test_a_path_that_diverges_is_null_and_not_an_error(stream):
    own = learner("maml")
    own.task_lr = 1e30
    found = probes.paths(own, tree.detach(own.meta()), stream, n_tasks=1, n_steps=3)
    assert found.support_loss[0][-1] is None
    assert json.loads(found.model_dump_json())["support_loss"][0][-1] is None


@pytest.fixture
def maml(tmp_path):
    """MAML's kept weights, and MAML's learner."""
    own = learner("maml", seed=1)
    (tmp_path / WEIGHTS).write_bytes(
        save({name: value.contiguous() for name, value in own.state_dict().items()})
    )
    return tmp_path / WEIGHTS, own


@pytest.mark.parametrize("name", ["metasgd", "metakfo", "metamida", "potential"])
def test_a_common_start_is_maml_s_point(maml, name):
    path, reference = maml
    own = learner(name)
    meta = probes.common_start(own, path)
    assert meta is not None
    point = own.problem().point(meta, own.problem().start(meta, {}))
    for key, value in tree.sub(tree.detach(reference.meta()), "anchor.").items():
        torch.testing.assert_close(point[key], value, rtol=1e-4, atol=1e-5)
    untouched = {key for key in meta if not key.startswith("anchor.")}
    assert all(torch.equal(meta[key], own.meta()[key]) for key in untouched)


@pytest.mark.parametrize("name", ["warpgrad", "mtnet"])
def test_layers_of_their_own_leave_no_common_start(maml, name):
    assert probes.common_start(learner(name), maml[0]) is None


def test_without_maml_s_weights_there_is_no_common_start(tmp_path):
    assert probes.common_start(learner("metasgd"), tmp_path / WEIGHTS) is None


def test_lanczos_finds_the_extreme_eigenvalues():
    rng = seeding.generator("matrix")
    a = torch.randn(30, 30, generator=rng, dtype=torch.float64)
    symmetric = a + a.T
    values = torch.linalg.eigvalsh(symmetric)
    start = torch.randn(30, generator=rng, dtype=torch.float64)
    assert probes.lanczos(lambda v: symmetric @ v, start, steps=30) == pytest.approx(
        (float(values[0]), float(values[-1]))
    )
    few = probes.lanczos(lambda v: symmetric @ v, start, steps=6)
    assert float(values[0]) < few[0] < few[1] < float(values[-1])


def test_lanczos_stops_where_the_space_is_exhausted():
    assert probes.lanczos(
        lambda v: 3 * v, torch.ones(4, dtype=torch.float64), steps=4
    ) == pytest.approx((3.0, 3.0))


def test_the_symmetric_part_of_a_map_is_that_of_its_dense_jacobian():
    rng = seeding.generator("map")
    z = {
        "w": torch.randn(6, generator=rng, dtype=torch.float64),
        "b": torch.randn(2, generator=rng, dtype=torch.float64),
    }
    map = MLPIAF(partition=1, hidden=8)
    map.build(z)
    with torch.no_grad():
        for value in map.parameters():
            value += torch.randn(value.shape, generator=rng)
    map = map.double()
    dense = jacrev(lambda v: tree.flatten(map.point(map.own(), tree.unflatten(v, z))))(
        tree.flatten(z)
    ).detach()
    values = torch.linalg.eigvalsh(0.5 * (dense + dense.T))
    low, high, asymmetry = probes.symmetric_extremes(map, tree.detach(map.own()), z, seed=0)
    assert (low, high) == pytest.approx((float(values[0]), float(values[-1])), rel=1e-6)
    assert asymmetry > 0.01  # a block-triangular map is no gradient


@pytest.mark.parametrize(("name", "symmetric"), [("potential", True), ("metamida", False)])
def test_a_gradient_map_has_a_symmetric_jacobian_and_a_blockiaf_has_not(stream, name, symmetric):
    probe = probes.map_probe(learner(name), stream)
    assert probe is not None and probe.asymmetry is not None
    assert (probe.asymmetry < 1e-9) == symmetric
    assert (
        probe.symmetric_smallest
        <= probe.path_smallest
        <= probe.path_largest
        <= probe.symmetric_largest + 0.05
    )


def test_without_a_map_there_is_no_probe(stream):
    assert probes.map_probe(learner("metasgd"), stream) is None
