"""``python -m tests.mutation``: judge a seeded sample of mutants (or those made by hand), and write
the score.

Resumable: stop it at any time and start it again. A mutant is first judged by the quick tests that
execute its line, and one that survives them by the others that do. ``--survivors`` judges those
once more, after tests were added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from tests.mutation import score
from tests.mutation.hand import hand_made
from tests.mutation.relevant import ROOT, WORK, Relevant
from tests.mutation.worker import KILLED, Outcome, judge, preload

STAGES = (3.0, 12.0)
"""Processor seconds of tests, cumulated: a mutant that survives the first stage goes to the second.
What is left out are mostly the contract's remaining combinations of geometry, model and estimator.
"""


KEPT = (400, 0)
"""The size and seed whose score is in the repository; any other is printed: a check on places that
no test was written for.
"""


def main(
    sample: Annotated[int, typer.Option(help="How many mutants.")] = KEPT[0],
    seed: Annotated[
        int, typer.Option(help="Another one judges other mutants, and only prints.")
    ] = KEPT[1],
    hand: Annotated[bool, typer.Option("--hand", help="The mutants of hand.toml instead.")] = False,
    survivors: Annotated[
        bool, typer.Option("--survivors", help="Judge the survivors again.")
    ] = False,
    stages: Annotated[int, typer.Option(help="Stop after so many stages (a pilot).")] = len(STAGES),
) -> None:
    """Judge what is not judged yet; the exit status is 0 where the bar is met and every survivor
    explained.
    """
    relevant = Relevant.read()
    preload()
    if hand:
        raise typer.Exit(run_hand(relevant))
    raise typer.Exit(run_sample(relevant, size=sample, seed=seed, again=survivors, stages=stages))


def control(rows: Sequence[score.Row]) -> None:
    """Every test that killed must pass on the unchanged code under the same conditions: else its
    verdicts mean nothing.
    """
    tests = sorted({row["test"] for row in rows if "::" in row["test"]})
    path = "mdtheory/maps/base.py"
    outcome = judge(path, (ROOT / path).read_text(), tests, cpu_seconds=3600)
    if outcome.verdict != "survived" or outcome.tests != len(tests):
        raise RuntimeError(
            f"unchanged code must pass {len(tests)} tests, got {outcome.tests} run and "
            f"{outcome.verdict} {outcome.test}; "
            "repair that test first"
        )


def staged(
    relevant: Relevant, path: str, text: str, tests: Sequence[str], *, stages: int
) -> Outcome:
    """The outcome of the first stage that kills; all tests run once at most."""
    outcome, seconds, run, done = Outcome("survived", "", 0.0, 0), 0.0, 0, 0
    for limit in STAGES[:stages]:
        chosen = relevant.within(tests, limit)[done:]
        done += len(chosen)
        if chosen and outcome.verdict not in KILLED:
            outcome = judge(path, text, chosen, cpu_seconds=3 * relevant.cost(chosen) + 30)
            seconds, run = seconds + outcome.seconds, run + outcome.tests
    return Outcome(outcome.verdict, outcome.test, round(seconds, 2), run)


def stale(row: score.Row, text: str, relevant: Relevant) -> bool:
    """Whether the file has changed since, or the test that killed is gone."""
    return row["text"] != text or ("::" in row["test"] and row["test"] not in relevant.seconds)


def work(results: score.Results, todo: list[tuple[score.Row, Callable[[], Outcome]]]) -> None:
    """Judge one after the other, with a line for each."""
    start = time.monotonic()
    for done, (row, judged) in enumerate(todo, 1):
        outcome = judged()
        results.add(row | asdict(outcome))
        pace = (time.monotonic() - start) / done
        left = pace * (len(todo) - done) / 60
        where = f"{row['path'].removeprefix('mdtheory/')}:{row.get('line', '')} {row['key']}"
        print(
            (
                f"[{done}/{len(todo)}] {outcome.verdict:8} {outcome.seconds:6.1f}s {where} "
                f"({left:.0f} "
                "min left)"
            ),
            flush=True,
        )


def run_sample(relevant: Relevant, *, size: int, seed: int, again: bool, stages: int) -> int:
    """The sample: results to ``out/mutation``, then ``score.json`` and ``survivors.md`` of the kept
    one.
    """
    from tests.mutation.mutants import sample, sources

    files = sources()
    every = [mutant for file in files.values() for mutant in file.mutants]
    digests = {path: score.digest([file.module.code]) for path, file in files.items()}
    drawn = sample(every, size=size, seed=seed)
    results = score.Results(WORK / "results.jsonl")
    todo = []
    for mutant in drawn:
        known = results.rows.get(mutant.key)
        text = digests[mutant.path]
        if (
            known is None
            or stale(known, text, relevant)
            or (again and known["verdict"] not in KILLED)
        ):
            row = {
                name: getattr(mutant, name)
                for name in ("key", "path", "line", "function", "before", "after")
            }
            row["text"] = text  # a verdict is for one text of the file
            tests = relevant.tests_of(mutant.path, list(mutant.spans))
            todo.append(
                (
                    row,
                    lambda m=mutant, t=tests: staged(
                        relevant, m.path, files[m.path].planted(m), t, stages=stages
                    ),
                )
            )
    work(results, todo)
    kept = ("key", "path", "function", "before", "after", "verdict", "test")
    rows = [{name: results.rows[mutant.key][name] for name in kept} for mutant in drawn]
    control(rows)
    content = {
        "seed": seed,
        "population": len(every),
        **score.counts(rows),
        **score.rates(rows),
        "rows": rows,
    }
    print({name: value for name, value in content.items() if name != "rows"})
    if (size, seed) == KEPT:
        score.write(score.SCORE, content)
        score.SURVIVORS.write_text(score.report(content, score.explanations()))
    else:
        print(
            *(
                f"{row['key']} {row['path']} {row['before']} -> {row['after']}"
                for row in score.survivors(rows)
            ),
            sep="\n",
        )
    return int(content["lower_95"] < 0.85)


def run_hand(relevant: Relevant) -> int:
    """The hand-made ones: all of them must be killed."""
    results = score.Results(WORK / "hand.jsonl")
    mutants = hand_made()
    todo = []
    for mutant in mutants:
        known, text = results.rows.get(mutant.key), score.digest([(ROOT / mutant.path).read_text()])
        if known is None or stale(known, text, relevant) or known["verdict"] not in KILLED:
            tests = relevant.tests_of(mutant.path, [mutant.span()])
            row = {"key": mutant.key, "name": mutant.name, "path": mutant.path, "text": text}
            todo.append(
                (
                    row,
                    lambda m=mutant, t=tests: staged(
                        relevant, m.path, m.planted(), t, stages=len(STAGES)
                    ),
                )
            )
    work(results, todo)
    rows = [
        {name: results.rows[m.key][name] for name in ("key", "name", "path", "verdict", "test")}
        for m in mutants
    ]
    control(rows)
    score.write(score.HAND, score.counts(rows) | {"rows": rows})
    alive = [row["name"] for row in score.survivors(rows)]
    print(f"{len(rows) - len(alive)} of {len(rows)} killed", *alive, sep="\n  ")
    return int(bool(alive))


if __name__ == "__main__":
    typer.run(main)
