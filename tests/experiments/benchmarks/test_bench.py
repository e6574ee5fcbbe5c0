"""The harness, without its clock: what runs in which order, what is said of wrong and absent
libraries, what is kept.
"""

from __future__ import annotations

import json

import pytest

from experiments.benchmarks import bench, measurements as store, worker
from experiments.benchmarks.measurements import KEYS, BenchRecord
from experiments.benchmarks.summary import Table, fastest_right_peer, fit, tables, title
from mdtheory.core.registry import load_plugin
from tests.experiments.benchmarks import tiny


@pytest.fixture
def jobs(monkeypatch):
    return tiny.isolated(monkeypatch)


@pytest.fixture
def planted(jobs, tmp_path):
    """Two more implementations: one wrong, one whose library nobody has."""
    for name, source in {"wrong": tiny.WRONG, "absent": tiny.ABSENT}.items():
        (tmp_path / f"{name}.py").write_text(source)
        load_plugin(tmp_path / f"{name}.py")
    return ["planted-wrong", "planted-absent"]


def cells(record: BenchRecord, implementation: str) -> list[list[str]]:
    """The rows of all tables that speak of an implementation."""
    return [list(row) for table in tables(record) for row in table.rows if row[0] == implementation]


def test_a_planted_wrong_implementation_is_found_and_an_absent_one_is_listed(planted):
    record = tiny.run(bench.blank(tiny.settings(*planted)))
    (wrong,) = [one for one in record.measured if one.work.implementation == "planted-wrong"]
    assert not record.right(wrong)
    assert wrong.gradient_error > 1e-3
    assert all(record.right(one) for one in record.measured if one is not wrong)
    assert any("WRONG" in row[-1] for row in cells(record, "planted-wrong"))
    assert ["planted-absent", "maml", "", "unavailable", *5 * ["–"]] in cells(
        record, "planted-absent"
    )
    assert "no_such_library" in record.absent()[0].failed
    rows = [row for row in record.rows() if row["implementation"] == "planted-absent"]
    assert [(row["seconds"], row["peak_mib"], row["gradient_error"]) for row in rows] == [
        (None, None, None)
    ]


def test_a_wrong_implementation_is_no_peer_however_fast(planted):
    record = tiny.run(bench.blank(tiny.settings("planted-wrong")))
    (size,) = record.sizes()
    quick = [
        one.model_copy(
            update={"rounds": tuple(r.model_copy(update={"seconds": (1e-9,)}) for r in one.rounds)}
        )
        if one.work.implementation == "planted-wrong"
        else one
        for one in record.measured
    ]
    assert (
        fastest_right_peer(
            record.model_copy(update={"measured": tuple(quick)}), size
        ).work.implementation
        == "plain"
    )
    forgiving = [truth.model_copy(update={"error": 0.0}) for truth in record.truths]
    fooled = record.model_copy(update={"measured": tuple(quick), "truths": tuple(forgiving)})
    assert (
        fastest_right_peer(fooled, size).work.implementation == "plain"
    )  # the timed problem finds it as well


def test_a_gradient_wrong_on_the_timed_problem_alone_is_wrong(jobs):
    record = tiny.run(tiny.believed(tiny.settings()))
    (ours,) = [
        one
        for one in record.measured
        if one.work.implementation == "ours" and one.work.estimator == "stepwise"
    ]
    assert record.right(ours)
    bad = ours.rounds[0].model_copy(update={"gradient_error": 2e-3})
    assert not record.right(ours.model_copy(update={"rounds": (bad,)}))


def test_the_objects_of_the_json_have_exactly_these_keys(jobs):
    record = tiny.run(tiny.believed(tiny.settings(methods=("maml", "metamida"))))
    rows = json.loads(json.dumps(store.rounded(record.rows())))
    wanted = (
        "implementation, method, estimator, order, precision, shot, n_steps, channels, image_size, "
        "threads, seconds, peak_mib, "
        "ratio_to_ours, gradient_error"
    )
    assert all(list(row) == wanted.split(", ") == list(KEYS) for row in rows)
    names = [(row["implementation"], row["method"], row["estimator"]) for row in rows]
    estimators = [
        ("maml", "unrolled"),
        ("maml", "stepwise"),
        ("metamida", "unrolled"),
        ("metamida", "stepwise"),
    ]
    assert names == [("plain", "maml", None), *(("ours", *one) for one in estimators)]
    for row in rows:
        assert row["order"] == 2 and row["precision"] == "float32" and row["threads"] == 1
        assert (row["shot"], row["n_steps"], row["channels"], row["image_size"]) == (1, 1, 2, 16)
        assert (
            row["seconds"] > 0
            and row["peak_mib"] >= 0
            and row["ratio_to_ours"] > 0
            and row["gradient_error"] < 1e-3
        )
    assert rows[1]["ratio_to_ours"] == rows[3]["ratio_to_ours"] == 1.0


