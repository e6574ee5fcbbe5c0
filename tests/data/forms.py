"""A small miniImageNet (real WordNet ids, made-up pictures) in every form that the readers know."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = {
    "train": ("n01532829", "n01558993", "n01704323"),
    "validation": ("n01855672", "n02091244"),
    "test": ("n01930112", "n01981276"),
}
SHORT = {"train": "train", "validation": "val", "test": "test"}
PER_CLASS = 6
SIDE = 12


def picture(class_id: str, k: int, side: int = SIDE) -> Image.Image:
    """A smooth random picture that its class and number decide."""
    words = np.frombuffer(hashlib.sha256(f"{class_id} {k}".encode()).digest()[:27], dtype=np.uint8)
    return Image.fromarray(words.reshape(3, 3, 3)).resize((side, side), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def names(class_id: str) -> list[str]:
    return [f"{class_id}{k:08d}.png" for k in range(PER_CLASS)]


def rows(split: str) -> list[tuple[str, str, bytes]]:
    """(class id, file name, bytes) of every image of a split."""
    return [
        (c, name, encoded(picture(c, k))) for c in CLASSES[split] for k, name in enumerate(names(c))
    ]


def as_folders(root: Path, *, splits: bool = True) -> Path:
    for split in CLASSES:
        for class_id, name, data in rows(split):
            folder = root / SHORT[split] / class_id if splits else root / class_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return root


def as_csv(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for split in CLASSES:
        with (root / f"{SHORT[split]}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "label"])
            for class_id, name, data in rows(split):
                (root / "images" / name).write_bytes(data)
                writer.writerow([name, class_id])
    return root


def table(split: str, **columns: object) -> pa.Table:
    """The ``image`` struct of a split with other columns."""
    images = [{"bytes": data, "path": name} for _, name, data in rows(split)]
    return pa.table({"image": pa.array(images), **columns})


def as_parquet(root: Path) -> Path:
    """One file per split with ``image`` and a dictionary-encoded ``wnid``."""
    root.mkdir(parents=True, exist_ok=True)
    for split in CLASSES:
        wnid = pa.array([c for c, _, _ in rows(split)]).dictionary_encode()
        pq.write_table(
            table(split, wnid=wnid), root / f"{split}-00000-of-00001.parquet", row_group_size=5
        )
    return root


def hub_metadata(class_names: list[str]) -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"names": class_names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def as_hub(root: Path, class_names: list[str] | None, *, paths: bool = True) -> Path:
    """``data/<split>-*.parquet`` with ``image`` and integer ``label``; names in the metadata, ids
    in the paths, or neither.
    """
    (root / "data").mkdir(parents=True)
    everything = [c for split in CLASSES for c in CLASSES[split]]
    for split in CLASSES:
        numbers = pa.array([everything.index(c) for c, _, _ in rows(split)])
        made = table(split, label=numbers)
        if not paths:
            images = [{"bytes": data, "path": None} for _, _, data in rows(split)]
            struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            made = pa.table({"image": pa.array(images, type=struct), "label": numbers})
        if class_names is not None:
            made = made.replace_schema_metadata(hub_metadata(class_names))
        pq.write_table(made, root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def pixels(split: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for _, _, data in rows(split)])


def cache_content(split: str) -> dict:
    places = {
        c: [k * PER_CLASS + j for j in range(PER_CLASS)] for k, c in enumerate(CLASSES[split])
    }
    return {"image_data": pixels(split), "class_dict": places}


def label_content(split: str, **extra: object) -> dict:
    return {
        "data": pixels(split),
        "labels": [k for k, _ in enumerate(CLASSES[split]) for _ in range(PER_CLASS)],
        **extra,
    }


def as_cache_pickles(root: Path, protocol: int = 2) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split in CLASSES:
        (root / f"mini-imagenet-cache-{SHORT[split]}.pkl").write_bytes(
            pickle.dumps(cache_content(split), protocol=protocol)
        )
    return root


def as_label_pickles(root: Path, *, with_names: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split in CLASSES:
        extra = (
            {"catname2label": {c: k for k, c in enumerate(CLASSES[split])}} if with_names else {}
        )
        part = "train_phase_train" if split == "train" else SHORT[split]
        (root / f"miniImageNet_category_split_{part}.pickle").write_bytes(
            pickle.dumps(label_content(split, **extra))
        )
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()
    }
