"""Start x geometry: the cells are what their names say, and every number hangs on the weights."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments import factorial, pilot
from experiments.benchmarks.measurements import RECORDS
from experiments.cells import Cell
from experiments.encoder.page import RECORD
from experiments.factorial import OWN, PLAIN, RATES, best_rate, label, of_record, read, verify
from experiments.records import FOLDER, Record, everything, unsealed
from experiments.reproduce import fewer_tasks, not_taken_apart
from experiments.reuse import TEST_IMAGES, tasks_without_reuse, without_reuse
from experiments.start_or_geometry import CONTRASTS, known, table
from experiments.status import wanted
from mdtheory.config import open_data
from mdtheory.core import tree
from mdtheory.core.estimate import estimate

NAME = "glyphs-metamida-1shot-seed0"
OWN_ROW, GEOMETRIES = "metacurvature-symmetric", ("learned", "identity")


@pytest.mark.parametrize("one", read(), ids=lambda one: one.record)
def test_every_file_in_git_is_sound(one):
    assert verify(one) == []


SEALED = [factorial.OUT, pilot.OUT, pilot.FACTORIAL, RECORDS, RECORD.parent]
SEALED += [folder for folder in [RECORDS / "gpu"] if folder.is_dir()]


@pytest.mark.parametrize("folder", SEALED, ids=lambda folder: folder.name)
def test_what_was_measured_is_as_it_was_written(folder, tmp_path):
    """One more right answer in one task moves no digit of a page, but its file's digest."""
    assert unsealed(folder) == []
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    assert unsealed(tmp_path) == []
    path = next(path for path in tmp_path.iterdir() if path.suffix == ".json")
    text = path.read_text()
    at = next(i for i, letter in enumerate(text) if letter.isdigit() and i > len(text) / 2)
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    (problem,) = unsealed(tmp_path)
    assert path.name in problem and "sha256" in problem


@pytest.mark.parametrize("fault", ["score", "rate", "weights", "count", "maml", "grid"])
def test_a_planted_fault_is_found(fault):
    one = next(one for one in read() if one.record == NAME)
    data = json.loads(one.model_dump_json())
    cell = data["cells"][label(*OWN)]
    if fault == "score":
        cell["correct"]["1"]["15"][3] += 1
    elif fault == "rate":
        cell["best"] = next(rate for rate in RATES if rate != cell["best"])
    elif fault == "weights":
        data["weights"] = "0" * 64
    elif fault == "grid":
        data["rates"][0] = 0.2
    elif fault == "maml":  # another seed's, complete and consistent
        other = next(two for two in read() if two.record == NAME.replace("seed0", "seed1"))
        plain = label(*PLAIN)
        data |= {"maml": other.maml, "maml_weights": other.maml_weights}
        data["cells"][plain] = other.cells[plain].model_dump()
    else:
        data["cells"]["common start, learned"]["correct"]["1"]["15"].pop()
    assert verify(factorial.Factorial.model_validate(data))


def test_the_rate_is_the_best_on_validation_and_of_equals_the_nearest_to_one():
    assert best_rate([1, 2, 3, 9, 4, 5]) == 1.0
    assert best_rate([9, 2, 9, 3, 9, 5]) == 0.5
    assert best_rate([9, 2, 3, 3, 4, 5]) == 0.1


def test_the_rates_go_on_while_the_smallest_is_the_best():
    """By halving, down to a limit; the best of equals is not the smallest."""
    falling = [6, 5, 4, 3, 2, 1]
    assert factorial.next_rate(falling) == 0.05 and factorial.next_rate([*falling, 7]) == 0.025
    assert factorial.next_rate([*falling, 6]) is factorial.next_rate([*falling, 5]) is None
    assert factorial.tried([*falling, 7, 8]) == (*RATES, 0.05, 0.025)
    assert best_rate([*falling, 7]) == 0.05 and best_rate([*falling, 6]) == 0.1
    more = [*falling, *range(7, 13)]
    assert factorial.tried(more)[-1] == factorial.SMALLEST == 0.1 / 64
    assert factorial.next_rate(more) is None and factorial.next_rate(more[:-1]) == 0.1 / 64