def test_implementations_take_turns(jobs):
    tiny.run(tiny.believed(tiny.settings(rounds=2)))
    iterations = [
        (job["work"]["implementation"], job["work"]["estimator"])
        for job in jobs
        if job["do"] == "iteration"
    ]
    assert iterations == 2 * [("plain", None), ("ours", "unrolled"), ("ours", "stepwise")]
    compared = [job["reference"] is not None for job in jobs if job["do"] == "iteration"]
    assert compared == [*3 * [True], *3 * [False]]


def test_sizes_take_turns_and_a_round_is_taken_up_where_it_was_left(jobs):
    """A machine that slows down for a minute must not slow one number of steps alone."""
    own, kept = tiny.settings(steps=(1, 2), rounds=2), []
    whole = bench.run(tiny.believed(own), tell=lambda what, expected=0.0: None, keep=kept.append)
    steps = [job["work"]["size"]["n_steps"] for job in jobs if job["do"] == "iteration"]
    assert steps == 2 * [*3 * [0], *3 * [1], *3 * [2]]
    assert [one.work.size.n_steps for one in whole.measured] == [*3 * [0], *3 * [1], *3 * [2]]
    assert {len(one.rounds) for one in whole.measured} == {2}
    del jobs[:]
    again = tiny.run(kept[3])  # one round of every size, and a second one without steps
    assert [job["work"]["size"]["n_steps"] for job in jobs if job["do"] == "iteration"] == [
        *3 * [1],
        *3 * [2],
    ]
    assert [(one.work, len(one.rounds)) for one in again.measured] == [
        (one.work, 2) for one in whole.measured
    ]


def test_what_is_not_known_to_the_plain_loop_is_judged_by_the_rounding_of_its_maml(jobs):
    record = tiny.run(tiny.believed(tiny.settings(methods=("maml", "metamida"))))
    (size,) = record.sizes()
    ours, plain = record.find("ours", "metamida", size), record.find("plain", "maml", size)

    def judged(own: float, of_plain: float) -> bool:
        changed = [
            one.model_copy(
                update={
                    "rounds": tuple(
                        r.model_copy(update={"gradient_error": error}) for r in one.rounds
                    )
                }
            )
            for one, error in ((ours, own), (plain, of_plain))
        ]
        return record.model_copy(update={"measured": tuple(changed)}).right(changed[0])

    assert judged(9e-4, 1e-5) and not judged(2.5e-3, 1e-5)
    assert judged(2.5e-3, 1e-3) and not judged(3.5e-3, 1e-3)


def test_what_is_expected_is_what_is_done(jobs):
    own = tiny.settings(steps=(1, 2), rounds=2, parts=("iterations", "evaluation"), eval_tasks=2)
    told = []
    begun = tiny.believed(own)
    count = bench.expected(begun)
    bench.run(begun, tell=lambda what, expected=0.0: told.append(expected))
    assert len(told) == count.things == len(jobs)


def test_a_failure_is_told_and_stops_nothing_else(jobs, monkeypatch):
    from experiments.benchmarks.implementations.plain import Plain

    whole = Plain.meta_gradient

    def failing(self, episodes):
        if self.size.image_size == tiny.SIZE.image_size:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return whole(self, episodes)

    monkeypatch.setattr(Plain, "meta_gradient", failing)
    record = tiny.run(tiny.believed(tiny.settings(rounds=2)))
    plain = record.find("plain", "maml", record.sizes()[0])
    assert "can't allocate memory" in plain.failed and plain.seconds is None
    assert [one.work.implementation for one in record.measured if one.seconds is not None] == [
        "ours",
        "ours",
    ]
    assert [row["seconds"] for row in record.rows() if row["implementation"] == "plain"] == [None]
    assert any(plain.failed in row for row in cells(record, "plain"))


def test_without_an_exact_gradient_finite_differences_still_judge(jobs, monkeypatch):
    def failing(job):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setitem(worker.JOBS, "reference", failing)
    record = tiny.run(tiny.believed(tiny.settings()))
    assert all(one.gradient_error is None and record.right(one) for one in record.measured)
    assert all(row[-1] == "right in float64" for row in cells(record, "plain")[:1])


@pytest.mark.parametrize(
    ("stderr", "code", "reason"),
    [
        (
            (
                "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 "
                "bytes\n"
            ),
            1,
            "out of memory",
        ),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", -6, "out of memory"),
        ("", -9, "out of memory"),
        (
            "Traceback\nValueError: n_steps must be\n\n",
            1,
            "exit code 1: ValueError: n_steps must be",
        ),
    ],
)
def test_a_process_s_last_words(stderr, code, reason):
    assert bench._reason(stderr, code) == reason


