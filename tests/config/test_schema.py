"""What a configuration means: defaults, resolution of one key by another, digest, and both ways to
write it down.
"""

from __future__ import annotations

import json
import tomllib

import pytest
import torch
from hypothesis import given, strategies as st
from pydantic import ValidationError

from mdtheory.config import RunConfig, load, override, parse
from mdtheory.config.writing import dump_toml
from mdtheory.core.objectives import Objective
from mdtheory.run.build import build_learner

PAPER = """
seed = 7
norm = "transductive"
dtype = "float64"
device = "cuda:1"
threads = 2
checkpoint_every = 5

[data]
source = "mini-imagenet"
path = "images"

[task]
n_way = 5
n_shot = 5
eval_n_query = [5, 15]
eval_steps = 10
adapt = ["head.*", "body.3.*"]

[model]
name = "conv4"
options = { channels = 64 }

[geometry]
name = "metasgd"
options = { form = "free" }

[objective]
schedule = "every"
penalty = 0.5

[meta]
estimator = "stepwise"
batched = "loop"
clip_value = 10
scheduler = { name = "StepLR", options = { step_size = 20000 } }

[meta.optimizer]
name = "SGD"
meta_lr = 1e-3
weight_decay = 1e-4
options = { momentum = 0.9, nesterov = true }

[validation]
every = 50
tasks = 20

[test]
tasks = 600
"""


@pytest.fixture
def paper(tmp_path) -> RunConfig:
    (tmp_path / "paper.toml").write_text(PAPER)
    return load(tmp_path / "paper.toml")


def test_an_empty_file_is_a_run(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert load(tmp_path / "empty.toml") == RunConfig() == parse({})


def test_every_value_arrives(paper):
    assert (paper.seed, paper.device, paper.threads, paper.dtype) == (7, "cuda:1", 2, "float64")
    assert (paper.task.n_shot, paper.task.n_steps, paper.task.eval_steps) == (5, 5, 10)
    assert paper.task.adapt == ("head.*", "body.3.*")
    assert paper.model.options == {"channels": 64}
    assert paper.meta.optimizer.options == {"momentum": 0.9, "nesterov": True}
    assert paper.meta.scheduler is not None
    assert paper.meta.scheduler.options == {"step_size": 20000}
    assert (paper.meta.clip_value, paper.meta.clip_norm) == (10.0, None)
    assert paper.objective is not None
    assert paper.objective.build() == Objective(schedule="every", penalty=0.5)


@pytest.mark.parametrize(
    ("source", "size", "strength"), [("glyphs", 28, 1.6), ("mini-imagenet", 84, None)]
)
def test_the_source_decides_size_and_strength(source, size, strength):
    data = parse({"data": {"source": source}}).data
    assert (data.image_size, data.strength) == (size, strength)


def test_an_explicit_size_wins_over_the_sources_own():
    assert parse({"data": {"image_size": 32, "strength": 0.0}}).data.image_size == 32


@pytest.mark.parametrize(
    ("n_shot", "protocols"), [(1, (1, 15)), (5, (5, 15)), (15, (15,)), (20, (15, 20))]
)
def test_both_protocols_by_default(n_shot, protocols):
    assert parse({"task": {"n_shot": n_shot}}).task.eval_n_query == protocols


def test_testing_takes_the_training_steps_by_default():
    assert parse({"task": {"n_steps": 3}}).task.eval_steps == 3
    assert parse({"task": {"n_steps": 3, "eval_steps": 0}}).task.eval_steps == 0


def test_it_is_frozen(paper):
    with pytest.raises(ValidationError, match="frozen"):
        paper.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        paper.task.n_way = 2


def test_an_integer_is_a_number_and_one_digest():
    assert parse({"task": {"task_lr": 1}}).digest == parse({"task": {"task_lr": 1.0}}).digest


def test_toml_and_json_give_the_same_run_back(paper, tmp_path):
    (tmp_path / "again.toml").write_text(paper.to_toml())
    again = load(tmp_path / "again.toml")
    assert again == paper == parse(json.loads(paper.to_json()))
    assert again.digest == paper.digest
    assert again.to_toml() == paper.to_toml()


def test_a_default_run_comes_back_too():
    assert parse(tomllib.loads(RunConfig().to_toml())) == RunConfig()


CHANGES = [
    "precision=tf32",
    "seed=1",
    'norm="support"',
    'dtype="float64"',
    "data.image_size=20",
    "data.strength=0.5",
    "task.n_way=4",
    "data.options.rotations=true",
    "task.n_shot=2",
    "task.n_query=3",
    "task.eval_n_query=[15]",
    "task.n_steps=4",
    "task.eval_steps=7",
    "task.task_lr=0.5",
    "task.inner_loss_scale=5",
    'task.adapt=["head.*"]',
    "model.name=resnet12",
    "model.options.channels=8",
    "geometry.name=metasgd",
    'geometry.options.form="free"',
    "objective.schedule=warp",
    "meta.estimator=stepwise",
    "meta.batched=vmap",
    "meta.n_tasks=2",
    "meta.iterations=10",
    "meta.optimizer.name=SGD",
    "meta.optimizer.meta_lr=0.1",
    "meta.optimizer.weight_decay=0.1",
    "meta.optimizer.options.amsgrad=true",
    "meta.scheduler.name=StepLR",
    "meta.clip_value=1",
    "meta.clip_norm=1",
    "validation.enabled=false",
    "validation.every=3",
    "validation.tasks=3",
    "test.tasks=3",
]


def test_every_key_that_changes_the_result_changes_the_digest():
    digests = {parse(override({}, [change])).digest for change in CHANGES} | {RunConfig().digest}
    assert len(digests) == len(CHANGES) + 1


@pytest.mark.parametrize("change", ["device=cuda", "threads=3", "checkpoint_every=7"])
def test_where_and_how_often_it_saves_changes_no_digest(change):
    assert parse(override({}, [change])).digest == RunConfig().digest


def test_a_path_changes_no_digest():
    here, there = ({"data": {"source": "folder", "path": path}} for path in ("a", "b"))
    assert parse(here).digest == parse(there).digest


def test_the_list_of_changes_is_complete():
    """Every leaf of the configuration is in one of the two lists above."""
    leaves = set()
    for name in RunConfig.model_fields:
        section = getattr(RunConfig(), name)
        inner = getattr(type(section), "model_fields", None)
        leaves |= {f"{name}.{key}" for key in inner} if inner else {name}
    changed = {".".join(change.split("=")[0].split(".")[:2]) for change in CHANGES}
    idle = {"device", "threads", "checkpoint_every", "data.path", "data.source"}
    assert leaves - idle - changed == {"objective"}


def test_the_order_of_keys_changes_no_digest():
    one = {"model": {"name": "conv4", "options": {"channels": 8, "depth": 3}}}
    other = {"model": {"options": {"depth": 3, "channels": 8}, "name": "conv4"}}
    assert parse(one).digest == parse(other).digest


def test_the_digest_is_frozen():
    """A change here makes every older record and checkpoint another run: raise it only on purpose,
    and say so.
    """
    assert RunConfig().digest == "1275b454639a7cc703ef32b86a795fd01f4334ebdcd8f2dafb8b7945345d2e10"


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaf = (
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
value = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text, value, max_size=4))
def test_whatever_is_written_reads_back_the_same(options):
    assert tomllib.loads(dump_toml({"a": {"options": options}, "b": 1})) == {
        "b": 1,
        "a": {"options": options},
    }