def test_the_rates_go_on_while_the_largest_is_the_best():
    """By doubling, up to a limit; the best of equals is not the largest."""
    assert factorial.tried([*range(8)]) == (*RATES, 8.0, 16.0)
    assert factorial.tried([1, 2]) == RATES[:2]
    assert factorial.next_rate([]) == RATES[0] and factorial.next_rate([1, 2, 3, 4, 5]) == 4.0
    assert factorial.next_rate([1, 2, 3, 9, 4, 5]) is None
    assert factorial.next_rate([1, 2, 3, 4, 5, 6]) == 8.0
    assert factorial.next_rate([1, 2, 3, 4, 5, 6, 7]) == 16.0
    assert factorial.next_rate([1, 2, 3, 4, 5, 6, 6]) is None
    assert factorial.next_rate(list(range(10))) is None
    assert factorial.tried(list(range(10)))[-1] == 64.0
    assert best_rate([1, 2, 3, 4, 5, 6, 7]) == 8.0


def test_a_file_whose_best_rate_is_the_largest_is_taken_up_again(tmp_path, monkeypatch):
    """With its own numbers of tasks; the cells that are settled stay as they are."""
    data = json.loads((factorial.OUT / f"{NAME}.json").read_text())
    cell = data["cells"][label(*OWN)]
    one = cell["correct"]["1"]
    cell |= {"validation": [0, 0, 0, 0, 0, 10], "best": 4.0, "correct": {"1": one, "4": one}}
    path = tmp_path / f"{NAME}.json"
    path.write_text(json.dumps(data))
    assert not factorial.finished(path, 7)

    def count(learner, stream, rate, start, stop, protocols):
        return {str(n): [1] * (stop - start) for n in protocols}

    monkeypatch.setattr(factorial, "count", count)
    subject = of_record(Record(FOLDER / NAME))
    assert factorial.Sitting(subject, tasks=7, validation=3, out=tmp_path, until=math.inf).run()
    (after,) = read(tmp_path)
    its, tasks = after.cells.pop(label(*OWN)), data["validation_tasks"]
    assert factorial.finished(path, 7) and after.tasks == data["tasks"]
    assert its.validation == [0, 0, 0, 0, 0, 10, tasks, tasks] and its.best == 8.0
    assert its.correct["1"] == one and set(its.correct) == {"1", "8"}
    assert {name: cell.model_dump() for name, cell in after.cells.items()} == {
        name: cell for name, cell in data["cells"].items() if name != label(*OWN)
    }


def test_a_file_with_fewer_tasks_than_asked_for_goes_on(tmp_path, monkeypatch):
    """Its first answers stay, what a record knows comes from there, and no rate is tried again."""
    first, wanted = 100, 250
    data = json.loads((factorial.OUT / f"{NAME}.json").read_text()) | {"tasks": first}
    for cell in data["cells"].values():
        for by_query in cell["correct"].values():
            by_query.update({n: right[:first] for n, right in by_query.items()})
    path = tmp_path / f"{NAME}.json"
    path.write_text(json.dumps(data))
    assert factorial.finished(path, first) and not factorial.finished(path, wanted)
    asked, record = [], Record(FOLDER / NAME)

    def count(learner, stream, rate, start, stop, protocols):
        known = record.scores[record.config.norm]
        if (start, stop) == (0, factorial.REPEATED):
            return {n: right[:stop] for n, right in known.items()}
        asked.append((start, stop))
        return {str(n): [1] * (stop - start) for n in protocols}

    monkeypatch.setattr(factorial, "SLACK", 1.0)  # the stand-in repeats one record alone
    monkeypatch.setattr(factorial, "count", count)
    subject = of_record(record)
    assert factorial.Sitting(
        subject, tasks=wanted, validation=3, out=tmp_path, until=math.inf
    ).run()
    (after,) = read(tmp_path)
    assert after.tasks == wanted and set(asked) == {(100, 200), (200, 250)}
    assert verify(after) == []
    for name, cell in data["cells"].items():
        now = after.cells[name]
        assert (now.validation, now.best) == (cell["validation"], cell["best"])
        for rate, by_query in cell["correct"].items():
            for n, right in by_query.items():
                assert now.correct[rate][n][:first] == right
    mixed = after.cells["common start, learned"].correct["1"]["15"]
    assert mixed[first:] == [1] * (wanted - first)


