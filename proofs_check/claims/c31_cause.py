r"""C31, second file: what the records of this project say about the cause of a difference.

Every row of the records has its paths on the same 100 test tasks, from its own learned start and
from MAML's; the difference to MAML in the second case is the geometry's alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proofs_check.claims.c31_table import claim
from proofs_check.run import Run
from proofs_check.tools import poster

RECORDS = Path(__file__).parents[2] / "experiments" / "records"
__all__ = ["claim"]


def paired(method: str, n_shot: int, start: str) -> tuple[float, float]:
    """Mean difference to MAML on the same tasks after five steps, in points, and the half width of
    its 95 % interval; ``start``: own or common (MAML's).
    """
    ours, other = (record(name, n_shot) for name in (method, "maml"))
    steps, queries = 5, ours["queries"]
    gaps = [
        100 * (a[steps] - b[steps]) / queries
        for a, b in zip(ours[start]["correct"], other["own"]["correct"], strict=True)
    ]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1))
    return mean, float(poster.INTERVAL) * spread / math.sqrt(len(gaps))


def record(name: str, n_shot: int) -> dict[str, Any]:
    """The kept paths of one row of the records, seed 0."""
    folder = (
        Path(__file__).parents[2] / "experiments" / "records" / f"cpu-{name}-{n_shot}shot-seed0"
    )
    found: dict[str, Any] = json.loads((folder / "paths.json").read_text(encoding="utf-8"))
    return found


@claim.check("experiment", part="cause")
def start_or_geometry(
    run: Run, *, measured: Callable[[str, int, str], tuple[float, float]] = paired
) -> None:
    """Paired differences to MAML over 100 test tasks of the records, both starts, both columns:
    from MAML's start within half a point of zero, from the own start above one.
    """
    for method in ("metamida-published", "metamida"):
        for n_shot in (1, 5):
            common, width = measured(method, n_shot, "common")
            run.at_most(abs(common), 0.25, what=f"{method}, {n_shot}-shot, from MAML's start")
            run.at_most(width, 0.25, what="its half width")
            own, own_width = measured(method, n_shot, "own")
            run.above(own, 1.0, what=f"{method}, {n_shot}-shot, from its own start")
            for start, mean, half in (("MAML's", common, width), ("its own", own, own_width)):
                run.quantity(
                    f"{method} less MAML, {n_shot}-shot, {start} start",
                    mean,
                    tolerance=1e-9,
                    meaning=f"points, paired over tasks, 95 % half width {half:.2f}",
                )


start_or_geometry.mutant(
    "the own start in place of MAML's", measured=lambda m, n, _: paired(m, n, "own")
)
start_or_geometry.mutant(
    "MAML's start in place of the own", measured=lambda m, n, _: paired(m, n, "common")
)
