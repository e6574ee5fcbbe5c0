"""What the guides tell their readers to type is right: commands, configurations, programs, and the
geometry in one file.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import CliRunner

from mdtheory.cli import app
from mdtheory.config import override, parse
from mdtheory.core.registry import load_plugin
from mdtheory.meta import MetaLearner
from tests.docs.pages import DOCS, GUIDES, NOTEBOOKS, blocks, commands, prose

PAGES = [*GUIDES, *NOTEBOOKS]
TYPED = [
    (path.name, line) for path in PAGES for line in commands(path) if line.startswith("mdtheory ")
]
SMALL = {
    "model.options": "{channels=8}",
    "meta.iterations": "2",
    "meta.n_tasks": "1",
    "task.n_query": "2",
    "task.n_steps": "1",
    "validation.tasks": "2",
    "test.tasks": "2",
}


def context_of(words):
    """Click's reading of a command line, without running it."""
    command, words = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command.make_context(command.name, words)


@pytest.mark.parametrize(
    ("page", "line"), TYPED, ids=[f"{page}-{line[9:40]}" for page, line in TYPED]
)
def test_a_command_is_understood(page, line):
    found = context_of(shlex.split(line)[1:]).params
    for key in found.get("settings") or ():
        parse(override({}, [key]), origin=page)
    named = found.get("config")
    assert named is None or Path(named).name == "photos.toml" or (DOCS.parent / named).is_file()


@pytest.mark.parametrize(
    "page", [path for path in PAGES if "mdtheory train" in prose(path)], ids=lambda page: page.stem
)
def test_no_page_starts_a_training_of_days_unawares(page):
    """Without a configuration it takes as many iterations as the poster, on a large network."""
    for line in commands(page):
        if line.startswith("mdtheory train "):
            found = context_of(shlex.split(line)[1:]).params
            settings = " ".join(found.get("settings") or ())
            assert found["config"] or "meta.iterations=" in settings, line


def test_every_source_and_form_of_the_page_on_benchmark_sets_is_one_that_there_is():
    from mdtheory.data import data_sources

    text = (DOCS / "how-to" / "benchmark-sets.md").read_text(encoding="utf-8")
    lines = re.findall(r"`(mdtheory [^`]+)`", text)
    sources = {context_of(shlex.split(line)[1:]).params["source"] for line in lines} - {None}
    assert len(lines) > 12 and sources == {"cifar-fs", "fc100"} <= set(data_sources.names())


def faults_of(line):
    """What of a command that is not ``mdtheory`` does not exist."""
    words = shlex.split(line)
    while "=" in words[0]:  # a variable for this command
        words.pop(0)
    if words[0] == "torchrun":
        context_of(words[words.index("mdtheory") + 1 :])
        return []
    if words[:2] == ["python", "-m"]:
        return [] if find_spec(words[2]) else [words[2]]
    if words[0] == "make":
        targets = (DOCS.parent / "Makefile").read_text(encoding="utf-8")
        return [] if re.search(rf"^[a-z -]*\b{words[1]}\b.*:", targets, re.MULTILINE) else words
    if words[0] == "pytest":
        return [] if (DOCS.parent / words[1]).exists() else words
    return [] if words[0] in ("export", "git", "pip") else words


OTHERS = sorted({line for path in PAGES for line in commands(path)} - {line for _, line in TYPED})


@pytest.mark.parametrize("line", OTHERS)
def test_what_another_command_names_exists(line):
    assert faults_of(line) == []


def test_another_command_that_names_nothing_is_noticed():
    for line in ("make tea", "python -m experiments.nothing", "pytest tests/none", "rm -r runs"):
        assert faults_of(line)


def test_there_are_commands_and_a_wrong_one_is_noticed():
    assert len(TYPED) > 20
    with pytest.raises(Exception, match="No such option"):
        context_of(["train", "--outt", "runs"])


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_configurations_are_valid(path):
    for block in (
        block for block in blocks(path, "toml") if "[project" not in block
    ):  # that is a package, no configuration
        assert parse(tomllib.loads(block), origin=path.name).digest


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_programs_compile(path):
    for block in blocks(path, "python"):
        assert compile(block, path.name, "exec")


def test_the_landing_page_s_program_runs(capsys):
    (program,) = blocks(DOCS / "index.md", "python")
    short = program.replace("range(100)", "range(1)").replace('"n_query": 10', '"n_query": 2')
    assert short.count("range(1)") == 1 and len(program.splitlines()) <= 20
    exec(compile(short, "index.md", "exec"), {})
    assert capsys.readouterr().out.startswith("tensor(")


