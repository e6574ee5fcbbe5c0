"""The attempt to win, judged: a geometry of our own against every other row of a tier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.pilot_page import subjects as pilot_subjects
from experiments.result_tables import Table, table_order
from experiments.start_or_geometry import contrasts, shown
from experiments.statistics import ENOUGH_SEEDS, Difference, compare

OWN = "metacurvature-symmetric"
CHOSEN_ON = "glyphs"
"""The tier whose validation tasks chose the geometry: its test tasks judge it, other data judge it
better.
"""
FEW = " as far as too few seeds tell"
WORDS = ("better", f"better{FEW}", "undecided", "worse", f"worse{FEW}")


def against_all(tables: Sequence[Table]) -> dict[int, dict[str, Difference]]:
    """Shots -> row -> :data:`OWN` minus it on the same tasks and seeds: all tables of a tier as one
    family, as every question's comparisons are.
    """
    gaps = {
        (table.shot, row): table.gaps(OWN, row, table.protocols[1])
        for table in tables
        for row in table.rows
        if row != OWN and table.seeds([OWN, row])
    }
    by_text = compare({str(key): gap for key, gap in gaps.items()})
    found: dict[int, dict[str, Difference]] = {}
    for (shot, row), difference in zip(gaps, by_text.values(), strict=True):
        found.setdefault(shot, {})[row] = difference
    return found


def standing(one: Difference) -> str:
    """One of :data:`WORDS`."""
    if not one.significant:
        return WORDS[2]
    word = "worse" if one.estimate.mean < 0 else "better"
    return word + (FEW if one.suggestive else "")


def won(found: dict[str, Difference], left: Sequence[str]) -> bool:
    """Better than every other row, each from at least three seeds, and none is ``left``."""
    return bool(found) and not left and all(standing(one) == WORDS[0] for one in found.values())


def unmet(table: Table, found: dict[str, Difference]) -> list[str]:
    """The rows of the tier that it could not be held against."""
    every = dict.fromkeys(c.row for c in table_order(table.tier.name) if c.shot == table.shot)
    return [row for row in every if row != OWN and row not in found]


def lines(tables: Sequence[Table]) -> list[str]:
    """(n) for one tier: against whom it is better, undecided and worse."""
    found = against_all(tables)
    return [verdict(table, found[table.shot]) for table in tables if table.shot in found]


def tallies(tables: Iterable[Table]) -> list[str]:
    """One phrase for every tier and number of shots where it was trained as a part of the tier."""
    phrases, by_tier = [], {}
    for table in tables:
        if OWN in table.own_rows:
            by_tier.setdefault(table.tier.name, []).append(table)
    for table in (table for own in by_tier.values() for table in own):
        found = against_all(by_tier[table.tier.name]).get(table.shot, {})
        if found:
            words = [standing(one) for one in found.values()]
            more, less = (
                f", {words.count(word)} more by fewer seeds" if word in words else ""
                for word in (WORDS[1], WORDS[4])
            )
            phrases.append(
                f"tier `{table.tier.name}`, {table.shot}-shot, "
                f"{'won' if won(found, unmet(table, found)) else 'not won'}"
                f" (better than {words.count(WORDS[0])} of {len(words)} rows from three seeds"
                f"{more}; worse than {words.count(WORDS[3])}{less})"
            )
    return phrases


def verdict(table: Table, found: dict[str, Difference]) -> str:
    """``1-shot: not won; better than 10 of 13 rows, ...``."""
    parts = []
    for word in WORDS:
        rows = {row: one for row, one in found.items() if standing(one) == word}
        if not rows:
            continue
        named = ", ".join(f"`{row}` {shown(one)}" for row, one in rows.items())
        parts.append(f"{word} ({len(rows)} of {len(found)}): {named}")
    seeds = min(one.seeds for one in found.values())
    few = "" if seeds >= ENOUGH_SEEDS else f" (seeds in common with some rows: only {seeds})"
    judge = ", chosen on this tier's validation tasks" if table.tier.name == CHOSEN_ON else ""
    left = [f"`{row}`" for row in unmet(table, found)]
    word = "**won**" if won(found, left) else "not won"
    parts += [f"no seed in common yet: {', '.join(left)}"] if left else []
    return f"- {table.shot}-shot{judge}{few}: {word}; {'; '.join(parts)}"


def of_pilot() -> list[str]:
    """The pilot as judge: it has no rival but MAML and the poster's method, and one seed."""
    found, every = [], pilot_subjects()
    for one in every:
        if one.row == OWN:
            both = contrasts(every)[one.name, "both", "as trained"]
            found.append(
                f"- {one.shot}-shot, minus MAML: {shown(both)} ({one.tasks} tasks, 1 seed)"
            )
    return found
