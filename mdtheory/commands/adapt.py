"""``mdtheory adapt``: a trained learner meets your own images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
from mdtheory.run.load import find_checkpoint


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
            "--query", metavar="DIR", help="Images to classify, in a folder or its subfolders."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where predictions.csv and sheet.png go.")
    ] = Path("predictions"),
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=0, help="Task steps (default: those of the run's tests)."),
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
    predictions.csv (one probability per class) and sheet.png, a picture to judge
    by. A learner trained on glyphs takes dark letters on light paper. Under the
    norm policy "transductive" the queries are normalised together, so a
    prediction depends on which others are in the folder.

    [bold]Example[/bold]

      mdtheory adapt runs/maml --support my/examples --query my/unknown --out answers
    """
    use_plugins(plugin)
    use_threads(threads)
    report = run(
        find_checkpoint(checkpoint), support, query, out, steps=steps, device=device, force=force
    )
    if json_:
        write_json(report)
        return
    for row in report["predictions"]:
        typer.echo(
            f"{row['file']}: {row['predicted']} ({100 * max(row['probabilities'].values()):.0f}%)"
        )
    if report["accuracy"] is not None:
        typer.echo(
            "accuracy on the queries in folders named like classes: "
            f"{100 * report['accuracy']:.1f}%"
        )
    typer.echo(f"{report['csv']}\n{report['sheet']}")


@dataclass(frozen=True)
class Pictures:
    """Image files with what their folder is called, decoded: ``pixels`` uint8 (N, size, size,
    3).
    """

    files: list[Path]
    folders: list[str]
    pixels: Any

    def tensor(self, *, channels: int) -> Any:
        """float32 (N, C, H, W) in [0, 1]; one channel means ink: 1 on black, 0 on white."""
        import torch

        x = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255
        return 1 - x.mean(dim=1, keepdim=True) if channels == 1 else x.contiguous()


def run(
    path: Path,
    support: Path,
    query: Path,
    out: Path,
    *,
    steps: int | None,
    device: str,
    force: bool,
) -> dict[str, Any]:
    """Adapt, predict, write both files; a summary."""
    import torch

    from mdtheory.meta.checkpoint import write_atomically
    from mdtheory.run.build import image_shape_of, load_learner

    table, sheet = out / "predictions.csv", out / "sheet.png"
    for file in (table, sheet):
        demand_new(file, "--out", force=force)
    learner, config = load_learner(path, device=device)
    channels, size, _ = image_shape_of(config)
    examples, unknown = read_examples(support, size=size), read_queries(query, size=size)
    classes = sorted(set(examples.folders))
    if len(classes) != config.task.n_way:
        raise ValueError(
            f"--support must have {config.task.n_way} subfolders, one per class, as the learner "
            "was "
            "trained for, got "
            f"{len(classes)} in {support}; add or remove some"
        )
    like = next(iter(learner.parameters()))
    x, new = (
        p.tensor(channels=channels).to(device=like.device, dtype=like.dtype)
        for p in (examples, unknown)
    )
    y = torch.tensor([classes.index(name) for name in examples.folders], device=like.device)
    with torch.no_grad():
        probabilities = learner.adapt(x, y, n_steps=steps).eval()(new).softmax(-1).cpu()
    best = [classes[int(index)] for index in probabilities.argmax(-1)]
    known = [
        truth == guess
        for truth, guess in zip(unknown.folders, best, strict=True)
        if truth in classes
    ]
    rows = [
        {
            "file": str(file),
            "predicted": guess,
            "probabilities": dict(zip(classes, map(float, p), strict=True)),
        }
        for file, guess, p in zip(unknown.files, best, probabilities, strict=True)
    ]
    contents = {table: _csv(rows, classes), sheet: _sheet(examples, unknown, rows)}
    out.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        write_atomically(file, content)
    accuracy = sum(known) / len(known) if known else None
    places = {"csv": str(table), "sheet": str(sheet)}
    return {
        "classes": classes,
        "norm": config.norm,
        "predictions": rows,
        "accuracy": accuracy,
        **places,
    }


def read_examples(folder: Path, *, size: int) -> Pictures:
    """All images in the subfolders of ``folder``, the subfolder being the class."""
    _demand_folder(folder, "--support")
    named = [(path, sub.name) for sub in _subfolders(folder) for path in _images(sub)]
    empty = [sub.name for sub in _subfolders(folder) if not _images(sub)]
    if empty:
        raise ValueError(
            f"every class of --support must have images, got none in {folder / empty[0]}; add some "
            "or remove it"
        )
    return _decode(named, size)


def read_queries(folder: Path, *, size: int) -> Pictures:
    """All images in ``folder`` and its subfolders."""
    _demand_folder(folder, "--query")
    named = [(path, "") for path in _images(folder)]
    named += [(path, sub.name) for sub in _subfolders(folder) for path in _images(sub)]
    if not named:
        raise ValueError(f"--query must hold images, got none in {folder}; check the path")
    return _decode(named, size)


def _demand_folder(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise ValueError(f"{option} must be a folder, got {folder}; check the path")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _images(folder: Path) -> list[Path]:
    from mdtheory.data.left_out import is_image

    return sorted(path for path in folder.iterdir() if is_image(path.name))


def _decode(named: list[tuple[Path, str]], size: int) -> Pictures:
    import numpy as np

    from mdtheory.data.decode_image import decode

    pixels = [decode(path, image_size=size, name=str(path)) for path, _ in named]
    stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)
    return Pictures([path for path, _ in named], [name for _, name in named], stacked)


def _csv(rows: list[dict[str, Any]], classes: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "predicted", *(f"p({name})" for name in classes)])
    for row in rows:
        writer.writerow(
            [
                row["file"],
                row["predicted"],
                *(f"{row['probabilities'][name]:.6f}" for name in classes),
            ]
        )
    return text.getvalue().encode()


def _sheet(examples: Pictures, unknown: Pictures, rows: list[dict[str, Any]]) -> bytes:
    from mdtheory.figures.contact_sheet import Card, contact_sheet

    known = [
        Card(image, name) for image, name in zip(examples.pixels, examples.folders, strict=True)
    ]
    answers = [
        Card(image, f"{row['predicted']} {100 * row['probabilities'][row['predicted']]:.0f}%")
        for image, row in zip(unknown.pixels, rows, strict=True)
    ]
    return contact_sheet([("examples", known), ("predictions", answers)])
