"""Rows at their own rates: the grid is trained as cells are, and the choice is by validation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import factorial, tuned, tuned_page
from experiments.cells import Cell, cells, tier
from experiments.records import FOLDER, Record, unsealed
from experiments.reproduce import not_tuned
from experiments.result_tables import read
from experiments.statistics import compare
from experiments.tuned import GRID, Tuned, at, best_pair, verify
from experiments.tuned_figure import own_rates
from mdtheory.core.estimate import holm
from mdtheory.meta.trainer import DivergedError

SMOKE = Cell("smoke", "maml", 1)


def test_every_file_in_git_is_sound():
    every = tuned.read()
    assert [problem for one in every for problem in verify(one)] == []
    assert {tuple(one.grid) for one in every} <= {GRID}
    assert not every or unsealed(tuned.OUT) == []


def test_the_pair_is_the_best_on_validation_and_of_equals_the_nearest_to_the_tier_s():
    assert best_pair([[1, 2, 3], [4, 5, 9], [7, 8, 6]]) == (1.0, 2.0)
    assert best_pair([[9, 2, 3], [4, 5, 9], [7, 9, 6]]) == (1.0, 2.0)
    assert best_pair([[9, -1, 9], [4, 5, 8], [9, 7, 9]]) == (0.5, 0.5)


def test_what_has_no_rates_of_its_own_is_listed(tmp_path):
    assert [cell.row for cell in tuned.missing(tmp_path)] == [c.row for c in cells(tuned.TIER)]
    assert len(tuned.missing()) == len(cells(tuned.TIER)) - len(tuned.read())
    assert len(not_tuned(["glyphs", "cpu"])) == len(tuned.missing()) and not_tuned(["cpu"]) == []


def test_only_the_two_rates_are_other():
    config = SMOKE.config(0)
    other = at(config, (2.0, 0.5))
    assert other.meta.optimizer.meta_lr == 2 * config.meta.optimizer.meta_lr
    assert other.task.task_lr == 0.5 * config.task.task_lr
    assert at(other, (0.5, 2.0)).digest == config.digest != other.digest


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke tier's MAML on a grid that holds the tier's own rates alone."""
    out = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuned, "GRID", (1.0,))
        patch.setattr(tuned, "VALIDATION_TASKS", 5)
        sitting = tuned.Sitting(SMOKE, out=out, until=0)
        sittings = 1
        while not sitting.run():
            sitting = tuned.Sitting(SMOKE, out=out, until=0)
            sittings += 1
        assert sittings == 3  # one pair and one test, each saved; then the file
        yield out
        (one,) = tuned.read(out)
        assert verify(one) == [] and unsealed(out) == []


def test_at_the_tier_s_rates_it_is_the_tier_s_run(smoke):
    """A grid's training is a cell's: on the machine of the record, to the last answer."""
    (one,) = tuned.read(smoke)
    assert one.best == [1.0, 1.0] and list(one.correct) == ["0"]
    theirs = Record(FOLDER / SMOKE.record(0)).accuracies(15)
    mine = np.asarray(one.correct["0"]["15"]) / 75
    assert len(mine) == len(theirs) and abs(mine.mean() - theirs.mean()) < 0.03
    assert not list((smoke / "parts").iterdir())


@pytest.mark.parametrize("fault", ["best", "task", "seed", "config"])
def test_a_planted_fault_is_found(smoke, fault):
    data = json.loads(next(smoke.glob("*.json")).read_text())
    if fault == "best":
        data["best"] = [2.0, 1.0]
    elif fault == "task":
        data["correct"]["0"]["15"].pop()
    elif fault == "seed":
        data["correct"]["1"] = data["correct"].pop("0")
    else:
        data["config_digest"] = "0" * 64
    assert verify(Tuned.model_validate(data))


def test_a_pair_is_judged_on_validation_tasks_with_seed_0(tmp_path, monkeypatch):
    sitting, asked, pair = tuned.Sitting(SMOKE, out=tmp_path), [], (2.0, 0.5)

    def learner(seed, pair):
        asked.append((seed, pair))
        return at(SMOKE.config(seed), pair), None

    def count(learner, stream, rate, start, stop, protocols):
        asked.append((stream.split, rate, start, stop, protocols))
        return {str(n): [1, 2] for n in protocols}

    monkeypatch.setattr(sitting, "learner", learner)
    monkeypatch.setattr(factorial, "count", count)
    n_query = SMOKE.config(0).task.n_query
    assert sitting.validated(pair) == 3
    assert asked == [(0, pair), ("validation", 1.0, 0, tuned.VALIDATION_TASKS, (n_query,))]


def test_a_pair_that_diverges_with_any_seed_is_not_the_best_after_all(tmp_path, monkeypatch):
    asked: list[tuple[float, float]] = []

    def tested(seed, pair):
        asked.append(pair)
        if len(asked) == 1:
            raise DivergedError("as planted")
        return {"15": [1]}

    monkeypatch.setattr(tuned, "GRID", GRID)
    sitting = tuned.Sitting(SMOKE, out=tmp_path)
    monkeypatch.setattr(sitting, "tested", tested)
    found = {"validation": [0, 0, 0, 0, 9, 8, 0, 0, 0], "correct": {}}
    assert not sitting.step(found) and found["validation"][4] == -1 and found["correct"] == {}
    assert not sitting.step(found) and sitting.step(found)
    assert asked == [(1.0, 1.0), (1.0, 2.0)] and found["correct"] == {"0": {"15": [1]}}


