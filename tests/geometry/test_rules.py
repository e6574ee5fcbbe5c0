"""Step rules for any point map: the pullback step, block-wise dual steps, and their composition
with every map.
"""

from __future__ import annotations

import math

import pytest
import torch

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.geometry import Geometry, GradientStep
from mdtheory.geometry.metasgd import DiagonalStep
from mdtheory.geometry.rules import BlockDualStep, PullbackStep, block_bounds, block_rates
from mdtheory.inner.surrogate import surrogate
from mdtheory.maps.base import DualMap
from mdtheory.maps.iaf import MLPIAF, KroneckerIAF
from mdtheory.maps.iaf.certified_forms import CertifiedMLPIAF
from mdtheory.maps.potential.ridge import ConvexPotential
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.maps.adversary import jacobian
from tests.maps.certified_cases import (
    built,
    distance,
    meta_of,
    perturbed,
    random_point,
    tiny_anchor,
    toy_episode,
)

NAMES = ["layers.0.weight", "layers.0.bias", "classifier.weight", "classifier.bias"]
MAPS = {
    "mlp": lambda: MLPIAF(partition=1, hidden=4, code=2),
    "certified": lambda: CertifiedMLPIAF(partition=1, hidden=4, code=2),
    "potential": lambda: ConvexPotential(rank=2, units=4),
}
RULES = {
    "dual": GradientStep,
    "pullback": PullbackStep,
    "diagonal": DiagonalStep,
    "blocks": lambda: BlockDualStep([[name] for name in NAMES], [1.0, 2.0, 2.0, 5.0]),
}


class Shear(DualMap):
    """The poster's divergence example: g(z) = (z_1 / 2, z_2 / 2 + 4 z_1), a BlockIAF with constant
    scales.
    """

    def point(self, meta, z):
        return {"x": 0.5 * z["x"], "y": 0.5 * z["y"] + 4 * z["x"]}

    def inverse(self, meta, phi):
        return {"x": 2 * phi["x"], "y": 2 * phi["y"] - 16 * phi["x"]}


MATRIX = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)


def iterate(geometry, *, task_lr, n_steps):
    """|phi_K| for f = 1/2 phi^T A phi from (1, 1), starting at size |phi_0|."""
    start = {"x": torch.ones(1, dtype=torch.float64), "y": torch.ones(1, dtype=torch.float64)}
    geometry.build(start)
    state = geometry.init({}, start, {})
    for k in range(n_steps):
        phi = tree.flatten(geometry.point({}, state))
        state = geometry.step({}, state, tree.unflatten(MATRIX @ phi, start), task_lr=task_lr, k=k)
    return float(tree.norm(geometry.point({}, state))) / float(
        tree.norm(geometry.point({}, geometry.init({}, start, {})))
    )


def test_block_rates_rescue_the_diverging_example():
    z = {"x": torch.zeros(1, dtype=torch.float64), "y": torch.zeros(1, dtype=torch.float64)}
    coupling, diagonal = block_bounds(Shear(), {}, z, [["x"], ["y"]])
    assert coupling.tolist() == [[0.0, 0.0], [4.0, 0.0]] and diagonal.tolist() == [0.5, 0.5]
    rates = block_rates(coupling=coupling, diagonal=diagonal)
    assert rates.tolist() == [1.0, 64.0]
    for task_lr in (0.02, 0.2):  # the plain dual step diverges at every rate
        assert iterate(Geometry(map=Shear()), task_lr=task_lr, n_steps=int(20 / task_lr)) > 1e2
    scaled = torch.tensor([[0.5, 0.0], [4.0, 0.5]], dtype=torch.float64) @ torch.diag(rates)
    m, M = float(0.5 * (diagonal * rates).min()), float(torch.linalg.matrix_norm(scaled, ord=2))
    safe = m / (1.5 * M**2)  # T6's best guaranteed rate; A has norm 3/2
    assert (
        iterate(
            Geometry(map=Shear(), rule=BlockDualStep([["x"], ["y"]], rates)),
            task_lr=safe,
            n_steps=1,
        )
        < 1
    )
    assert (
        iterate(
            Geometry(map=Shear(), rule=BlockDualStep([["x"], ["y"]], rates)),
            task_lr=0.02,
            n_steps=500,
        )
        < 1e-2
    )


def test_pullback_descends_on_the_diverging_example():
    assert iterate(Geometry(map=Shear(), rule=PullbackStep()), task_lr=0.04, n_steps=800) < 5e-2


