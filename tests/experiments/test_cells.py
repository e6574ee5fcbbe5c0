"""The frozen configurations are what the tiers and the rows make, and hold what the poster's table needs."""

from __future__ import annotations

import pytest

from experiments import cells
from experiments.cells import TIERS, Cell, merged, resolved, rows, tier
from experiments.generated import settle
from mdtheory.geometry import geometries

FAIR = ["maml", "metasgd", "mtnet", "warpgrad", "metacurvature", "metakfo", "ecml", "metamida-published", "metamida"]
FAIR += ["potential", "certified"]


def test_every_frozen_file_is_up_to_date():
    owned = [path for name in TIERS for path in (cells.CONFIGS / name).glob("*.toml")]
    assert settle(cells.frozen(), write=False, owned=owned) == []


def test_a_changed_digit_and_a_file_of_no_cell_are_found(tmp_path):
    made = {tmp_path / "a.toml": b"seed = 0\n", tmp_path / "b.toml": b"seed = 1\n"}
    settle(made, write=True)
    assert settle(made, write=False, owned=tmp_path.glob("*.toml")) == []
    (tmp_path / "a.toml").write_bytes(b"seed = 2\n")
    (tmp_path / "c.toml").write_bytes(b"seed = 3\n")
    assert settle(made, write=False, owned=tmp_path.glob("*.toml")) == [tmp_path / "a.toml", tmp_path / "c.toml"]


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_the_fair_table_has_every_row_with_both_shots(name):
    fair = {(cell.row, cell.shot) for cell in cells.cells(name) if rows()[cell.row].group == "fair"}
    assert fair == {(row, shot) for row in FAIR for shot in (1, 5)}


def test_the_cpu_tier_is_exactly_the_fair_table():
    assert len(cells.cells("cpu")) == 22


@pytest.mark.parametrize("name", TIERS)
def test_fair_rows_differ_in_their_geometry_alone(name):
    configs = [resolved(cell) for cell in cells.cells(name) if rows()[cell.row].group != "literal"]
    for config in configs:
        alike = config.model_copy(update={"geometry": configs[0].geometry})
        assert alike.model_copy(update={"task": configs[0].task}) == configs[0]
        assert config.task.model_copy(update={"n_shot": 1, "eval_n_query": (1, 15)}) == configs[0].task


@pytest.mark.parametrize("name", TIERS)
def test_every_cell_names_a_known_geometry_and_is_tested_in_both_protocols(name):
    for cell in cells.cells(name):
        config = resolved(cell)
        assert config.geometry.name in geometries.names()
        assert set(config.task.eval_n_query) == {cell.shot, 15}


def test_literal_rows_say_where_they_differ():
    fair, literal = resolved(Cell("paper", "maml", 5)), resolved(Cell("paper", "maml-literal", 5))
    assert (literal.task.inner_loss_scale, literal.task.eval_steps, literal.model.options["channels"]) == (5.0, 10, 32)
    assert literal.meta.clip_value == pytest.approx(10 * 5 / 75, rel=1e-4) and fair.meta.clip_value is None
    assert resolved(Cell("paper", "metamida-literal", 1)).meta.optimizer.name == "SGD"


def test_a_table_with_a_name_replaces_the_other_whole():
    base = {"meta": {"n_tasks": 4, "optimizer": {"name": "Adam", "weight_decay": 0.1}}}
    changed = merged(base, {"meta": {"optimizer": {"name": "SGD"}}})
    assert changed == {"meta": {"n_tasks": 4, "optimizer": {"name": "SGD"}}}


def test_an_unknown_tier_is_one_sentence():
    with pytest.raises(ValueError, match=r"tier must be one of smoke, .*, got 'gpu'; choose one"):
        tier("gpu")


def test_a_seed_changes_the_seed_alone():
    cell = Cell("glyphs", "maml", 1)
    assert cell.config(2) == cell.config(0).model_copy(update={"seed": 2})
