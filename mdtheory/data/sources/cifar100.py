"""CIFAR-FS and FC100: two divisions of the 100 classes of CIFAR-100."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mdtheory.data.files import expanded
from mdtheory.data.sources.base import DataSource, data_sources, held_on
from mdtheory.data.splits import SPLITS, Division, divide_by_fractions

if TYPE_CHECKING:
    import torch

    from mdtheory.data.episodes import Source
    from mdtheory.data.image_index import Found, Item, Payload

_FILES = ("train", "test", "meta")


class Cifar100(DataSource):
    """Some of CIFAR-100's classes validate, some test, the others train; all 600 images of a class
    are in one split.

    Read from ``cifar-100-python`` (``train``, ``test`` and ``meta``, without running anything in
    them), or from any form that :func:`mdtheory.data.open.open_class_folders` knows. The names of
    the classes decide; a source without them keeps its own split, and ``notice`` says so.
    """

    image_size = 32
    variable = "MDTHEORY_CIFAR100"
    validation: ClassVar[str]
    test: ClassVar[str]

    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """From the folder in ``path``, or in the environment variable."""
        from mdtheory.data.open import open_found

        found = self.find(self.place(path))
        return held_on(open_found(found, image_size=image_size, divide=self.divide), device)

    def find(self, path: str | Path) -> Found:
        """``cifar-100-python``, the folder that holds it, or another form."""
        from mdtheory.data.image_index import Found, stamp
        from mdtheory.data.open import detect

        for root in (expanded(path) / "cifar-100-python", expanded(path)):
            if all((root / name).is_file() for name in _FILES):
                stamps = tuple(stamp(root / name, root) for name in _FILES)
                return Found("cifar-100-python", root, stamps, partial(_opened, root))
        return detect(path)

    def divide(self, own: Mapping[str, str]) -> Division:
        """Which classes train, validate and test."""
        held = dict.fromkeys(self.validation.split(), "validation")
        held |= dict.fromkeys(self.test.split(), "test")
        if held.keys() <= own.keys():
            split_of = {name: held.get(name, "train") for name in own}
            splits = {s: tuple(sorted(n for n in own if split_of[n] == s)) for s in SPLITS}
            return Division(splits, f"the class names of {self.title}")
        if not all(own.values()):
            missing = min(held.keys() - own.keys())
            raise ValueError(
                f"{self.title} must come with the names of CIFAR-100's classes or with its split, "
                f"got neither (no class {missing!r}); put train, val or test into the file or "
                "folder names"
            )
        kept = divide_by_fractions(own, (1, 0, 0))
        notice = f"the classes have no names: {kept.by} cannot be checked against {self.title}'s"
        return Division(kept.splits, kept.by, notice)


@data_sources.register("cifar-fs")
class CifarFs(Cifar100):
    """CIFAR-FS (bertinetto2019closedform): 64, 16 and 20 classes of CIFAR-100, divided at
    random.
    """

    title = "CIFAR-FS"
    validation = """
        beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle
        otter sea shark television tractor
    """
    test = """
        baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail
        sweet_pepper table telephone wardrobe whale woman worm
    """


@data_sources.register("fc100")
class Fc100(Cifar100):
    """FC100 (oreshkin2018tadam): 12, 4 and 4 of CIFAR-100's superclasses of five classes each, so
    that what is tested resembles nothing that was trained.
    """

    title = "FC100"
    validation = """
        bear leopard lion tiger wolf camel cattle chimpanzee elephant kangaroo crab lobster snail
        spider worm hamster mouse rabbit shrew squirrel
    """
    test = """
        beaver dolphin otter seal whale bee beetle butterfly caterpillar cockroach fox porcupine
        possum raccoon skunk baby boy girl man woman
    """


def _opened(root: Path) -> tuple[list[Item], Iterator[Payload]]:
    from mdtheory.data.image_index import Item

    names = [_text(name) for name in _field(root / "meta", "fine_label_names", list)]
    items: list[Item] = []
    images: list[Payload] = []
    for part in ("train", "test"):
        pixels = _field(root / part, "data", np.ndarray)
        labels = _field(root / part, "fine_labels", list)
        whole = pixels.dtype == np.uint8 and pixels.shape == (len(labels), 3072)
        if not whole or not all(isinstance(n, int) and 0 <= n < len(names) for n in labels):
            raise ValueError(
                f"{str(root / part)!r} must hold images (N, 3072) of uint8 and a label for each, "
                f"got {pixels.dtype} {pixels.shape} and {len(labels)} labels; copy it again"
            )
        items += [Item(names[n], f"{part}-{row:05d}", "") for row, n in enumerate(labels)]
        images += list(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return items, iter(images)


def _field(file: Path, key: str, kind: type) -> Any:
    from mdtheory.data.safepickle import load

    content = load(file)
    known = {_text(k): v for k, v in content.items()} if isinstance(content, dict) else {}
    if not isinstance(known.get(key), kind):
        raise ValueError(
            f"{str(file)!r} must hold {key}, as in cifar-100-python, got {sorted(known)[:8]}; copy "
            "it again"
        )
    return known[key]


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
