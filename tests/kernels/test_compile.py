"""What is loaded runs as the user: only an own, whole library is; and no compiler can stop the
program.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from mdtheory.kernels import compile

needs_compiler = pytest.mark.skipif(
    compile.library() is None, reason="no C++ compiler on this machine: there is nothing to test"
)
posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """The library as a new process would get it, with a cache of its own."""
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    return compile.library.__wrapped__


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache with the library in it."""
    cache = tmp_path_factory.mktemp("built") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDTHEORY_CACHE", str(cache))
        assert compile.library.__wrapped__() is not None
    return cache


@pytest.fixture
def kept(fresh, built, tmp_path):
    shutil.copytree(built, tmp_path / "cache")
    (found,) = (tmp_path / "cache").glob("kernels*/block-*.so")
    return found


def compiler(tmp_path, monkeypatch, text, mode=0o755):
    path = tmp_path / "compiler"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    monkeypatch.setenv("CXX", str(path))
    return path


def said_once(caplog):
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


@pytest.mark.parametrize(
    ("named", "command"),
    [
        ("", ["/bin/c++"]),
        ("  ", ["/bin/c++"]),
        ("g++", ["/bin/g++"]),
        ("ccache g++ -O1", ["/bin/ccache", "g++", "-O1"]),
        ("/my tools/cc", ["/my tools/cc"]),
        ("'/my tools/cc' -O1", ["/my tools/cc", "-O1"]),
    ],
)
def test_cxx_is_a_path_or_a_command(named, command, monkeypatch, caplog):
    """Its options were dropped without a word, and another compiler taken."""
    there = {"/my tools/cc": "/my tools/cc"}
    there |= {name: f"/bin/{name}" for name in ("c++", "g++", "ccache")}
    monkeypatch.setattr(compile.shutil, "which", there.get)
    monkeypatch.setenv("CXX", named)
    assert compile._compiler() == command
    assert caplog.text == ""


@pytest.mark.parametrize("named", ["nothing -O1", "/tmp", "g++'", "''", "\x1b[2J"])
def test_a_cxx_that_is_no_compiler_is_said(named, monkeypatch, caplog):
    monkeypatch.setattr(compile.shutil, "which", {"c++": "/bin/c++", "g++": "/bin/g++"}.get)
    monkeypatch.setenv("CXX", named)
    assert compile._compiler() == ["/bin/c++"]
    assert said_once(caplog).startswith(f"CXX must name a compiler, got {named!r}")


def test_the_options_of_cxx_are_part_of_the_name(monkeypatch):
    monkeypatch.setattr(compile, "_run", lambda command, deadline: (0, "a version"))
    assert compile._digest(["c++"], 0.0) == compile._digest(["g++"], 0.0)
    assert compile._digest(["c++", "-O1"], 0.0) != compile._digest(["c++"], 0.0)


@needs_compiler
@pytest.mark.parametrize(
    "damage", ["truncated", "emptied", "one bit", "no digest", "a pipe", "digest a pipe"]
)
def test_a_damaged_library_is_built_again(fresh, kept, damage, caplog):
    """A truncated one killed every later start by SIGBUS."""
    whole = kept.read_bytes()
    kept_elsewhere = kept.with_suffix(".old")  # this process has it mapped
    kept.rename(kept_elsewhere)
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    if damage == "a pipe":
        os.mkfifo(kept, 0o600)
    else:
        content = {"truncated": whole[:5000], "emptied": b"", "one bit": bytes(data)}
        kept.write_bytes(content.get(damage, whole))
        kept.chmod(0o700)
    if damage.endswith("digest") or damage.startswith("digest"):
        kept.with_suffix(".sha256").unlink()
    if damage == "digest a pipe":  # it kept every later start waiting for ever
        os.mkfifo(kept.with_suffix(".sha256"), 0o600)
    caplog.clear()
    assert fresh() is not None
    assert "once on this machine" in said_once(caplog)
    assert stat.S_ISREG(kept.stat().st_mode) and kept.stat().st_size == len(whole)
    caplog.clear()
    assert fresh() is not None and caplog.text == ""


@needs_compiler
def test_what_others_left_there_does_not_stop_a_build(fresh, kept):
    """A link to nothing of a leftover's name did, at every start."""
    kept.unlink()
    (kept.parent / "part-link").symlink_to("/nowhere")
    (kept.parent / "part-old").mkdir()
    os.utime(kept.parent / "part-old", (0, 0))
    assert fresh() is not None
    assert [path.name for path in kept.parent.glob("part-*")] == ["part-link"]


@needs_compiler
@posix
def test_only_the_user_can_write_where_it_is_kept(kept):
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert not list(kept.parent.glob("part-*"))


@needs_compiler
@posix
@pytest.mark.parametrize("what", ["folder", "file", "folder of another", "file of another", "link"])
def test_a_planted_library_is_not_loaded(fresh, kept, what, monkeypatch, caplog, tmp_path):
    """Also the control: nothing is loaded at all, for ``CDLL`` would run its constructor."""
    if what == "link":
        elsewhere = tmp_path / "elsewhere"
        kept.parent.rename(elsewhere)
        kept.parent.symlink_to(elsewhere)
    elif what.endswith("another"):
        own = os.getuid()
        target = kept if what.startswith("file") else kept.parent
        if own == 0:
            os.chown(target, 4321, 4321)
        else:  # not ours to give away: be somebody else instead
            monkeypatch.setattr(compile.os, "getuid", lambda: own + 1)
    else:
        (kept if what == "file" else kept.parent).chmod(0o777)

    def never(path):
        raise AssertionError(f"{path} was loaded")

    monkeypatch.setattr(ctypes, "CDLL", never)
    caplog.clear()
    assert fresh() is None
    sentence = said_once(caplog)
    assert "cannot be built" in sentence
    assert "must be" in sentence


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    fresh, tmp_path, monkeypatch, caplog
):
    compiler(tmp_path, monkeypatch, f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/child\nwait\n")
    monkeypatch.setattr(compile, "PATIENCE", 1.0)
    started = time.monotonic()
    assert fresh() is None
    assert time.monotonic() - started < 10
    assert "did not end in time" in said_once(caplog)
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the grandchild lives on")


BROKEN = {
    "another format": (b"\x7fELF and no more", 0o755),
    "no UTF-8": (b"#!/bin/sh\nprintf '\\377\\376'\nexit 1\n", 0o755),
    "always fails": (b"#!/bin/sh\necho 'internal compiler error' >&2\nexit 4\n", 0o755),
    "makes nothing": (b"#!/bin/sh\nexit 0\n", 0o755),
    "makes rubbish": (
        b'#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo rubbish > "$2"; shift; done\n',
        0o755,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_compiler_is_one_sentence(fresh, tmp_path, monkeypatch, caplog, name):
    compiler(tmp_path, monkeypatch, *BROKEN[name])
    assert fresh() is None
    last = caplog.records[-1].getMessage()
    assert "cannot be built: Conv4 runs on ordinary torch operations" in last
    assert "\n" not in last
    assert len(caplog.records) <= 2


def test_a_user_without_a_home_is_one_sentence(monkeypatch, caplog):
    import pwd

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "MDTHEORY_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if compile.shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine: it would not look for a folder")
    assert compile.library.__wrapped__() is None
    assert "got none because" in said_once(caplog)
    assert "name one in MDTHEORY_CACHE" in caplog.text


def test_a_cache_that_is_a_file_is_one_sentence(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("precious")
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    if compile.shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine: it would not look for a folder")
    assert compile.library.__wrapped__() is None
    assert "cannot be built" in said_once(caplog)
