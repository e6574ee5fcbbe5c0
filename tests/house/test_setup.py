"""go.py sets up once: nothing is installed again until pyproject.toml, constraints.txt or the
interpreter change.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def go(tmp_path, monkeypatch) -> ModuleType:
    """go.py for a checkout of its own, with an installation that is only noted down."""
    spec = importlib.util.spec_from_file_location("go", ROOT / "go.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("numpy==2.0\ntorch==2.13.0\ntorchopt==0.7.3\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module.calls = []

    def install(venv: Path, extra: str) -> None:
        module.calls.append(extra)
        python = module.python_of(venv)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    module.really_install = module.install
    monkeypatch.setattr(module, "install", install)
    return module


def test_a_repeat_installs_nothing(go, tmp_path):
    go.set_up(tmp_path / "venv", "test")
    go.set_up(tmp_path / "venv", "test")
    assert go.calls == ["test"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_installs_again(go, tmp_path, name):
    go.set_up(tmp_path / "venv", "test")
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    go.set_up(tmp_path / "venv", "test")
    assert go.calls == ["test", "test"]


def test_another_interpreter_installs_again(go, tmp_path, monkeypatch):
    go.set_up(tmp_path / "venv", "test")
    monkeypatch.setattr(go.sys, "version_info", (3, 99, 0))
    go.set_up(tmp_path / "venv", "test")
    assert go.calls == ["test", "test"]


def test_extras_add_up_and_dev_includes_test(go, tmp_path):
    for extra in ("test", "dev", "test", "dev"):
        go.set_up(tmp_path / "venv", extra)
    assert go.calls == ["test", "dev"]


def test_every_task_needs_an_extra_of_the_package(go):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    def inside(extra: str) -> set[str]:
        named = {
            part
            for wanted in extras[extra]
            if wanted.startswith("mdtheory[")
            for part in wanted[len("mdtheory[") : -1].split(",")
        }
        return {extra}.union(*(inside(name) for name in named))

    assert {extra for extra, _ in go.TASKS.values()} <= set(go.INCLUDED)
    assert {extra: inside(extra) for extra in go.INCLUDED} == go.INCLUDED


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": 1, "extras": 2}'])
def test_a_broken_stamp_installs_again(go, tmp_path, text):
    go.set_up(tmp_path / "venv", "test")
    (tmp_path / "venv" / "mdtheory-stamp.json").write_text(text)
    go.set_up(tmp_path / "venv", "test")
    assert go.calls == ["test", "test"]


def test_a_removed_environment_installs_again(go, tmp_path):
    go.set_up(tmp_path / "venv", "test")
    go.python_of(tmp_path / "venv").unlink()
    go.set_up(tmp_path / "venv", "test")
    assert go.calls == ["test", "test"]


def test_a_failed_installation_leaves_no_stamp(go, tmp_path, monkeypatch):
    def fail(venv: Path, extra: str) -> None:
        raise go.SetupError("no network")

    monkeypatch.setattr(go, "install", fail)
    monkeypatch.setenv("MDTHEORY_VENV", str(tmp_path / "venv"))
    assert go.main(["test"]) == 1
    assert not (tmp_path / "venv" / "mdtheory-stamp.json").exists()


def test_the_stamp_names_the_extras(go, tmp_path):
    go.set_up(tmp_path / "venv", "dev")
    noted = json.loads((tmp_path / "venv" / "mdtheory-stamp.json").read_text())
    assert noted == {"fingerprint": go.fingerprint(tmp_path), "extras": sorted(go.INCLUDED["dev"])}


def test_torch_is_pinned_for_ci(go):
    assert go.pinned_torch((ROOT / "constraints.txt").read_text()).count(".") == 2
    with pytest.raises(go.SetupError, match="torch==VERSION"):
        go.pinned_torch("torchopt==0.7.3\n")


def test_an_installed_torch_is_kept(go, tmp_path):
    pins = (tmp_path / "constraints.txt").read_text()
    assert (
        go.keeping_torch(pins, "2.9.1+cu130") == "numpy==2.0\ntorch==2.9.1+cu130\ntorchopt==0.7.3\n"
    )


class Pip:
    """Stands for every subprocess of go.py; refuses what it is told to refuse."""

    def __init__(self, *refused: str):
        self.refused, self.seen = refused, []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.seen.append(" ".join(map(str, command)))
        failed = any(word in self.seen[-1] for word in self.refused)
        return subprocess.CompletedProcess(command, int(failed), "", "no such version")


def test_torch_comes_from_where_pip_s_own_settings_say(go, monkeypatch):
    pip = Pip()
    monkeypatch.setattr(go.subprocess, "run", pip)
    go.install_torch(["pip"], "2.13.0")
    assert pip.seen == ["pip install -qq --no-deps torch==2.13.0"]
    monkeypatch.setattr(go.subprocess, "run", Pip("install"))
    with pytest.raises(go.SetupError, match=r"could not install torch 2\.13\.0"):
        go.install_torch(["pip"], "2.13.0")


@pytest.mark.parametrize(
    ("kept", "gpu", "warned"),
    [("2.13.0+cpu", None, False), ("2.13.0", None, True), ("2.13.0", "/bin/nvidia-smi", False)],
)
def test_only_a_build_for_absent_gpus_is_warned_of(
    go, monkeypatch, tmp_path, capsys, kept, gpu, warned
):
    pip = Pip()
    go.python_of(tmp_path / "venv").parent.mkdir(parents=True)
    go.python_of(tmp_path / "venv").touch()
    monkeypatch.setattr(go.subprocess, "run", pip)
    monkeypatch.setattr(go, "torch_version", lambda python: kept)
    monkeypatch.setattr(go.sys, "platform", "linux")
    monkeypatch.setattr(go.shutil, "which", lambda name: gpu)
    go.really_install(tmp_path / "venv", "test")
    assert ("brings its CUDA libraries" in capsys.readouterr().err) is warned
    assert not any("torch==" in line for line in pip.seen)  # the one that is there stays


def test_an_environment_without_pip_is_served_from_outside(go, monkeypatch):
    monkeypatch.setattr(go.subprocess, "run", Pip("--version"))
    assert go.pip_of(Path("v/bin/python")) == [
        sys.executable,
        "-m",
        "pip",
        "--python",
        "v/bin/python",
    ]


def test_a_system_without_ensurepip_gets_a_bare_environment(go, monkeypatch, tmp_path):
    pip = Pip("-m venv " + str(tmp_path))
    monkeypatch.setattr(go.subprocess, "run", pip)
    go.create(tmp_path)
    assert pip.seen[-1].endswith(f"-m venv --clear --without-pip {tmp_path}")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["--help"]])
def test_an_unknown_task_explains_itself(go, arguments, capsys):
    assert go.main(arguments) == 2
    assert "demo | test | proofs | lint" in capsys.readouterr().err


def test_an_old_python_is_refused_in_one_sentence(go, monkeypatch, capsys):
    monkeypatch.setattr(go.sys, "version_info", (3, 10, 4))
    assert go.main(["demo"]) == 2
    assert "make PYTHON=python3.12 demo" in capsys.readouterr().err
    assert go.calls == []


def test_a_task_runs_in_the_environment_and_passes_arguments_on(go, tmp_path, monkeypatch):
    ran = []

    def run(command, **options):
        ran.append((command, options))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setenv("MDTHEORY_VENV", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(go.subprocess, "run", run)
    assert go.main(["test", "-k", "mirror"]) == 3
    command, options = ran[0]
    assert command == [
        tmp_path / "elsewhere" / "bin" / "python",
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-k",
        "mirror",
    ]
    assert options["env"]["OMP_NUM_THREADS"] == "1"


def test_the_first_failing_command_ends_the_task(go, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setenv("MDTHEORY_VENV", str(tmp_path / "venv"))
    monkeypatch.setattr(
        go.subprocess,
        "run",
        lambda c, **_: ran.append(c) or subprocess.CompletedProcess(c, len(ran) - 1),
    )
    assert go.main(["lint"]) == 1
    assert len(ran) == 2


def no_coq(go, monkeypatch, pip: Pip, user: int) -> None:
    monkeypatch.setattr(go.subprocess, "run", pip)
    monkeypatch.setattr(go.shutil, "which", lambda name: None if name == "coqc" else name)
    monkeypatch.setattr(go.os, "geteuid", lambda: user)


def test_coq_comes_from_apt_where_root_may_install(go, monkeypatch):
    no_coq(go, monkeypatch, pip := Pip(), user=0)
    go.coq()
    assert [line.split()[4] for line in pip.seen] == ["update", "install"]
    assert pip.seen[1].endswith("coq libcoq-interval")


def test_an_installed_coq_is_left_alone(go, monkeypatch):
    no_coq(go, monkeypatch, pip := Pip(), user=0)
    monkeypatch.setattr(go.shutil, "which", lambda name: name)
    go.coq()
    assert pip.seen == []


@pytest.mark.parametrize(("user", "refused"), [(1000, ()), (0, ("update",)), (0, ("install",))])
def test_without_coq_a_sentence_says_what_is_checked(go, monkeypatch, capsys, user, refused):
    no_coq(go, monkeypatch, Pip(*refused), user=user)
    go.coq()
    assert len(capsys.readouterr().err.splitlines()) == 1 + (user == 0)
