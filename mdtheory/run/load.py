"""From a finished run, or any checkpoint, back to its learner. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdtheory.meta.learner import MetaLearner


def load(path: str | Path, *, device: str = "cpu") -> MetaLearner:
    """The trained learner of a checkpoint or of a run's folder, in evaluation mode, without its
    images.

    ``path``: a checkpoint file, exported weights (.safetensors), or the folder of ``mdtheory train
    --out``, where ``best.pt`` (by validation) is taken, or ``last.pt`` if there is none; in the
    folder of a record ``weights.safetensors``. ``device``: "cpu", "cuda", "cuda:N" or
    "auto". What it adapts to are images as in training, shape: (n_items, channels, height, width).
    ``ValueError`` where there is no checkpoint, or none that can be read.

    >>> import mdtheory
    >>> mdtheory.load("nowhere.pt")
    Traceback (most recent call last):
    ...
    ValueError: nowhere.pt must be a checkpoint file, got no file there; check the path
    """
    from mdtheory.run.build import load_learner

    return load_learner(find_checkpoint(Path(path)), device=device)[0]


def find_checkpoint(path: Path) -> Path:
    """The file itself, or a folder's ``best.pt``, ``last.pt`` or ``weights.safetensors``, the first
    that is there; ``ValueError`` for a folder that holds the files of several runs.
    """
    from mdtheory.data.files import is_regular
    from mdtheory.run.folder import check_belongs

    if not path.exists() and "records" in path.parts:
        raise ValueError(
            f"{path} must be a checkpoint or the folder of a run or record, got nothing there; the "
            "ready-made records lie in the project's repository, not in the package: name the "
            "folder of one in your copy of it, or train a learner ('mdtheory demo', 'mdtheory "
            "train')"
        )
    if not path.is_dir():
        return path
    check_belongs(path)
    for name in ("best.pt", "last.pt", "weights.safetensors"):
        if is_regular(path / name):
            return path / name
    raise ValueError(
        f"{path} must be a checkpoint or a folder with best.pt or last.pt, got neither; check the "
        "path"
    )
