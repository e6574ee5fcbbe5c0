"""The report: exit codes, the file that CI compares, and what counts as a difference."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from proofs_check import report
from proofs_check.claim import Claim, Statement, Verdict
from proofs_check.engine import run_check
from proofs_check.ids import IDS
from proofs_check.verdict import ClaimResult, judge


def rows_of(expected=("HOLDS", "PROVED"), value=0.5):
    claim = Claim(
        id="C11", title="t", source="s", printed=Statement(then="x"), expected=Verdict(*expected)
    )

    @claim.check("symbolic", about="printed")
    def check(run, *, right=True):
        """What it shows."""
        run.that(right, "right")
        run.quantity("half", value, tolerance=1e-3, meaning="a half")

    check.mutant("wrong", right=False)
    results = {name: ClaimResult(name) for name in IDS}
    results["C11"] = ClaimResult("C11", (run_check(check),))
    return judge({name: claim if name == "C11" else None for name in IDS}, results)


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """The command line on invented rows, with its files in ``tmp_path``."""
    monkeypatch.setattr(report, "LEDGER", tmp_path / "ledger.json")
    monkeypatch.setattr(report, "TIMES", tmp_path / "out" / "times.json")
    app = typer.Typer()
    app.command()(report.main)

    def call(*arguments, **how):
        monkeypatch.setattr(report, "_run", lambda names, jobs: rows_of(**how))
        return CliRunner().invoke(app, list(arguments))

    return call


def test_one_good_claim_exits_zero_and_writes_nothing(cli, tmp_path):
    result = cli("C11", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and list(tmp_path.iterdir()) == []
    assert set(found[0]) >= {
        "id",
        "as_printed",
        "amended",
        "status",
        "checks",
        "mutants",
        "mutants_killed",
        "quantities",
        "seconds",
    }
    assert (
        found[0]["mutants"]
        == found[0]["mutants_killed"]
        == found[0]["checks"][0]["mutants_killed"]
        == 1
    )
    assert found[0]["quantities"]["half"]["value"] == 0.5


def test_a_surprise_exits_one(cli):
    result = cli("C11", expected=("FALSE", "PROVED"))
    assert result.exit_code == 1 and "C11: expected" in result.stderr


def test_a_run_of_all_writes_both_files_and_is_red_while_anything_is_not_run(cli, tmp_path):
    result = cli()
    assert (
        result.exit_code == 1
        and "C01: NOT_RUN" in result.stderr
        and "INCONSISTENT" not in result.stdout
    )
    text = (tmp_path / "ledger.json").read_text(encoding="utf-8")
    assert len(json.loads(text)) == len(IDS) and "seconds" not in text and "versions" not in text
    assert set(json.loads((tmp_path / "out" / "times.json").read_text(encoding="utf-8"))) == {
        "seconds",
        "versions",
    }
    cli()
    assert (tmp_path / "ledger.json").read_text(encoding="utf-8") == text


def test_check_compares_and_does_not_write(cli, tmp_path):
    assert "does not exist" in cli("--check").stderr and not (tmp_path / "ledger.json").exists()
    cli()
    assert "ledger.json" not in cli("--check").stderr
    assert "ledger.json" not in cli("--check", value=0.5002).stderr
    assert "quantity 'half' differs" in cli("--check", value=0.6).stderr
    assert "C11: status differs" in cli("--check", expected=("OPEN", "OPEN")).stderr


def test_an_unknown_id_is_refused(cli):
    result = cli("C77")
    assert result.exit_code == 2 and "C77" in result.stderr


def test_differences_see_a_missing_claim_and_a_missing_quantity():
    full = report.ledger({"C11": rows_of()["C11"]})
    assert report.differences("[]", full) == ["C11: only in one of the two"]
    less = json.loads(full)
    less[0]["quantities"] = {}
    assert report.differences(json.dumps(less), full) == ["C11: quantity 'half' only in one"]
    assert report.differences(full, full) == []
