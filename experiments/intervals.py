"""Three intervals around one difference, and what each licenses one to claim."""

from __future__ import annotations

from experiments.result_tables import Table
from experiments.reuse import tasks_without_reuse, without_reuse
from experiments.statistics import compare, over_seeds
from mdtheory.core.estimate import Estimate, estimate

KINDS = ("over tasks", "without reuse", "over seeds", "seeds and tasks")
LICENCE = (
    "The same difference with intervals that license different claims. *Over tasks*: these trained "
    "networks, on more tasks from the same test images. *Without reuse*: these networks, on other "
    "images of the test classes ({n}). *Over seeds*: other trainings, on these tasks (Student's "
    "t). *Seeds and tasks*: other trainings on other tasks from the same images, from three "
    "seeds on: by the mixed model, and never narrower than over seeds. None of "
    "them speaks of other classes than those of the test.\n"
)


def around(table: Table, row: str) -> dict[str, Estimate | None]:
    """Every kind of interval for a row minus MAML, many queries a class; ``None`` where a kind
    does not apply.
    """
    many = table.protocols[1]
    gaps = table.gaps(row, "maml", many)
    (both,) = compare({row: gaps}).values()
    return {
        "over tasks": estimate(gaps.mean(axis=0)),
        "without reuse": without_reuse(gaps.mean(axis=0), table.first.config, many),
        "over seeds": over_seeds(gaps.mean(axis=1)) if len(gaps) > 1 else None,
        "seeds and tasks": None if both.suggestive else both.estimate,
    }


def interval_table(table: Table) -> str:
    """Every row minus MAML."""
    lines = ["| minus maml | difference | " + " | ".join(KINDS) + " | seeds |"]
    lines.append("|---|" + "---:|" * (len(KINDS) + 2))
    for row in table.rows:
        if row == "maml" or not (seeds := table.seeds([row, "maml"])):
            continue
        found = around(table, row)
        tasks = found["over tasks"]
        mean = 0.0 if tasks is None else tasks.mean
        widths = ["–" if one is None else f"± {100 * one.half_width:.2f}" for one in found.values()]
        lines.append(f"| `{row}` | {100 * mean:+.2f} | {' | '.join(widths)} | {len(seeds)} |")
    return "\n".join(lines) + "\n"


def licence(table: Table) -> str:
    """What the columns mean, with how many tasks the test images suffice for."""
    most = tasks_without_reuse(table.first.config, table.protocols[1])
    drawn = "images are drawn anew for every task here, so none is used twice"
    enough = (
        f"tasks are drawn with replacement; the images suffice for {most} without, so the interval "
        "is that of so many; Lafargue et al. 2024"
    )
    return LICENCE.format(n=drawn if most is None else enough)
