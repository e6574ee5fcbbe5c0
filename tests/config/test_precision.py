"""The precision of products: younger than the first records, whose digests it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mdtheory.config import RunConfig, parse
from mdtheory.kernels.precision import precision, tf32
from mdtheory.meta.trainer import Validation
from tests.meta.fakes import blobs, trainer

ROOT = Path(__file__).parents[2]


def test_at_its_default_it_is_neither_written_nor_digested() -> None:
    plain, named = parse({}, origin="a"), parse({"precision": "float32"}, origin="b")
    assert "precision" not in plain.to_toml() + plain.to_json()
    assert plain.digest == named.digest


def test_tf32_is_another_run_and_survives_writing() -> None:
    fast = parse({"precision": "tf32"}, origin="a")
    assert fast.digest != RunConfig().digest and 'precision = "tf32"' in fast.to_toml()


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        parse({"precision": "tf16"}, origin="a")
    with pytest.raises(ValueError, match="tf32"), precision("tf23"):
        pass


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_it_holds_inside_only(name: str) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    with precision(name):
        assert cudnn.allow_tf32 == matmul.allow_tf32 == (name == "tf32")
    assert (cudnn.allow_tf32, matmul.allow_tf32) == before


NEW = """
import torch
from mdtheory.kernels.precision import precision, tf32
from mdtheory.meta.numerics import numerical_path

places = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
for words in (("ieee", "tf32", "tf32"), ("tf32", "ieee", "ieee")):
    for place, word in zip(places, words):
        place.fp32_precision = word
    for name in ("tf32", "float32"):
        with precision(name):
            assert tf32() == torch.backends.cudnn.allow_tf32 == (name == "tf32")
            assert torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
        assert tuple(place.fp32_precision for place in places) == words
        assert tf32() == (words[0] == "tf32")
    assert numerical_path(torch.device("cpu"))["precision"]
"""


def test_where_torchs_new_names_were_used() -> None:
    """In a process of its own, which torch's old names no longer serve."""
    subprocess.run([sys.executable, "-W", "error", "-c", NEW], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_a_run_trains_and_validates_with_it(name: str) -> None:
    """And torch's own default, TF32, is outside."""
    seen: dict[str, set[bool]] = {"train": set(), "validation": set()}

    def drawing(kind: str) -> Any:
        return lambda index: seen[kind].add(tf32()) or blobs(index)

    plan = Validation(stream=drawing("validation"), every=2, tasks=1)
    one = trainer(stream=drawing("train"), validation=plan, iterations=2, precision=name)
    assert tf32()
    one.fit()
    assert tf32() and seen["train"] == seen["validation"] == {name == "tf32"}
