"""What plug-ins and installed packages may not do when they are imported."""

from __future__ import annotations

import os
import time
from importlib.metadata import EntryPoint

import pytest
import torch

from mdtheory.core import foreign, limit, registry
from tests.faults.process import forked

CHANGES = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "recording of gradients": "torch.set_grad_enabled(False)",
    "inference mode": "import builtins as b; b.kept = torch.inference_mode(); b.kept.__enter__()",
    "autocast": "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()",
    "choice of deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "number of threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "use of oneDNN": "torch.backends.mkldnn.enabled = False",
    "current folder": "import os; os.chdir('/')",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_plugin_that_changes_how_torch_computes_is_refused(tmp_path, name):
    """The run had other bits than its configuration says, without a word."""
    (tmp_path / "mine.py").write_text(f"import torch\n{CHANGES[name]}")

    def work() -> None:
        try:
            registry.load_plugin(tmp_path / "mine.py")
        except ValueError as error:
            print(error)

    said = forked(work).out
    assert said.startswith("a plug-in must leave the program's state as it is, but ")
    assert f"mine.py changes the {name} from " in said


def test_what_is_changed_back_is_no_change(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nwith torch.no_grad():\n    torch.manual_seed(0)\n"
    )
    with torch.random.fork_rng():
        registry.load_plugin(tmp_path / "mine.py")
    assert set(foreign.state()) == set(CHANGES)


def test_a_change_in_the_middle_is_noticed():
    before = foreign.state()
    foreign.demand_state(before, "it")
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="but it changes the recording of gradients from True"),
    ):
        foreign.demand_state(before, "it")


@pytest.mark.parametrize(
    "text",
    [
        "print('words')",
        "import os; os.write(1, b'words')",
        "import sys; print('words', file=sys.__stdout__)",
        "import subprocess; subprocess.run(['echo', 'words'])",
    ],
)
def test_words_of_a_plugin_are_not_among_the_results(tmp_path, text):
    """JSON on the standard output could not be read."""
    (tmp_path / "mine.py").write_text(text)

    def work() -> None:
        print("before")
        registry.load_plugin(tmp_path / "mine.py")
        print("after")

    outcome = forked(work)
    assert outcome.out == "before\nafter\n"
    assert "words" in outcome.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise BaseException('x')", "BaseException: x"),
        ("raise RuntimeError('not enough memory')", "RuntimeError: not enough memory"),
        ("while True: pass", "LateError: it must end within 0.2 seconds"),
        ("import torch; torch.set_num_threads(7)", "ValueError: a plug-in must leave"),
    ],
)
def test_an_installed_package_that_ends_the_program_is_one_sentence(
    tmp_path, monkeypatch, text, said
):
    """``sys.exit(0)`` was a success without a result."""
    module = f"foreign_{time.monotonic_ns()}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(limit, "PLUGIN_SECONDS", 0.2 if "while" in text else 50.0)
    bad = EntryPoint("mine", module, "mdtheory.core")
    monkeypatch.setattr(registry, "entry_points", lambda group: [bad])
    own: registry.Registry[int] = registry.Registry("colour", "mdtheory.core")
    threads = torch.get_num_threads()
    try:
        with pytest.raises(ValueError, match=rf"the colour 'mine' \({module}\) ends with {said}"):
            own.names()
    finally:
        torch.set_num_threads(threads)


def test_closed_streams_stop_no_plugin(tmp_path):
    (tmp_path / "mine.py").write_text("print('words')")

    def work() -> None:
        for number in (1, 2):
            os.close(number)
        registry.load_plugin(tmp_path / "mine.py")
        (tmp_path / "done").touch()
        os._exit(0)

    forked(work)
    assert (tmp_path / "done").exists()
