"""The poster's table beside ours, and the answers, on made-up records whose numbers are known."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import figures, front, tables
from experiments.answers import answers, published
from experiments.cells import Cell
from experiments.records import FOLDER, SUMS, protocols_of, seal, verify
from experiments.result_tables import read

LEVELS = {
    "maml": 0.40,
    "metasgd": 0.42,
    "metamida": 0.45,
    "metamida-published": 0.42,
    "potential": 0.45,
}


def counts(level: float, n_query: int, seed: int) -> list[int]:
    """Correct answers on 1000 tasks: the tasks' difficulty is shared by all rows."""
    difficulty = np.random.Generator(np.random.PCG64(1)).normal(0, 0.08, 1000)
    noise = np.random.Generator(np.random.PCG64(seed + n_query)).normal(0, 0.02, 1000)
    return (
        np.clip(np.round((level + difficulty + noise) * n_query * 5), 0, n_query * 5)
        .astype(int)
        .tolist()
    )


def put(folder, cell, level, *, like, number):
    """A record of a cell with made-up scores, from the files of the smoke record ``like``."""
    made = shutil.copytree(FOLDER / f"smoke-{like}-1shot-seed0", folder / cell.record(0))
    config, scores = (
        cell.config(0),
        {"transductive": {str(n): counts(level, n, number) for n in (1, 15)}},
    )
    scores["support"] = {str(n): counts(level - 0.05, n, number) for n in (1, 15)}
    result = json.loads((made / "result.json").read_text())
    result |= {
        "tier": cell.tier,
        "row": cell.row,
        "config_digest": config.digest,
        "iterations": 1000,
        "target": 1000,
    }
    result["protocols"] = [one.model_dump() for one in protocols_of(scores, 5)]
    (made / "config.toml").write_text(config.to_toml())
    (made / "scores.json").write_text(json.dumps(scores))
    (made / "result.json").write_text(json.dumps(result))
    seal(made)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of some cells of the cpu tier."""
    folder = tmp_path_factory.mktemp("records")
    for number, (row, level) in enumerate(LEVELS.items()):
        put(folder, Cell("cpu", row, 1), level, like=row, number=number)
    return folder


@pytest.fixture(scope="module")
def pages(records):
    return read(records)


def test_made_up_records_do_not_pass_as_records(records):
    assert all(verify(path) for path in records.iterdir() if (path / SUMS).is_file())


def test_every_row_stands_in_the_table_and_missing_ones_say_so(pages):
    lines = tables.accuracy_table(pages["cpu", 1]).splitlines()
    assert len(lines) == 2 + 11
    assert sum("missing" in line for line in lines) == 6
    assert all("1,000 (poster: 60,000)" in line for line in lines[2:])


def test_the_difference_to_the_poster_is_in_its_protocol(pages):
    line = next(
        line
        for line in tables.accuracy_table(pages["cpu", 1]).splitlines()
        if "| `metamida-published` |" in line
    )
    first = np.asarray(counts(LEVELS["metamida-published"], 1, 3)[:600]) / 5
    half = 196 * first.std(ddof=1) / 600**0.5
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1] == "56.10 ± 1.43"
    assert cells[4] == f"{100 * first.mean() - 56.10:+.2f} ± {(half**2 + 1.43**2) ** 0.5:.2f}"


def test_the_readme_holds_the_poster_s_accuracies_beside_ours(pages):
    text = front.block(pages, "experiments/results/")
    assert "0 of 38 cells" in text
    assert re.search(r"`maml` \| 48.70 ± 1.84 \| \d\d\.\d\d ± \d\.\d\d \| – \| 1 \|", text)
    assert "| `metacurvature-symmetric` |" not in text  # it has no record among these
    shown = {f"experiments/results/{name}.md" for name in ("index", "answers")}
    shown |= {front.CAUSE} if front.CAUSE in text else set()
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == shown


def test_answers_say_yes_and_undecided(pages):
    text = answers(pages)
    parts = {part[:3]: part.partition("\n")[2] for part in text.split("\n## ")[1:]}
    a, b, c, d, e, f = (parts[f"({letter})"] for letter in "abcdef")
    assert list(parts) == [f"({letter})" for letter in "abcdefghijklmno"]
    assert "`metamida` minus `metasgd`: +2.9" in a or "`metamida` minus `metasgd`: +3.0" in a
    assert "*suggestive: yes* (1 seed)" in a.splitlines()[3] and "undecided" in a.splitlines()[4]
    assert "*suggestive: yes* (1 seed)" in b and "undecided (1 seed)" in d and "**yes**" not in text
    assert (
        "transductive minus support statistics at test: +5." in c or "statistics at test: +4.9" in c
    )
    assert "from MAML's start" in e and "k = 0" in e
    assert "asymmetry" in f and "`metasgd`" not in f
    assert all("Not answered yet" in parts[f"({letter})"] for letter in "gijkm")
    assert "reaches MAML's best" in parts["(l)"] and "gradient norm at k = " in parts["(l)"]


def test_what_was_published_is_held_against_600_tasks_of_k_queries(pages, monkeypatch):
    first = 20 * np.mean(counts(LEVELS["maml"], 1, 0)[:600])
    known = {row: SimpleNamespace(published={}) for row in LEVELS}
    monkeypatch.setattr("experiments.answers.rows", lambda: known)
    for half_width, verdict in ((0.2, f"{-0.3:+.2f}"), (0.4, "**reached**")):
        known["maml"].published["1"] = [first + 0.3, half_width]
        (line,) = published([pages["cpu", 1]])
        assert line.startswith(f"- 1-shot, `maml`, 1 seed(s): {first:.2f} ± ")
        assert line.endswith(f": {verdict}")


def test_the_figures_of_an_incomplete_tier_can_be_drawn(records, tmp_path):
    made = figures.made(records, tmp_path)
    assert {path.name for path in made} == {f"cpu-1shot-{kind}.svg" for kind in figures.FIGURES}
    assert made == figures.made(records, tmp_path)


def test_a_tier_like_another_has_its_rows_beside_its_own(records, tmp_path):
    folder = shutil.copytree(records, tmp_path / "records")
    put(folder, Cell("own", "metacurvature-symmetric", 1), 0.44, like="metacurvature", number=9)
    pages = read(folder)
    assert pages["own", 1].rows == [*pages["cpu", 1].rows, "metacurvature-symmetric"]
    (line,) = [
        line
        for line in tables.paired_table(pages["own", 1]).splitlines()
        if "`metacurvature-symmetric`" in line
    ]
    assert re.search(r"\*\+[34]\.\d\d ± [\d.]+\*", line) and "**" not in line
    assert "| [own](own.md) | 1 of 2 |" in tables.coverage(pages) and "5 of 22" in tables.coverage(
        pages
    )
    assert "`metacurvature-symmetric` minus `maml`: +" in answers(pages).partition("\n## (g)")[2]
