"""Tasks from your own arrays: features, series, tables or images, with classes or with numbers."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mdtheory.core.seeding import seed as address_seed
from mdtheory.core.types import Episode
from mdtheory.data.episodes import EpisodeStream, check_whole, permutation
from mdtheory.data.splits import (
    SPLIT_WORDS,
    SPLITS,
    Division,
    alike,
    check_split,
    divide_by_fractions,
)

log = logging.getLogger(__name__)

By = Literal["class", "group"]


class TaskSet:
    """Items of any shape with a class (or a number) each, and perhaps a group each.

    shapes: ``x`` (n, ...), an array, a tensor or nested lists; ``y`` (n,), class names or whole
    numbers, or for regression floats (n,) or (n, d); ``groups`` (n,), e.g. which patient, sensor or
    author an item is from. uint8 items are scaled to [0, 1]; other items keep their numbers, floats
    as float32.

    - Classes, ``by="class"`` (the default without groups): each class is in one split only, as is
      usual for few-shot learning.
    - Classes, ``by="group"`` (the default with groups): each *group* is in one split only, all its
      items together, so that no patient is trained and tested on; the classes are in all splits.
    - Regression (float ``y``): a task is one group, so ``groups`` must be given; each group is in
      one split only.

    ``splits`` names the classes (or groups) of "train", "validation" and "test"; without it
    ``fractions`` of them go to each, in an order that their names decide. ``digest`` names the
    content and its split. A ``TaskSet`` with classes is a :class:`~mdtheory.data.Source`.
    ``ValueError`` for lengths that differ, numbers that are not finite, and what is no split.

    >>> import mdtheory
    >>> features = [[float(k), k % 7] for k in range(60)]
    >>> words = [("ant", "bee", "cat", "dog", "eel", "fox")[k % 6] for k in range(60)]
    >>> tasks = mdtheory.TaskSet(features, words, fractions=(0.5, 0.0, 0.5))
    >>> tasks.classes("train"), tasks.classes("test")
    (('ant', 'bee', 'eel'), ('cat', 'dog', 'fox'))
    >>> episode = tasks.stream("train", seed=0, n_way=3, n_shot=1, n_query=4)(0)
    >>> episode.support_x.shape, episode.query_x.shape
    (torch.Size([3, 2]), torch.Size([12, 2]))
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        groups: Any = None,
        by: By | None = None,
        splits: Mapping[str, Sequence[Any]] | None = None,
        fractions: Sequence[float] = (0.64, 0.16, 0.2),
    ):
        self._x = _items(x)
        targets = _array("y", y)
        self._groups = None if groups is None else _names("groups", groups)
        n = len(self._x)
        for name, values in (("y", targets), ("groups", self._groups)):
            if values is not None and len(values) != n:
                raise ValueError(
                    f"{name} must have one entry for each of the {n} items of x, got "
                    f"{len(values)}; give every item one"
                )
        self.regression = targets.dtype.kind == "f"
        by = by or ("class" if self._groups is None else "group")
        if by not in ("class", "group"):
            raise ValueError(f"by must be 'class' or 'group', got {by!r}; correct it")
        if self._groups is None and (self.regression or by == "group"):
            what = "a task of regression is one group" if self.regression else "groups are divided"
            raise ValueError(
                f"groups must be given where {what}, got none; name one for every item"
                + (_meant_as_classes(targets) if self.regression else "")
            )
        self._y = _numbers(targets) if self.regression else None
        labels = None if self.regression else _names("y", targets)
        self.by: By = "group" if self.regression else by
        units = self._groups if self.by == "group" else labels
        if said := alike(dict.fromkeys(labels or ())):
            log.warning("%s", said)
        self.division = _division(list(dict.fromkeys(units or ())), splits, fractions)
        split_of = {unit: s for s, names in self.division.splits.items() for unit in names}
        self._rows: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
        keys, units = labels or units or [], units or []
        for row in sorted(range(n), key=lambda k: (keys[k], k)):
            self._rows[split_of[units[row]]].setdefault(keys[row], []).append(row)
        self.digest = self._digest(labels)
        """sha256 of the items, targets, groups and splits, as hexadecimal digits."""

    @classmethod
    def from_csv(
        cls,
        table: str | Path,
        *,
        image_size: int = 84,
        by: By | None = None,
        fractions: Sequence[float] = (0.64, 0.16, 0.2),
    ) -> TaskSet:
        """Images that a table with the columns ``file``, ``label`` and perhaps ``group`` names,
        relative to the table's folder or to ``images`` in it. shape of an item: (3, image_size,
        image_size)

        ``file`` may also be called ``FILE_NAME`` and ``label`` ``CATEGORY``, as in Meta-Album, and
        ``group`` ``patient`` or ``subject``. A column ``split`` (train, val, test) takes the place
        of ``fractions``. Cells are separated by commas, semicolons or tabs. ``ValueError`` for a
        file that is missing or no image, with its name.
        """
        from mdtheory.data.decode_image import decode, demand_size
        from mdtheory.data.readers import tables

        demand_size(image_size)
        path = Path(table)
        try:
            rows = tables.rows(
                path,
                {"file": tables.FILE, "label": tables.LABEL},
                optional={"group": tables.GROUP, "split": tables.SPLIT},
            )
        except OSError as error:
            raise ValueError(
                f"{str(path)!r} must be a csv table, got {error.strerror}; check the path"
            ) from error
        root = tables.folder_of(path, [row["file"].strip() for _, row in rows])
        images, labels, groups, words = [], [], [], []
        for line, row in rows:
            name = row["file"].strip()
            if not tables.inside(name) or not all(cell.strip() for cell in row.values()):
                raise ValueError(
                    f"every row of {str(path)!r} must hold a file below its folder, a label and, "
                    f"where there are such columns, a group and a split, got {row} in line {line}; "
                    "correct it"
                )
            pixels = decode(root / name, image_size=image_size, name=f"line {line}, {name!r}")
            images.append(pixels.transpose(2, 0, 1))
            labels.append(row["label"].strip())
            groups.append(row.get("group", "").strip())
            words.append(row.get("split", "").strip().lower())
        if not images:
            raise ValueError(f"{str(path)!r} must name at least one image, got none; add rows")
        grouped = groups if any(groups) else None
        units = labels if by == "class" or grouped is None else groups
        splits = _splits_of(path, units, words) if any(words) else None
        return cls(
            np.stack(images), labels, groups=grouped, by=by, splits=splits, fractions=fractions
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return tuple(self._x.shape[1:])

    def classes(self, split: str) -> tuple[str, ...]:
        """The class names (for regression: the groups) of a split, sorted."""
        check_split(split)
        return tuple(self._rows[split])

    def count(self, split: str, class_index: int) -> int:
        """How many items the class at this place of ``classes(split)`` has in the split."""
        return len(self._at(split, class_index))

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int = 0) -> Tensor:
        """Items ``picks`` of one class. shape: (len(picks), ...)"""
        rows = self._at(split, class_index)
        bad = next((pick for pick in picks if not 0 <= pick < len(rows)), None)
        if bad is not None:
            raise ValueError(
                f"picks must lie between 0 and {len(rows) - 1}, got {bad}; see count()"
            )
        return self._scaled([rows[pick] for pick in picks])

    def stream(
        self,
        split: str,
        *,
        seed: int,
        n_shot: int,
        n_query: int,
        n_way: int | None = None,
        unequal: bool = False,
    ) -> EpisodeStream | GroupStream:
        """The tasks of a split: with classes an :class:`EpisodeStream`, for which ``n_way`` must be
        given; for regression a :class:`GroupStream`. ``unequal`` as there.
        """
        if self.regression:
            if n_way is not None:
                raise ValueError(f"n_way must be left out for regression, got {n_way}; remove it")
            return GroupStream(
                self, split=split, seed=seed, n_shot=n_shot, n_query=n_query, unequal=unequal
            )
        if n_way is None:
            raise ValueError("n_way must be given where there are classes, got none; 5 is usual")
        sizes = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}
        return EpisodeStream(self, split=split, seed=seed, unequal=unequal, **sizes)

    def targets(self, split: str, class_index: int, picks: Sequence[int]) -> Tensor:
        """The numbers of items ``picks`` of one group. shape: (len(picks), d)"""
        if self._y is None:
            raise ValueError("targets must be numbers, got classes; use load() and the label")
        rows = self._at(split, class_index)
        return self._y[[rows[pick] for pick in picks]]

    def _at(self, split: str, class_index: int) -> list[int]:
        names = self.classes(split)
        if not 0 <= class_index < len(names):
            raise ValueError(
                f"class_index must be between 0 and {len(names) - 1} in split {split!r}, got "
                f"{class_index}; see classes()"
            )
        return self._rows[split][names[class_index]]

    def _scaled(self, rows: Sequence[int]) -> Tensor:
        items = self._x[list(rows)]
        return items.float() / 255 if items.dtype == torch.uint8 else items

    def _digest(self, labels: Sequence[str] | None) -> str:
        found = hashlib.sha256()
        head = [str(self._x.dtype), list(self._x.shape), labels, self._groups, self._rows]
        found.update(json.dumps(head).encode())
        for tensor in (self._x, self._y):
            if tensor is not None:
                found.update(np.ascontiguousarray(tensor.numpy()).data)
        return found.hexdigest()


