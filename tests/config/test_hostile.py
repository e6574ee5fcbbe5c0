"""Wrong configurations: one sentence that names the file, the key, what was found and what to do;
never a traceback.
"""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given, strategies as st

from mdtheory.config import load, override, parse

# what follows --set, and what the sentence must hold
WRONG = [
    ("task.n_wey=3", "task.n_wey is not a known key; did you mean 'n_way'?"),
    ("tsk.n_way=3", "tsk is not a known key; did you mean 'task'?"),
    ("n_way=3", "n_way is not a known key"),
    ("meta.optimizer.lr=0.1", "meta.optimizer.lr is not a known key; did you mean 'meta_lr'?"),
    ("meta.shedule.name=StepLR", "did you mean 'scheduler'?"),
    ("data.image_sise=84", "did you mean 'image_size'?"),
    ('"a b\\n"=1', "is not a known key"),
    ("task.n_way=1", "task.n_way must be greater than or equal to 2, got 1"),
    ("task.n_way=-5", "greater than or equal to 2, got -5"),
    ('task.n_way="5"', "task.n_way must be a valid integer, got '5'"),
    ("task.n_way=5.0", "a valid integer, got 5.0"),
    ("task.n_way=true", "a valid integer, got True"),
    ("task.n_way=[5]", "a valid integer, got [5]"),
    ("task.n_way={}", "a valid integer, got {}"),
    ("task.n_way=1979-05-27", "a valid integer, got datetime.date"),
    ("task.n_way=99999999999999999999999", "less than 2147483648"),
    ("task.n_shot=0", "task.n_shot must be greater than or equal to 1, got 0"),
    ('task.n_shot="x"', "task.n_shot must be a valid integer, got 'x'"),
    ("task.n_shot=true", "task.n_shot must be a valid integer, got True"),
    ("task.n_shot={}", "task.n_shot must be a valid integer, got {}"),
    ("task.n_query=0", "task.n_query"),
    ("task.n_steps=-1", "task.n_steps"),
    ('task.n_steps="many"', "task.n_steps"),
    ("task.eval_n_query=15", "task.eval_n_query must be a list, got 15"),
    ("task.eval_n_query=[]", "task.eval_n_query must have at least 1 item"),
    ("task.eval_n_query=[1, 0]", "task.eval_n_query[1] must be greater than or equal to 1, got 0"),
    ("task.eval_n_query=[15, 15]", "task.eval_n_query must not repeat a number"),
    ("task.task_lr=0", "task.task_lr must be greater than 0, got 0"),
    ("task.task_lr=nan", "a finite number, got nan"),
    ("task.task_lr=inf", "a finite number, got inf"),
    ("task.task_lr=true", "a valid number, got True"),
    ("task.task_lr=1" + "0" * 400, "a valid number"),
    ("task.inner_loss_scale=-1", "greater than 0"),
    ('task.adapt="head"', "task.adapt must be a list, got 'head'"),
    ("task.adapt=[]", "at least 1 item"),
    ("task.adapt=[3]", "task.adapt[0] must be a valid string, got 3"),
    ('task.adapt=[""]', "at least 1 character"),
    ("data.source=glifs", "'mini-imagenet' or 'omniglot', got 'glifs'"),
    ("data.source=[1]", "data.source must be a valid string"),
    ("data.source={}", "data.source must be a valid string"),
    ("data.source=folder", "data.path must name the image folder"),
    ("data.path=here", "data.path must be left out"),
    ("data.image_size=4", "greater than or equal to 8"),
    ("data.image_size=100000", "less than or equal to 1024"),
    ("data.strength=-1", "data.strength"),
    ("data=[]", "data must be a table, got []"),
    ("data=5", "data must be a table, got 5"),
    ("task=[[1]]", "task must be a table"),
    ("model=4", "model must be a table, got 4"),
    ('model.name=""', "model.name must have at least 1 character"),
    ("model.name=4", "model.name must be a valid string, got 4"),
    ("model.options=[1]", "model.options must be a table, got [1]"),
    ("model.options.x=nan", "model.options must hold finite numbers"),
    ("model.options.x=1979-05-27", "model.options must hold finite numbers"),
    ("model.options.x=99999999999999999999999", "model.options must hold finite numbers"),
    ("model.options.x=[[[[[[[[[[1]]]]]]]]]]", "not too deep"),
    ("model.options.a" + ".a" * 3000 + "=1", "not too deep"),
    ("model.options.x=\udcff", "model.options must hold finite numbers"),
    ("seed=-1", "seed must be greater than or equal to 0, got -1"),
    ("seed=9223372036854775808", "seed must be less than 9223372036854775808"),
    ("seed.x.y=1", "seed must be a valid integer"),
    ("norm=batch", "norm must be 'transductive', 'support' or 'running', got 'batch'"),
    ("dtype=float16", "dtype must be 'float32' or 'float64', got 'float16'"),
    ("device=tpu", "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
    ('device="cuda:-1"', "device must be"),
    ("threads=0", "threads must be greater than or equal to 1"),
    ("checkpoint_every=0", "checkpoint_every"),
    ("objective.penalty=1", "objective.schedule must be given"),
    (
        "objective.schedule=first",
        "objective.schedule must be 'last', 'every' or 'warp', got 'first'",
    ),
    ("meta.batched=yes", "meta.batched must be 'auto', 'loop' or 'vmap', got 'yes'"),
    ("meta.n_tasks=0", "meta.n_tasks"),
    ("meta.clip_norm=0", "meta.clip_norm must be greater than 0, got 0"),
    (
        "meta.optimizer.options.lr=3",
        "meta.optimizer.options must not hold 'lr', which is meta.optimizer.meta_lr",
    ),
    ("meta.scheduler.options.gamma=0.1", "meta.scheduler.name must be given"),
    ("validation.tasks=1", "validation.tasks must be greater than or equal to 2, got 1"),
    ("test.tasks=0", "test.tasks"),
]


def complaint(*overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        parse(override({}, overrides), origin="run.toml")
    return str(caught.value)


@pytest.mark.parametrize(("change", "expected"), WRONG, ids=[change[:40] for change, _ in WRONG])
def test_one_sentence(change, expected):
    sentence = complaint(change)
    assert sentence.startswith("run.toml: ")
    assert expected in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_an_unknown_key_is_named_before_other_mistakes():
    sentence = complaint("task.n_way=0", "task.n_wai=3", "seed=-1")
    assert "task.n_wai is not a known key; did you mean 'n_way'?" in sentence
    assert sentence.endswith("(and 2 more)")


@pytest.mark.parametrize(
    "item",
    ["", "=", "=3", "task", "task.n_way", ".=1", "task..n_way=1", ".n_way=1", "task.=1", "\n"],
)
def test_a_broken_override_shows_how_to_write_one(item):
    with pytest.raises(
        ValueError, match=r"--set must look like task\.n_way=5, got .*; write key\.sub=value"
    ):
        override({}, [item])


def test_an_override_below_a_value_is_refused():
    with pytest.raises(ValueError, match="n_way must be a table, got 5"):
        override({"task": {"n_way": 5}}, ["task.n_way.x=1"])


def test_an_override_cannot_smuggle_in_a_second_key():
    assert override({}, ["task.n_way=5\nseed = 3"]) == {"task": {"n_way": "5\nseed = 3"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"5"', "5"),
        ("glyphs", "glyphs"),
        ("a=b", "a=b"),
        ("", ""),
        ("{x = 1}", {"x": 1}),
    ],
)
def test_an_override_is_toml_or_a_plain_string(text, value):
    assert override({}, [f"a.b={text}"]) == {"a": {"b": value}}


@pytest.mark.parametrize(
    "items",
    [
        ["model.options.channels=4", "model=conv4"],
        ["task.n_shot=2", "seed=1", "task={n_way = 3}"],
        ["a.b.c=1", "a.b=2"],
    ],
)
def test_an_override_does_not_undo_an_earlier_one(items):
    with pytest.raises(ValueError, match=r"--set .* must come before those of its own keys"):
        override({"model": {"name": "conv4"}}, items)
    assert override({}, [items[-1], *items[:-1]]) if "=conv4" in items[-1] else True
    assert override({"a": {"b": {"c": 1}}}, ["a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("key", ["task.task_lr", "meta.clip_norm", "meta.optimizer.meta_lr"])
def test_a_rate_that_float32_cannot_tell_from_zero_is_refused(key):
    with pytest.raises(ValueError, match=r"must be at least 1e-30, .* got 1e-60"):
        parse(override({}, [f"{key}=1e-60"]))
    assert parse(override({}, [f"{key}=1e-12"]))


def test_the_mark_that_some_editors_put_first_is_read(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfseed = 7\n")
    assert load(tmp_path / "run.toml").seed == 7


def test_overrides_leave_the_original_alone_and_the_last_one_wins():
    data = {"task": {"n_way": 5, "n_shot": 1}}
    assert override(data, ["task.n_way=3", "task.n_way=4"]) == {"task": {"n_way": 4, "n_shot": 1}}
    assert data == {"task": {"n_way": 5, "n_shot": 1}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = ", "must be valid TOML: Invalid value"),
        (b"seed 3", "must be valid TOML"),
        (b"seed = 1\nseed = 2", "must be valid TOML: Cannot overwrite a value"),
        (b"[task]\n[task]", "must be valid TOML: Cannot declare"),
        (b"\xff\xfe\x00", "must be UTF-8 text, got byte 0 of another kind"),
        (b"seed = 1 \x00", "must be valid TOML"),
        (b"\x89PNG\r\n\x1a\n", "must be UTF-8 text"),
        (b"a = " + b"[" * 5000, "must be valid TOML"),
        (b"seed = " + b"9" * 5000, "must be valid TOML"),
        (b"# " + b"x" * (1 << 20), "must be under 1048576 bytes"),
        (b'{"seed": 1}', "must be valid TOML"),
        (b"[task]\nn_wey = 5", "task.n_wey is not a known key; did you mean 'n_way'?"),
        (b"[[task]]\nn_way = 5", "task must be a table"),
        (b"[task.n_way]\nx = 5", "task.n_way must be a valid integer"),
        (b"a." * 5000 + b"a = 1", "a is not a known key"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_broken_file_is_one_sentence(tmp_path, content, expected):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_no_file_and_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "pipe", tmp_path / "a\0b"):
        with pytest.raises(
            ValueError, match="must be a TOML file, got no file there; check the path"
        ):
            load(path)


def test_an_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "run.toml"
    path.write_text("")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(
        ValueError, match="must be readable, got 'Permission denied'; check the path"
    ):
        load(path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "seed",
    "norm",
    "dtype",
    "device",
    "threads",
    "data",
    "task",
    "model",
    "geometry",
    "objective",
    "meta",
    "validation",
    "test",
]
INNER = [
    "source",
    "path",
    "n_way",
    "n_shot",
    "eval_n_query",
    "n_steps",
    "adapt",
    "name",
    "options",
    "optimizer",
    "scheduler",
    "tasks",
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS),
        anything | st.dictionaries(st.sampled_from(INNER), anything, max_size=3),
        max_size=3,
    )
)
def test_whatever_comes_is_a_run_or_one_sentence(data):
    try:
        config = parse(data, origin="run.toml")
    except ValueError as error:
        assert re.fullmatch(r"run\.toml: [^\n]+", str(error))
    else:
        assert parse(config.model_dump(mode="json")) == config
