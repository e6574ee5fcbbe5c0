"""``mdtheory doctor``: is this installation sound?"""

from __future__ import annotations

import os
import platform
from typing import Any

from mdtheory.commands.console import JsonFlag, write_findings

WRONG = 0.5
"""Relative error of a meta-gradient that no rounding explains."""


def doctor(json_: JsonFlag = False) -> None:
    """Check the installation: versions, threads, devices, data, and the mathematics itself.

    The last checks differentiate an adaptation in float64 and compare with finite
    differences. Exit code 1 if any check fails.

    [bold]Example[/bold]

      mdtheory doctor
    """
    findings = [*_versions(), _devices(), _loops(), *_precisions(), *_data(), *_mathematics()]
    write_findings(findings, json_=json_)


def _finding(check: str, found: str, *, ok: bool = True) -> dict[str, Any]:
    return {"check": check, "ok": ok, "found": found}


def _versions() -> list[dict[str, Any]]:
    from importlib.metadata import PackageNotFoundError, version

    import mdtheory

    found = [
        _finding("mdtheory", mdtheory.__version__),
        _finding("python", platform.python_version()),
    ]
    for package in ("torch", "numpy", "matplotlib", "pyarrow", "pillow", "pydantic", "safetensors"):
        try:
            found.append(_finding(package, version(package)))
        except PackageNotFoundError:
            found.append(_finding(package, "not installed", ok=False))
    return found


def _devices() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return _finding(
        "devices",
        (
            f"CPU with {torch.get_num_threads()} of {os.cpu_count()} threads; GPUs: "
            f"{', '.join(gpus) or 'none'}"
        ),
    )


def _loops() -> dict[str, Any]:
    """Whether Conv4 runs on the loops that a C++ compiler makes at first use."""
    from mdtheory.kernels import compile as kernels

    name = kernels.identity()
    return _finding(
        "CPU kernels",
        "torch's own, about half as fast on Conv4: the loops need g++ or clang++"
        if name == "plain"
        else f"{name}, compiled on this machine by its C++ compiler",
    )


def _precisions() -> list[dict[str, Any]]:
    """What each precision costs on the first GPU: the error of a meta-gradient in float32 against
    float64, and whether the kernels run there.
    """
    import torch

    from mdtheory.kernels.have_triton import why_not
    from mdtheory.kernels.precision import PRECISIONS, precision
    from mdtheory.meta.restore import short

    device = _card()
    if device is None:
        return []
    reason = why_not(device)
    found = [_finding("GPU kernels", "Triton's" if reason is None else f"torch's own: {reason}")]
    try:
        exact = _gradient(device, torch.float64)
        for name in PRECISIONS:
            with precision(name):
                error = (_gradient(device, torch.float32).double() - exact).norm() / exact.norm()
            text = f"meta-gradient {float(error):.1e} off float64 (Conv4, 1-shot, one task)"
            found.append(_finding(f"precision {name}", text, ok=float(error) < WRONG))
    except RuntimeError as error:  # of the driver, or too little memory
        found.append(_finding("GPU", short(error), ok=False))
    return found


def _card() -> Any:
    """The first GPU, if any."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.device("cuda", torch.cuda.current_device())


def _gradient(device: Any, dtype: Any) -> Any:
    """All of a meta-gradient of Conv4 on a task of random images. shape: (n,)"""
    import torch

    from mdtheory.core.types import Episode
    from mdtheory.meta.learner import MetaLearner
    from mdtheory.models.conv4 import Conv4

    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(5)
    episode = Episode(
        torch.rand(5, 3, 84, 84, generator=rng),
        labels,
        torch.rand(75, 3, 84, 84, generator=rng),
        labels.repeat_interleave(15),
    )
    learner = MetaLearner(Conv4().to(device=device, dtype=dtype), n_steps=5, probe="off")
    result = learner.meta_gradient([episode.to(device=device, dtype=dtype)])
    return torch.cat([gradient.flatten() for gradient in result.grads.values()])


def _data() -> list[dict[str, Any]]:
    from mdtheory.data.glyphs import GlyphSet
    from mdtheory.data.sources import data_sources, source_class

    glyphs = GlyphSet()
    found = [
        _finding(
            "glyphs",
            ", ".join(
                f"{len(glyphs.classes(split))} {split}" for split in ("train", "validation", "test")
            ),
        )
    ]
    for source in map(source_class, data_sources):
        if not source.variable:
            continue
        place = os.environ.get(source.variable)
        if not place:
            found.append(_finding(source.title, f"not looked for: {source.variable} is not set"))
            continue
        try:
            form = source().find(place)
            found.append(_finding(source.title, f"{form.form} in {form.path}"))
        except ValueError as error:
            found.append(_finding(source.title, str(error), ok=False))
    return found


def _mathematics() -> list[dict[str, Any]]:
    return [_derivative(name) for name in ("maml", "metasgd", "metamida")]


def _derivative(name: str, *, tolerance: float = 1e-7) -> dict[str, Any]:
    """The meta-gradient of one small task against central differences, in float64 on a smooth
    model.
    """
    from mdtheory.contract.gradients import slope_errors
    from mdtheory.contract.setting import Setting
    from mdtheory.geometry import geometries

    setting = Setting(geometries.get(name), "mlp")
    learner, episode = setting.learner(), setting.episodes(1)[0]
    grads = learner.meta_gradient([episode]).grads
    error = max(slope_errors(learner, episode, grads, [tuple(grads)]).values())
    return _finding(
        f"meta-gradient of {name}", f"relative error {error:.1e} in float64", ok=error < tolerance
    )
