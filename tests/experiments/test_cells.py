"""The frozen configurations are what the tiers and the rows make, and hold what the poster's table
needs.
"""

from __future__ import annotations

import shutil

import pytest

from experiments import cells
from experiments.cells import TIERS, Cell, merged, resolved, rows, tier
from experiments.controls import CONTROLS
from experiments.generated import settle
from experiments.status import wanted
from mdtheory.geometry import geometries

FAIR = [
    "maml",
    "metasgd",
    "mtnet",
    "warpgrad",
    "metacurvature",
    "metakfo",
    "ecml",
    "metamida-published",
    "metamida",
]
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
    assert settle(made, write=False, owned=tmp_path.glob("*.toml")) == [
        tmp_path / "a.toml",
        tmp_path / "c.toml",
    ]


@pytest.fixture
def own_row(tmp_path, monkeypatch):
    """``rows.toml`` with one table more."""

    def add(text):
        folder = shutil.copytree(cells.CONFIGS, tmp_path / "configs")
        with (folder / "rows.toml").open("a") as file:
            file.write(text)
        monkeypatch.setattr(cells, "CONFIGS", folder)
        forget()
        return folder

    yield add
    monkeypatch.undo()
    forget()


def forget():
    for cached in (cells.rows, cells.tier, cells.cells):
        cached.cache_clear()


def test_one_table_more_is_a_row_of_every_tier_of_its_group(own_row):
    folder = own_row(
        '\n[fair.mine]\ngeometry = { name = "mirror", options = { map = "entropy" } }\n'
    )
    made = {path: text for path, text in cells.frozen().items() if path.stem.startswith("mine-")}
    tiers = {name for name in TIERS if "fair" in tier(name).groups}
    assert {path.relative_to(folder).parts[0] for path in made} == tiers != set()
    assert all(b'map = "entropy"' in text for text in made.values())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('geometry = { name = "mirorr" }', "mirror"),
        ('geometry = { name = "mirror", options = { mep = "entropy" } }', "mep"),
        ("task = { n_stepz = 3 }", "n_stepz"),
    ],
)
def test_a_wrong_row_is_one_sentence_with_its_name(own_row, table, said):
    own_row(f"\n[fair.mine]\n{table}\n")
    with pytest.raises(ValueError, match=rf"(?s)mine-1shot.*{said}|{said}.*mine-1shot"):
        cells.frozen()


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_the_fair_table_has_every_row_with_both_shots(name):
    fair = {(cell.row, cell.shot) for cell in cells.cells(name) if rows()[cell.row].group == "fair"}
    assert fair == {(row, shot) for row in FAIR for shot in (1, 5)}


def test_the_cpu_tier_is_exactly_the_fair_table():
    assert len(cells.cells("cpu")) == 22


@pytest.mark.parametrize("name", TIERS)
def test_fair_rows_differ_in_their_geometry_alone(name):
    for shot in tier(name).shots:
        own = [
            cell
            for cell in cells.cells(name)
            if cell.shot == shot
            and rows()[cell.row].group not in ("literal", "omniglot", "control")
        ]
        if not own:
            continue
        configs = [resolved(cell) for cell in own]
        assert all(
            config.model_copy(update={"geometry": configs[0].geometry}) == configs[0]
            for config in configs
        )


@pytest.mark.parametrize("name", TIERS)
def test_shots_differ_in_what_the_tier_declares_alone(name):
    for shot in tier(name).shots:
        first, other = (resolved(Cell(name, "maml", one)) for one in (tier(name).shots[0], shot))
        same = {"n_shot": first.task.n_shot, "eval_n_query": first.task.eval_n_query}
        if "task" in tier(name).by_shot.get(str(shot), {}):
            same["n_query"] = first.task.n_query
        task = other.task.model_copy(update=same)
        n_tasks = (
            tier(name).by_shot.get(str(shot), {}).get("meta", {}).get("n_tasks", first.meta.n_tasks)
        )
        assert other.meta == first.meta.model_copy(update={"n_tasks": n_tasks})
        assert other.model_copy(update={"task": task, "meta": first.meta}) == first


def test_the_cpu_tier_takes_four_tasks_of_one_shot_and_two_of_five():
    assert [resolved(Cell("cpu", "maml", shot)).meta.n_tasks for shot in (1, 5)] == [4, 2]


@pytest.mark.parametrize("name", TIERS)
def test_every_cell_names_a_known_geometry_and_is_tested_in_both_protocols(name):
    for cell in cells.cells(name):
        config = resolved(cell)
        assert config.geometry.name in [*geometries.names(), *CONTROLS]
        assert set(config.task.eval_n_query) == {cell.shot, 15}


def test_literal_rows_say_where_they_differ():
    fair, literal = resolved(Cell("paper", "maml", 5)), resolved(Cell("paper", "maml-literal", 5))
    assert (
        literal.task.inner_loss_scale,
        literal.task.eval_steps,
        literal.model.options["channels"],
    ) == (5.0, 10, 32)
    assert (
        literal.meta.clip_value == pytest.approx(10 * 5 / 75, rel=1e-4)
        and fair.meta.clip_value is None
    )
    assert resolved(Cell("paper", "metamida-literal", 1)).meta.optimizer.name == "SGD"


def test_a_table_with_a_name_replaces_the_other_whole():
    base = {"meta": {"n_tasks": 4, "optimizer": {"name": "Adam", "weight_decay": 0.1}}}
    changed = merged(base, {"meta": {"optimizer": {"name": "SGD"}}})
    assert changed == {"meta": {"n_tasks": 4, "optimizer": {"name": "SGD"}}}


def test_the_leading_rows_have_three_seeds_and_so_has_what_they_are_compared_with():
    seeds = {(run.cell.row, run.seed) for run in wanted(["cpu"], shot=1)}
    assert {row for row, seed in seeds if seed == 2} == set(tier("cpu").more["1"]) >= {"maml"}
    assert len(tier("cpu").more["1"]) == 4 and {seed for row, seed in seeds if row == "ecml"} == {0}


def test_an_unknown_tier_is_one_sentence():
    with pytest.raises(ValueError, match=r"tier must be one of smoke, .*, got 'gpu'; choose one"):
        tier("gpu")


def test_a_seed_changes_the_seed_alone():
    cell = Cell("glyphs", "maml", 1)
    assert cell.config(2) == cell.config(0).model_copy(update={"seed": 2})
