"""``mdtheory data``: look at a data set before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdtheory.commands.console import (
    ForceFlag,
    JsonFlag,
    PluginOption,
    demand_new,
    use_plugins,
    write_json,
)
from mdtheory.core.progress import say
from mdtheory.core.text import printable

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Look at a data set before training on it."
)
Place = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="A folder of images; without it, the glyphs that ship with the package.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--image-size", min=8, help="Pixels (default: the source's own)."),
]
SourceName = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="What the folder holds: a name that data.source takes, e.g. mini-imagenet, omniglot, "
        "cifar-fs or fc100 (default: your own images).",
    ),
]


@app.command()
def check(
    path: Place = None,
    source: SourceName = None,
    image_size: Size = None,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Read a data set as training would, and say what is in it.

    Knows Parquet folders, class folders (below train/val/test or not), Ravi's csv
    tables, labels.csv with images (as in Meta-Album), and the pickles and .npz
    archives in circulation (read without running anything in them). Reads every
    pixel of the cache, and names what was left out and images that are there twice.
    Without PATH, --source mini-imagenet looks where MDTHEORY_MINI_IMAGENET points,
    omniglot where MDTHEORY_OMNIGLOT does, cifar-fs and fc100 at MDTHEORY_CIFAR100.

    [bold]Examples[/bold]

      mdtheory data check

      mdtheory data check ~/mini-imagenet --source mini-imagenet

      mdtheory data check ~/omniglot --source omniglot

      mdtheory data check my/photos --json
    """
    from mdtheory.data.stored_pixels import DamagedPixelsError

    use_plugins(plugin)
    images = open_place(path, source=source, image_size=image_size)
    try:
        getattr(images, "check", lambda: None)()  # every pixel, not only those of a few tasks
    except DamagedPixelsError as error:
        say(f"{error}")
        images = open_place(path, source=source, image_size=image_size)
    facts = summary(images)
    if json_:
        write_json(facts)
        return
    for key, value in facts.items():
        if key == "splits":
            for split, counts in value.items():
                n, m = counts["classes"], counts["images"]
                typer.echo(f"{split}: {n} class{'es' * (n != 1)}, {m} image{'s' * (m != 1)}")
        elif isinstance(value, list) and key != "image_shape":
            for one in value:
                typer.echo(f"{key.replace('_', ' ')}: {printable(str(one))}")
        elif value not in ("", None):
            typer.echo(f"{key.replace('_', ' ')}: {printable(str(value))}")


@app.command()
def sheet(
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture to write.")],
    path: Place = None,
    source: SourceName = None,
    image_size: Size = None,
    plugin: PluginOption = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    task: Annotated[
        int, typer.Option("--task", min=0, help="Which task of the stream to draw.")
    ] = 0,
    n_way: Annotated[int, typer.Option("--n-way", min=2, help="Classes.")] = 5,
    per_class: Annotated[
        int | None,
        typer.Option("--per-class", min=2, help="Images of each class (default: up to 10)."),
    ] = None,
    force: ForceFlag = False,
) -> None:
    """Draw one task as a picture: for every class the support image, framed, and its queries.

    [bold]Examples[/bold]

      mdtheory data sheet glyphs.png --n-way 12

      mdtheory data sheet mini.png ~/mini-imagenet --source mini-imagenet --split test
    """
    from mdtheory.core.atomic import write_atomically
    from mdtheory.data.episodes import EpisodeStream, TooSmallError
    from mdtheory.figures.contact_sheet import contact_sheet

    if out.suffix.lower() != ".png":
        raise ValueError(f"OUT.png must end in .png, got {out}; choose another name")
    demand_new(out, "OUT.png", force=force)
    use_plugins(plugin)
    images = open_place(path, source=source, image_size=image_size)
    per_class = images_of_each(images, split, per_class)
    try:
        stream = EpisodeStream(
            images, split=split, seed=0, n_way=n_way, n_shot=1, n_query=per_class - 1
        )
    except TooSmallError as error:
        raise error.told({"n_way": "--n-way", "n_query": "--per-class"}) from error
    names, episode = images.classes(split), stream(task)
    queries = episode.query_x.reshape(n_way, per_class - 1, *episode.query_x.shape[1:])
    sections = []
    for (class_index, _), example, others in zip(
        stream.chosen(task), episode.support_x, queries, strict=True
    ):
        sections.append((names[class_index], cards_of(example, others)))
    write_atomically(out, contact_sheet(sections))
    typer.echo(str(out))


def cards_of(support: Any, queries: Any) -> list[Any]:
    """One class's images with the word for the set that each is in. shapes: (C, H, W), (n, C, H,
    W)
    """
    from mdtheory.figures.contact_sheet import Card, pixels_of

    marked = [(support, "support"), *((image, "query") for image in queries)]
    return [
        Card(pixels_of(image.numpy()), word, framed=word == "support") for image, word in marked
    ]


def images_of_each(images: Any, split: str, asked: int | None) -> int:
    """How many images of a class the sheet shows: ``asked``, or as many as all have, up to ten."""
    if asked is not None:
        return asked
    counts = [images.count(split, k) for k in range(len(images.classes(split)))]
    return max(2, min([10, *counts]))


def open_place(path: Path | None, *, source: str | None, image_size: int | None) -> Any:
    """The images that the arguments mean."""
    from mdtheory.config import open_data, parse

    table: dict[str, Any] = {"source": source or ("glyphs" if path is None else "folder")}
    table |= {} if path is None else {"path": str(path)}
    table |= {} if image_size is None else {"image_size": image_size}
    return open_data(parse({"data": table}, origin="data").data)


def summary(images: Any) -> dict[str, Any]:
    """Digest, image shape and the number of classes and images of every split, with what the reader
    says besides.
    """
    if hasattr(images, "summary"):
        return dict(images.summary())
    splits = {}
    for split in ("train", "validation", "test"):
        names = images.classes(split)
        pictures = sum(images.count(split, index) for index in range(len(names)))
        splits[split] = {"classes": len(names), "images": pictures}
    return {
        "origin": "drawn on demand",
        "digest": images.digest,
        "image_shape": list(images.image_shape),
        "splits": splits,
    }