@pytest.mark.parametrize("n_blocks", [2, 3, 5])
def test_block_rates_make_the_symmetric_part_positive(n_blocks):
    """sym(J Q) >= 1/2 diag(d q) for every J within the bounds; q_i without its factor (B - 1)^2 is
    not enough.
    """
    draw = generator("beyond", "rates", n_blocks)
    worst = {"theorem": math.inf, "mutant": math.inf}
    for _ in range(300):
        diagonal = 0.2 + torch.rand(n_blocks, generator=draw, dtype=torch.float64)
        below = torch.randn(n_blocks, n_blocks, generator=draw, dtype=torch.float64).tril(-1)
        rates = block_rates(coupling=below.abs(), diagonal=diagonal)
        mutant = block_rates(coupling=below.abs() / (n_blocks - 1), diagonal=diagonal)
        for name, q in (("theorem", rates), ("mutant", mutant)):
            scaled = (torch.diag(diagonal) - below.abs()) @ torch.diag(q)
            gap = (scaled + scaled.T) / 2 - torch.diag(diagonal * q) / 2
            worst[name] = min(worst[name], float(torch.linalg.eigvalsh(gap / q.max())[0]))
    assert worst["theorem"] > -1e-12
    assert (worst["mutant"] < -1e-6) == (n_blocks > 2)


def test_block_bounds_are_the_norms_of_the_dense_blocks():
    made = perturbed(built(KroneckerIAF(partition=[["b.w", "a.b"], ["a.w"]]), tiny_anchor()), 0.5)
    meta, z = meta_of(made), random_point(tiny_anchor(), "z")
    coupling, diagonal = block_bounds(made, meta, z, made.blocks)
    own = jacobian(made, meta, z)
    later, earlier = list(range(8)), list(range(8, 14))
    assert torch.allclose(
        coupling[1, 0], torch.linalg.matrix_norm(own[later][:, earlier], ord=2), rtol=1e-12
    )
    assert coupling[0].abs().max() == 0
    assert torch.allclose(
        diagonal, torch.stack([own.diagonal()[earlier].min(), own.diagonal()[later].min()])
    )


@pytest.mark.parametrize("name", MAPS)
def test_pullback_is_gradient_descent_on_the_composition(name):
    made = perturbed(built(MAPS[name](), tiny_anchor()), 0.5)
    geometry = Geometry(map=made, rule=PullbackStep())
    meta, z, u = meta_of(made), random_point(tiny_anchor(), "z"), random_point(tiny_anchor(), "u")
    moved = geometry.step(tree.prefixed("map.", meta), tree.prefixed("z.", z), u, task_lr=0.3, k=0)
    expected = tree.flatten(z) - 0.3 * jacobian(made, meta, z).T @ tree.flatten(u)
    assert torch.allclose(tree.flatten(tree.sub(moved, "z.")), expected, rtol=1e-12)
    wrong = tree.flatten(z) - 0.3 * jacobian(made, meta, z) @ tree.flatten(
        u
    )  # J in place of its transpose
    assert torch.allclose(expected, wrong, rtol=1e-9) == (name == "potential")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("map", MAPS)
def test_any_map_with_any_rule_has_exact_meta_gradients(map, rule):
    network = models.get("mlp")(
        in_features=6, n_way=2, hidden=(3,), activation="tanh", seed=1
    ).double()
    learner = MetaLearner(
        network, Geometry(map=MAPS[map](), rule=RULES[rule]()), n_steps=2, task_lr=0.1
    )
    perturbed(learner.geometry, 0.1)
    episode, problem = toy_episode(0), learner.problem()
    task = learner.task(episode)
    meta = tree.detach(learner.meta())
    unrolled = learner.meta_gradient([episode]).grads
    learner.estimator = MetaLearner(network, estimator="stepwise").estimator
    assert distance(learner.meta_gradient([episode]).grads, unrolled) < 1e-12
    learner.estimator.batched = True
    assert distance(learner.meta_gradient([episode]).grads, unrolled) < 1e-11
    v = {
        name: torch.randn(x.shape, generator=generator("v", name), dtype=torch.float64)
        for name, x in meta.items()
    }
    values = [
        surrogate(problem, tree.axpy(h, v, meta), task, problem.noise(meta, task))[0]
        for h in (1e-6, -1e-6)
    ]
    expected = float(tree.dot(unrolled, v))
    assert abs(float(values[0] - values[1]) / 2e-6 - expected) < 1e-5 * max(abs(expected), 0.1)


def test_refusals():
    with pytest.raises(ValueError, match="rates must be 2 positive finite numbers"):
        BlockDualStep([["a"], ["b"]], [1.0, 0.0])
    with pytest.raises(ValueError, match="blocks must hold every adapted tensor"):
        Geometry(map=Shear(), rule=BlockDualStep([["x"]], [1.0])).build(
            {"x": torch.ones(1), "y": torch.ones(1)}
        )
    with pytest.raises(ValueError, match="diagonal positive"):
        block_rates(coupling=torch.zeros(2, 2), diagonal=torch.tensor([1.0, 0.0]))
