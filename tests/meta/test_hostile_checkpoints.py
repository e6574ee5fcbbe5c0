"""Checkpoints that no trainer writes: every kind of content is refused in one sentence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mdtheory.meta import checkpoint
from tests.meta.test_checkpoint import small


def cycle() -> dict[str, Any]:
    table: dict[str, Any] = {}
    table["again"] = table
    return table


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def weights(value: Tensor) -> dict[str, Any]:
    return {"weights": {"w": value}}


def counters(**changes: Any) -> dict[str, Any]:
    return {"counters": small()["counters"] | changes}


def csr() -> Tensor:
    return torch.ones(1, 1).to_sparse_csr()


PLANTED: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"random": {"seed": b"1"}},
    "set": lambda: {"random": {"seed": {1}}},
    "complex": lambda: {"random": {"seed": 1j}},
    "bytearray": lambda: {"random": {"seed": bytearray(1)}},
    "dtype": lambda: {"optimizer": {"state": torch.float32}},
    "device": lambda: {"optimizer": {"state": torch.device("cpu")}},
    "size": lambda: {"optimizer": {"state": torch.Size([1])}},
    "a key": lambda: {"optimizer": {(1, 2): 1}},
    "a huge number": lambda: {"random": {"seed": 10**5000}},
    "a cycle": lambda: {"optimizer": cycle()},
    "a deep list": lambda: {"scheduler": {"x": deep(100)}},
    "sparse": lambda: weights(torch.eye(2).to_sparse()),
    "csr": lambda: weights(csr()),
    "meta": lambda: weights(torch.ones(2, device="meta")),
    "conjugate": lambda: weights(torch.ones(2, dtype=torch.complex64).conj()),
    "quantized": lambda: weights(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)),
    "float8": lambda: weights(torch.ones(2).to(torch.float8_e4m3fn)),
    "nested": lambda: weights(torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])),
    "one number a billion times": lambda: weights(torch.ones(1).expand(10**9)),
    "one row many times": lambda: {"optimizer": {"x": torch.ones(1000).expand(10**7, 1000)}},
    "NaN": lambda: weights(torch.tensor([1.0, math.nan])),
    "infinity": lambda: weights(torch.tensor([1.0, math.inf])),
    "best score NaN": lambda: counters(best_score=math.nan),
    "best score infinite": lambda: counters(best_score=math.inf, best_iteration=0, validated=0),
    "validated later": lambda: counters(validated=3),
    "best later": lambda: counters(best_iteration=2),
    "negative": lambda: counters(iteration=-1),
    "a path of numbers": lambda: {"numerics": [1]},
}


def planted(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "odd.pt"
    state = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION}
    state |= checkpoint.plain(small()) | changes
    torch.save(state, path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", PLANTED)
def test_what_no_trainer_writes_is_refused_at_once(tmp_path, name):
    path = planted(tmp_path, PLANTED[name]())
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path} must ") and "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


def test_what_a_trainer_writes_is_read(tmp_path):
    """Negative control of the test above; a checkpoint from before the numerical path, too."""
    state = checkpoint.load(planted(tmp_path, {}))
    assert state["numerics"] == {} and checkpoint.digest(state) == checkpoint.digest(small())
    shared = torch.arange(6.0)
    views = {"weights": {"a": shared[:2].clone(), "b": shared[2:].clone()}}
    assert checkpoint.load(planted(tmp_path, views))["weights"]["b"].shape == (4,)


def test_a_weight_that_is_not_finite_is_not_saved_and_the_old_file_stays(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(small(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"must get finite weights, but 'w' has a NaN"):
        checkpoint.save(small() | weights(torch.tensor([math.nan])), path)
    assert path.read_bytes() == before
