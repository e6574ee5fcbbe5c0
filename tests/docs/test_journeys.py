"""Four journeys, one for each kind of user, and every Python and shell block of the guides: what
the pages ask for runs, in their order, in a folder that holds what the pages say.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdtheory.data import data_sources
from mdtheory.geometry import geometries
from tests.commands.runs import call
from tests.docs.pages import DOCS, GUIDES, blocks, commands
from tests.docs.test_guides import SMALL

ROOT = DOCS.parent
JOURNEYS = sorted(DOCS.glob("for-*.md"))
LEFT = {
    "researchers": ["runs/maml", "runs/momentum", "figures"],
    "practitioners": ["answers/report.html", "answers-of-mine/sheet.png", "model/adapted.pt2"],
    "reviewers": [],
    "contributors": [],
}
ELSEWHERE = {
    "mdtheory check momentum --plugin momentum.py": "tests/commands/test_check.py",
    "python -m experiments.tables --check": "tests/experiments/test_tables.py",
    "python -m experiments.cells --check": "tests/experiments/test_cells.py",
    "python -m experiments.benchmarks.pages --check": "tests/experiments/benchmarks",
    "pytest tests/property": "tests/property",
    "python -m experiments.benchmarks --shot 1 --n-steps 5 --part processes": (
        "tests/experiments/benchmarks"
    ),
    "python -m experiments.benchmarks --device cuda --minutes 4": "tests/experiments/benchmarks",
    "python -m proofs_check --plugin docs/how-to/w1_means.py": (
        "tests/proofs_check/test_other_papers.py"
    ),
    "python -m experiments.reproduce --tier smoke --into out/smoke": (
        "tests/experiments/test_reproduce.py"
    ),
    "python -m experiments.rerun --tier smoke --out out/smoke": (
        "tests/experiments/test_reproduce.py"
    ),
    "mdtheory demo --out out/demo": "tests/end2end/test_demo.py",
    "mdtheory doctor": "tests/commands/test_others.py",
    "pip install -e .": "go.py",
    "git clone <this repository> && cd mdtheory": "go.py",
}
"""What other tests run whole."""
SHELLS = [path for path in GUIDES if commands(path) and path not in JOURNEYS]
MINI = "export MDTHEORY_MINI_IMAGENET=~/data/mini-imagenet"
BEFORE = {
    "gpu.md": [MINI],
    "ready-made.md": [MINI],
    "resume.md": [MINI],
    "own-images.md": ["mdtheory train --config photos.toml --out runs/mini"],
    "watch.md": ["mdtheory train --set geometry.name=metamida --out runs/metamida"],
}
"""What a page takes for granted."""
MADE = {
    "gpu.md": ["runs/mini/summary.md", "runs/lean/summary.md"],
    "index.md": ["runs/maml/summary.md"],
    "mini-imagenet.md": ["runs/mini/summary.md", "runs/small/summary.md"],
    "omniglot.md": ["characters.png", "runs/omniglot/summary.md"],
    "own-geometry.md": ["runs/momentum/summary.md"],
    "own-images.md": ["answers/predictions.csv", "task.png", "runs/photos-maml/summary.md"],
    "own-paper.md": [],
    "ready-made.md": ["predictions/report.html"],
    "resume.md": ["runs/maml/best.pt", "maml.safetensors", "runs/mini/summary.md"],
    "several-processes.md": ["runs/two/summary.md"],
    "watch.md": ["runs/maml/summary.md", "figures/two"],
    "which-geometry.md": ["runs/metakfo/summary.md"],
}
"""What is there when a page has been typed in."""
LIKE_OMNIGLOT = {"task.n_way": "5", "task.eval_n_query": "[1]"}
RUN_BY_OTHERS = ("index.md", "from-higher.md", "from-learn2learn.md", "from-torchmeta.md")
PROGRAMS = [path for path in GUIDES if blocks(path, "python") and path.name not in RUN_BY_OTHERS]


def draw(folder: Path, count: int, shade: int) -> None:
    """Some small pictures of one colour and noise."""
    folder.mkdir(parents=True)
    for k in range(count):
        pixels = np.random.default_rng(100 * shade + k).integers(0, 60, (14, 12, 3))
        pixels += np.array([shade, 200 - shade, 90])
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")


def birds(folder: Path) -> None:
    """CUB's layout with 20 species, and the lists of three species on another machine's disk."""
    species = [f"{k + 1:03d}.Bird_{k}" for k in range(20)]
    for name in species:
        (folder / "CUB_200_2011" / "images" / name).mkdir(parents=True)
        for k in range(16):
            file = folder / "CUB_200_2011" / "images" / name / f"{k}.jpg"
            Image.new("RGB", (8, 8), (k, k, k)).save(file)
    (folder / "CUB_200_2011" / "images.txt").write_text("1 001.Bird_0/0.jpg\n")
    for part, own in (("base", species[:10]), ("val", species[10:15]), ("novel", species[15:])):
        names = [f"/data/elsewhere/images/{name}/{k}.jpg" for name in own for k in range(16)]
        content = {"label_names": species, "image_names": names, "image_labels": [0] * len(names)}
        (folder / f"{part}.json").write_text(json.dumps(content))


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder with photos, a few labelled examples, unknown images and the guides' files, and
    registries of its own.
    """
    for index in range(34):
        draw(tmp_path / "photos" / f"class{index:02d}", 6, 5 * index)
    for index, name in enumerate(("mug", "cup", "jug", "pot", "can")):
        draw(tmp_path / "examples" / name, 4, 40 * index)
    draw(tmp_path / "unknown", 3, 80)
    birds(tmp_path)
    (photos,) = blocks(DOCS / "how-to" / "own-images.md", "toml")
    (tmp_path / "photos.toml").write_text(photos)
    home = tmp_path / "home" / "data"
    for split in ("train", "val", "test"):
        for k in range(5):
            draw(home / "mini-imagenet" / split / f"{split}{k}", 20, 15 * k)
    alphabets = {f"Made_{k}": 5 for k in range(7)} | {"Angelic": 20}
    for shade, (alphabet, characters) in enumerate(alphabets.items()):
        for k in range(characters):
            draw(home / "omniglot" / alphabet / f"character{k:02d}", 10, 9 * shade + k)
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    for name in ("MDTHEORY_MINI_IMAGENET", "MDTHEORY_OMNIGLOT"):
        monkeypatch.setenv(name, "")
    for name in ("experiments", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("momentum.py", "tracker.py"):
        (tmp_path / name).symlink_to(DOCS / "how-to" / name)
    monkeypatch.chdir(tmp_path)
    for registry in (geometries, data_sources):
        registry.names()
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    return tmp_path


def type_in(line: str) -> None:
    """One command of a page, at a small size; an exit code other than 0 is an error."""
    if line in ELSEWHERE:
        assert (ROOT / ELSEWHERE[line]).exists()
        return
    first, *words = shlex.split(line)
    if first == "torchrun":  # as one process; tests/commands/test_torchrun.py starts several
        first, *words = words[words.index("mdtheory") :]
    if first == "export":
        name, value = words[0].split("=")
        os.environ[name] = os.path.expanduser(value)  # the desk takes it back
    elif re.fullmatch(r"\w+=.*", first):
        type_in(shlex.join(words))
    elif first == "mdtheory":
        geometries._factories.pop("momentum", None)  # every command is a process of its own
        small = dict(SMALL)
        if any("photos" in word or "mini" in word for word in words):
            small["data.image_size"] = "16"
        if any("omniglot" in word for word in words):
            small |= LIKE_OMNIGLOT
        words = [re.sub("cuda", "cpu", word) for word in words]
        if "--tasks" in words:
            words[words.index("--tasks") + 1] = "2"
        if words[0] == "train":
            words += [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
        result = call(*words)
        assert result.exit_code == 0, f"{line}: {result.output}"
    elif first == "make":
        assert re.search(
            rf"^[a-z -]*\b{words[0]}\b[a-z -]*:", (ROOT / "Makefile").read_text(), re.M
        )
    else:
        assert [first, words[0]] == ["python", "-m"], f"{line}: nobody runs this"
        run_module(words[1], words[2:])


def run_in_order(page: str, programs: list[str]) -> dict[str, object]:
    """The programs of a page, each with the names of those before it; all names at the end."""
    names: dict[str, object] = {"__name__": "page"}
    for block in programs:
        exec(compile(block, page, "exec"), names)
    return names


def run_module(name: str, words: list[str]) -> None:
    """``python -m name words``, in this process."""
    before = sys.argv
    sys.argv = [name, *words]
    try:
        with warnings.catch_warnings():  # runpy's own: another page has imported it
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code in (0, None), f"{name} {words}: exit code {end.code}"
    finally:
        sys.argv = before


@pytest.mark.slow
@pytest.mark.parametrize("page", JOURNEYS, ids=lambda page: page.stem)
def test_a_journey_ends_where_its_page_says(page, desk, capsys):
    typed = commands(page)
    assert typed
    for line in typed:
        type_in(line)
    for left in LEFT[page.stem.removeprefix("for-")]:
        assert (desk / left).exists(), left
    if "reviewers" in page.stem:
        assert re.search(r"C26.*FALSE", capsys.readouterr().out, re.S)


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELLS, ids=lambda page: page.stem)
def test_the_commands_of_a_guide_run_in_their_order(page, desk):
    for line in [*BEFORE.get(page.name, []), *commands(page)]:
        type_in(line)
    for made in MADE[page.name]:
        assert (desk / made).exists(), made


def test_there_are_four_and_a_wrong_command_is_noticed(desk):
    assert {path.stem.removeprefix("for-") for path in JOURNEYS} == set(LEFT)
    for line in ("mdtheory train --outt runs", "make tea", "python -m proofs_check C99", "rm -r x"):
        with pytest.raises(AssertionError):
            type_in(line)


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)
def test_the_programs_of_a_page_run_in_their_order(page, desk):
    if "runs/maml" in "".join(blocks(page, "python")):
        type_in("mdtheory train --out runs/maml")
    programs = blocks(page, "python")
    if find_spec("peft") is None:  # tests/models/user/test_peft_layers.py runs it where it is
        programs = [block for block in programs if not block.startswith("# peft")]
    assert programs and "__builtins__" in run_in_order(page.name, programs)  # exec was there


def test_a_program_that_is_wrong_is_noticed():
    assert run_in_order("page.md", ["here = 1", "there = 1 / here"])["there"] == 1
    with pytest.raises(ZeroDivisionError):
        run_in_order("page.md", ["here = 0", "1 / here"])


def test_every_guide_with_a_program_is_run_by_somebody():
    for name in RUN_BY_OTHERS:
        assert (DOCS / name) in GUIDES
    assert {"for-researchers.md", "own-images.md", "resume.md"} <= {path.name for path in PROGRAMS}
