"""The tables of the guide to a pretrained encoder, from ``record/encoder.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.generated import ROOT, with_block
from mdtheory.core.estimate import estimate, holm, p_value

RECORD = Path(__file__).parent / "record" / "encoder.json"
PAGE = ROOT / "docs" / "how-to" / "encoder.md"
REFERENCE = "nearest centroid"
SIMPLE = (
    REFERENCE,
    "linear probe",
    "prototypical network on features",
    "no encoder: prototypical Conv4",
    "fine-tuning, all weights",
)
"""What needs no loss geometry."""


def made() -> str:
    """The guide with its tables."""
    record = json.loads(RECORD.read_text())
    text = PAGE.read_text(encoding="utf-8")
    return with_block(text, "encoder", f"\n{tables(record)}\n{conclusion(record)}\n")


def accuracies(record: Mapping[str, Any], name: str, shot: str) -> np.ndarray:
    """The share of right answers on every test task. shape: (n_tasks,)"""
    asked = record["data"]["way"] * record["data"]["queries"]
    return np.asarray(record["rows"][name][shot]["correct"]) / asked


def differences(record: Mapping[str, Any], shot: str) -> dict[str, tuple[float, float, float]]:
    """Row -> mean difference to the reference on the tasks that both met, half-width of its 95%
    interval, and p after Holm's correction.
    """
    names = [name for name in record["rows"] if name != REFERENCE]
    gaps = []
    for name in names:
        own = accuracies(record, name, shot)
        gaps.append(own - accuracies(record, REFERENCE, shot)[: len(own)])
    corrected = holm([p_value(gap) for gap in gaps])
    found = [estimate(gap) for gap in gaps]
    return {
        name: (one.mean, one.half_width, p)
        for name, one, p in zip(names, found, corrected, strict=True)
    }


def tables(record: Mapping[str, Any]) -> str:
    """A table for each number of shots."""
    lines = []
    for shot in ("1", "5"):
        lines += [
            f"| {record['data']['way']}-way {shot}-shot | accuracy (%) | minus {REFERENCE} | tasks "
            "| training (s) | a task (s) |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        gaps = differences(record, shot)
        for name, row in record["rows"].items():
            values, one = accuracies(record, name, shot), row[shot]
            mean = estimate(values)
            gap = ""
            if name in gaps:
                by, half, p = gaps[name]
                gap = f"{100 * by:+.1f} ± {100 * half:.1f}{'' if p < 0.05 else ' (undecided)'}"
            lines.append(
                f"| {name} | {100 * mean.mean:.1f} ± {100 * mean.half_width:.1f} | {gap} "
                f"| {len(values)} | {one['train_seconds']:.0f} | {one['task_seconds']:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def conclusion(record: Mapping[str, Any]) -> str:
    """The best learned row minus each simple one, on the tasks that both met."""
    lines = []
    for shot in ("1", "5"):
        learned = [name for name in record["rows"] if name not in SIMPLE]
        best = max(learned, key=lambda name: accuracies(record, name, shot).mean())
        own, found = accuracies(record, best, shot), []
        for name in SIMPLE:
            other = accuracies(record, name, shot)
            n = min(len(own), len(other))
            gap = estimate(own[:n] - other[:n])
            tie = ", a tie" if abs(gap.mean) <= gap.half_width else ""
            few = f", {n} tasks" if n < len(own) else ""
            found.append(f"{name} ({100 * gap.mean:+.1f} ± {100 * gap.half_width:.1f}{tie}{few})")
        lines.append(f"- {shot}-shot: *{best}* minus {'; '.join(found)}.")
    return "\n".join(lines)