class GroupStream:
    """``stream(index) -> Episode`` for regression: a task is one group of a :class:`TaskSet`.

    The address of a task is sha256 over (digest, split, seed, index). It decides the group, and one
    permutation of the group's items: first the support, then the queries. With ``unequal=True`` a
    group with fewer than n_shot + n_query items gives what it has, at least one to each set.
    shapes: x (n_shot, ...) and (n_query, ...), y (n_shot, d) and (n_query, d).

    >>> import mdtheory
    >>> x = [[k / 10] for k in range(40)]
    >>> y = [k / 10 * (1 + k % 4) for k in range(40)]  # four lines, one a group
    >>> lines = mdtheory.TaskSet(x, y, groups=[k % 4 for k in range(40)], fractions=(1, 0, 0))
    >>> episode = lines.stream("train", seed=0, n_shot=3, n_query=5)(0)
    >>> episode.support_x.shape, episode.query_y.shape
    (torch.Size([3, 1]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        source: TaskSet,
        *,
        split: str,
        seed: int,
        n_shot: int,
        n_query: int,
        unequal: bool = False,
    ):
        for name, value, least in (
            ("seed", seed, 0),
            ("n_shot", n_shot, 1),
            ("n_query", n_query, 1),
        ):
            check_whole(name, value, least)
        names, needed = source.classes(split), 2 if unequal else n_shot + n_query
        if not names:
            raise ValueError(f"split {split!r} must hold a group, got none; divide them otherwise")
        for k, name in enumerate(names):
            if source.count(split, k) < needed:
                raise ValueError(
                    f"every group must have at least {needed} items, got {source.count(split, k)} "
                    f"in group {name!r} of split {split!r}; lower n_shot or n_query, or remove it"
                )
        self.source = source
        self.split = split
        self.seed = seed
        self.n_shot = n_shot
        self.n_query = n_query
        self.unequal = unequal

    def __call__(self, index: int) -> Episode:
        """The task at ``index`` (>= 0). shapes: x (n, ...), y (n, d)"""
        check_whole("index", index, 0)
        source, split = self.source, self.split
        address = address_seed(source.digest, split, self.seed, index)
        group = permutation(len(source.classes(split)), address, "group")[0]
        picks = permutation(source.count(split, group), address, "items", group)
        picks = picks[: self.n_shot + self.n_query]
        n = min(self.n_shot, len(picks) - 1)
        x, y = source.load(split, group, picks), source.targets(split, group, picks)
        return Episode(x[:n], y[:n], x[n:], y[n:], seed=address_seed(address, "noise"))


def _array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        if values.layout is not torch.strided or values.is_meta or values.is_nested:
            raise ValueError(f"{name} must be a dense tensor, got another kind; call to_dense()")
        values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has none
        values = values.detach().resolve_conj().resolve_neg().cpu().numpy()
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must be a plain array, got a masked one; fill it: x.filled(...)")
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must hold items of one shape, got several; pad or cut them to one"
        ) from error
    if found.dtype.kind == "U" and found.ndim == 1 and isinstance(values, list | tuple):
        found = np.array(values, dtype=object)  # a missing value is no text "nan"
    if found.shape[:1] == (0,):
        raise ValueError(f"{name} must hold at least one item, got none; give some")
    if found.ndim == 0:
        raise ValueError(f"{name} must hold one entry per item, got a single value; give a list")
    return found


def _items(x: Any) -> Tensor:
    found = _array("x", x)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"x must hold numbers, got {found.dtype}; convert them")
    if found.dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        rows = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))
        if len(rows):
            raise ValueError(
                f"x must hold finite numbers of float32, got {len(rows)} items with others, the "
                f"first at {rows[0]}; fill, scale or remove them"
            )
        return torch.from_numpy(found)
    if found.dtype.kind == "u" and found.max(initial=0) >= 2**63:
        raise ValueError(f"x must hold numbers below 2^63, got {found.max()}; scale them")
    kept = found if found.dtype == np.uint8 else found.astype(np.int64)
    return torch.from_numpy(kept.copy())


def _numbers(y: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):
        numbers = y.astype(np.float32)
    if y.ndim > 2 or not np.isfinite(numbers).all():
        raise ValueError(
            f"y must hold finite numbers of float32 of shape (n,) or (n, d), got shape {y.shape} "
            "or others; correct them"
        )
    return torch.from_numpy(numbers.reshape(len(y), -1))


def _meant_as_classes(y: np.ndarray) -> str:
    """A hint where floats look like class numbers or one-hot rows."""
    if y.ndim == 1 and np.array_equal(y, np.rint(y)):
        return ", or make y whole numbers if they are classes: y.astype(int)"
    if y.ndim == 2 and np.array_equal(y.sum(1), np.ones(len(y))) and set(np.unique(y)) <= {0, 1}:
        return ", or give the class of every item if y is one-hot: y.argmax(1)"
    return ""


def _names(name: str, values: Any) -> list[str]:
    found = _array(name, values)
    if found.ndim != 1 or found.dtype.kind == "f":
        raise ValueError(
            f"{name} must be one name or whole number per item, got {found.dtype} of shape "
            f"{found.shape}; correct it"
        )
    if found.dtype.kind in "iub":
        width = len(str(int(found.max(initial=0))))
        return [f"{int(value):0{width}d}" for value in found]  # so that 10 sorts behind 9
    if any(value is None or value != value or str(value) == "" for value in found.tolist()):
        raise ValueError(f"{name} must name every item, got an empty name; fill it in")
    return [str(value) for value in found.tolist()]


def _splits_of(table: Path, units: Sequence[str], words: Sequence[str]) -> dict[str, list[str]]:
    """The splits that a column of a table names, for the classes or groups ``units``."""
    found = dict[str, str]()
    for unit, word in zip(units, words, strict=True):
        if word not in SPLIT_WORDS or found.setdefault(unit, word) != word:
            raise ValueError(
                f"the split in {str(table)!r} must be train, val or test and the same for all "
                f"items of a class or group, got {word!r} for {unit!r}; correct it"
            )
    return {s: [u for u, word in found.items() if SPLIT_WORDS[word] == s] for s in SPLITS}


def _division(
    units: Sequence[str],
    splits: Mapping[str, Sequence[Any]] | None,
    fractions: Sequence[float],
) -> Division:
    if splits is None:
        return divide_by_fractions(dict.fromkeys(units, ""), fractions)
    if not isinstance(splits, Mapping) or not all(
        isinstance(names, Iterable) for names in splits.values()
    ):
        raise ValueError(
            f"splits must map train, validation and test to the names in them, got {splits!r}; "
            "give a dictionary of lists"
        )
    for split in splits:
        check_split(split)
    named = {int(unit): unit for unit in units if unit.removeprefix("-").isdecimal()}
    given = {
        split: tuple(
            sorted(
                named.get(int(v), str(v)) if isinstance(v, int | np.integer) else str(v)
                for v in splits[split]
            )
        )
        for split in splits
    }
    placed = sorted(unit for names in given.values() for unit in names)
    if placed != sorted(units):
        missing = sorted(set(units) - set(placed)) or sorted(set(placed) - set(units)) or placed
        raise ValueError(
            f"splits must place each of the {len(units)} classes or groups once under "
            f"{', '.join(SPLITS)}, got {sorted(given)} and trouble with {missing[0]!r}; correct it"
        )
    return Division(given, "hand")
