"""The C++ loops of ``block.cpp``, compiled once for this machine and kept in the cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from mdtheory.core.cache_dir import default_cache_dir

SOURCE = Path(__file__).with_name("block.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
TUNINGS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
"""Tried in turn: not every compiler has OpenMP, and not every machine the first spelling."""

log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or ``None`` (said once, with the reason) where there is no compiler that
    works.

    The file's name is a digest of the source, the compiler's version and the processor: what is
    found is what would be built.
    """
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CXX", ""), *COMPILERS])), None)
    if compiler is None:
        log.warning(
            "no C++ compiler found: Conv4 runs on ordinary torch operations, about half as fast; "
            "install g++ or clang++"
        )
        return None
    kept = default_cache_dir() / "kernels" / f"block-{_digest(compiler)}.so"
    try:
        if not kept.exists():
            log.warning(
                "compiling the CPU kernels, once on this machine (some seconds), into %s", kept
            )
            _compile(compiler, kept)
        return ctypes.CDLL(str(kept))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning(
            (
                "the CPU kernels cannot be built: Conv4 runs on ordinary torch operations, about "
                "half "
                "as fast. %s"
            ),
            said,
        )
        return None


def _digest(compiler: str) -> str:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=60
    ).stdout
    parts = [
        SOURCE.read_text(),
        version,
        *FLAGS,
        *(flag for tuning in TUNINGS for flag in tuning),
        platform.machine(),
        _processor(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the machine's instruction set depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line for line in lines if line.startswith(("flags", "Features"))), platform.processor()
    )


def _compile(compiler: str, kept: Path) -> None:
    """Build beside the place and rename: another process sees a whole library or none."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / kept.name
        for tuning in TUNINGS:
            command = [compiler, *FLAGS, *tuning, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode == 0:
                os.replace(made, kept)
                return
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
