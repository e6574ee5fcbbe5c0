"""The tables, as Markdown, from the records: ``python -m experiments.tables --write`` and
``--check``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from experiments.answers import answers, verdicts
from experiments.cells import TIERS, cells, rows, tier
from experiments.generated import ROOT, WriteOrCheck, report, settle, with_block
from experiments.records import FOLDER
from experiments.result_tables import Page, read, table_order
from experiments.statistics import Estimate, p_text

OUT = ROOT / "experiments" / "results"
README = ROOT / "README.md"
POSTER_TIERS = ("cpu", "paper")  # those on the poster's data
POSTER_ITERATIONS = 60_000
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


def accuracy_table(page: Page) -> str:
    """Every row of the tier, finished or not; beside the poster's where the data are the
    poster's.
    """
    few, many = page.protocols
    compared = page.tier.name in POSTER_TIERS
    heading = ["method", *(["poster"] if compared else []), few_many(few), few_many(many)]
    heading += ["difference to the poster"] if compared else []
    heading += ["by seed"] if page.several_seeds else []
    heading += ["iterations", "records"]
    body = []
    for cell in table_order(page.tier.name):
        if cell.shot != page.shot:
            continue
        done = page.by_row.get(cell.row, {})
        line = [f"`{cell.row}`", *([poster_text(cell.row, cell.shot)] if compared else [])]
        line += [percent(page.mean(cell.row, n)) if done else "–" for n in (few, many)]
        line += [to_poster(page, cell.row, few)] if compared else []
        if page.several_seeds:
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


def to_poster(page: Page, row: str, n_query: int) -> str:
    """Ours minus the poster's in its own protocol: K queries, the first 600 tasks; both intervals
    combined where it has one.
    """
    theirs = poster(row, page.shot)
    if not theirs or row not in page.by_row:
        return "–"
    mine = page.mean(row, n_query, first=600)
    own = 100 * mine.half_width
    both = (own**2 + theirs[1] ** 2) ** 0.5 if len(theirs) > 1 else own
    return f"{100 * mine.mean - theirs[0]:+.2f} ± {both:.2f}"


def paired_table(page: Page) -> str:
    """Every row minus MAML on the same tasks."""
    found = [
        page.differences("maml", n_query) if "maml" in page.by_row else {}
        for n_query in page.protocols
    ]
    if not found[1]:
        return (
            "No paired differences yet: they need the cell `maml` and another one with a common "
            "seed.\n"
        )
    heading = ["method"]
    for n_query in page.protocols:
        heading += [f"minus maml, {few_many(n_query)}", "p", "p (Holm)", "detectable"]
    heading += ["by seed"] if page.several_seeds else []
    body = []
    for row in found[1]:
        line = [f"`{row}`"]
        for differences in found:
            one = differences[row]
            shown = (
                f"**{percent(one.estimate, sign='+')}**"
                if one.significant
                else percent(one.estimate, sign="+")
            )
            line += [shown, p_text(one.p), p_text(one.corrected), f"{100 * one.detectable:.2f}"]
        if page.several_seeds:
            line.append(
                ", ".join(
                    f"{100 * gap:+.2f}" for gap in page.by_seed(row, "maml", page.protocols[1])
                )
            )
        body.append(line)
    return markdown(heading, body)


def seed_note(page: Page) -> str:
    """How far a seed moves a difference, beside which the intervals over tasks must be read."""
    spread = page.seed_spread("maml", page.protocols[1]) if "maml" in page.by_row else None
    if spread is None:
        return (
            f"{page.shot}-shot: no row has several seeds beside MAML's, so nothing is known of "
            "what another seed would give.\n"
        )
    return (
        f"{page.shot}-shot: from seed to seed the differences to MAML (15 queries a class) have a "
        "standard deviation of "
        f"**{100 * spread:.2f} points**, pooled over the rows with several seeds. The intervals do "
        "not contain it: a "
        "difference from one seed that is not well above it may turn with another.\n"
    )


def settings(page: Page) -> str:
    """What all rows of a page share."""
    config = page.first.config
    side, task, meta = config.data.image_size, config.task, config.meta
    norm = config.norm
    data = (
        "miniImageNet"
        if config.data.source == "mini-imagenet"
        else f"glyphs (strength {config.data.strength})"
    )
    return (
        f"{task.n_way}-way {task.n_shot}-shot on {data}, {side} x {side} pixels, Conv4 with "
        f"{config.model.options['channels']} channels, {task.n_steps} task steps at rate "
        f"{task.task_lr}, norm policy {norm}; "
        f"{meta.iterations:,} iterations of {meta.n_tasks} tasks with {task.n_query} queries a "
        f"class, {meta.optimizer.name} at "
        f"{meta.optimizer.meta_lr} for every row, the checkpoint with the best validation; "
        f"{config.test.tasks} test tasks, "
        "the same for all. Literal rows differ where their sources do."
    )


READING = (
    "Accuracy in % ± the half-width of its 95% interval over test tasks (the trained networks are "
    "taken as given; several "
    "seeds are averaged task by task, and what another seed would give is only to be guessed from "
    "the columns by seed). Bold: "
    "other than zero at 5% after Holm's correction over the rows of a column. *Detectable*: the "
    "smallest difference that a "
    "single comparison would have seen with 80% power.\n"
)


def tier_page(name: str, pages: dict[tuple[str, int], Page]) -> str:
    """All tables of a tier."""
    own = tier(name)
    parts = [NOTE, f"# Tier `{name}`\n", own.about + "\n", READING]
    for (_, shot), page in ((key, page) for key, page in pages.items() if key[0] == name):
        parts += [
            f"## {shot}-shot\n",
            settings(page) + "\n",
            accuracy_table(page),
            "### Paired differences to MAML\n",
            paired_table(page),
            seed_note(page),
        ]
        parts += [f"![{title}]({name}-{shot}shot-{kind}.svg)\n" for kind, title in FIGURES.items()]
    command = f"python -m experiments.reproduce --tier {name} --jobs 2"
    parts.append(
        "Rerun a cell with the command in its record's `provenance.json`, or whatever is missing "
        f"with `{command}`.\n"
    )
    if name in POSTER_TIERS:
        parts += ["## What stands behind the poster's numbers\n", behind_table()]
    return "\n".join(parts)


FIGURES = {
    "differences": "Accuracy minus MAML's on the same tasks",
    "adaptation": "Task loss, gradient norm and accuracy at every task step",
    "training": "Meta-training",
    "cost": "Accuracy against time and memory",
}


def behind_table() -> str:
    """The audit of the poster's rows."""
    body = [[f"`{row.name}`", row.behind] for row in rows().values() if row.behind]
    return markdown(["row", "measured with"], body).replace("---:", "---")


