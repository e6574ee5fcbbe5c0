"""The tables, as Markdown, from the records: ``python -m experiments.tables --write`` and
``--check``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from experiments import front, pilot_page, step_curves, which
from experiments.answers import answers
from experiments.cells import TIERS, cells, rows, tier
from experiments.generated import ROOT, WriteOrCheck, report, settle, with_block
from experiments.glance import glance
from experiments.headline import headline
from experiments.intervals import interval_table, licence
from experiments.records import FOLDER
from experiments.result_tables import Table, read, table_order
from experiments.start_or_geometry import shown
from experiments.statistics import p_text
from mdtheory.config import RunConfig
from mdtheory.core.estimate import Estimate

OUT = ROOT / "experiments" / "results"
README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "which-geometry.md"
POSTER_TIERS = ("cpu", "paper")  # those on the poster's data
LED = ("cpu", "omniglot")  # whose rows with more seeds are the leaders by seed 0
POSTER_ITERATIONS = 60_000
PILOT = "pilot.md"
HEADLINE = "Start and geometry, each without the other"
NOTE = (
    "<!-- made by `python -m experiments.tables --write` from experiments/records; do not edit "
    "-->\n"
)


def percent(value: Estimate | None, *, sign: str = "") -> str:
    """``48.70 ± 1.84``, or a dash."""
    return "–" if value is None else f"{100 * value.mean:{sign}.2f} ± {100 * value.half_width:.2f}"


def poster(row: str, shot: int) -> list[float]:
    """The poster's value and, where given, half-width, in %; empty where it has none."""
    return rows()[row].poster.get(str(shot), [])


def poster_text(row: str, shot: int) -> str:
    """The same as text."""
    return " ± ".join(f"{number:.2f}" for number in poster(row, shot)) or "–"