def test_a_record_is_read_as_written_and_goes_on_where_it_stopped(jobs, tmp_path):
    own = tiny.settings(steps=(1, 2, 3), parts=("iterations", "evaluation"), eval_tasks=2)
    kept = []
    whole = bench.run(tiny.believed(own), tell=lambda what, expected=0.0: None, keep=kept.append)
    file = tmp_path / "one" / "record.json"
    store.save(whole, file)
    assert store.load(file) == whole
    assert store.everything(tmp_path / "one").keys() == {"record"}
    del jobs[:]
    again = tiny.run(kept[1])  # after two sizes, the query pass and one step
    assert {(job["work"]["size"]["n_steps"]) for job in jobs if job["do"] == "iteration"} == {2, 3}
    assert [one.work for one in again.measured] == [one.work for one in whole.measured]
    del jobs[:]
    assert tiny.run(whole) == whole
    assert jobs == []


def test_the_cost_of_steps_is_told_for_three_of_them(jobs):
    record = tiny.run(tiny.believed(tiny.settings(steps=(1, 2, 3))))
    (lines,) = [table for table in tables(record) if table.title == "Cost of the task's steps"]
    assert [row[0] for row in lines.rows] == ["plain", "ours (unrolled)", "ours (stepwise)"]
    assert all("–" not in row for row in lines.rows)


def test_a_line_is_fitted():
    line = fit((k, 2.0 + 0.5 * k) for k in (1, 5, 10, 20))
    assert line == pytest.approx((2.0, 0.5, 1.0))
    assert fit([(0, 0.0), (1, 1.0), (2, 0.0)]).r2 == pytest.approx(0.0)


def test_evaluation_scores_the_same_tasks_alike(jobs):
    record = tiny.run(bench.blank(tiny.settings(parts=("evaluation",), eval_tasks=3, rounds=2)))
    plain, ours = record.evaluated
    assert (plain.n_tasks, ours.n_tasks) == (3, 3)
    assert plain.accuracy == pytest.approx(ours.accuracy)
    assert [(job["first"], job["n_tasks"]) for job in jobs if job["do"] == "evaluation"] == [
        (0, 1),
        (0, 1),
        (1, 2),
        (1, 2),
    ]


def test_processes_are_compared_with_one_of_one_thread(jobs, monkeypatch):
    seconds = {(1, 1): 4.0, (1, 2): 2.5, (2, 1): 2.0}
    asked = []

    def timed(size, threads, processes):
        asked.append((processes, threads))
        return seconds[processes, threads]

    monkeypatch.setattr(bench.training, "iteration", timed)
    record = tiny.run(bench.blank(tiny.settings(parts=("processes",), rounds=2, threads=2)))
    assert asked == 2 * list(seconds), "they take turns"
    assert [(one.processes, one.threads, one.seconds) for one in record.shared] == [
        (*k, (v, v)) for k, v in seconds.items()
    ]
    assert [row[1] for table in tables(record) for row in table.rows] == [
        f"{own:.2f} s, {4.0 / own:.2f} x the speed of one of one" for own in seconds.values()
    ]


def test_feeding_draws_glyphs_where_there_are_no_images(jobs, monkeypatch):
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    record = tiny.run(bench.blank(tiny.settings(parts=("feeding",))))
    (fed,) = record.feeding
    assert [job["do"] for job in jobs] == ["feeding"], (
        "no meta-gradient is measured, so none is judged"
    )
    assert fed.source == "glyphs" and len(fed.seconds) == 10 and min(fed.seconds) > 0


def test_a_column_that_says_the_same_in_every_row_goes_into_the_title(jobs):
    table = Table("Size", ["who", "method", "precision"], [["a", "maml", "x"], ["b", "maml", "y"]])
    assert table.narrow() == Table(
        "Size, MAML", ["who", "precision"], [["a", "x"], ["b", "y"]], table.note
    )
    differs = [["a", "maml", "x"], ["b", "metasgd", "y"]]
    assert table._replace(rows=differs).narrow() == table._replace(rows=differs)
    record = tiny.run(tiny.believed(tiny.settings(steps=(1, 2, 3))))
    others = {one.work.implementation for one in record.measured} - {"ours"}
    counted = f"{len(others)} other{'s' * (len(others) != 1)}" if others else ""
    beside = f"ours and {counted}" if others else "ours alone"
    assert title(record) == f"MAML, 1-shot, 1 to 3 steps: {beside}"
