"""``mdtheory doctor``: is this installation sound?"""

from __future__ import annotations

import os
import platform
from typing import Any

import typer

from mdtheory.commands.console import JsonFlag, write_json


def doctor(json_: JsonFlag = False) -> None:
    """Check the installation: versions, threads, devices, data, and the mathematics itself.

    The last checks differentiate an adaptation in float64 and compare with finite
    differences. Exit code 1 if any check fails.

    [bold]Example[/bold]

      mdtheory doctor
    """
    findings = [*_versions(), _devices(), *_data(), *_mathematics()]
    if json_:
        write_json(findings)
    else:
        for finding in findings:
            typer.echo(f"{'OK  ' if finding['ok'] else 'FAIL'}  {finding['check']}: {finding['found']}")
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


def _finding(check: str, found: str, *, ok: bool = True) -> dict[str, Any]:
    return {"check": check, "ok": ok, "found": found}


def _versions() -> list[dict[str, Any]]:
    from importlib.metadata import PackageNotFoundError, version

    import mdtheory

    found = [_finding("mdtheory", mdtheory.__version__), _finding("python", platform.python_version())]
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
        "devices", f"CPU with {torch.get_num_threads()} of {os.cpu_count()} threads; GPUs: {', '.join(gpus) or 'none'}"
    )


def _data() -> list[dict[str, Any]]:
    from mdtheory.data.glyphs import GlyphSet
    from mdtheory.data.open import MINI_IMAGENET_VARIABLE, detect

    glyphs = GlyphSet()
    found = [
        _finding("glyphs", ", ".join(f"{len(glyphs.classes(split))} {split}" for split in ("train", "validation", "test")))
    ]
    place = os.environ.get(MINI_IMAGENET_VARIABLE)
    if not place:
        return [*found, _finding("miniImageNet", f"not looked for: {MINI_IMAGENET_VARIABLE} is not set")]
    try:
        form = detect(place)
        return [*found, _finding("miniImageNet", f"{form.form} in {form.path}")]
    except ValueError as error:
        return [*found, _finding("miniImageNet", str(error), ok=False)]


def _mathematics() -> list[dict[str, Any]]:
    return [_derivative(name) for name in ("maml", "metasgd", "metamida")]


def _derivative(name: str, *, eps: float = 1e-5, tolerance: float = 1e-7) -> dict[str, Any]:
    """A directional derivative of the meta-objective against a central difference, in float64 on a smooth model."""
    import torch

    from mdtheory import seeding, tree
    from mdtheory.geometry import geometries
    from mdtheory.meta.learner import MetaLearner
    from mdtheory.models import models
    from mdtheory.typing import Episode

    rng = seeding.generator("doctor", name)
    x, labels = torch.randn(12, 6, generator=rng, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2])
    episode = Episode(x[:6], labels, x[6:], labels)
    model = models.get("mlp")(in_features=6, n_way=3, hidden=(8,), activation="tanh").double()
    learner = MetaLearner(model, geometries.get(name)(), n_steps=3, task_lr=0.2)
    like = tree.detach(learner.meta())
    noise = {key: torch.randn(value.shape, generator=rng, dtype=value.dtype) for key, value in like.items()}
    direction = tree.tree_map(lambda value: value / value.norm(), noise)
    meta = tree.axpy(0.1, noise, like)

    def gradient_at(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        found = learner.estimator(learner.problem(), tree.axpy(step, direction, meta), [episode])
        return found.value, tree.dot(found.grads, direction)

    exact, slope = gradient_at(0.0)[1], (gradient_at(eps)[0] - gradient_at(-eps)[0]) / (2 * eps)
    error = float((exact - slope).abs() / slope.abs())
    return _finding(f"meta-gradient of {name}", f"relative error {error:.1e} in float64", ok=error < tolerance)