def coverage(pages: dict[tuple[str, int], Page]) -> str:
    """How far each tier has come, and what it is good for."""
    body = []
    for name in TIERS:
        every = cells(name)
        done = sum(
            cell.row in pages[name, cell.shot].by_row
            for cell in every
            if (name, cell.shot) in pages
        )
        linked = f"[{name}]({name}.md)" if done else f"`{name}`"
        body.append([linked, f"{done} of {len(every)}", tier(name).about])
    return markdown(["tier", "cells done", "what it can show"], body).replace("---:|\n", "---|\n")


def side_by_side(pages: dict[tuple[str, int], Page], name: str) -> str:
    """The poster's table beside ours, both numbers of shots."""
    known = [pages[name, shot] for shot in tier(name).shots if (name, shot) in pages]
    heading = ["method"]
    for page in known:
        few, many = page.protocols
        heading += [
            f"poster, {page.shot}-shot",
            f"ours, {few_many(few)}",
            f"ours, {few_many(many)}",
        ]
    body = []
    for row in dict.fromkeys(cell.row for cell in table_order(name)):
        line = [f"`{row}`"]
        for page in known:
            line.append(poster_text(row, page.shot))
            counted = (
                f" ({n_seeds} seeds)" if (n_seeds := len(page.by_row.get(row, {}))) > 1 else ""
            )
            line += [
                percent(page.mean(row, n)) + counted if row in page.by_row else "–"
                for n in page.protocols
            ]
        body.append(line)
    return markdown(heading, body)