def test_a_rate_is_chosen_on_validation_tasks_and_tested_on_others(tmp_path, monkeypatch):
    """The one protocol of training chooses, both protocols of the test are counted."""
    asked, record = [], Record(FOLDER / NAME)

    def count(learner, stream, rate, start, stop, protocols):
        asked.append((stream.split, rate, protocols))
        return {str(n): [1] * (stop - start) for n in protocols}

    monkeypatch.setattr(factorial, "SLACK", 1.0)  # the stand-in repeats no record
    monkeypatch.setattr(factorial, "count", count)
    subject, task = of_record(record), record.config.task
    assert factorial.Sitting(subject, tasks=50, validation=3, out=tmp_path, until=math.inf).run()
    tried = [("validation", rate, (task.n_query,)) for rate in RATES]
    assert all(asked.count(one) == 4 for one in tried)
    both = tuple(task.eval_n_query)
    assert set(asked) - set(tried) == {("test", 1.0, both)}  # of equals, 1 is the best


def test_a_row_with_layers_of_its_own_is_not_taken_apart():
    """MT-net keeps weights in tier omniglot, and has no start in common with MAML."""
    name = "omniglot-mtnet-1shot-seed0"
    assert Record(FOLDER / name).adaptation.common is None
    assert (FOLDER / name / "weights.safetensors").exists()
    assert name not in factorial.missing() and name not in {one.record for one in read()}


@pytest.fixture(scope="module")
def learners():
    subject = of_record(Record(FOLDER / NAME))
    return subject.learners(open_data(subject.config.data))


def first_point(learner):
    meta = tree.detach(learner.meta())
    of_map, anchor = tree.sub(meta, "geometry.map."), tree.sub(meta, "anchor.")
    return learner.geometry.map.point(of_map, anchor)


def test_starts_and_geometries_are_what_the_names_say(learners):
    own, plain = first_point(learners[OWN]), first_point(learners[PLAIN])
    for (start, geometry), learner in learners.items():
        wanted = own if start == "own start" else plain
        found = first_point(learner)
        assert all(torch.allclose(found[n], v, atol=1e-5) for n, v in wanted.items())
        assert (type(learner.geometry).__name__ == "MAML") == (geometry == "identity")
    assert any(not torch.allclose(own[name], value) for name, value in plain.items())


def test_what_has_not_been_taken_apart_is_listed(tmp_path):
    every = factorial.missing(folder=tmp_path)
    assert NAME in every and NAME not in factorial.missing()
    assert set(every) - set(factorial.missing()) == {one.record for one in read()}
    assert not {name for name in every if Record(FOLDER / name).config.geometry.name == "maml"}


def test_records_without_weights_are_told_by_their_tier():
    runs = wanted(["cpu", "smoke"])
    text = "\n".join(not_taken_apart(runs))
    assert "tier cpu kept no weights of" in text and "metakfo" in text and "smoke" not in text
    assert NAME not in {record.folder.name for record in factorial.without_weights()}
    assert not_taken_apart([]) == []


def test_files_on_fewer_tasks_than_the_tier_tests_are_told(monkeypatch):
    names, every = {run.name for run in wanted(["glyphs", "cpu"])}, read()
    assert not any("glyphs" in line for line in fewer_tasks(names))
    made = [one.model_copy(update={"tasks": 399 if one.record == NAME else 400}) for one in every]
    monkeypatch.setattr(factorial, "read", lambda: [one for one in made if "glyphs" in one.record])
    (line,) = fewer_tasks(names)
    assert line.startswith("start or geometry: 1 of tier glyphs on 399 or more of its 400")
    assert fewer_tasks({"cpu"}) == []


def test_contrasts_add_up():
    """Geometry at the own start + start alone = both, task by task."""
    for one in known():
        parts = one.gap("geometry at the own start", "tuned") + one.gap("start alone", "tuned")
        assert np.allclose(parts, one.gap("both", "tuned"))
    assert {OWN, PLAIN} <= {cell for pair in CONTRASTS.values() for cell in pair}


def test_answers_are_counted_at_the_multiple_of_the_task_rate(monkeypatch):
    """And the learner keeps its own rate."""
    learner, seen = SimpleNamespace(task_lr=0.1), []

    def evaluate(learner, stream, n_tasks, protocols):
        seen.append((learner.task_lr, [stream(index) for index in range(n_tasks)]))
        return [SimpleNamespace(accuracy=[0.2, 0.4]) for _ in protocols]

    class Stream:
        n_way = 5

        def __call__(self, index):
            return index

    monkeypatch.setattr("mdtheory.meta.evaluate.evaluate", evaluate)
    found = factorial.count(learner, Stream(), 4.0, 7, 9, (1, 3))
    assert seen == [(0.4, [7, 8])] and learner.task_lr == 0.1
    assert found == {"1": [1, 2], "3": [3, 6]}


