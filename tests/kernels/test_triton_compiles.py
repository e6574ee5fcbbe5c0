"""Every kernel goes through Triton's real compiler and NVIDIA's assembler, which the interpreter
never asks, for cards that need not be here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mdtheory.kernels import have_triton

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(have_triton.triton is None, reason="there is no Triton to compile with"),
]
ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "mdtheory" / "kernels"
SMALLEST = 99 * 1024
"""Bytes of shared memory that a block may have on the cards that have least (8.6, 8.9)."""


def compiled(capability: int, dtype: str) -> dict[str, list[int]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiling", str(capability), dtype],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def launched() -> set[str]:
    """The names of the kernels that the library launches."""
    text = "".join(file.read_text() for file in KERNELS.glob("triton*.py"))
    return set(re.findall(r"launch\(\s*(?:kernels\.)?(\w+),", text))


@pytest.mark.parametrize(
    ("capability", "dtype"), [(80, "float32"), (90, "float32"), (90, "float64")]
)
def test_every_kernel_compiles_and_fits(capability: int, dtype: str) -> None:
    found = compiled(capability, dtype)
    convolutions = {"_sum_taps", "_weight_parts", "_finish_weight"}
    left_out = set() if dtype == "float32" else convolutions
    assert len(launched()) == 16 and found.keys() == (launched() - left_out) | {"_nothing"}
    assert max(max(sizes) for sizes in found.values()) <= SMALLEST, found