def made_up(table, row, level, seeds):
    """A tuned row that answers ``level`` and ``level + 2`` in turn."""
    return Tuned(
        tier="glyphs",
        row=row,
        shot=1,
        config_digest=table.by_row[row][0].result.config_digest,
        grid=list(GRID),
        validation_tasks=100,
        validation=[[0, 0, 0], [0, 0, 1], [0, 0, 0]],
        best=[1.0, 2.0],
        correct={str(seed): {"1": [3] * 400, "15": [level, level + 2] * 200} for seed in seeds},
        seconds=1.0,
    )


def test_the_page_holds_differences_to_maml_at_its_own_rates_too():
    table, seeds = read()["glyphs", 1], tier("glyphs").seeds
    made = [made_up(table, "maml", 40, seeds), made_up(table, "metasgd", 45, seeds)]
    text = tuned_page.lines([table], made)
    (line,) = [line for line in text if line.startswith("| `metasgd`")]
    assert "| 1, 2 |" in line and line.endswith("**+6.67 ± 0.00** | 3 |")
    assert "`warpgrad`" in text[-1]
    assert text[0].endswith(
        "; 1 above MAML and 0 below where each, MAML too, has its own; the rest is undecided."
    )
    assert any(one.endswith("may lie outside: every row.") for one in text)
    assert tuned_page.lines([table], made[1:]) == []


def test_both_differences_to_maml_are_one_family():
    """As QUESTIONS.md says: all comparisons of a question in a tier. And each is that of the raw
    counts, seed by seed.
    """
    table = read()["glyphs", 1]
    here = tuned_page.by_row(table)
    assert len(here) > 2
    gaps = tuned_page.compared(table, here)
    every = [*gaps.before.values(), *gaps.after.values()]
    assert len(every) == 2 * (len(here) - 1)
    assert [one.corrected for one in every] == holm([one.p for one in every])
    gained = list(gaps.gained.values())
    assert [one.corrected for one in gained] == holm([one.p for one in gained])
    kept = {row: one.correct for row, one in here.items()}
    for row in gaps.after:
        for part, raw in (
            (gaps.after[row], [paired(kept[row], kept["maml"], seed) for seed in "012"]),
            (gaps.gained[row], [paired(kept[row], scores(row, seed), seed) for seed in "012"]),
            (
                gaps.before[row],
                [paired(scores(row, seed), scores("maml", seed), seed) for seed in "012"],
            ),
        ):
            wanted = compare({row: np.asarray(raw)})[row]
            assert part.estimate.mean == pytest.approx(wanted.estimate.mean)
            assert part.estimate.half_width == pytest.approx(wanted.estimate.half_width)


def scores(row, seed):
    """As a record keeps them, in the form of a tuned row's."""
    folder = FOLDER / f"glyphs-{row}-1shot-seed{seed}"
    return {seed: json.loads((folder / "scores.json").read_text())["transductive"]}


def paired(mine, theirs, seed):
    """Of one seed, 15 queries of 5 classes, task by task."""
    both = zip(mine[seed]["15"], theirs[seed]["15"], strict=True)
    return [(a - b) / 75 for a, b in both]


def test_only_rows_at_an_edge_of_the_grid_are_named():
    table, seeds = read()["glyphs", 1], tier("glyphs").seeds
    inside = made_up(table, "maml", 40, seeds).model_copy(update={"best": [1.0, 1.0]})
    made = {"maml": inside, "metasgd": made_up(table, "metasgd", 45, seeds)}
    assert tuned_page.at_the_edge(made).endswith("outside: `metasgd`.")
    assert tuned_page.at_the_edge({"maml": inside}).endswith("outside: no row.")


def test_the_picture_draws_both_differences_of_every_row_but_maml():
    table, seeds = read()["glyphs", 1], tier("glyphs").seeds
    made = [made_up(table, "maml", 40, seeds), made_up(table, "metasgd", 45, seeds)]
    here = tuned_page.by_row(table, made)
    (axis,) = own_rates(table, here).axes
    found = tuned_page.compared(table, here)
    centres = [bar.lines[0].get_xdata()[0] for bar in axis.containers]
    wanted = [part["metasgd"].estimate.mean for part in (found.before, found.after)]
    assert centres == pytest.approx([100 * one for one in wanted]) and wanted[0] != wanted[1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["metasgd"]
    filled = [bar.lines[0].get_markerfacecolor() != "white" for bar in axis.containers]
    assert filled == [part["metasgd"].significant for part in (found.before, found.after)]


def test_a_tuned_row_is_compared_with_the_same_seeds():
    """Seed 1 alone beside three of the tier; a seed without a record is compared with nothing."""
    table = read()["glyphs", 1]
    one = [made_up(table, "maml", 40, [1]), made_up(table, "metasgd", 45, [1])]
    (line,) = [x for x in tuned_page.lines([table], one) if x.startswith("| `metasgd`")]
    gap = 46 / 75 - table.by_row["metasgd"][1].accuracies(15).mean()
    assert f"{100 * gap:+.2f} ±" in line and line.endswith("| 1 |")
    other = [made_up(table, "maml", 40, [7]), made_up(table, "metasgd", 45, [7])]
    assert tuned_page.lines([table], other) == []
