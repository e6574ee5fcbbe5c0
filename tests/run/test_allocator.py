"""The allocator setting keeps the numbers and is refused quietly where there is no glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from mdtheory.run.allocator import keep_freed_memory
set_ = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
for _ in range(3):
    x = torch.ones(16, 2**20)
    del x
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    x = torch.ones(16, 2**20)
    del x
print(set_, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> tuple[str, int]:
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True
    ).stdout.split()
    return out[0], int(out[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_not_faulted_in_again():
    kept, given_back = faults("keep"), faults("default")
    assert kept[0] == "True"
    assert kept[1] * 2 < given_back[1]


def test_without_glibc_nothing_is_set(monkeypatch):
    from mdtheory.run import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator.keep_freed_memory() is False
