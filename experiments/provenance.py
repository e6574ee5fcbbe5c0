"""Where a record comes from: code, environment, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
from pathlib import Path

from experiments.generated import ROOT
from experiments.records import Code, Machine


def code() -> Code:
    """The package's version, the commit where there is one, and a digest of the sources
    themselves.
    """
    import mdtheory

    commit = _git("rev-parse", "HEAD")
    changed = (
        None
        if commit is None
        else bool(_git("status", "--porcelain", "--", "mdtheory", "experiments/*.py"))
    )
    return Code(version=mdtheory.__version__, commit=commit, changed=changed, sources=sources())


def sources(root: Path = ROOT) -> str:
    """sha256 over the sorted names and contents of the library's and the laboratory's Python
    files.
    """
    digest = hashlib.sha256()
    for path in sorted([*(root / "mdtheory").rglob("*.py"), *(root / "experiments").glob("*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def machine(device: str) -> Machine:
    """Versions and hardware, without names of hosts or people."""
    import numpy
    import torch

    from mdtheory.kernels import compile as kernels

    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=numpy.__version__,
        cpu=f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        gpu=gpu,
        compiled=kernels.library() is not None,
    )


def cpu_model() -> str:
    """The processor's name, family and model as the system gives them: a name alone may stand for
    several generations.
    """
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or "unknown"
    lines = info.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    kind = [
        f"{key.removeprefix('cpu ')} {said[key]}"
        for key in ("cpu family", "model", "stepping")
        if key in said
    ]
    return ", ".join([said.get("model name", platform.machine()), *kind])


def peak_mebibytes(device: str) -> float:
    """The most memory this process has held: the GPU's where it trains on one, else its resident
    set.
    """
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated(torch.device(device)) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _git(*arguments: str) -> str | None:
    """What git says about this checkout; ``None`` outside one."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
