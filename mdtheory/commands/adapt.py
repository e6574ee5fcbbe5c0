"""``mdtheory adapt``: a trained learner meets your own images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtheory.commands.console import (
    ForceFlag,
    JsonFlag,
    PluginOption,
    ThreadsOption,
    demand_new,
    use_plugins,
    use_threads,
    write_json,
)
from mdtheory.core.progress import say
from mdtheory.core.text import csv_cell, printable
from mdtheory.run.load import find_checkpoint

if TYPE_CHECKING:
    from mdtheory.data.pictures import Pictures
    from mdtheory.run.answer import Answer

TABLE, SHEET, PAGE = "predictions.csv", "sheet.png", "report.html"


class Format(StrEnum):
    """What an adapted model can be written as."""

    pt2 = "pt2"
    onnx = "onnx"


def adapt(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A checkpoint or a run folder.")
    ],
    support: Annotated[
        Path,
        typer.Option(
            "--support", metavar="DIR", help="The examples: one subfolder of images per class."
        ),
    ],
    query: Annotated[
        Path,
        typer.Option(
            "--query", metavar="DIR", help="Images to classify, in a folder or anywhere below it."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where the answers go (default: predictions, or predictions-2, ... if taken).",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=0, help="Task steps (default: those of the run's tests)."),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option("--coverage", help="How often a prediction set should hold the true class."),
    ] = 0.9,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one",
            help="Predict every image beside the examples alone: no prediction depends on which "
            "other images are there. Slower.",
        ),
    ] = False,
    export: Annotated[
        list[Format] | None,
        typer.Option("--export", help="Also write the adapted model; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = "cpu",
    threads: ThreadsOption = None,
    force: ForceFlag = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Learn new classes from a few images each, then classify others.

    The number of subfolders of --support must be the number of classes that the
    learner was trained for; their names are the class names. Writes
    predictions.csv (one probability per class, and a set of classes), sheet.png,
    a picture to judge by, and report.html, a page that opens offline. With two or
    more examples of every class some are held out to calibrate the probabilities
    and the sets; what the examples are too few for is said. Images that cannot be
    read are listed, the rest is predicted, and the exit code is 1. A learner
    trained on glyphs takes dark letters on light paper. Under the norm policy
    "transductive" the queries are normalised together, so a prediction depends on
    which others are in the folder, unless you ask for --one-by-one. A ready-made
    learner for colour photos lies in the project's repository (not in the package):
    experiments/records/cpu-metasgd-5shot-seed0.

    [bold]Examples[/bold]

      mdtheory adapt runs/maml --support my/examples --query my/unknown --out answers

      mdtheory adapt runs/maml --support my/examples --query my/unknown --export pt2
    """
    use_plugins(plugin)
    use_threads(threads)
    report = run(
        find_checkpoint(checkpoint),
        support,
        query,
        free_folder() if out is None else out,
        steps=steps,
        device=device,
        force=force,
        coverage=coverage,
        one_by_one=one_by_one,
        export=[kind.value for kind in export or ()],
    )
    for sentence in _warnings(report):
        say(sentence)
    if json_:
        write_json(report)
    else:
        for line in _lines(report):
            typer.echo(line)
    if report["unread"] or report["not_exported"]:
        raise typer.Exit(1)


def free_folder() -> Path:
    """``predictions``, or the first of ``predictions-2``, ... that is not there yet."""
    names = ("predictions" + (f"-{k}" if k > 1 else "") for k in range(1, 10**6))
    return next(Path(name) for name in names if not os.path.lexists(name))


