"""What the last claims stand on: the poster's table, and the measures of trained maps on maps whose answers are known."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from proofs_check import poster

ROOT = Path(__file__).parents[2]


def test_the_table_agrees_with_the_laboratorys():
    rows = tomllib.loads((ROOT / "experiments/configs/rows.toml").read_text(encoding="utf-8"))["fair"]
    slugs = {one.method.lower().replace("-", ""): one for one in poster.TABLE} | {"metamida-published": poster.row("MetaMiDA")}
    compared = 0
    for slug, settings in rows.items():
        for n_shot, numbers in settings.get("poster", {}).items():
            found = slugs[slug].at(int(n_shot))
            widths = [found.half_width] if found.half_width is not None else []
            assert [100 * value for value in (found.mean, *widths)] == [Fraction(str(number)) for number in numbers]
            compared += 1
    assert compared == sum(one.at(n) is not None for one in poster.TABLE for n in (1, 5))


def test_a_row_without_an_interval_has_no_standard_error():
    with pytest.raises(ValueError, match="interval"):
        _ = poster.row("MetaKFO").five_shot.error
