"""``mdtheory check``: does a component keep what the rest relies on?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    use_plugins,
    write_findings,
)
from mdtheory.core.limit import plugin_limit

if TYPE_CHECKING:
    import torch

    from mdtheory.contract import Finding
    from mdtheory.core.registry import Registry


def check(
    slug: Annotated[
        str,
        typer.Argument(
            metavar="SLUG",
            help="A registered geometry, map, network, estimator, data source or reader.",
        ),
    ],
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = "cpu",
    path: Annotated[
        Path | None,
        typer.Option("--path", metavar="PATH", help="Images on which a source or reader is tried."),
    ] = None,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Examine a component by the contract tests that the built-in ones must pass: one line for
    every property, what holds and what does not.

    A slug is looked for among geometries, maps, networks, estimators, data sources
    and readers; where several have it, all are examined. In float64 on small models:
    a geometry's hooks, first step, live parameters and meta-gradients; a map's
    inverse, and potential, conjugate and curvature of a mirror map; an estimator's
    gradient by finite differences of the surrogate that it declares; meta-gradients
    through a network; splits that share no class. Under a minute. Exit code 1 if
    anything is broken.

    [bold]Examples[/bold]

      mdtheory check momentum --plugin momentum.py

      mdtheory check stepwise

      mdtheory check metamida --device cuda
    """
    from mdtheory.run.build import pick_device

    use_plugins(plugin)
    kinds = found_in(slug)
    if path is not None and not {"data", "reader"} & set(kinds):
        raise ValueError(
            f"--path must be left out for a {kinds[0]}, which needs no images, got {path}; remove "
            "it"
        )
    findings = []
    for kind in kinds:
        prefix = f"{kind} " if len(kinds) > 1 else ""
        findings += [
            {
                "check": prefix + found.property,
                "ok": found.verdict != "broken",
                "found": found.said,
            }
            for found in in_time(examined(kind, slug, pick_device(device), path))
        ]
    write_findings(findings, json_=json_)


def registries() -> dict[str, Registry]:
    """Everything that a new file can add and that has a contract, by kind."""
    from mdtheory.data.readers import readers
    from mdtheory.data.sources import data_sources
    from mdtheory.geometry.base import geometries
    from mdtheory.inner.estimators.base import estimators
    from mdtheory.maps.base import maps
    from mdtheory.models.base import models

    found = (geometries, maps, models, estimators, data_sources, readers)
    return {registry.kind: registry for registry in found}


def found_in(slug: str) -> list[str]:
    """The kinds of component that are registered under a slug; ``ValueError`` for none."""
    from mdtheory.core.registry import unknown

    known = registries()
    kinds = [kind for kind, registry in known.items() if slug in registry.names()]
    if not kinds:
        everything = sorted({name for registry in known.values() for name in registry.names()})
        raise unknown("a component", slug, everything)
    return kinds


def in_time(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The same, each within the time that a plug-in may take."""
    while True:
        with plugin_limit():
            found = next(findings, None)
        if found is None:
            return
        yield found


def examined(kind: str, slug: str, device: torch.device, path: Path | None) -> Iterator[Finding]:
    """Every property of one component."""
    from mdtheory import contract

    make: Any = registries()[kind].get(slug)
    if kind == "geometry":
        return contract.check_geometry(make, device=device)
    if kind == "estimator":
        return contract.check_estimator(make, device=device)
    if kind == "model":
        return contract.check_network(make, device=device)
    if kind == "map":
        return contract.check_map(make)
    if kind == "reader":
        if path is None:
            raise ValueError(
                f"--path must name images for the reader {slug!r}, got none; give it a sample"
            )
        return contract.check_reader(make, path)
    source = make()
    if path is not None and not source.takes_path:
        raise ValueError(
            f"--path must be left out for the source {slug!r}, which needs no folder, got {path}; "
            "remove it"
        )
    return contract.check_source(source.open(path, image_size=source.image_size, device=device))
