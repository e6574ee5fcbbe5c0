"""Parquet folders: a column of encoded images and a class column (``wnid``, or the ``label`` of the
common hubs).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.left_out import Tally, is_system, reason_for, walk
from mdtheory.data.readers import readers
from mdtheory.data.splits import SPLIT_WORDS, WNID, split_word

if TYPE_CHECKING:
    import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img")
CLASS_COLUMNS = ("wnid", "label", "labels")
SPLIT_COLUMN = "split"
DEEPER = "Parquet files in deeper folders than the first"
LARGEST_RATIO = 200
"""Of unpacked to stored bytes: a few kilobytes of Parquet can unpack to gigabytes."""
PATTERNS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")


@readers.register("parquet")
def find(path: Path) -> Found | None:
    """Every Parquet file in ``path``, or else one or two folders down; None where there is none.

    The image column is a struct of ``bytes`` and ``path``, or plain binary. The class id is, in
    this order: a text column; the class names in the Hugging Face schema metadata where they are
    WordNet ids; the WordNet ids in the file paths; those class names whatever they are; the number
    with the split before it, since numbers often start anew in every file. A text column ``split``
    (train, val, test) decides before the names of files do.
    """
    files = next((f for f in (sorted(path.glob(pattern)) for pattern in PATTERNS) if f), [])
    files = [file for file in files if not is_system(file.name)]
    if not files:
        return None
    tally, used = Tally(path), set(files)
    for file in walk(path):
        if file not in used:
            deeper = file.suffix == ".parquet" and not is_system(file.name)
            tally.add(file, DEEPER if deeper else reason_for(file.name))

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        items: list[Item] = []
        for file in files:
            items += _Table(
                file, split_word(file.name) or split_word(file.relative_to(path).as_posix())
            ).items()
        return items, (payload for file in files for payload in _Table(file, "").payloads())

    stamps = tuple(stamp(file, path) for file in files)
    return Found("Parquet files", path, stamps, opened, tally.result())


@dataclass
class _Table:
    """One Parquet file."""

    file: Path
    split: str

    def opened(self) -> tuple[pq.ParquetFile, str, str]:
        """The file with the names of its image and of its class column."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(self.file, page_checksum_verification=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.damaged(error) from error
        self.demand_size(table)
        schema = table.schema_arrow
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise ValueError(
                f"the columns of {str(self.file)!r} must have different names, got {twice[0]!r} "
                "twice; rename one"
            )
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        label = next((name for name in CLASS_COLUMNS if name in schema.names), None)
        if image is None or label is None:
            raise ValueError(
                f"{str(self.file)!r} must have a column image (struct with bytes, or binary) and a "
                "column wnid or label, "
                f"got {schema.names}; rename its columns"
            )
        kind = schema.field(image).type
        if pa.types.is_struct(kind):
            if kind.get_field_index("path") >= 0 and not _is_text(kind.field("path").type):
                raise ValueError(
                    f"the field path of column {image!r} of {str(self.file)!r} must be text, got "
                    f"{kind.field('path').type}; convert it or leave it out"
                )
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise ValueError(
                f"column {image!r} of {str(self.file)!r} must hold encoded images (struct with "
                f"bytes, or binary), got {kind}; "
                "write the image files' bytes into it"
            )
        return table, image, label

    def demand_size(self, table: pq.ParquetFile) -> None:
        """``ValueError`` for a table that unpacks, by what it says itself, to far more than it is;
        images are compressed already.
        """
        groups = [table.metadata.row_group(k) for k in range(table.metadata.num_row_groups)]
        sizes = (g.column(k).total_uncompressed_size for g in groups for k in range(g.num_columns))
        unpacked, stored = sum(sizes), self.file.stat().st_size
        if unpacked > LARGEST_RATIO * stored:
            raise ValueError(
                f"{str(self.file)!r} must unpack to at most {LARGEST_RATIO} times its size, got "
                f"{unpacked:,} bytes from {stored:,}; do not trust it, or write it anew without "
                "compression"
            )

    def damaged(self, error: Exception) -> ValueError:
        """The sentence for what Arrow cannot read."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ValueError(
            f"{str(self.file)!r} must be a whole Parquet file, got a damaged one ({reason}); copy "
            "it again"
        )

    def items(self) -> list[Item]:
        """One item per row; the image bytes are not read."""
        import pyarrow as pa

        table, image, label = self.opened()
        kind = table.schema_arrow.field(image).type
        with_paths = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        try:
            wanted = [label, *([f"{image}.path"] if with_paths else [])]
            wanted += [SPLIT_COLUMN] if SPLIT_COLUMN in table.schema_arrow.names else []
            columns = table.read(columns=wanted)
            labels = columns[label].to_pylist()
            paths = (
                [row and row["path"] for row in columns[image].to_pylist()]
                if with_paths
                else [None] * len(labels)
            )
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            raise self.damaged(error) from error
        if None in labels:
            raise ValueError(
                f"column {label!r} of {str(self.file)!r} must have a class in every row, got none "
                "in row "
                f"{labels.index(None)}; fill it in"
            )
        names = _hub_names(table.schema_arrow, label)
        if names is not None and not all(isinstance(name, str) for name in names):
            odd = next(name for name in names if not isinstance(name, str))
            raise ValueError(
                f"the class names in the metadata of {str(self.file)!r} must be texts, got "
                f"{odd!r}; correct the names, or remove the metadata"
            )
        if names is not None and len(set(names)) < len(names):
            again = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"the class names in the metadata of {str(self.file)!r} must differ, got "
                f"{again!r} for several labels; correct the names, or remove the metadata"
            )
        ids = self.class_ids(labels, paths, names)
        if "" in ids:
            raise ValueError(
                f"column {label!r} of {str(self.file)!r} must name a class in every row, got an "
                f"empty name in row {ids.index('')}; fill it in"
            )
        files = [
            Path(p).name if p else f"{self.file.stem}-{row:08d}" for row, p in enumerate(paths)
        ]
        splits = [self.split] * len(ids)
        if SPLIT_COLUMN in wanted:
            splits = self.splits(columns[SPLIT_COLUMN].to_pylist())
        return [Item(*item) for item in zip(ids, files, splits, strict=True)]

    def splits(self, words: list[Any]) -> list[str]:
        """The split of every row by the table's own column."""
        found = [SPLIT_WORDS.get(w.strip().lower()) if isinstance(w, str) else None for w in words]
        if None in found:
            row = found.index(None)
            raise ValueError(
                f"column {SPLIT_COLUMN!r} of {str(self.file)!r} must say train, val or test, got "
                f"{words[row]!r} in row {row}; correct it, or rename the column"
            )
        return [split or "" for split in found]

    def class_ids(
        self, labels: list[Any], paths: list[str | None], names: list[str] | None
    ) -> list[str]:
        """The class id of every row, as ``find`` describes."""
        if all(isinstance(label, str) for label in labels):
            return labels
        if not all(isinstance(label, int) for label in labels):
            raise ValueError(
                f"the class column of {str(self.file)!r} must hold text or whole numbers, got "
                f"{labels[0]!r}; convert it"
            )
        if names is not None and (min(labels) < 0 or max(labels) >= len(names)):
            raise ValueError(
                f"labels of {str(self.file)!r} must lie between 0 and {len(names) - 1}, the number "
                "of its class names, "
                f"got {min(labels)} to {max(labels)}; the file carries no true labels or the wrong "
                "names"
            )
        if names is not None and all(WNID.fullmatch(name) for name in names):
            return [names[label] for label in labels]
        found = [WNID.search(path or "") for path in paths]
        if labels and all(found):
            wnids = [match.group() for match in found if match]
            of_label: dict[int, str] = {}
            for label, wnid in zip(labels, wnids, strict=True):
                if of_label.setdefault(label, wnid) != wnid:
                    raise ValueError(
                        f"label {label} of {str(self.file)!r} must stand for one class, got file "
                        f"paths of {of_label[label]} "
                        f"and {wnid}; labels and paths are mixed up"
                    )
            return wnids
        if names is not None:
            return [names[label] for label in labels]
        return [f"{self.split or self.file.stem}-{label:04d}" for label in labels]

    def payloads(self) -> Iterator[bytes]:
        """The encoded images, row by row, 256 in memory at a time."""
        import pyarrow as pa

        table, image, _ = self.opened()
        nested = pa.types.is_struct(table.schema_arrow.field(image).type)
        batches = table.iter_batches(
            batch_size=256, columns=[f"{image}.bytes" if nested else image]
        )
        row = 0
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self.damaged(error) from error
            if batch is None:
                return
            values = batch.column(0).field("bytes") if nested else batch.column(0)
            for value in values:
                encoded = value.as_py()
                if not encoded:
                    raise ValueError(
                        f"column {image!r} of {str(self.file)!r} must hold the bytes of every "
                        f"image, got none in row {row}; write the image files into the table"
                    )
                yield encoded
                row += 1


def _hub_names(schema: Any, label: str) -> list[str] | None:
    """The class names that ``datasets`` stores in the schema's metadata, where they are there."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return names if isinstance(names, list) else None
    except (LookupError, TypeError, ValueError, RecursionError):
        return None


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
