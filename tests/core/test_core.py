"""The small parts that everything stands on: trees, addresses, the registry, stops, objectives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mdtheory.core import seeding, tree
from mdtheory.core.estimate import Estimate
from mdtheory.core.objectives import Objective
from mdtheory.core.registry import Registry, load_plugin
from mdtheory.core.stop_gradient import recording, replaying, stop_gradient
from mdtheory.core.types import Episode

pytestmark = pytest.mark.usefixtures("float64")


def params(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(2, 3, generator=rng),
        "b": torch.randn((), generator=rng),
        "a.bias": torch.randn(4, generator=rng),
    }


def test_flatten_and_back():
    x = params()
    vector = tree.flatten(x)
    assert vector.shape == (11,)
    assert all(torch.equal(tree.unflatten(vector, x)[name], value) for name, value in x.items())


def test_arithmetic_is_that_of_the_flat_vector():
    x, y = params(0), params(1)
    fx, fy = tree.flatten(x), tree.flatten(y)
    assert torch.allclose(tree.flatten(tree.axpy(-0.3, x, y)), fy - 0.3 * fx)
    assert torch.allclose(tree.dot(x, y), fx @ fy)
    assert torch.allclose(tree.norm(x), fx.norm())


def test_sub_undoes_prefixed_and_leaves_others():
    x = params()
    both = {**tree.prefixed("z.", x), "zz": torch.zeros(())}
    assert list(tree.sub(both, "z.")) == list(x)


def test_parameter_tree_keeps_dotted_names_their_order_and_a_copy():
    x = params()
    module = tree.ParameterTree(x)
    assert [name for name, _ in module.named_parameters()] != []
    assert {name: tuple(value.shape) for name, value in module.named_parameters()} == {
        n: tuple(v.shape) for n, v in x.items()
    }
    x["b"].add_(1)
    assert float(dict(module.named_parameters())["b"].detach()) == pytest.approx(float(x["b"]) - 1)


def test_seeds_depend_on_every_part_and_on_nothing_else():
    assert seeding.seed("a", "bc") != seeding.seed("ab", "c")
    assert seeding.seed("a", 1) != seeding.seed("a", "1")
    assert 0 <= seeding.seed("x") < 2**63
    for five in (np.int64(5), np.uint8(5), torch.tensor(5)):  # as a loader or an array gives it
        assert seeding.seed("mtnet", five) == seeding.seed("mtnet", 5)
    (text,) = np.array(["mtnet"])  # such as a split out of an array of them
    assert seeding.seed(text, 5) == seeding.seed("mtnet", 5)
    for bad in (1.5, None, torch.tensor(1.5), b"x"):
        with pytest.raises(ValueError, match="a seed must be a whole number or a text, got"):
            seeding.seed("mtnet", bad)
    assert (
        seeding.seed("data", "train", 0, 7) == 6066804587032873153
    )  # frozen: a change would move every episode
    first, second = (torch.rand(3, generator=seeding.generator("x")) for _ in range(2))
    assert torch.equal(first, second)


def test_a_slug_is_taken_once_and_an_unknown_one_gets_the_nearest():
    registry = Registry("thing", "mdtheory.maps")
    registry.register("alpha")(dict)
    registry.register("alpha")(dict)
    with pytest.raises(ValueError, match="thing 'alpha' is registered twice"):
        registry.register("alpha")(list)
    with pytest.raises(ValueError, match="got 'alpa'; did you mean 'alpha'"):
        registry.get("alpa")
    assert registry.get("alpha") is dict


def test_a_plugin_file_registers_a_geometry_that_learns(tmp_path):
    """In a process of its own: a registry is one per process."""
    plugin = tmp_path / "sign_descent.py"
    plugin.write_text(
        '"""Signed steps."""\n'
        "from mdtheory.geometry import Geometry, StepRule, geometries\n"
        "class SignStep(StepRule):\n"
        "    def step(self, meta, state, grad, *, task_lr, k, pull):\n"
        "        return {**state, **{f'z.{n}': state[f'z.{n}'] - task_lr * g.sign() for n, g in "
        "grad.items()}}\n"
        "@geometries.register('sign')\n"
        "def sign():\n"
        "    return Geometry(rule=SignStep())\n"
    )
    script = (
        "import sys, torch\nfrom torch import nn\nfrom mdtheory.core.registry import "
        "load_plugin\nload_plugin(sys.argv[1])\n"
        "from mdtheory.meta import MetaLearner\nlearner = MetaLearner(nn.Linear(2, 2), 'sign', "
        "n_steps=1, task_lr=0.5)\n"
        "adapted = learner.adapt(torch.eye(2), torch.tensor([0, 1]))\n"
        "print(float((adapted.network.weight - learner.network.weight).abs().max()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(plugin)], capture_output=True, text=True, check=True
    )
    assert float(out.stdout) == pytest.approx(0.5)


def test_a_plugin_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="--plugin must name a Python file"):
        load_plugin(tmp_path / "none.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"must end in \.py"):
        load_plugin(tmp_path / "notes.txt")


def test_stops_are_constants_that_can_be_replayed():
    def cubic(x):
        return x * stop_gradient(x**2)

    x = torch.tensor(3.0)
    assert float(torch.func.grad(cubic)(x)) == 9.0
    with recording() as tape:
        cubic(x)
    with replaying(tape):
        held = cubic(torch.tensor(5.0))
    assert float(held) == 45.0
    assert float(cubic(torch.tensor(5.0))) == 125.0


def test_a_tape_of_another_evaluation_is_refused():
    with recording() as tape:
        stop_gradient(torch.ones(()))
    with pytest.raises(ValueError, match="must hold every stop"), replaying(tape):
        stop_gradient(torch.ones(()))
        stop_gradient(torch.ones(()))
    with pytest.raises(ValueError, match="must meet all 1 recorded stops"), replaying(tape):
        pass


def test_objectives_list_their_terms():
    assert [(t.step, t.weight, t.backprop) for t in Objective().terms(3)] == [(3, 1.0, "full")]
    assert [(t.step, t.weight) for t in Objective(schedule="every").terms(4)] == [
        (k, 0.25) for k in (1, 2, 3, 4)
    ]
    last, *one_step = Objective(schedule="warp").terms(2)
    assert last.includes("anchor.x")
    assert not last.includes("shared.warp")
    assert [
        (t.step, t.backprop, t.includes("shared.warp"), t.includes("anchor.x")) for t in one_step
    ] == [
        (1, "one_step", True, False),
        (2, "one_step", True, False),
    ]


def test_episode_casts_images_and_keeps_labels():
    episode = Episode(
        torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(1, 3), torch.tensor([1]), 5
    ).to(torch.float32)
    assert episode.support_x.dtype == torch.float32
    assert episode.support_y.dtype == torch.int64
    assert episode.seed == 5


def test_an_estimate_prints_as_percent():
    assert str(Estimate(0.4870, 0.0184, 600)) == "48.70 ± 1.84%"


def test_numpy_free_parameters_survive_odd_module_names():
    """Names that nn.Module itself uses for something else are refused by torch before they reach
    us.
    """
    with pytest.raises(KeyError, match="attribute 'half' already exists"):
        nn.Module().add_module("half", nn.Linear(1, 1))
    names = [
        name for name, _ in tree.ParameterTree({"params.weight": torch.zeros(1)}).named_parameters()
    ]
    assert names == ["params.weight"]


def test_an_installed_package_that_cannot_be_imported_is_one_sentence(monkeypatch):
    from importlib.metadata import EntryPoint

    from mdtheory.core import registry

    own: registry.Registry[int] = registry.Registry("colour", "mdtheory.core")
    bad = EntryPoint("mine", "no_such_module:f", "mdtheory.core")
    monkeypatch.setattr(registry, "entry_points", lambda group: [bad])
    with pytest.raises(
        ValueError, match=r"the colour 'mine' \(no_such_module:f\) ends with Module"
    ):
        own.names()
