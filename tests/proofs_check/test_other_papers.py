"""A claim from a file of one's own, the published schema, and the poster line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proofs_check.engine import plug_in
from proofs_check.ids import IDS
from proofs_check.poster_lines import LINES
from proofs_check.report import LEDGER

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/how-to/w1_means.py"


def referee(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "proofs_check", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_guide_s_claim_is_judged_as_the_guide_says():
    done = referee("--plugin", str(EXAMPLE), "--jobs", "1")
    assert done.returncode == 0, done.stderr
    for said in (
        "As printed:",
        "Verdict: FALSE",
        "bound: PROVED (for all)",
        "Counterexamples:",
        "zero_and_one: x = (0, 1)",
        "w1_means.py",
    ):
        assert said in done.stdout
    kept = (EXAMPLE.with_suffix(".txt")).read_text(encoding="utf-8").split()
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["W1"])
    assert [word for word in line.split() if not word.replace(".", "").isdigit()] == [
        word for word in kept if not word.replace(".", "").isdigit()
    ]


def test_a_claim_whose_mutant_survives_is_refused(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    kind = 'mutant("equal values", values=(1, 1))'
    assert text.count(kind) == 1
    (tmp_path / "w2_toothless.py").write_text(
        text.replace('"W1"', '"W2"').replace(kind, 'mutant("equal values", values=(0, 2))')
    )
    done = referee("--plugin", str(tmp_path / "w2_toothless.py"), "--jobs", "1")
    assert done.returncode == 1
    assert "equal values" in done.stdout + done.stderr


def test_a_plugin_must_bring_a_new_id(tmp_path):
    (tmp_path / "c05_mine.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="must be new"):
        plug_in([tmp_path / "c05_mine.py"])


def test_the_ledger_follows_its_published_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(LEDGER.with_name("ledger.schema.json").read_text(encoding="utf-8"))
    ledger = json.loads(LEDGER.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(ledger)
    ledger[0]["parts"] = {"bayes": "PROVED"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(ledger)


def test_every_line_of_the_poster_has_a_claim_or_a_reason():
    assert len(LINES) > 60
    assert all(line.claims or line.note for line in LINES)
    named = {name for line in LINES for name in line.claims}
    assert named <= set(IDS)
    assert {name for name in IDS if name.startswith("C")} <= named
    for printed in (
        "116 breast cancer",
        "ResNet-50",
        "alternating solver",
        "[z_i]_{B_j}",
        "due to",
    ):
        assert any(printed in line.printed for line in LINES), printed
