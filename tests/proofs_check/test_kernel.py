"""Kernel-checked theorems: the stored result is about these sources, and planted faults turn red.

Without Coq the digest is what turns red; with Coq the kernel itself must refuse, too.
"""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import pytest

from proofs_check import kernel
from proofs_check.kernel import RefusedError
from proofs_check.tools import theorem_constants

THEOREMS = [
    "block_iaf_not_monotone",
    "block_iaf_not_lipschitz",
    "inverse_lipschitz",
    "dual_step_descends",
    "mirror_descent_rate",
    "gradient_descent_rate",
    "relative_contraction",
    "majoriser_iff",
    "implicit_prior",
    "boxed_sum",
    "sigmoid_slope_bound",
    "certified_monotone",
    "coordinate_slope_box",
    "spectrum",
    "dual_iteration_diverges",
    "gd_converges_iff",
]


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources to spoil."""
    return shutil.copytree(kernel.SOURCES, tmp_path / "coq")


def spoil(copy, name, old, new):
    """Replace a text that must be there."""
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))


def keep_only(copy, *names):
    """What one theorem needs, so that Coq is soon done."""
    for path in copy.glob("*.v"):
        if path.name not in names:
            path.unlink()


def has_coq():
    return kernel.version() is not None


@pytest.mark.parametrize("name", THEOREMS)
def test_a_theorem_is_stored_with_its_statement(name):
    found = kernel.theorem(name)
    assert found.theorem == name
    assert f"Theorem {name}" in (kernel.SOURCES / found.file).read_text()
    assert found.statement
    assert set(found.axioms) <= kernel.ALLOWED


def test_an_unknown_theorem_is_refused():
    with pytest.raises(RefusedError, match=r"a theorem must be one of .*, got 'fermat'"):
        kernel.theorem("fermat")


def test_the_kernel_finds_what_is_stored(copy):
    """With Coq a file is compiled afresh, as `make proofs` does with all of them."""
    kept = kernel.stored()
    if has_coq():
        keep_only(copy, "space.v", "non_monotone.v", "monotone.v")
        found = kernel.compiled(copy).theorems
        assert len(found) == 5
        assert found == {name: kept.theorems[name] for name in found}


def test_without_coq_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "version", lambda: None)
    kernel.main(write_it=False, check_it=False)
    assert "Stored result of Coq 8.16" in capsys.readouterr().out
    with pytest.raises(RefusedError, match="must be installed"):
        kernel.compiled()


def test_another_series_of_coq_does_not_judge(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "version", lambda: "8.20.1")
    kernel.main(write_it=False, check_it=False)
    assert "8.20.1 is installed" in capsys.readouterr().out


PLANTED = {
    "Admitted": ("exists x, y. lra.\nQed.", "Admitted.", "got 'Admitted'"),
    "admit": ("exists x, y. lra.\nQed.", "admit. Qed.", "got 'admit'"),
    "Axiom": ("Section BlockIAF.", "Axiom luck : 0 = 1.\nSection BlockIAF.", "got 'Axiom'"),
    "Parameter": ("Section BlockIAF.", "Parameter luck : 0 = 1.\nSection BlockIAF.", "'Parameter'"),
}


@pytest.mark.parametrize(("old", "new", "message"), PLANTED.values(), ids=PLANTED)
def test_a_hole_is_refused_by_its_word(copy, old, new, message):
    spoil(copy, "non_monotone.v", old, new)
    with pytest.raises(RefusedError, match=message):
        kernel.theorem("block_iaf_not_monotone", copy)


HIDDEN = {
    "an axiom by another name": (
        "Section BlockIAF.",
        "Hypothesis luck : forall x : R, x < 0.\nSection BlockIAF.",
        "  exists x, y. lra.",
        "  exists x, y. apply luck.",
        r"axioms only, got .*luck",
    ),
    "a proof that proves nothing": (
        "  exists x, y. lra.",
        "  exists y, x. lra.",
        "",
        "",
        "must compile",
    ),
    "the premise dropped": (
        "s a <> s b -> exists x y : point, <<block_iaf x -: block_iaf y, x -: y>> < 0",
        "exists x y : point, <<block_iaf x -: block_iaf y, x -: y>> < 0",
        "",
        "",
        "must compile",
    ),
}


@pytest.mark.parametrize("fault", HIDDEN)
def test_a_hidden_fault_makes_the_digest_stale_and_the_kernel_refuse(copy, fault):
    first, instead, second, then, message = HIDDEN[fault]
    spoil(copy, "non_monotone.v", first, instead)
    spoil(copy, "non_monotone.v", second, then)
    with pytest.raises(RefusedError, match="digest is stale"):
        kernel.theorem("block_iaf_not_monotone", copy)
    if has_coq():
        keep_only(copy, "space.v", "non_monotone.v")
        with pytest.raises(RefusedError, match=message):
            kernel.compiled(copy)


CHANGED = {
    "shift_slope": ("4", "1", "divergence.v"),
    "gd_edge": ("4/3", "2", "divergence.v"),
    "sigmoid_slope": ("1/4", "1/8", "certified.v"),
    "certified_eta": ("9/20", "9/10", "certified.v"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_constant_is_refused(copy, monkeypatch, name):
    """In the Coq file, the claims disagree; in the claims, the file does; in both, the kernel."""
    old, new, file = CHANGED[name]
    line = "Definition {} : R := {}."
    spoil(copy, kernel.CONSTANTS, line.format(name, old), line.format(name, new))
    with pytest.raises(RefusedError, match="must hold the numbers that the claims use"):
        kernel.theorem("spectrum", copy)
    changed = (copy / kernel.CONSTANTS).read_text()
    monkeypatch.setattr(kernel, "emitted", lambda: changed)
    with pytest.raises(RefusedError, match="must hold the numbers that the claims use"):
        kernel.theorem("spectrum")
    with pytest.raises(RefusedError, match="digest is stale"):
        kernel.theorem("spectrum", copy)
    if has_coq():
        keep_only(copy, "space.v", "monotone.v", kernel.CONSTANTS, file)
        with pytest.raises(RefusedError, match=f"{file} must compile"):
            kernel.compiled(copy)


def test_a_constant_is_the_number_in_the_theorems():
    assert kernel.constant("gd_edge") == Fraction(4, 3)
    assert kernel.constant("left_1") == (-5, 1)


def test_a_change_in_the_library_or_a_claim_reaches_the_constants(monkeypatch):
    before = kernel.emitted()
    monkeypatch.setattr(theorem_constants, "DIAGONAL", 0.25)
    assert kernel.emitted.__wrapped__() != before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("digest", "0" * 64, "digest is stale"),
        ("theorems", {}, "must list the sources' theorems"),
    ],
)
def test_a_stored_result_about_something_else_is_refused(copy, field, value, message):
    kept = json.loads((copy / kernel.STORED).read_text())
    (copy / kernel.STORED).write_text(json.dumps({**kept, field: value}))
    with pytest.raises(RefusedError, match=message):
        kernel.theorem("spectrum", copy)


def test_a_stored_axiom_beyond_the_allowed_is_refused(copy):
    kept = json.loads((copy / kernel.STORED).read_text())
    kept["theorems"]["spectrum"]["axioms"].append("Proofs.divergence.luck")
    (copy / kernel.STORED).write_text(json.dumps(kept))
    with pytest.raises(RefusedError, match="with allowed axioms"):
        kernel.theorem("spectrum", copy)


def printed(rest):
    return f"three : 1 + 2 = 3\n{kernel.ASSUMPTIONS}\n{rest}"


def test_what_coq_prints_is_read():
    closed = kernel.audited(printed("Closed under the global context\n"), "a.v", "three")
    assert (closed.statement, closed.axioms) == ("1 + 2 = 3", ())
    reals = "Axioms:\nClassicalDedekindReals.sig_not_dec : forall P : Prop, {~ ~ P} + {~ P}\n"
    found = kernel.audited(printed(reals), "a.v", "three")
    assert found.axioms == ("ClassicalDedekindReals.sig_not_dec",)
    wrapped = reals + "luck\n  : forall x,\n    x < 0\n"
    with pytest.raises(RefusedError, match=r"got \['luck'\]"):
        kernel.audited(printed(wrapped), "a.v", "three")
    with pytest.raises(RefusedError, match="must be listed"):
        kernel.audited(printed("Axioms unknown"), "a.v", "three")


def test_files_come_after_what_they_require():
    order = kernel.in_order(kernel.sources())
    assert order.index("space.v") < order.index("monotone.v") < order.index("certified.v")
    assert order.index("constants.v") < order.index("divergence.v")


def test_a_result_that_coq_does_not_find_is_refused(copy, monkeypatch):
    kept = kernel.stored()
    other = {**kept.theorems, "spectrum": kept.theorems["boxed_sum"]}
    monkeypatch.setattr(kernel, "version", lambda: kept.coq)
    monkeypatch.setattr(kernel, "compiled", lambda _: kernel.Result(kept.coq, kept.digest, other))
    with pytest.raises(RefusedError, match="must be what Coq finds now"):
        kernel.check(copy)