def summary(pages: dict[tuple[str, int], Page], base: str) -> str:
    """What the README shows. ``base``: the way from there to the pages."""
    parts = [coverage(pages).replace("](", f"]({base}")]
    shown = next((name for name in ("paper", "cpu") if any(key[0] == name for key in pages)), None)
    if shown:
        parts += [
            (
                f"Tier `{shown}`, accuracy in % ± 95% interval, from one seed where no number is "
                "given:\n"
            ),
            side_by_side(pages, shown),
        ]
        shots = [shot for name, shot in pages if name == shown]
        parts += [
            f"![{shot}-shot: {FIGURES['differences']}]({base}{shown}-{shot}shot-differences.svg)\n"
            for shot in shots
        ]
        parts += [seed_note(page) for (name, _), page in pages.items() if name == shown]
        parts += [
            "Questions stated before the runs, 15 queries a class, percentage points ± 95% "
            "interval "
            "over test tasks:\n"
        ]
        parts += [answer_table(pages, shown)]
    elif ("glyphs", 1) in pages:
        parts += ["Tier `glyphs`, paired differences in %:\n", paired_table(pages["glyphs", 1])]
    pages_of = [
        ("tables, figures and records", "index.md"),
        ("all questions and answers", "answers.md"),
    ]
    parts.append(
        "All "
        + "; ".join(f"{what}: [{base}{name}]({base}{name})" for what, name in pages_of)
        + ".\n"
    )
    return "\n".join(parts)


def answer_table(pages: dict[tuple[str, int], Page], name: str) -> str:
    """The answers about pairs of rows, of a tier and of those that are like it."""
    body = verdicts(pages, [name, *(other for other in TIERS if tier(other).like == name)])
    above = ["", *(line[0] for line in body)]
    told_once = [
        ["" if line[0] == title else line[0], *line[1:]]
        for title, line in zip(above, body, strict=False)
    ]
    return markdown(["question", "comparison", "difference", "answer"], told_once)


def index(pages: dict[tuple[str, int], Page]) -> str:
    """The first page."""
    parts = [NOTE, "# Results\n", "What was reproduced, what was not, and why.\n", coverage(pages)]
    for name in ("paper", "cpu"):
        if any(key[0] == name for key in pages):
            parts += [
                f"## The poster's table beside ours, tier `{name}`\n",
                READING,
                side_by_side(pages, name),
            ]
    parts.append("Questions stated before the runs, and their answers: [answers.md](answers.md).\n")
    return "\n".join(parts)


def link(folder: Path) -> str:
    """From a page to a record."""
    return f"../records/{folder.name}"


def made(
    records: Path = FOLDER, out: Path = OUT, readme: Path | None = README
) -> dict[Path, bytes]:
    """Every generated page, and the README with its block ``results`` replaced."""
    pages = read(records)
    found = {out / "index.md": index(pages), out / "answers.md": NOTE + "\n" + answers(pages)}
    for name in TIERS:
        if any(key[0] == name for key in pages):
            found[out / f"{name}.md"] = tier_page(name, pages)
    if readme is not None:
        found[readme] = with_block(
            readme.read_text(encoding="utf-8"), "results", summary(pages, "experiments/results/")
        )
    return {path: text.encode() for path, text in found.items()}


def main(write: WriteOrCheck) -> None:
    """Write or check every table."""
    stale = settle(made(), write=write, owned=OUT.glob("*.md"))
    raise typer.Exit(report(stale, write=write, command="python -m experiments.tables"))


if __name__ == "__main__":
    typer.run(main)
