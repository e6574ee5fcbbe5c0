"""The README's program runs as printed, but for its number of iterations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.records import FOLDER
from experiments.status import wanted

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs_and_beats_nothing_silently(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    shortened = program.replace("range(100)", "range(2)").replace("n_tasks=20", "n_tasks=2")
    assert shortened.count("range(2)") == shortened.count("n_tasks=2)") == 1
    names: dict[str, object] = {}
    exec(compile(shortened, str(README), "exec"), names)
    *losses, accuracy = capsys.readouterr().out.splitlines()
    assert len(losses) == 2
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d%", accuracy)


WIDE = 160  # columns of a wide window


def test_it_fits_two_screens_and_every_link_leads_somewhere():
    text = README.read_text()
    assert sum(max(1, -(-len(line) // WIDE)) for line in text.splitlines()) <= 130
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert sum(map(bool, program.splitlines())) == 12
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https:") or (README.parent / target).exists(), target


PHONE = 390 - 2 * 16  # pixels for a picture beside the margins


def smallest_label(drawing: str) -> float:
    """Pixels of the smallest type on a telephone; matplotlib's outlines have 100 units."""
    (width,) = re.findall(r'<svg [^>]*viewBox="0 0 ([0-9.]+) ', drawing)
    sizes = [100 * float(scale) for scale in re.findall(r"scale\((0\.\d+) -", drawing)]
    return min(sizes) * PHONE / float(width)


@pytest.mark.parametrize(
    "name", re.findall(r"!\[.*\]\((.*\.svg)\)", README.read_text(encoding="utf-8"))
)
def test_the_labels_of_its_pictures_are_read_on_a_telephone(name):
    drawing = (README.parent / name).read_text()
    assert smallest_label(drawing) >= 9
    smaller = re.sub(r"scale\(0\.1\d* -", "scale(0.08 -", drawing, count=1)
    assert smallest_label(smaller) < 9  # the control


def test_its_two_commands_are_those_of_the_makefile_and_ci_calls_the_one_for_tests():
    demo, tests = re.findall(r"^make (\w+) ", README.read_text(), re.MULTILINE)
    assert (demo, tests) == ("demo", "test")
    targets = (README.parent / "Makefile").read_text()
    assert all(re.search(rf"^[a-z -]*\b{name}\b.*:", targets, re.M) for name in (demo, tests))
    assert re.search(rf"^make {tests}$", (README.parent / ".ci" / "run").read_text(), re.M)


def test_the_poster_is_named_as_it_is():
    text = " ".join(README.read_text().split())
    title = "Meta-learning with versatile loss geometries for fast adaptation using mirror descent"
    assert f'Zhang, Li and Giannakis, "{title}" (ICASSP 2024, arXiv 2312.13486)' in text


def test_the_three_sentences_stay():
    text = README.read_text()
    for line in ("pytest tests/property", "make docs", "experiments.reproduce --tier smoke"):
        assert line in text


@pytest.mark.parametrize("page", ["README.md", "docs/for-researchers.md"])
def test_an_experiment_is_run_and_not_only_looked_up(page):
    """Where the records in git lie, nothing is left to do: it needs a folder of its own."""
    text = (README.parent / page).read_text()
    (typed,) = re.findall(r"python -m experiments\.reproduce (--tier .*?)[`\n]", text)
    options = dict(zip(*[iter(typed.split())] * 2, strict=True))
    assert all(run.record.is_dir() for run in wanted([options["--tier"]]))
    assert not (README.parent / options["--into"]).is_relative_to(FOLDER.parent)
