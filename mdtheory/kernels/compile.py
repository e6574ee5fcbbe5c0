"""The C++ loops of ``block.cpp``, compiled once for this machine and kept in the cache folder.

What is loaded runs as the user, so it is loaded only from a file that is the user's own, in a
folder that nobody else may write to, with the digest that was written beside it. Where any of this
fails (no compiler, one that fails or hangs, no folder to keep the result), one sentence says so and
ordinary torch operations do the work.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock

from mdtheory.core.cache_dir import default_cache_dir

SOURCE = Path(__file__).with_name("block.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
TUNINGS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
"""Tried in turn: not every compiler has OpenMP, and not every machine the first spelling."""

PATIENCE = 45.0
"""Seconds for all that a compiler does; it needs about two."""

log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or ``None`` (said once, with the reason) where they cannot be had.

    The file's name is a digest of the source, the compiler's version and the processor: what is
    found is what would be built.
    """
    compiler = _compiler()
    if not compiler:
        log.warning(
            "no C++ compiler found: Conv4 runs on ordinary torch operations, about half as fast; "
            "install g++ or clang++"
        )
        return None
    try:
        deadline = time.monotonic() + PATIENCE
        kept = _folder() / f"block-{_digest(compiler, deadline)}.so"
        loaded = _load(kept)
        if loaded is None:
            with FileLock(kept.with_suffix(".lock"), timeout=PATIENCE):
                loaded = _load(kept)  # another process may have been first
                if loaded is None:
                    log.warning(
                        "compiling the CPU kernels, once on this machine (some seconds), into %s",
                        kept,
                    )
                    _compile(compiler, kept, deadline)
                    loaded = _load(kept)
        if loaded is None:
            raise ValueError(f"what {shlex.join(compiler)} made is no library of these loops")
        vars(loaded)["identity"] = kept.stem
        return loaded
    except (OSError, ValueError, RuntimeError) as error:
        log.warning(
            "the CPU kernels cannot be built: Conv4 runs on ordinary torch operations, about half "
            "as fast. %s",
            " ".join(str(error).split())[:500],
        )
        return None


def identity() -> str:
    """The name of the loops in use, a digest of source, compiler and processor; "plain" without."""
    loaded = library()
    return "plain" if loaded is None else str(vars(loaded)["identity"])


def _compiler() -> list[str]:
    """The command in ``CXX``, a path or a program with options, else the first of
    :data:`COMPILERS`; empty for none.
    """
    if named := os.environ.get("CXX", "").strip():
        if whole := shutil.which(named):
            return [whole]
        with contextlib.suppress(ValueError):  # a quotation mark without its other half
            program, *options = shlex.split(named)
            if found := shutil.which(program):
                return [found, *options]
        log.warning("CXX must name a compiler, got %r, which is none; another is used", named)
    return [found for found in map(shutil.which, COMPILERS) if found][:1]


def _folder() -> Path:
    """The folder of the kernels, one for every user: nobody else may write to it."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    folder = default_cache_dir() / f"kernels{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        raise ValueError(f"{str(folder)!r} must be a folder, got a link; remove it")
    _demand_own(folder, folder.stat())
    return folder


def _demand_own(path: Path, status: os.stat_result) -> None:
    """``ValueError`` for what belongs to somebody else or that others may change."""
    if not hasattr(os, "getuid"):
        return
    if status.st_uid not in (os.getuid(), 0):
        raise ValueError(
            f"{str(path)!r} must be your own, got one of user {status.st_uid}; remove it, or name "
            "another cache folder in MDTHEORY_CACHE"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"{str(path)!r} must be writable by you alone, got mode "
            f"{stat.S_IMODE(status.st_mode):o}; remove it"
        )


def _load(kept: Path) -> ctypes.CDLL | None:
    """The library where it is whole; ``None`` where it is missing or not what was written."""
    try:
        file = _open(kept)
    except OSError:
        return None
    try:
        _demand_own(kept, os.fstat(file))
        with open(file, "rb", closefd=False) as opened:
            content = opened.read()
        with open(_open(_digest_file(kept)), "rb") as opened:
            said = opened.read(64)
        if hashlib.sha256(content).hexdigest().encode() != said:
            return None
        # by its descriptor where that has a name: what was read is what is loaded. The loader knows
        # it by this name from now on, so a descriptor that was used stays open.
        named = Path(f"/proc/self/fd/{file}")
        if named.exists():
            loaded, file = ctypes.CDLL(str(named)), -1
        else:
            loaded = ctypes.CDLL(str(kept))
        symbol = re.search(r'extern "C" void (\w+_)##a', SOURCE.read_text(encoding="utf-8"))
        return loaded if symbol and hasattr(loaded, symbol.group(1) + "float32") else None
    except OSError:
        return None
    finally:
        if file >= 0:
            os.close(file)


def _open(path: Path) -> int:
    """A file that is no link, opened such that a named pipe keeps nobody waiting."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_RDONLY | flags | getattr(os, "O_BINARY", 0))


def _digest_file(kept: Path) -> Path:
    return kept.with_suffix(".sha256")


def _digest(compiler: list[str], deadline: float) -> str:
    version = _run([*compiler, "--version"], min(deadline, time.monotonic() + 10))[1]
    parts = [
        SOURCE.read_text(encoding="utf-8"),
        version,
        *compiler[1:],
        *FLAGS,
        *(flag for tuning in TUNINGS for flag in tuning),
        platform.machine(),
        _processor(),
    ]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _processor() -> str:
    """What the machine's instruction set depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line for line in lines if line.startswith(("flags", "Features"))), platform.processor()
    )


def _compile(compiler: list[str], kept: Path, deadline: float) -> None:
    """Build beside the place, write the digest, flush, rename: another process sees a whole library
    or none.
    """
    for left in kept.parent.glob("part-*"):
        if time.time() - left.lstat().st_mtime > 3600:  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="part-") as folder:
        made = Path(folder) / kept.name
        for tuning in TUNINGS:
            code, said = _run([*compiler, *FLAGS, *tuning, str(SOURCE), "-o", str(made)], deadline)
            if code == 0 and made.is_file():
                break
        else:
            raise ValueError(f"{shlex.join(compiler)} failed with exit code {code}: {said[-400:]}")
        digest = _digest_file(made)
        digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest(), encoding="ascii")
        for path in (made, digest):
            path.chmod(0o700)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(digest, _digest_file(kept))
        os.replace(made, kept)


def _run(command: list[str], deadline: float) -> tuple[int, str]:
    """Exit code and output of a command that is ended, with all that it started, at the deadline.

    The output goes to a file: a pipe would stay open as long as any grandchild lives.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{command[0]} did not end in time") from error
        finally:
            _end(process)
        output.seek(0)
        return code, output.read(1 << 20).decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
