"""What was reproduced, at which size, with how many seeds, and what was not: one table and one
list.
"""

from __future__ import annotations

from collections import Counter

from experiments import contest
from experiments.cells import TIERS, Cell, cells, rows, tier
from experiments.result_tables import Table

Results = dict[tuple[str, int], Table]
FULL = {"paper": "the poster's", "omniglot-b": "the article's"}
"""Tiers at the size of what they repeat."""
HEAD = ("tier", "data", "network", "iterations", "cells done", "runs", "rows by seeds")


def glance(results: Results) -> str:
    """The table of all tiers and the list below it."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---|" + "---:|" * 3 + "---|"]
    lines += ["| " + " | ".join(tier_line(name, results)) + " |" for name in TIERS]
    return "\n".join([*lines, "", *verdict(results), ""])


def tier_line(name: str, results: Results) -> list[str]:
    """Size and state of one tier."""
    every = cells(name)
    config = every[0].config(0)
    size = f"{config.data.kind.title}, {config.data.image_size} x {config.data.image_size}"
    network = f"Conv4, {config.model.options['channels']} channels"
    trained = sorted({cell.config(0).meta.iterations for cell in every})
    seeds = {cell: seeds_of(cell, results) for cell in every}
    done = sum(bool(count) for count in seeds.values())
    counted = Counter(count for count in seeds.values() if count)
    by_seeds = ", ".join(
        f"{number} with {count} seed{'s' if count > 1 else ''}"
        for count, number in sorted(counted.items(), reverse=True)
    )
    linked = f"[{name}]({name}.md)" if done else f"`{name}`"
    iterations = ", ".join(f"{number:,}" for number in trained)
    share = f"{done} of {len(every)}"
    runs = str(sum(seeds.values()))
    return [linked, size, network, iterations, share, runs, by_seeds or "–"]


def seeds_of(cell: Cell, results: Results) -> int:
    """How many seeds of a cell have a record."""
    table = results.get((cell.tier, cell.shot))
    return len(table.by_row.get(cell.row, {})) if table else 0


def runs(cell: Cell, results: Results) -> list[bool]:
    """For every seed that the tier asks for, whether it has a record."""
    table = results.get((cell.tier, cell.shot))
    known = table.by_row.get(cell.row, {}) if table else {}
    return [seed in known for seed in tier(cell.tier).seeds_of(cell)]


def verdict(results: Results) -> list[str]:
    """What follows, in words."""
    state = {
        name: [present for cell in cells(name) for present in runs(cell, results)] for name in TIERS
    }
    whole = [f"`{name}`" for name, done in state.items() if all(done)]
    part = [f"`{name}`" for name, done in state.items() if any(done) and not all(done)]
    none = [f"`{name}`" for name, done in state.items() if not any(done)]
    found = (
        [f"- **Done**: every cell of {listed(whole)}, with the seeds that the tier asks for."]
        if whole
        else []
    )
    found += [f"- **Begun**: {listed(part)}."] if part else []
    found += [f"- **Missing**: every cell of {listed(none)}."] if none else []
    found += [published_line(name, whose, results) for name, whose in FULL.items()]
    if fights := contest.tallies(results.values()):
        found.append(f"- **A geometry of our own** (`{contest.OWN}`): {'; '.join(fights)}.")
    found.append(
        "- What is missing, cell by cell: `python -m experiments.reproduce --status`; each is "
        "filled by `python -m experiments.reproduce --tier TIER --row ROW --shot SHOT`."
    )
    return found


def published_line(name: str, whose: str, results: Results) -> str:
    """How many published accuracies a tier at full size has been held against."""
    compared = [
        cell
        for cell in cells(name)
        if {**rows()[cell.row].poster, **rows()[cell.row].published}.get(str(cell.shot))
    ]
    done = sum(bool(seeds_of(cell, results)) for cell in compared)
    return (
        f"- **At {whose} size** (tier `{name}`): {done} of {len(compared)} cells with a published "
        "accuracy are finished"
        + ("." if done else "; none has been reproduced, or found irreproducible, here.")
    )


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