def run(
    path: Path,
    support: Path,
    query: Path,
    out: Path,
    *,
    steps: int | None,
    device: str,
    force: bool = False,
    coverage: float = 0.9,
    one_by_one: bool = False,
    export: Sequence[str] = (),
) -> dict[str, Any]:
    """Adapt, predict, write all files; a summary."""
    import torch

    from mdtheory.core.atomic import make_folder, write_atomically
    from mdtheory.data.pictures import read_examples, read_queries
    from mdtheory.data.splits import alike
    from mdtheory.kernels.precision import precision
    from mdtheory.meta.calibrate import check_coverage
    from mdtheory.run.answer import answer
    from mdtheory.run.build import image_shape_of, load_learner
    from mdtheory.run.export import check_packages

    check_coverage(coverage)
    check_packages(export)
    for option, folder in (("--support", support), ("--query", query)):
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(
                f"--out must lie outside of {option}, got {str(out)!r} in {str(folder)!r}, where "
                f"{SHEET} would be the next image; name another folder"
            )
    models = {kind: out / f"adapted.{kind}" for kind in export}
    for file in (out / TABLE, out / SHEET, out / PAGE, *models.values()):
        demand_new(file, "--out", force=force)
    learner, config = load_learner(path, device=device)
    channels, size, _ = image_shape_of(config)
    examples, unknown = read_examples(support, size=size), read_queries(query, size=size)
    classes = sorted(set(examples.folders))
    if len(classes) != config.task.n_way:
        raise ValueError(
            f"--support must have {config.task.n_way} subfolders, one per class, as the learner "
            f"was trained for, got {len(classes)} in {str(support)!r}; add or remove some"
        )
    shown = [printable(name) for name in classes]
    if twins := [name for name in shown if shown.count(name) > 1]:
        raise ValueError(
            "--support must have subfolders whose names differ in print, got two that read "
            f"{twins[0]!r}; rename one"
        )
    like = next(iter(learner.parameters()))
    x, new = (
        p.tensor(channels=channels).to(device=like.device, dtype=like.dtype)
        for p in (examples, unknown)
    )
    y = torch.tensor([classes.index(name) for name in examples.folders], device=like.device)
    make_folder(out)  # before the work, which would be lost
    with precision(config.precision):
        found = answer(learner, x, y, new, n_steps=steps, coverage=coverage, alone=one_by_one)
    others = sorted({printable(name) for name in unknown.folders} - {*shown, ""})
    told_apart = [said] if (said := alike([*shown, *others])) else []
    report: dict[str, Any] = {
        "classes": shown,
        "norm": config.norm,
        "one_by_one": one_by_one,
        "temperature": found.temperature,
        "coverage": None if found.sets is None else coverage,
        "held_out": _held_out(found),
        "predictions": _rows(unknown, classes, found),
        "accuracy": _accuracy(unknown, classes, found),
        "cautions": [*found.cautions, *_of_copies(examples, unknown), *told_apart],
        "unread": [
            {"file": printable(str(one.file)), "why": printable(one.why)}
            for one in (*examples.unread, *unknown.unread)
        ],
        "left_out": [
            f"{one} in {str(folder)!r}"
            for part, folder in ((examples, support), (unknown, query))
            for one in part.left_out
        ],
        "csv": str(out / TABLE),
        "sheet": str(out / SHEET),
        "page": str(out / PAGE),
        "export": {},
        "not_exported": [],
    }
    contents = {
        out / TABLE: _csv(report),
        out / SHEET: _sheet(examples, unknown, report),
        out / PAGE: _page(examples, unknown, found, report),
    }
    for file, content in contents.items():
        write_atomically(file, content)
    for file in models.values():
        try:
            report["export"][str(file)] = _export(file, found, new, report)
        except ValueError as error:  # the answers are there all the same
            report["not_exported"].append(str(error))
    return report


def _held_out(found: Answer) -> dict[str, Any] | None:
    if found.held_out is None:
        return None
    low, high = found.held_out.interval
    return {"right": found.held_out.right, "n": found.held_out.n, "low": low, "high": high}


def _rows(unknown: Pictures, classes: list[str], found: Answer) -> list[dict[str, Any]]:
    names = [printable(name) for name in classes]
    best = found.probabilities.argmax(-1).tolist()
    sets = [None] * len(best) if found.sets is None else found.sets.tolist()
    return [
        {
            "file": printable(str(file)),
            "predicted": names[index],
            "probabilities": dict(zip(names, map(float, p), strict=True)),
            "set": own and [name for name, held in zip(names, own, strict=True) if held],
        }
        for file, index, p, own in zip(unknown.files, best, found.probabilities, sets, strict=True)
    ]


def _accuracy(unknown: Pictures, classes: list[str], found: Answer) -> float | None:
    guesses = [classes[index] for index in found.probabilities.argmax(-1).tolist()]
    pairs = zip(unknown.folders, guesses, strict=True)
    known = [truth == guess for truth, guess in pairs if truth in classes]
    return sum(known) / len(known) if known else None


def _of_copies(examples: Pictures, unknown: Pictures) -> list[str]:
    from mdtheory.data.stored_pixels import hashes_of

    seen: dict[bytes, Path] = {}
    told, twice = [], []
    for file, row in zip(examples.files, hashes_of(examples.pixels), strict=True):
        if (first := seen.setdefault(bytes(row), file)) is not file:
            twice.append((first, file))
    if twice:
        pair = " and ".join(repr(printable(str(file))) for file in twice[0])
        told.append(
            f"{len(twice)} of the examples are copies of others, such as {pair}: one that is held "
            "out is then not new, so probabilities and sets promise too much; remove the copies"
        )
    rows = hashes_of(unknown.pixels)
    copies = [file for file, row in zip(unknown.files, rows, strict=True) if bytes(row) in seen]
    if copies:
        told.append(
            f"{len(copies)} of the images to classify are copies of examples, such as "
            f"{printable(str(copies[0]))!r}: an accuracy over them says nothing"
        )
    return told