def markdown(heading: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are numbers."""
    lines = ["| " + " | ".join(heading) + " |", "|---|" + "---:|" * (len(heading) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def accuracy_table(table: Table) -> str:
    """Every row of the tier, finished or not; beside the poster's where the data are the
    poster's.
    """
    few, many = table.protocols
    compared = table.tier.name in POSTER_TIERS
    known = any(rows()[row].published for row in table.by_row)
    heading = ["method", *(["poster"] if compared else []), *(["published"] if known else [])]
    heading += [few_many(few), few_many(many)]
    heading += ["difference to the poster"] if compared else []
    heading += ["by seed"] if table.several_seeds else []
    heading += ["iterations", "records"]
    body = []
    for cell in table_order(table.tier.name):
        if cell.shot != table.shot:
            continue
        done = table.by_row.get(cell.row, {})
        line = [f"`{cell.row}`", *([poster_text(cell.row, cell.shot)] if compared else [])]
        if known:
            its = rows()[cell.row].published.get(str(cell.shot), [])
            line.append(" ± ".join(f"{number:.1f}" for number in its) or "–")
        line += [percent(table.mean(cell.row, n)) if done else "–" for n in (few, many)]
        line += [to_poster(table, cell.row, few)] if compared else []
        if table.several_seeds:
            line.append(
                ", ".join(f"{100 * one.accuracies(many).mean():.2f}" for one in done.values())
                or "–"
            )
        target = cell.config(0).meta.iterations
        line.append(
            f"{target if done else 0:,} of {target:,}"
            + (f" (poster: {POSTER_ITERATIONS:,})" if compared else "")
        )
        line.append(
            ", ".join(f"[seed {seed}]({link(record.folder)})" for seed, record in done.items())
            or "missing"
        )
        body.append(line)
    return markdown(heading, body)


def few_many(n_query: int) -> str:
    """A column's heading."""
    return f"{n_query} {'query' if n_query == 1 else 'queries'} a class"


def to_poster(table: Table, row: str, n_query: int) -> str:
    """Ours minus the poster's in its own protocol: K queries, the first 600 tasks; both intervals
    combined where it has one.
    """
    theirs = poster(row, table.shot)
    if not theirs or row not in table.by_row:
        return "–"
    mine = table.mean(row, n_query, first=600)
    own = 100 * mine.half_width
    both = (own**2 + theirs[1] ** 2) ** 0.5 if len(theirs) > 1 else own
    return f"{100 * mine.mean - theirs[0]:+.2f} ± {both:.2f}"


def paired_table(table: Table) -> str:
    """Every row minus MAML on the same tasks."""
    found = [
        table.differences("maml", n_query) if "maml" in table.by_row else {}
        for n_query in table.protocols
    ]
    if not found[1]:
        return (
            "No paired differences yet: they need the cell `maml` and another one with a common "
            "seed.\n"
        )
    heading = ["method"]
    for n_query in table.protocols:
        heading += [f"minus maml, {few_many(n_query)}", "p", "p (Holm)", "detectable"]
    heading += ["seeds", *(["by seed"] if table.several_seeds else [])]
    body = []
    for row in found[1]:
        line = [f"`{row}`"]
        for differences in found:
            one = differences[row]
            line += [
                shown(one),
                p_text(one.p),
                p_text(one.corrected),
                f"{100 * one.detectable:.2f}",
            ]
        line.append(str(found[1][row].seeds))
        if table.several_seeds:
            line.append(
                ", ".join(
                    f"{100 * gap:+.2f}" for gap in table.by_seed(row, "maml", table.protocols[1])
                )
            )
        body.append(line)
    return markdown(heading, body)


def seed_note(table: Table) -> str:
    """How far a seed moves a difference, beside which the intervals over tasks must be read."""
    spread = table.seed_spread("maml", table.protocols[1]) if "maml" in table.by_row else None
    if spread is None:
        return (
            f"{table.shot}-shot: no row has several seeds beside MAML's, so nothing is known of "
            "what another seed would give.\n"
        )
    return (
        f"{table.shot}-shot: from seed to seed the differences to MAML (15 queries a class) have a "
        "standard deviation of "
        f"**{100 * spread:.2f} points**, pooled over the rows with several seeds. The intervals of "
        "rows with fewer than three do not contain it: such a difference that is not well above it "
        "may turn with another seed.\n" + later_seeds(table)
    )


def later_seeds(table: Table) -> str:
    """The rows that have more seeds because they led by the first, over the others alone."""
    said = []
    for row, by_seed in table.by_row.items():
        gaps = table.by_seed(row, "maml", table.protocols[1])[1:]
        if row != "maml" and gaps and next(iter(by_seed.values())).result.tier in LED:
            said.append(f"`{row}` {100 * sum(gaps) / len(gaps):+.2f}")
    if not said:
        return ""
    return (
        "\nMore seeds went to the rows that led by seed 0, which is one of their seeds, so its "
        f"luck favours them; over the other seeds alone, minus MAML: {', '.join(said)}.\n"
    )


def settings(table: Table) -> str:
    """What the rows of a table share, and where a row differs."""
    config = table.first.config
    side, norm, data = config.data.image_size, config.norm, config.data
    strength = "" if data.strength is None else f" (strength {data.strength})"
    by_row = {row: varied(next(iter(its.values())).config) for row, its in table.by_row.items()}
    common = [Counter(said).most_common(1)[0][0] for said in zip(*by_row.values(), strict=True)]
    others = [
        f"`{row}`: {', '.join(one for one in said if one not in common)}"
        for row, said in by_row.items()
        if any(one not in common for one in said)
    ]
    return (
        f"{table.shot}-shot on {data.kind.title}{strength}, {side} x {side} pixels, Conv4 with "
        f"{config.model.options['channels']} channels, norm policy {norm}: {', '.join(common)}; "
        f"the checkpoint with the best validation; {config.test.tasks} test tasks, the same for "
        "all. " + (f"Otherwise: {'; '.join(others)}. " if others else "") + "Literal rows differ "
        "where their sources do."
    )


def varied(config: RunConfig) -> list[str]:
    """The settings of training that a row may change."""
    task, meta = config.task, config.meta
    return [
        f"{task.n_way}-way",
        f"{task.n_steps} task steps at rate {task.task_lr:g}",
        f"{meta.iterations:,} iterations of {meta.n_tasks} tasks",
        f"{task.n_query} queries a class",
        f"{meta.optimizer.name} at {meta.optimizer.meta_lr:g}",
    ]


READING = (
    "Accuracy in % ± the half-width of its 95% interval over test tasks (the trained networks are "
    "taken as given; several seeds are averaged task by task). Differences of rows with three "
    "seeds or more have the wider of two intervals, of a mixed model of seeds and tasks and "
    "Student's over seeds. Bold: other than zero at "
    "5% after Holm's correction over the rows of a column, from at least three seeds; slanted: the "
    "same from fewer, which only suggests. *Detectable*: the true difference that this "
    "comparison by itself would see with 80% power.\n"
)


def last_best(table: Table) -> str:
    """How many runs were still getting better when they ended."""
    runs = [record for by_seed in table.by_row.values() for record in by_seed.values()]
    last = sum(record.result.tested_iteration == record.result.target for record in runs)
    found = f"{last} of {len(runs)} runs are best at their last validation"
    if 2 * last <= len(runs):
        return found + ".\n"
    return found + (
        ": they were still learning when they were stopped, so what the table ranks, if anything, "
        "is *speed of meta-learning*.\n"
    )


def tier_page(name: str, results: dict[tuple[str, int], Table]) -> str:
    """All tables of a tier."""
    own = tier(name)
    parts = [NOTE, f"# Tier `{name}`: {own.title}\n", own.about + "\n", READING]
    for (_, shot), table in ((key, table) for key, table in results.items() if key[0] == name):
        parts += [
            f"## {shot}-shot\n",
            settings(table) + "\n",
            last_best(table),
            accuracy_table(table),
            "### Paired differences to MAML\n",
            paired_table(table),
            seed_note(table),
        ]
        if "maml" in table.by_row and len(table.rows) > 1:
            parts += ["### What an interval says\n", licence(table), interval_table(table)]
        parts += [f"![{title}]({name}-{shot}shot-{kind}.svg)\n" for kind, title in FIGURES.items()]
    command = f"python -m experiments.reproduce --tier {name} --jobs 2"
    parts.append(
        "Rerun a cell with the command in its record's `provenance.json`, or whatever is missing "
        f"with `{command}`.\n"
    )
    if notes := notes_of(name):
        parts += ["## What the rows are\n", notes]
    if name == "paper":
        parts += [f"A pilot at this size, which is no part of the table: [pilot.md]({PILOT}).\n"]
    if name in POSTER_TIERS:
        parts += ["## What stands behind the poster's numbers\n", behind_table()]
        parts += ["## Where the literal rows still differ from their sources\n", differs_table()]
    return "\n".join(parts)


FIGURES = {
    "differences": "Accuracy minus MAML's on the same tasks",
    "intervals": "The same differences with intervals that license different claims",
    "adaptation": "Task loss, gradient norm and accuracy at every task step; a curve that leaves "
    "its axes diverges",
    "training": "Meta-training",
    "cost": "Accuracy against time and memory",
}


def notes_of(name: str) -> str:
    """What the rows of a tier, and of those beside it, are; where their names do not say it."""
    shown = dict.fromkeys(cell.row for cell in table_order(name))
    return "".join(f"- `{row}`: {rows()[row].note}.\n" for row in shown if rows()[row].note)


def behind_table() -> str:
    """The audit of the poster's rows."""
    body = [[f"`{row.name}`", row.behind] for row in rows().values() if row.behind]
    return markdown(["row", "measured with"], body).replace("---:", "---")


def differs_table() -> str:
    """What the literal rows do otherwise than their sources."""
    body = [[f"`{row.name}`", row.differs] for row in rows().values() if row.differs]
    return markdown(["row", "differs"], body).replace("---:", "---")


def coverage(results: dict[tuple[str, int], Table]) -> str:
    """How far each tier has come, and what it is good for."""
    body = []
    for name in TIERS:
        every = cells(name)
        done = sum(
            cell.row in results[name, cell.shot].by_row
            for cell in every
            if (name, cell.shot) in results
        )
        linked = f"[{name}]({name}.md)" if done else f"`{name}`"
        body.append([linked, f"{done} of {len(every)}", tier(name).about])
    return markdown(["tier", "cells done", "what it can show"], body).replace("---:|\n", "---|\n")


def side_by_side(results: dict[tuple[str, int], Table], name: str) -> str:
    """The poster's table beside ours, both numbers of shots."""
    known = [results[name, shot] for shot in tier(name).shots if (name, shot) in results]
    heading = ["method"]
    for table in known:
        few, many = table.protocols
        heading += [
            f"poster, {table.shot}-shot",
            f"ours, {few_many(few)}",
            f"ours, {few_many(many)}",
        ]
    body = []
    for row in dict.fromkeys(cell.row for cell in table_order(name)):
        line = [f"`{row}`"]
        for table in known:
            line.append(poster_text(row, table.shot))
            counted = (
                f" ({n_seeds} seeds)" if (n_seeds := len(table.by_row.get(row, {}))) > 1 else ""
            )
            line += [
                percent(table.mean(row, n)) + counted if row in table.by_row else "–"
                for n in table.protocols
            ]
        body.append(line)
    return markdown(heading, body)


def index(results: dict[tuple[str, int], Table]) -> str:
    """The first table."""
    parts = [NOTE, "# Results\n", "## In one minute\n", glance(results)]
    first = headline(results)
    parts += [first, f"![{HEADLINE}](start-or-geometry.svg)\n"] if first else []
    parts += ["## What a tier can show\n", coverage(results)]
    parts.append(
        f"A pilot at the poster's size: [pilot.md]({PILOT}). Every task step of every record: "
        f"[steps.md]({step_curves.PAGE}).\n"
    )
    for name in ("paper", "cpu"):
        if any(key[0] == name for key in results):
            parts += [
                f"## The poster's table beside ours, tier `{name}`\n",
                READING,
                side_by_side(results, name),
            ]
    parts.append(
        "Questions, most of them stated before the runs, and their answers: "
        "[answers.md](answers.md).\n"
    )
    return "\n".join(parts)


def link(folder: Path) -> str:
    """From a table to a record."""
    return f"../records/{folder.name}"


def made(
    records: Path = FOLDER,
    out: Path = OUT,
    readme: Path | None = README,
    guide: Path | None = GUIDE,
) -> dict[Path, bytes]:
    """Every generated table, and the README and the guide with their blocks replaced."""
    results = read(records)
    found = {out / "index.md": index(results), out / "answers.md": NOTE + "\n" + answers(results)}
    found[out / PILOT] = NOTE + "\n" + pilot_page.text()
    found[out / step_curves.PAGE] = NOTE + "\n" + step_curves.text(results.values())
    for name in TIERS:
        if any(key[0] == name for key in results):
            found[out / f"{name}.md"] = tier_page(name, results)
    if readme is not None:
        block = front.block(results, "experiments/results/")
        text = with_block(readme.read_text(encoding="utf-8"), "results", block)
        found[readme] = with_block(text, "verdict", front.verdict())
    if guide is not None:
        block = which.block(results)
        found[guide] = with_block(guide.read_text(encoding="utf-8"), "which", block)
    return {path: text.encode() for path, text in found.items()}


def main(write: WriteOrCheck) -> None:
    """Write or check every table."""
    stale = settle(made(), write=write, owned=OUT.glob("*.md"))
    raise typer.Exit(report(stale, write=write, command="python -m experiments.tables"))


if __name__ == "__main__":
    typer.run(main)
