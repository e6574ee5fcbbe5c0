"""A part of the fault campaign, and what makes its verdicts believable."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time

import pytest

from mdtheory.cli import app
from mdtheory.meta import checkpoint
from tests.commands.runs import settings
from tests.faults.__main__ import KINDS, attempt, table
from tests.faults.inputs import INPUTS
from tests.faults.process import command, forked
from tests.faults.runs import RUNS, Whole

QUICK = ("damaged checkpoints", "crafted checkpoints", "edited checkpoints")
"""Without a run: half a second each."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("faults") / "whole")


@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_a_few_cases_of_each_kind_are_survived(whole, tmp_path, kind):
    for seed in range(1000, 1005 if kind in QUICK else 1001):
        assert attempt(kind, seed, tmp_path, whole) is None, f"{kind}, --seed {seed}"


def test_every_fault_has_its_verdict():
    """Negative control: planted faults are seen."""

    def hang() -> None:
        time.sleep(60)

    def crash() -> None:
        faulthandler.disable()  # it is meant: no stack among the tests' words
        os.kill(os.getpid(), signal.SIGSEGV)

    assert forked(lambda: 1 / 0).fault().startswith("traceback: ZeroDivisionError")
    assert forked(lambda: sys.exit(1)).fault().startswith("ends with 1")
    assert forked(lambda: sys.exit(2)).fault() == "ends with 2 and no word"
    assert forked(crash).fault() == "dies of signal 11"
    assert forked(hang, patience=0.3).fault().startswith("hangs")
    assert forked(lambda: None).fault() is None
    assert command("--version").fault() is None


def test_a_run_that_is_not_the_same_is_seen(whole, tmp_path):
    """Negative control of the comparison."""
    assert whole.difference(whole.folder) is None
    state = checkpoint.load(whole.folder / "last.pt")
    name = next(iter(state["weights"]))
    state["weights"][name].view(-1)[0] += 1e-6
    checkpoint.save(state, tmp_path / "last.pt")
    assert whole.difference(tmp_path) == "another digest"


def test_an_accepted_fault_is_lost(whole, tmp_path, monkeypatch):
    """Negative control of the campaign: a case whose fault nobody refuses."""
    monkeypatch.setitem(KINDS, "planted", lambda rng, folder, whole: f"SILENT {rng.random()}")
    first, again = (attempt("planted", 3, tmp_path, whole) for _ in range(2))
    assert first == again and first.startswith("SILENT")
    lines = table({"planted": 2}, [("planted", 3, first)]).splitlines()
    assert lines[1].split() == ["planted", "2", "1", "1"]
    assert set(KINDS) >= {*INPUTS, *RUNS}


def alone(*arguments):
    """The command line where no connection can be opened, in a fork."""

    def refuse(event, values):
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
            raise PermissionError(f"{event} {values}")

    def work():
        sys.addaudithook(refuse)
        if not arguments:
            socket.create_connection(("127.0.0.1", 1))
        app([str(argument) for argument in arguments], prog_name="mdtheory")

    return forked(work)


def test_no_command_opens_a_connection(whole, tmp_path):
    assert "PermissionError: socket." in alone().fault()
    for line in (
        ["train", "--out", tmp_path / "run", *settings(meta__iterations=1)],
        ["evaluate", whole.folder, "--tasks", 2],
        ["plot", whole.folder, "--tasks", 2, "--out", tmp_path / "figures"],
        ["data", "check"],
    ):
        assert alone(*line).fault(codes=(0,)) is None