def _export(file: Path, found: Answer, new: Any, report: dict[str, Any]) -> float:
    from mdtheory.run.export import export

    return export(
        found.model,
        new,
        file,
        temperature=found.temperature or 1.0,
        classes=report["classes"],
        one_at_a_time=report["one_by_one"],
    )


def _csv(report: dict[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = report["classes"]
    writer.writerow(["file", "predicted", "set", *(f"p({name})" for name in names)])
    for row in report["predictions"]:
        held = " | ".join(row["set"]) if row["set"] is not None else ""
        numbers = [f"{row['probabilities'][name]:.6f}" for name in names]
        words = [csv_cell(word) for word in (row["file"], row["predicted"], held)]
        writer.writerow([*words, *numbers])
    return text.getvalue().encode()


def _confidence(row: dict[str, Any]) -> float:
    return float(row["probabilities"][row["predicted"]])


def _sheet(examples: Pictures, unknown: Pictures, report: dict[str, Any]) -> bytes:
    from mdtheory.figures.contact_sheet import Card, contact_sheet

    known = [
        Card(image, name) for image, name in zip(examples.pixels, examples.folders, strict=True)
    ]
    answers = [
        Card(image, f"{row['predicted']} {100 * _confidence(row):.0f}%")
        for image, row in zip(unknown.pixels, report["predictions"], strict=True)
    ]
    return contact_sheet([("examples", known), ("predictions", answers)])


def _page(examples: Pictures, unknown: Pictures, found: Answer, report: dict[str, Any]) -> bytes:
    from mdtheory.figures.answer_page import AnswerCard, AnswerPage

    raw = sorted(set(examples.folders))
    cards = [
        AnswerCard(
            image,
            row["file"],
            row["predicted"],
            _confidence(row),
            None if row["set"] is None else [n for n in row["set"] if n != row["predicted"]],
            printable(truth) if truth in raw else "",
        )
        for image, row, truth in zip(
            unknown.pixels, report["predictions"], unknown.folders, strict=True
        )
    ]
    by_class = [
        (name, [p for p, own in zip(examples.pixels, examples.folders, strict=True) if own == name])
        for name in raw
    ]
    page = AnswerPage(
        title=f"{len(cards)} images told apart by {len(examples.files)} examples",
        facts=_facts(report),
        cautions=report["cautions"],
        answers=cards,
        examples=by_class,
        seen=found.curve.seen.tolist(),
        unseen=found.curve.unseen.tolist(),
        unread=[(one["file"], one["why"]) for one in report["unread"]],
        left_out=report["left_out"],
    )
    return page.html().encode()


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("Classes", ", ".join(report["classes"]))]
    if (held := report["held_out"]) is not None:
        between = f"95 % interval {100 * held['low']:.0f} to {100 * held['high']:.0f} %"
        facts.append(("On held-out examples", f"{held['right']} of {held['n']} right, {between}"))
        facts.append(("Probabilities", f"calibrated, temperature {report['temperature']:.2f}"))
        facts.append(
            ("Prediction sets", f"hold the true class in {100 * report['coverage']:g} % of cases")
        )
    else:
        facts.append(("Probabilities", "not calibrated"))
    if report["accuracy"] is not None:
        facts.append(("In folders named like classes", f"{100 * report['accuracy']:.1f} % right"))
    beside = "every image beside the examples alone" if report["one_by_one"] else "all together"
    facts.append(("Norm policy", f"{report['norm']}; predicted {beside}"))
    return facts


def _warnings(report: dict[str, Any]) -> list[str]:
    """What goes to the error stream, so that it is seen beside JSON too."""
    return [
        *(f"not read: {one['why']}" for one in report["unread"]),
        *(f"left out: {words}" for words in report["left_out"]),
        *(f"caution: {words}" for words in report["cautions"]),
        *(f"not exported: {words}" for words in report["not_exported"]),
    ]


def _lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for row in report["predictions"]:
        others = [name for name in row["set"] or () if name != row["predicted"]]
        more = f", or {', '.join(others)}" if others else ""
        lines.append(f"{row['file']}: {row['predicted']} ({100 * _confidence(row):.0f}%{more})")
    if report["accuracy"] is not None:
        lines.append(
            "accuracy on the queries in folders named like classes: "
            f"{100 * report['accuracy']:.1f}%"
        )
    if report["unread"]:
        lines.append(f"{len(report['unread'])} files could not be read; see above")
    lines += [report["csv"], report["sheet"], report["page"]]
    for path, worst in report["export"].items():
        lines.append(f"{path} (read back: largest difference {worst:.1g})")
    return lines
