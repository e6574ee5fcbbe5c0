"""What the last claims stand on: the poster's table, and the measures of trained maps on maps whose
answers are known.
"""

from __future__ import annotations

import math
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from mdtheory.figures import plots
from mdtheory.geometry.base import Geometry, geometries
from proofs_check.studies import trained_maps
from proofs_check.tools import poster
from proofs_check.tools.iaf import Linear
from proofs_check.tools.models import problem_of

ROOT = Path(__file__).parents[2]


def test_the_table_agrees_with_the_laboratorys():
    rows = tomllib.loads((ROOT / "experiments/configs/rows.toml").read_text(encoding="utf-8"))[
        "fair"
    ]
    slugs = {one.method.lower().replace("-", ""): one for one in poster.TABLE} | {
        "metamida-published": poster.row("MetaMiDA")
    }
    compared = 0
    for slug, settings in rows.items():
        for n_shot, numbers in settings.get("poster", {}).items():
            found = slugs[slug].at(int(n_shot))
            widths = [found.half_width] if found.half_width is not None else []
            assert [100 * value for value in (found.mean, *widths)] == [
                Fraction(str(number)) for number in numbers
            ]
            compared += 1
    assert compared == sum(one.at(n) is not None for one in poster.TABLE for n in (1, 5))


def test_a_row_without_an_interval_has_no_standard_error():
    with pytest.raises(ValueError, match="interval"):
        _ = poster.row("MetaKFO").five_shot.error


def linear(matrix):
    """A learner's problem whose point map is the matrix, its meta-parameters and state."""
    like = torch.arange(1.0, len(matrix) + 1, dtype=torch.float64)
    geometry = Geometry(map=Linear(matrix))
    geometry.build({"phi": like})
    problem, meta, posed = problem_of(
        lambda v: v @ v / 2, like, task_lr=0.1, n_steps=2, geometry=geometry
    )
    return problem, meta, problem.start(meta, {}), posed


def rotation(angle, copies=1):
    c, s = math.cos(angle), math.sin(angle)
    return torch.block_diag(*[torch.tensor([[c, -s], [s, c]], dtype=torch.float64)] * copies)


@pytest.mark.parametrize("copies", [1, 40])
def test_a_rotation_has_the_tangent_as_asymmetry_and_the_cosine_as_eigenvalue(copies):
    problem, meta, state, _ = linear(rotation(1.0, copies))
    operators = trained_maps.first_order(problem, meta, state, 0)
    assert trained_maps.asymmetry(*operators, 2 * copies) == pytest.approx(math.tan(1.0), rel=1e-12)
    assert trained_maps.extremes(*operators, 2 * copies) == pytest.approx(
        (math.cos(1.0), math.cos(1.0)), rel=1e-6
    )


def test_a_quarter_turn_is_infinitely_asymmetric():
    problem, meta, state, _ = linear(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    operators = trained_maps.first_order(problem, meta, state, 0)
    assert trained_maps.asymmetry(*operators, 2) == math.inf
    assert trained_maps.extremes(*operators, 2) == (0.0, 0.0)


def test_a_random_matrix_against_dense_linear_algebra():
    draw = torch.Generator().manual_seed(3)
    matrix = torch.randn(60, 60, generator=draw, dtype=torch.float64) + 3 * torch.eye(
        60, dtype=torch.float64
    )
    problem, meta, state, _ = linear(matrix)
    forward, back = trained_maps.first_order(problem, meta, state, 0)
    v = torch.randn(60, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(forward(v), matrix @ v)
    torch.testing.assert_close(back(v), matrix.T @ v)
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert trained_maps.extremes(forward, back, 60) == pytest.approx(
        (float(values[0]), float(values[-1])), rel=1e-3
    )
    exact = float((matrix - matrix.T).norm() / (matrix + matrix.T).norm())
    assert trained_maps.asymmetry(forward, back, 60, probes=400) == pytest.approx(exact, rel=0.03)


def test_a_diagonal_preconditioner_is_symmetric_and_its_rates_are_the_eigenvalues():
    geometry = geometries.get("metasgd")()
    geometry.build({"phi": torch.ones(40, dtype=torch.float64)})
    rates = torch.linspace(-1, 1, 40, dtype=torch.float64)
    with torch.no_grad():
        next(geometry.parameters()).copy_(rates)
    problem, meta, _ = problem_of(
        lambda v: v @ v / 2,
        torch.ones(40, dtype=torch.float64),
        task_lr=0.3,
        n_steps=1,
        geometry=geometry,
    )
    operators = trained_maps.first_order(problem, meta, problem.start(meta, {}), 0)
    assert trained_maps.asymmetry(*operators, 40) == 0.0
    assert trained_maps.extremes(*operators, 40) == pytest.approx(
        (math.exp(-1), math.exp(1)), rel=1e-3
    )


def test_the_steps_that_ascend_are_counted():
    problem, meta, _, posed = linear(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)))
    found = trained_maps.measure(problem, meta, [posed], n_steps=4)
    assert found.loss.shape == (1, 5)
    assert found.ascents == 1.0  # the second coordinate is the larger one and grows
    assert found.steps == 4
    assert float(found.least[0, 0]) == -1.0
    assert "indefinite" in trained_maps.sentence("a saddle", found)
    assert "100% of 4 steps" in trained_maps.sentence("a saddle", found)


def test_the_page_says_what_was_found_and_its_figure_is_drawn(tmp_path):
    turned, meta, _, posed = linear(rotation(0.3))
    plain, own, _, _ = linear(rotation(0.0))
    found = {
        "turned": trained_maps.measure(turned, meta, [posed], n_steps=2),
        "plain": trained_maps.measure(plain, own, [posed], n_steps=2),
    }
    text = trained_maps.page(found, "Two linear maps.")
    assert "no exact mirror map for turned" in text
    assert "| plain | 0, to rounding | 1 | 1 |" in text
    assert "gradient map at the states visited" in trained_maps.verdict({"plain": found["plain"]})
    written = plots.save_figure(trained_maps.figure(found), tmp_path / "trained")
    assert all(path.stat().st_size > 1000 for path in written)
