#!/usr/bin/env python3
"""Set up a local virtual environment once, then run one task in it::

    python3 go.py demo | test | proofs | lint | docs | check-docs

Needs only Python >= 3.11 and pip. What is installed depends on nothing but pyproject.toml,
constraints.txt and the interpreter; while these stay the same, a repeat sets up nothing. ``proofs``
also installs Coq from apt-get, where root runs it.

MDTHEORY_VENV is the environment's folder (default .venv). Packages come from where pip's own
variables and files say; README.md says how PIP_EXTRA_INDEX_URL brings PyTorch's CPU build.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
PYTEST = ["-m", "pytest", "-n", "2", "--dist", "worksteal"]

# task -> (the extra that it needs, the commands of the environment's Python)
TASKS: dict[str, tuple[str, list[list[str]]]] = {
    "demo": ("test", [["-m", "mdtheory", "demo", "--out", "out/demo"]]),
    "test": ("test", [PYTEST]),
    "proofs": ("test", [["-m", "proofs_check.kernel"]]),
    "lint": (
        "dev",
        [
            ["-m", "ruff", "check", "."],
            ["-m", "ruff", "format", "--check", "."],
            ["-m", "mypy"],
            ["-m", "pytest", "-q", "tests/house/test_imports.py"],
        ],
    ),
    "docs": (
        "docs",
        [["-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html"]],
    ),
}
TASKS["check-docs"] = (
    "docs",
    [
        *TASKS["docs"][1],
        ["-m", "pytest", "-q", "tests/docs", "-m", "not slow"],
        ["docs/check_site.py"],
    ],
)
INCLUDED = {
    "test": {"test", "proofs", "experiments", "gpu"},
    "dev": {"dev", "test", "proofs", "experiments", "gpu"},
    "docs": {"docs", "test", "proofs", "experiments", "gpu"},
}


class SetupError(Exception):
    """A step of the set-up failed; the message says what to do."""


def say(text: str) -> None:
    """A line of progress, on stderr: stdout belongs to the task."""
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


def fingerprint(root: Path) -> str:
    """What an installation depends on, as a digest."""
    digest = hashlib.sha256(f"{root}\0{sys.version_info[:2]}\0".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes() + b"\0")
    return digest.hexdigest()


def installed(stamp: Path, wanted: str) -> set[str]:
    """The extras that the stamp lists for this fingerprint; none where it is missing, stale or
    unreadable.
    """
    try:
        noted = json.loads(stamp.read_text())
        return set(noted["extras"]) if noted["fingerprint"] == wanted else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def pinned_torch(constraints: str) -> str:
    """The tested version of torch."""
    found = re.search(r"^torch==(\S+)", constraints, flags=re.MULTILINE)
    if found is None:
        raise SetupError("constraints.txt must hold a line torch==VERSION; restore it")
    return found[1]


def keeping_torch(constraints: str, version: str) -> str:
    """The constraints with torch as it is installed already, so that pip leaves a user's own build
    alone, and the Triton that a build for GPUs asks for.
    """
    if not version.endswith("+cpu"):
        constraints = re.sub(r"^triton==\S+\n", "", constraints, flags=re.MULTILINE)
    return re.sub(r"^torch==\S+", f"torch=={version}", constraints, flags=re.MULTILINE)


def python_of(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip_of(python: Path) -> list[str]:
    """The pip command for an environment: its own pip, or this interpreter's where the environment
    has none.
    """
    own = [str(python), "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    return [sys.executable, "-m", "pip", "--python", str(python)]


def create(venv: Path) -> None:
    """Make the environment; some systems ship no ensurepip, and then this interpreter's pip serves
    it from outside.
    """
    say(f"creating {venv}")
    if (
        subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True).returncode
        != 0
    ):
        bare = subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)])
        if bare.returncode != 0:
            raise SetupError(
                "python -m venv must work; install your system's python3-venv package, or set "
                "MDTHEORY_VENV"
            )


def torch_version(python: Path) -> str | None:
    """The version of an importable torch, without importing it."""
    code = """if True:
        from importlib import metadata, util
        print(metadata.version("torch") if util.find_spec("torch") else "")
    """
    answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return answer.stdout.strip() or None


def install_torch(pip: list[str], version: str) -> None:
    """The tested torch; of its builds pip takes one with a local label such as +cpu, where an index
    or folder that it knows has one.
    """
    command = [*pip, "install", "-qq", "--no-deps", f"torch=={version}"]
    if subprocess.run(command).returncode != 0:
        raise SetupError(f"pip could not install torch {version}; see its message above")


def install(venv: Path, extra: str) -> None:
    """Everything that ``extra`` needs, at the versions of constraints.txt, and this checkout in
    editable form.
    """
    python = python_of(venv)
    if not python.exists():
        create(venv)
    pip = pip_of(python)
    constraints = (ROOT / "constraints.txt").read_text()
    if torch_version(python) is None:
        install_torch(pip, pinned_torch(constraints))
    kept = torch_version(python)
    if kept is None:
        raise SetupError("torch must be importable once it is installed; remove " + str(venv))
    constraints = keeping_torch(constraints, kept)
    if sys.platform == "linux" and "+cpu" not in kept and not shutil.which("nvidia-smi"):
        say("this torch brings its CUDA libraries, several GB; README.md names the CPU build")
    say(f"installing mdtheory[{extra}] into {venv}, about a minute")
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "constraints.txt")
        pins.write_text(constraints)
        command = [*pip, "install", "-qq", "-c", str(pins), "-e", f"{ROOT}[{extra}]"]
        if subprocess.run(command).returncode != 0:
            raise SetupError("pip could not install what mdtheory needs; see its message above")


def set_up(venv: Path, extra: str) -> None:
    """Install ``extra`` unless the stamp says that this was done."""
    stamp, wanted = venv / "mdtheory-stamp.json", fingerprint(ROOT)
    done = installed(stamp, wanted)
    if extra in done and python_of(venv).exists():
        return
    install(venv, extra)
    partial = stamp.with_suffix(".partial")
    partial.write_text(
        json.dumps({"fingerprint": wanted, "extras": sorted(done | INCLUDED[extra])})
    )
    partial.replace(stamp)


def coq() -> None:
    """Coq and its Interval library from apt-get, where they are missing and may be installed."""
    if shutil.which("coqc"):
        return
    if shutil.which("apt-get") is None or os.name != "posix" or os.geteuid() != 0:
        say("install Coq 8.16 with its Interval library to have the proofs checked here")
        return
    say("installing Coq and its Interval library, about a minute")
    get = ["apt-get", "-qq", "-o", "Acquire::Retries=1"]
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": sys.stderr}
    wanted = ["install", "-y", "--no-install-recommends", "coq", "libcoq-interval"]
    if any(subprocess.run([*get, *step], **quiet).returncode for step in (["update"], wanted)):
        say("apt-get could not install coq and libcoq-interval: the stored result is checked")


def main(arguments: list[str]) -> int:
    """Run one task; further arguments go to its last command."""
    if not arguments or arguments[0] not in TASKS:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.version_info < OLDEST:
        say(
            f"Python must be 3.11 or newer, got {sys.version.split()[0]}; name another: make "
            f"PYTHON=python3.12 {arguments[0]}"
        )
        return 2
    venv = Path(os.environ.get("MDTHEORY_VENV") or ROOT / ".venv").absolute()
    extra, commands = TASKS[arguments[0]]
    os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    try:
        set_up(venv, extra)
        if arguments[0] == "proofs":
            coq()
    except SetupError as error:
        say(f"failed: {error}")
        return 1
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if "-n" in commands[0] else None
    for command in commands[:-1]:
        if code := subprocess.run(
            [python_of(venv), *command], cwd=ROOT, env=environment
        ).returncode:
            return code
    return subprocess.run(
        [python_of(venv), *commands[-1], *arguments[1:]], cwd=ROOT, env=environment
    ).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
