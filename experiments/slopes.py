"""Is MetaProxNet's learned function a proximal operator? Its slopes in the kept weights.

By claim M1 of the referee a piecewise-linear function of one coordinate is the proximal operator of
some penalty iff no slope is below 0, and of a convex one iff none is above 1 either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from experiments import shards
from experiments.records import WEIGHTS, Record
from experiments.result_tables import Table

ROW = "metaproxnet"
PREFIX = "geometry.rule.points."
LEAST = 1e-4  # float32 rounds a slope of 1


@dataclass(frozen=True)
class Slopes:
    """Over all coordinates and the steps of training: extreme slopes; shares of slopes that have
    moved from 1, that are below 0, that are above 1; share of functions that are a prox, and of a
    convex penalty.
    """

    smallest: float
    largest: float
    moved: float
    below: float
    above: float
    prox: float
    convex: float


def measured(slopes: np.ndarray) -> Slopes:
    """Of functions, one a line. shape: (n, pieces)"""
    below, above = slopes < -LEAST, slopes > 1 + LEAST
    prox = ~below.any(axis=1)
    return Slopes(
        smallest=float(slopes.min()),
        largest=float(slopes.max()),
        moved=float((np.abs(slopes - 1) > LEAST).mean()),
        below=float(below.mean()),
        above=float(above.mean()),
        prox=float(prox.mean()),
        convex=float((prox & ~above.any(axis=1)).mean()),
    )


def slopes_of(record: Record) -> np.ndarray:
    """Every function of every step that training takes, from the kept weights. shape: (n, 5)"""
    from safetensors.numpy import load

    from mdtheory.geometry.metaproxnet import PIECES, SPACING

    kept, steps = load(shards.read(record.folder / WEIGHTS)), record.config.task.n_steps
    points = [
        value.reshape(-1, PIECES + 1)
        for name, value in kept.items()
        if name.startswith(PREFIX) and int(name.removeprefix(PREFIX).split(".")[0]) < steps
    ]
    return np.diff(np.concatenate(points).astype(np.float64), axis=1) / SPACING


def percent(share: float) -> str:
    """``12.34``; what is neither none nor all is not rounded to it."""
    text = f"{100 * share:.2f}"
    if text == "0.00" and share > 0:
        return "< 0.01"
    return "> 99.99" if text == "100.00" and share < 1 else text


def lines(tables: Iterable[Table]) -> list[str]:
    """The answer to (m) for one tier."""
    found = []
    for table in tables:
        for seed, record in table.by_row.get(ROW, {}).items():
            if ROW not in table.own_rows or not shards.pieces(record.folder / WEIGHTS):
                continue
            one = measured(slopes_of(record))
            shares = (one.moved, one.below, one.above, one.prox, one.convex)
            cells = [f"{one.smallest:.3f}", f"{one.largest:.3f}"]
            cells += [percent(share) for share in shares]
            found.append(f"| {table.shot}-shot, seed {seed} | {' | '.join(cells)} |")
    if not found:
        return []
    heads = ("smallest slope", "largest", "moved from 1 (%)", "below 0 (%)", "above 1 (%)")
    heads += ("functions that are a prox (%)", "of a convex penalty (%)")
    return [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads), *found]
