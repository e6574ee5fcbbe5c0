"""``mdtheory demo``: everything once, in a few minutes, without any data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdtheory.commands.console import JsonFlag, complain, write_json, write_table
from mdtheory.core.progress import say


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where results, table and figures go.")
    ] = Path("demo"),
    json_: JsonFlag = False,
) -> None:
    """Train MAML, MetaSGD and MetaMiDA on letters of many scripts, test them on unseen scripts, and
    draw the figures.

    The three start from the same network, see the same tasks and use the same
    optimizer. On two cores it takes two to three minutes. Writes results.json
    (the same bytes on every run on one machine), table.md, task.png (a task of
    unseen letters and what MetaMiDA says of them), the figures task_loss,
    gradient_norm and training as PNG and SVG, and a checkpoint of each method for
    `mdtheory adapt` and `mdtheory evaluate`.

    [bold]Example[/bold]

      mdtheory demo --out demo
    """
    from mdtheory.meta.interrupt import InterruptedRunError
    from mdtheory.run.demo import caption, rows, run

    try:
        report = run(out)
    except InterruptedRunError as request:
        complain("stopped by a signal; the demo starts over")
        raise typer.Exit(request.exit_code) from None
    if json_:
        write_json(report)
        return
    heading, body = rows(report)
    write_table("Few-shot learning of unseen scripts", heading, body, caption=caption(report))
    say(
        "in the figures' right-hand panels all methods set out from MAML's start: where their "
        "curves coincide there and not on the left, the difference lies in the start that was "
        "learned with each geometry, not in its steps"
    )
    say(f"results, table, figures and checkpoints are in {out}; task.png shows a task")
