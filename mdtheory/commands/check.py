"""``mdtheory check``: does a geometry keep what the solver relies on?"""

from __future__ import annotations

from typing import Annotated

import typer

from mdtheory.commands.console import JsonFlag, PluginOption, use_plugins, write_findings


def check(
    slug: Annotated[
        str, typer.Argument(metavar="SLUG", help="The geometry, one of `mdtheory geometries`.")
    ],
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = "cpu",
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Examine a geometry by the contract tests that the built-in ones must pass: one line each,
    what holds and what does not.

    In float64 on three small models (a smooth one, convolutions, and one with
    native norms and tied and frozen weights): pure hooks, the first step, live
    parameters, state_dict, finite differences of the meta-gradient, stepwise =
    unrolled, vmap = loop. Under a minute. Exit code 1 if anything is broken.

    [bold]Examples[/bold]

      mdtheory check momentum --plugin momentum.py

      mdtheory check metamida --device cuda
    """
    from mdtheory.contract import check as examine_all
    from mdtheory.geometry import geometries
    from mdtheory.run.build import pick_device

    use_plugins(plugin)
    make = geometries.get(slug)
    findings = [
        {"check": found.property, "ok": found.verdict != "broken", "found": found.said}
        for found in examine_all(make, device=pick_device(device))
    ]
    write_findings(findings, json_=json_)