@given(st.dictionaries(text, value, max_size=4), st.integers(0, 2**63 - 1))
def test_any_options_survive_a_run_file(options, seed):
    config = parse({"seed": seed, "model": {"options": options}})
    again = parse(tomllib.loads(config.to_toml()))
    assert again.digest == config.digest
    assert again == config


def test_a_later_key_is_neither_written_nor_digested_at_its_default():
    """Digest and text of a configuration are those from before ``validation.enabled`` was there."""
    assert RunConfig().digest.startswith("1275b454639a7cc7")
    assert "enabled" not in RunConfig().to_toml() + RunConfig().to_json()
    without = parse({"validation": {"enabled": False}})
    assert "enabled = false" in without.to_toml()
    assert parse(json.loads(without.to_json())) == without


def test_a_component_may_be_its_name_alone():
    by_name = parse({"meta": {"estimator": "stepwise"}, "geometry": "metasgd", "model": "linear"})
    tables = {
        "meta": {"estimator": {"name": "stepwise"}},
        "geometry": {"name": "metasgd"},
        "model": {"name": "linear"},
    }
    assert by_name == parse(tables) and by_name.digest == parse(tables).digest
    assert tomllib.loads(by_name.to_toml())["meta"]["estimator"] == "stepwise"


def test_an_estimator_takes_options_from_a_file_and_from_the_command_line():
    chunk = {"name": "unrolled", "options": {"chunk": 2}}
    from_file = parse({"meta": {"estimator": chunk}})
    assert from_file == parse(override({}, ["meta.estimator.options.chunk=2"]))
    assert parse(override({"meta": {"estimator": "unrolled"}}, ["meta.estimator.options.chunk=2"]))
    assert tomllib.loads(from_file.to_toml())["meta"]["estimator"] == chunk
    assert from_file.digest != parse({}).digest
    assert parse(tomllib.loads(from_file.to_toml())) == from_file
    learner = build_learner(from_file, (1, 28, 28))
    assert learner.estimator.chunk == 2
    with pytest.raises(ValueError, match=r"estimator\.options\.chunks is not a known key"):
        build_learner(parse(override({}, ["meta.estimator.options.chunks=2"])), (1, 28, 28))


def test_any_registered_map_is_a_geometry_by_name():
    config = parse({"geometry": {"name": "mirror", "options": {"map": "hypentropy", "beta": 0.5}}})
    learner = build_learner(config, (1, 28, 28))
    assert learner.geometry.map.beta == 0.5
    for options, said in (
        ({"map": "entrpy"}, "did you mean 'entropy'"),
        ({"map": "hypentropy", "gamma": 1}, "options of the map 'hypentropy' must suit it"),
    ):
        wrong = parse({"geometry": {"name": "mirror", "options": options}})
        with pytest.raises(ValueError, match=said):
            build_learner(wrong, (1, 28, 28))


def test_a_map_s_domain_is_checked_where_it_is_used():
    config = parse({"geometry": {"name": "mirror", "options": {"map": "barrier"}}})
    learner = build_learner(config, (1, 28, 28))
    x, y = torch.rand(5, 1, 28, 28), torch.arange(5)
    with pytest.raises(ValueError, match="z of the log-barrier must be negative"):
        learner.adapt(x, y)


def test_changes_name_each_setting_of_the_digest_and_no_other():
    before = RunConfig()
    assert before.changes(before) == []
    moved = parse(
        {"seed": 1, "device": "cuda", "checkpoint_every": 7, "model": {"options": {"channels": 4}}}
    )
    assert moved.changes(before) == [
        "model.options was {} and is not there",
        "model.options.channels was not there and is 4",
        "seed was 0 and is 1",
    ]
    assert before.changes(before.model_copy(update={"device": "cuda"})) == []