@pytest.fixture(scope="module")
def momentum():
    from mdtheory.geometry import geometries

    if "momentum" not in geometries.names():
        load_plugin(DOCS / "how-to" / "momentum.py")
    yield geometries.get("momentum")
    del geometries._factories["momentum"]


def learner_of(geometry):
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    ).double()
    return MetaLearner(model, geometry, n_steps=3, task_lr=0.3)


def test_the_geometry_of_the_guide_differentiates_right(momentum, float64):
    from mdtheory.core.types import Episode

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, generator=generator), torch.tensor([0, 1] * 4)
    episode, learner = Episode(x[:4], y[:4], x[4:], y[4:]), learner_of(momentum())
    meta = {name: value.detach() for name, value in learner.meta().items()}
    for name in (
        "anchor.0.weight",
        "geometry.rule.strength.2.bias",
        "geometry.rule.strength.0.weight",
    ):
        direction = torch.ones_like(meta[name])
        ends = [
            learner.estimator(
                learner.problem(),
                {**meta, name: meta[name] + eps * direction},
                [learner.task(episode)],
            ).value
            for eps in (1e-5, -1e-5)
        ]
        slope = (learner.meta_gradient([episode]).grads[name] * direction).sum()
        assert slope.abs() > 1e-6
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-10)


def test_the_geometry_of_the_guide_starts_as_maml(momentum, float64):
    first, maml = learner_of(momentum()), learner_of("maml")
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    assert torch.equal(first.adapt(x, y, n_steps=1)(x), maml.adapt(x, y, n_steps=1)(x))
    assert not torch.equal(first.adapt(x, y, n_steps=3)(x), maml.adapt(x, y, n_steps=3)(x))


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_for_a_geometry_of_one_s_own(momentum, tmp_path):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    run("train", *settings, "--set", "geometry.name=momentum", "--out", tmp_path / "momentum")
    assert "momentum" in run("evaluate", tmp_path / "momentum")


def test_the_model_of_the_guide_trains(tmp_path):
    from mdtheory.models import models

    (program,) = (
        block for block in blocks(DOCS / "how-to" / "own-model.py", "python") if "my-net" in block
    )
    (tmp_path / "my_net.py").write_text("from torch import nn\n" + program)
    line = next(line for line in commands(DOCS / "how-to" / "own-model.py") if "my_net" in line)
    words = [
        word.replace("my_net.py", str(tmp_path / "my_net.py")) for word in shlex.split(line)[1:]
    ]
    words = [word.replace("runs/my-net", str(tmp_path / "run")) for word in words]
    small = [
        word
        for key, value in SMALL.items()
        if key != "model.options"
        for word in ("--set", f"{key}={value}")
    ]
    output = run(*words, *small)
    del models._factories["my-net"]
    assert re.search(r"finished: True", output)


def test_training_and_adapting_with_one_s_own_images(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for index in range(34):
        folder = tmp_path / "photos" / f"class{index:02d}"
        folder.mkdir(parents=True)
        for k in range(6):
            Image.new("RGB", (12, 10), (7 * index, 40 * k, 99)).save(folder / f"{k}.png")
    (config,) = blocks(DOCS / "how-to" / "own-images.md", "toml")
    (tmp_path / "photos.toml").write_text(config)
    small = [
        word
        for key, value in {**SMALL, "data.image_size": "16"}.items()
        for word in ("--set", f"{key}={value}")
    ]
    assert "validation: 5 classes" in run("data", "check", "photos")
    assert run(
        "data",
        "sheet",
        "task.png",
        "photos",
        "--split",
        "train",
        "--n-way",
        "5",
        "--per-class",
        "3",
    )
    run("train", "--config", "photos.toml", *small, "--out", "runs/photos")
    for k, name in enumerate(("mug", "cup", "jug", "pot", "can")):
        (tmp_path / "examples" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (50 * k, 0, 0)).save(tmp_path / "examples" / name / "1.jpg")
    (tmp_path / "unknown").mkdir()
    Image.new("RGB", (20, 20), (60, 0, 0)).save(tmp_path / "unknown" / "a.jpg")
    line = next(
        line
        for line in commands(DOCS / "how-to" / "own-images.md")
        if line.startswith("mdtheory adapt")
    )
    run(*shlex.split(line.replace("runs/mini", "runs/photos"))[1:])
    assert (tmp_path / "answers" / "predictions.csv").is_file() and (
        tmp_path / "answers" / "sheet.png"
    ).is_file()
