"""From a configuration to the things that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdtheory.config import load, open_data, parse
from mdtheory.data.glyphs import GlyphSet
from mdtheory.meta import checkpoint
from mdtheory.run.build import (
    build_learner,
    build_stream,
    build_trainer,
    image_shape_of,
    load_learner,
    pick_device,
)
from mdtheory.run.optimizers import build_optimizer, build_scheduler

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
SMALL = {
    "model": {"options": {"channels": 4}},
    "task": {"n_way": 3, "n_query": 2},
    "meta": {"iterations": 1, "n_tasks": 1},
}


def small(**changes):
    return parse({**SMALL, **changes})


@pytest.mark.parametrize(
    ("name", "counts"),
    [("maml", 121_093), ("metasgd", 242_186), ("metamida", 3_568_628)],
)
def test_the_miniimagenet_runs_are_the_published_networks(name, counts):
    config = load(CONFIGS / f"mini-5w1s-{name}.toml")
    learner = build_learner(config, image_shape_of(config))
    assert sum(value.numel() for value in learner.meta().values()) == counts
    assert (learner.n_steps, learner.task_lr, learner.norm) == (5, 0.01, "transductive")
    assert config.task.eval_n_query == (1, 15)
    optimizer = build_optimizer(config, learner)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]
    if name == "metamida":
        assert isinstance(optimizer, torch.optim.SGD)
        assert {
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
        }.items() <= optimizer.param_groups[0].items()
        assert build_scheduler(config, optimizer).step_size == 20_000
    else:
        assert isinstance(optimizer, torch.optim.Adam)
        assert build_scheduler(config, optimizer) is None


def test_the_glyph_run_is_complete():
    config = load(CONFIGS / "glyphs.toml")
    trainer = build_trainer(config, open_data(config.data))
    assert trainer.options.iterations == 1000
    assert trainer.validation.tasks == 100


def test_options_of_the_configuration_reach_the_learner():
    config = small(
        task={
            **SMALL["task"],
            "n_steps": 2,
            "eval_steps": 7,
            "adapt": ["classifier.*"],
            "inner_loss_scale": 5.0,
        },
        objective={"schedule": "every"},
        meta={**SMALL["meta"], "estimator": "stepwise", "batched": "vmap"},
        norm="support",
        dtype="float64",
    )
    learner = build_learner(config, (1, 28, 28))
    assert (learner.n_steps, learner.eval_steps, learner.inner_loss_scale, learner.norm) == (
        2,
        7,
        5.0,
        "support",
    )
    assert {name for name in learner.meta() if name.startswith("anchor.")} == {
        "anchor.classifier.weight",
        "anchor.classifier.bias",
    }
    assert all(value.dtype is torch.float64 for value in learner.meta().values())
    assert learner.objective.schedule == "every"
    assert type(learner.estimator).__name__ == "Stepwise"
    assert learner.estimator.batched


def test_batching_is_left_to_the_device_unless_asked_for():
    for batched, expected in (("auto", False), ("loop", False), ("vmap", True)):
        config = small(meta={**SMALL["meta"], "batched": batched})
        assert build_learner(config, (1, 28, 28)).estimator.batched is expected


def test_an_estimator_that_cannot_batch_says_so():
    for batched in ("auto", "loop"):
        config = small(meta={**SMALL["meta"], "estimator": "implicit", "batched": batched})
        assert build_learner(config, (1, 28, 28)).estimator.batched is False
    with pytest.raises(ValueError, match="must be auto or loop for the estimator 'implicit'"):
        build_learner(
            small(meta={**SMALL["meta"], "estimator": "implicit", "batched": "vmap"}), (1, 28, 28)
        )


def test_the_seed_decides_the_first_weights_and_the_training_tasks_only():
    source = GlyphSet()
    one, two = small(seed=1), small(seed=2)
    first, second = (build_learner(config, source.image_shape).meta() for config in (one, two))
    assert not torch.equal(first["anchor.classifier.weight"], second["anchor.classifier.weight"])
    for split, same in (("train", False), ("validation", True), ("test", True)):
        tasks = [build_stream(config, source, split=split, n_query=2)(0) for config in (one, two)]
        assert torch.equal(tasks[0].support_x, tasks[1].support_x) is same


def test_other_models_are_given_what_they_need():
    config = small(model={"name": "mlp", "options": {"hidden": [7]}})
    learner = build_learner(config, (1, 28, 28))
    assert sum(value.numel() for value in learner.meta().values()) == 784 * 7 + 7 + 7 * 3 + 3


def test_a_checkpoint_becomes_a_learner_again(tmp_path):
    config = small(validation={"enabled": False})
    trainer = build_trainer(config, GlyphSet(), out=tmp_path)
    trainer.fit()
    learner, again = load_learner(tmp_path / "last.pt")
    assert again == config
    assert not learner.training
    assert all(
        torch.equal(value, trainer.learner.state_dict()[name])
        for name, value in learner.state_dict().items()
    )


def test_weights_that_do_not_fit_are_one_sentence(tmp_path):
    trainer = build_trainer(small(), GlyphSet())
    state = trainer.state() | {"config": small(model={"options": {"channels": 5}}).to_json()}
    checkpoint.save(state, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="weights must fit its configuration"):
        load_learner(tmp_path / "odd.pt")


def test_devices_that_are_not_there_are_refused():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for index in (99, 250, 999):  # torch wraps an index around at 256
        with pytest.raises(ValueError, match="device must exist"):
            pick_device(f"cuda:{index}")


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="must be square, got 28 x 30"):
        build_learner(small(), (1, 28, 30))


def test_a_folder_of_photographs_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b", "c"):
            folder = tmp_path / "photos" / split / f"{split}-{name}"
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(pixels.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(
                    folder / f"{number}.png"
                )
    data = {"source": "folder", "path": str(tmp_path / "photos"), "image_size": 16}
    config = small(data=data, validation={"tasks": 2})
    trainer = build_trainer(config, open_data(config.data), out=tmp_path)
    assert trainer.fit().best_iteration == 1
    assert load_learner(tmp_path / "best.pt")[0].network.in_channels == 3


class Noted(GlyphSet):
    """Glyphs that note from which split images are read."""

    def __init__(self):
        super().__init__()
        self.read: set[str] = set()

    def load(self, split, *place, **options):
        self.read.add(split)
        return super().load(split, *place, **options)

    def load_many(self, split, *place, **options):
        self.read.add(split)
        return super().load_many(split, *place, **options)


@pytest.mark.parametrize("chosen_on", ["validation", "test"])
def test_training_and_the_choice_of_the_checkpoint_never_see_a_test_image(chosen_on):
    """Whatever decides which checkpoint is kept has read training and validation images alone; a
    choice on test tasks is seen.
    """
    source = Noted()
    trainer = build_trainer(small(validation={"tasks": 2}), source)
    assert trainer.validation.stream.split == "validation"
    trainer.validation.stream.split = chosen_on
    trainer.fit()
    assert trainer.counters.validated == 1
    assert source.read == {"train", chosen_on}