@pytest.mark.parametrize(
    "contrast, first, second",
    [
        ("geometry at the common start", "common start, learned", "common start, identity"),
        ("geometry at the own start", "own start, learned", "own start, identity"),
        ("start alone", "own start, identity", "common start, identity"),
        ("both", "own start, learned", "common start, identity"),
    ],
)
def test_a_contrast_is_that_of_the_raw_counts(contrast, first, second):
    """The first cell minus the second, seed by seed, each at its own best rate or both at 1, on
    the tasks that every seed has.
    """
    where = ("omniglot", "metacurvature-symmetric", 1)
    (one,) = [one for one in known() if (one.tier, one.row, one.shot) == where]
    for rate in ("tuned", "as trained"):
        gaps = []
        for seed in range(3):
            path = factorial.OUT / f"omniglot-metacurvature-symmetric-1shot-seed{seed}.json"
            cells = json.loads(path.read_text())["cells"]
            right = [
                cells[name]["correct"][f"{cells[name]['best']:g}" if rate == "tuned" else "1"]["15"]
                for name in (first, second)
            ]
            gaps.append(np.subtract(*right) / (15 * 20))
        common = min(len(gap) for gap in gaps)
        assert np.allclose(one.gap(contrast, rate), [gap[:common] for gap in gaps])


def test_the_table_gives_the_rates_and_the_tasks_behind_them():
    """Own start learned, own start identity, common start learned, common start identity."""
    (one,) = [one for one in known() if (one.tier, one.row) == ("own", OWN_ROW) and one.shot == 1]
    kept = [
        json.loads((factorial.OUT / f"own-{OWN_ROW}-1shot-seed{seed}.json").read_text())
        for seed in range(3)
    ]
    places = [f"{start} start, {how}" for start in ("own", "common") for how in GEOMETRIES]
    rates = ["/".join(f"{one['cells'][name]['best']:g}" for name in places) for one in kept]
    assert len(set(rates[0].split("/"))) > 2 and one.rates() == "; ".join(rates)
    line = table([one])[2]
    assert line.endswith(f"| {one.rates()} | 1000 (50) | 3 |")


def test_the_interval_without_reuse_counts_images():
    """20 classes of 600: 150 tasks of 5 x (1 + 15) images; 659 of 20: 41 of 20 x (1 + 15); glyphs
    are never used twice. Fewer tasks than the images suffice for are no more than they are.
    """
    by_tier = {record.result.tier: record for record in everything()}
    config = by_tier["cpu"].config.model_copy(
        update={"task": by_tier["cpu"].config.task.model_copy(update={"n_shot": 1})}
    )
    assert TEST_IMAGES["mini-imagenet"] == 12_000 and tasks_without_reuse(config, 15) == 150
    values = np.random.default_rng(0).normal(size=1000)
    fresh = without_reuse(values, config, 15)
    assert fresh.n == 150
    assert fresh.half_width == pytest.approx(estimate(values).half_width * (1000 / 150) ** 0.5)
    few = without_reuse(values[:100], config, 15)
    assert (few.n, few.half_width) == (100, estimate(values[:100]).half_width)
    assert TEST_IMAGES["omniglot"] == 659 * 20
    assert tasks_without_reuse(by_tier["omniglot"].config, 15) == 41
    turned = Cell("omniglot-b", "maml-20way", 1).config(0)  # 1,623 characters less 1,200
    assert tasks_without_reuse(turned, 15) == (1623 - 1200) * 20 // (20 * 16) == 26
    assert tasks_without_reuse(by_tier["glyphs"].config, 15) is None


def test_the_pilot_is_of_the_cells_it_names_and_in_no_table():
    about = json.loads((pilot.OUT / "training.json").read_text())
    assert {row: one["config_digest"] for row, one in about.items()} == {
        row: pilot.config(row).digest for row in about
    }
    for row in pilot.ROWS:
        path = pilot.FACTORIAL / f"{row}.json"
        if path.exists():
            one = factorial.Factorial.model_validate_json(path.read_text())
            assert (one.weights, one.maml_weights) == tuple(
                about[name]["weights"] for name in (row, "maml")
            )
            assert all(cell.best == best_rate(cell.validation) for cell in one.cells.values())
    assert not [record for record in everything() if record.result.tier == "paper"]
