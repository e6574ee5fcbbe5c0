"""The referee itself must be able to fail: every way in which a claim can go wrong turns its line
red.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from fractions import Fraction

import pytest
import sympy as sp
import torch

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.engine import Caught, closure, load, modules, run_check, run_claim
from proofs_check.ids import IDS, by_order, files, id_of
from proofs_check.run import CheckFailedError, Run
from proofs_check.verdict import ClaimResult, judge

PRINTED = Statement(then="x", given={"a": "A"})
CONDITIONS = Statement(then="x", given={"a": "A", "b": "B"})
CHANGED = Statement(then="y", given={"a": "A", "b": "B"})


def claim_of(expected=("HOLDS", "PROVED"), amended=None, name="C11", **more):
    return Claim(
        id=name,
        title="t",
        source="s",
        printed=PRINTED,
        amended=amended,
        expected=Verdict(*expected),
        **more,
    )


def add(claim, kind="symbolic", *, mutants=("wrong",), body=None, name="check", **how):
    """A check that passes on its own ingredient (1) and fails on the mutants' (0)."""

    def function(run, *, value=1):
        run.that(value == 1, "value is 1")

    function = body or function
    function.__name__ = name
    check = claim.check(kind, **how)(function)
    for mutant in mutants:
        check.mutant(mutant, value=0)
    return claim


def judged(claim, *others):
    claims = {one.id: one for one in (claim, *others)}
    results = {
        one.id: ClaimResult(one.id, tuple(run_check(check) for check in one.checks))
        for one in claims.values()
    }
    return judge(claims, results)[claim.id]


def test_ids_are_those_of_the_files_in_the_order_of_the_ledger():
    assert tuple(files()) == IDS and tuple(sorted(IDS, key=by_order)) == IDS
    assert [id_of(name) for name in ("c08a_x", "t1_y", "rb_z", "ra1_w")] == [
        "C08a",
        "T1",
        "RB",
        "RA1",
    ]
    assert IDS[0] == "C01" and IDS[7:9] == ("C08a", "C08b")
    with pytest.raises(ValueError, match="must be named like"):
        id_of("unknown")


def test_a_proved_printed_statement_holds():
    row = judged(add(claim_of(), about="printed"))
    assert row.verdict == Verdict("HOLDS", "PROVED") and row.status == "OK" and row.reasons == ()


def test_a_counterexample_that_drops_an_added_condition_needs_conditions():
    claim = add(claim_of(("NEEDS_CONDITIONS", "PROVED"), CONDITIONS))
    add(claim, "counterexample", about="printed", drops=("b",), name="without_b")
    assert judged(claim).status == "OK"


def test_every_added_condition_needs_its_counterexample():
    more = Statement(then="x", given={"a": "A", "b": "B", "c": "C"})
    claim = add(claim_of(("NEEDS_CONDITIONS", "PROVED"), more))
    add(claim, "counterexample", about="printed", drops=("b",), name="without_b")
    assert judged(claim).reasons == (
        "condition 'c' is added, and no counterexample shows that it is needed",
    )
    add(claim, "counterexample", about="printed", drops=("c",), name="without_c")
    assert judged(claim).status == "OK"


@pytest.mark.parametrize(
    ("amended", "drops", "proved"),
    [(CHANGED, ("b",), True), (CONDITIONS, (), True), (CONDITIONS, ("b",), False)],
    ids=["the conclusion changed", "no condition saves it", "the amendment is not established"],
)
def test_otherwise_a_counterexample_makes_it_false(amended, drops, proved):
    claim = add(
        claim_of(("FALSE", "PROVED" if proved else "OPEN"), amended),
        "counterexample",
        about="printed",
        drops=drops,
    )
    if proved:
        add(claim, name="proof")
    row = judged(claim)
    assert row.verdict.as_printed == "FALSE" and row.status == "OK"


@pytest.mark.parametrize(
    ("kind", "rests_on", "verdict"),
    [
        ("symbolic", "", ("HOLDS", "PROVED")),
        ("kernel", "", ("HOLDS", "PROVED")),
        ("exact", "", ("VERIFIED", "VERIFIED")),
        ("certificate", "a cited theorem", ("VERIFIED", "VERIFIED")),
        ("property", "", ("VERIFIED", "VERIFIED")),
        ("sdp", "", ("VERIFIED", "VERIFIED")),
        ("statistical", "", ("EMPIRICAL", "VERIFIED")),
        ("experiment", "", ("EMPIRICAL", "VERIFIED")),
    ],
)
def test_strength_follows_from_the_kind(kind, rests_on, verdict):
    row = judged(add(claim_of(verdict), kind, about="printed", rests_on=rests_on))
    assert row.verdict == Verdict(*verdict) and row.status == "OK"


@pytest.mark.parametrize(
    ("scope", "covers", "proved"),
    [
        ("for all", "all", True),
        ("for all", "exact", False),
        ("for all", "limit", False),
        ("exists", "exact", True),
        ("exists", "samples", False),
        ("instance", "exact", True),
        ("limit", "limit", True),
        ("limit", "exact", False),
        ("limit", "all", True),
    ],
)
def test_a_part_is_proved_where_a_check_covers_its_scope(scope, covers, proved):
    parts = Statement(then="y", parts={"p": "P"}, scopes={"p": scope})
    claim = claim_of(("OPEN", "PROVED" if proved else "VERIFIED"), amended=parts)
    row = judged(add(claim, part="p", covers=covers))
    assert row.parts["p"].verdict == ("PROVED" if proved else "VERIFIED")
    assert (row.parts["p"].scope, row.parts["p"].checks) == (scope, ("check",))
    assert row.parts["p"].comparisons == 1 and row.status == "OK"


def test_what_only_a_page_carries_is_argued():
    parts = Statement(then="y", parts={"p": "P"}, argued={"p": "notebooks/02_bilevel"})
    claim = add(claim_of(("HOLDS", "ARGUED"), amended=parts), about="printed")
    row = judged(claim)
    assert row.parts["p"].verdict == "ARGUED" and row.parts["p"].page == "notebooks/02_bilevel"
    with pytest.raises(ValueError, match="must name parts"):
        Statement(then="y", argued={"q": "page"})


class TestStatements:
    """The statement is an ingredient: its false variants must turn the claim red."""

    X, BOUND = sp.symbols("x b", positive=True)
    STATED = Formula(left=X, relation="<=", right=3 * BOUND**2, given={"small": BOUND < 2})

    def claim(self, *points, expected=("HOLDS", "PROVED")):
        claim = claim_of(expected)
        claim.printed = Statement(then=self.STATED)

        def check(run, *, stated):
            for x, b in points:
                run.stands(stated, {"x": x, "b": b})

        claim.check("symbolic", about="printed")(check)
        return claim

    def test_a_check_that_reads_it_closely_rejects_every_variant(self):
        row = judged(self.claim((12, Fraction(3, 2) + Fraction(1, 2)), (3, 1), (1, 1), (80, 3)))
        assert row.status == "INCONSISTENT"  # nothing is tight at b < 2: the exponent survives
        tight = self.claim((3, 1), (sp.Rational(27, 4), sp.Rational(3, 2)), (1, 1), (80, 3))
        half = (sp.Rational(3, 4), sp.Rational(1, 2))
        row = judged(self.claim((3, 1), half, (1, 1), (80, 3)))
        assert row.status == "OK" and len(row.parts[""].variants) == 4, row.reasons
        assert judged(tight).status == "INCONSISTENT"  # a larger exponent is weaker beyond 1

    @pytest.mark.parametrize(
        ("points", "survivor"),
        [
            ([(1, 1), (80, 3)], "the constant halved"),
            ([(3, 1), (80, 3), (1, 1)], "an exponent changed"),
            ([(3, 1), (80, 3)], "the inequality flipped"),
            ([(3, 1), (1, 1)], "the condition (small) dropped"),
        ],
    )
    def test_a_careless_check_is_inconsistent(self, points, survivor):
        row = judged(self.claim(*points))
        assert row.status == "INCONSISTENT"
        assert f"the statement (printed): {survivor}: survived" in row.reasons

    def test_an_edited_text_is_an_edited_formula(self):
        """The two impostors of the audit: a constant changed in what is printed."""
        wrong = replace(self.STATED, right=self.STATED.right / 9)
        claim = self.claim((3, 1), (sp.Rational(3, 4), sp.Rational(1, 2)), (1, 1), (80, 3))
        claim.checks[0].function.__kwdefaults__["stated"] = wrong
        assert judged(claim).status == "INCONSISTENT"
        assert "b^{2}" in self.STATED.latex and r"\le" in self.STATED.latex

    def test_a_formula_that_no_check_reads_is_a_surprise(self):
        claim = claim_of()
        claim.printed = Statement(then=self.STATED)
        assert any(
            "no check reads" in reason for reason in judged(add(claim, about="printed")).reasons
        )

    def test_only_a_formula_can_be_asked_for(self):
        with pytest.raises(ValueError, match="write the part as a Formula"):
            claim_of().check("symbolic", about="printed")(lambda run, *, stated: None)

    def test_values_must_be_complete(self):
        with pytest.raises(ValueError, match="needs values"):
            self.STATED.holds({"x": 1})


def test_the_weakest_part_decides():
    parts = Statement(then="y", parts={"p": "P", "q": "Q"})
    claim = add(claim_of(amended=parts), part="p", name="first")
    assert judged(claim).verdict.amended == "OPEN"
    add(claim, "property", part="q", name="second")
    assert judged(claim).verdict.amended == "VERIFIED"
    add(claim, "symbolic", part="q", name="third")
    assert judged(claim).verdict.amended == "PROVED"


def test_an_unexpected_verdict_is_inconsistent():
    row = judged(add(claim_of(("FALSE", "PROVED")), about="printed"))
    assert row.status == "INCONSISTENT" and "computed" in row.reasons[0]


def test_a_surviving_mutant_takes_the_check_with_it():
    def careless(run, *, value=1):
        run.that(True, "nothing")

    row = judged(add(claim_of(), body=careless, about="printed"))
    assert row.status == "INCONSISTENT" and row.verdict == Verdict("OPEN", "OPEN")
    assert any("survived" in reason for reason in row.reasons)


def test_a_check_without_mutants_counts_for_nothing():
    row = judged(add(claim_of(), mutants=(), about="printed"))
    assert row.status == "INCONSISTENT" and row.verdict.amended == "OPEN"


def test_a_failing_check_changes_the_verdict():
    def fails(run, *, value=1):
        run.at_most(2.0, 1.0, what="two is at most one")

    row = judged(add(claim_of(), body=fails, about="printed"))
    assert row.status == "INCONSISTENT" and "2 exceeds 1" in row.reasons[0]
    assert all("not tried" in reason for reason in row.reasons if "mutant" in reason)


def test_an_exception_that_is_no_failure_does_not_kill_a_mutant():
    def brittle(run, *, value=1):
        run.that(1 / value, "finite")

    row = judged(add(claim_of(), body=brittle, about="printed"))
    assert row.status == "INCONSISTENT" and "ZeroDivisionError" in row.reasons[0]


def test_a_broken_check_is_reported_not_raised():
    def broken(run, *, value=1):
        raise TypeError("no such thing")

    row = judged(add(claim_of(), body=broken, about="printed"))
    assert row.status == "INCONSISTENT" and "TypeError: no such thing" in row.reasons[0]


def test_a_warning_is_an_error_whoever_runs_the_check():
    def noisy(run, *, value=1):
        warnings.warn("something is odd", RuntimeWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = judged(add(claim_of(), body=noisy, about="printed"))
    assert row.status == "INCONSISTENT" and "RuntimeWarning: something is odd" in row.reasons[0]


def test_what_is_both_proved_and_refuted_is_inconsistent():
    claim = add(claim_of(("FALSE", "OPEN"), CHANGED), about="printed", name="proof")
    add(claim, "counterexample", about="printed", name="refutation")
    assert any("both proved and refuted" in reason for reason in judged(claim).reasons)


def test_a_claim_is_whole_only_if_what_it_uses_is():
    used = add(claim_of(name="T1"), about="printed")
    user = add(claim_of(uses=("T1",)), about="printed")
    assert judged(user, used).status == "OK"
    alone = judged(user)
    assert (
        alone.status == "INCONSISTENT"
        and "uses T1, which is NOT_RUN" in alone.reasons
        and alone.verdict.amended == "OPEN"
    )
    weak = add(claim_of(("EMPIRICAL", "VERIFIED"), name="T1"), "statistical", about="printed")
    assert judged(user, weak).verdict == Verdict("HOLDS", "VERIFIED")


def test_a_claim_may_use_one_part_of_another():
    parts = Statement(then="y", parts={"p": "P", "q": "Q"})
    used = add(claim_of(("HOLDS", "VERIFIED"), parts, name="T1"), about="printed", name="printed")
    add(add(used, part="p", name="first"), "sdp", part="q", name="second")
    assert judged(add(claim_of(uses=("T1/p",)), about="printed"), used).verdict.amended == "PROVED"
    assert (
        judged(add(claim_of(uses=("T1/q",)), about="printed"), used).verdict.amended == "VERIFIED"
    )
    assert judged(add(claim_of(uses=("T1",)), about="printed"), used).verdict.amended == "VERIFIED"
    with pytest.raises(ValueError, match="a part of T1"):
        judged(add(claim_of(uses=("T1/z",)), about="printed"), used)


def test_a_circle_of_uses_is_refused():
    first, second = claim_of(uses=("T1",)), claim_of(name="T1", uses=("C11",))
    with pytest.raises(ValueError, match="circle"):
        judged(add(first, about="printed"), add(second, about="printed"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "opinion"}, "kind must be"),
        ({"about": "amended"}, "no amended statement"),
        ({"about": "printed", "part": "q"}, "part of C11"),
        ({"about": "printed", "drops": ("b",)}, "drops of C11"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        add(claim_of(), **how)


def test_names_are_checked():
    with pytest.raises(ValueError, match="one or two capitals"):
        claim_of(name="claim 9")
    claim = add(claim_of(), about="printed")
    with pytest.raises(ValueError, match="two checks named"):
        add(claim, about="printed")
    with pytest.raises(ValueError, match="exactly one of"):
        claim.checks[0].mutant("no such ingredient", other=1)
    with pytest.raises(ValueError, match="there twice"):
        claim.checks[0].mutant("wrong", value=2)


def test_a_mutant_replaces_an_ingredient_even_by_none():
    def takes_none(run, *, value=1):
        run.that(value is not None, "value is there")

    claim = claim_of()
    check = claim.check("exact", about="printed")(takes_none)
    check.mutant("nothing there", value=None)
    assert run_check(check).sound


class TestRun:
    """Every way to state a fact must be able to say no, and NaN must never pass."""

    @pytest.mark.parametrize(
        "state",
        [
            lambda run: run.that(False, "w"),
            lambda run: run.close(1.0, 1.1, tolerance=0.05, what="w"),
            lambda run: run.close(float("nan"), 0.0, tolerance=1.0, what="w"),
            lambda run: run.close(torch.tensor([0.0, float("nan")]), 0.0, tolerance=1.0, what="w"),
            lambda run: run.close(
                torch.tensor([0.0, 2.0]), torch.zeros(2), tolerance=1.0, what="w"
            ),
            lambda run: run.at_most(float("nan"), 1.0, what="w"),
            lambda run: run.at_most(1.2, 1.0, what="w", slack=0.1),
            lambda run: run.above(float("nan"), 1.0, what="w"),
            lambda run: run.above(1.0, 1.0, what="w"),
            lambda run: run.zero(sp.Symbol("x") ** 2, "w"),
            lambda run: run.zero(sp.Matrix([0, sp.Symbol("x")]), "w"),
            lambda run: run.raises(ValueError, lambda: None, "w"),
            lambda run: run.quantity("q", float("inf"), tolerance=1.0, meaning="m"),
            lambda run: run.quantity("q", 1.0, tolerance=1e-3, meaning="m", theory=1.1),
            lambda run: run.quantity("q", Fraction(1, 3), meaning="m", theory=Fraction(1, 2)),
        ],
    )
    def test_says_no(self, state):
        with pytest.raises(CheckFailedError):
            state(Run())

    def test_says_yes(self):
        run, x = Run(), sp.Symbol("x")
        run.that(torch.tensor(True), "w")
        run.close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), tolerance=0.0, what="w")
        run.at_most(1.0, 1.0, what="w")
        run.above(2.0, 1.0, what="w")
        run.zero((x + 1) ** 2 - x**2 - 2 * x - 1, "w")
        run.raises(ValueError, lambda: int("x"), "w")
        assert run.quantity("q", sp.sqrt(2), meaning="m") == sp.sqrt(2)
        assert run.quantities["q"].exact == "sqrt(2)" and run.quantities[
            "q"
        ].value == pytest.approx(2**0.5)

    def test_a_float_is_never_exact_and_a_name_is_taken_once(self):
        run = Run()
        with pytest.raises(ValueError, match="tolerance > 0"):
            run.quantity("q", 0.5, meaning="m")
        run.quantity("q", 1, meaning="m")
        with pytest.raises(ValueError, match="twice"):
            run.quantity("q", 1, meaning="m")

    def test_a_tolerance_of_a_quarter_of_the_value_is_refused(self):
        with pytest.raises(ValueError, match="could not fail"):
            Run().quantity("q", 0.9, tolerance=0.25, meaning="m")
        Run().quantity("q", 0.9, tolerance=0.2, meaning="m")


def test_a_bound_of_zero_is_moved_and_a_term_of_zero_is_left():
    x = sp.Symbol("x", real=True)
    below = Formula(left=x, relation="<", right=sp.Integer(0), terms={"none": sp.Integer(0)})
    assert {name: one.core for name, one in below.mutants().items()} == {
        "the constant moved": "x< -1",
        "the inequality flipped": "x> 0",
    }


class TestFiles:
    """What is on disk: one id a file, and a file that does not load turns only its own line red."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        import proofs_check.claims as package

        monkeypatch.setattr(package, "__path__", [str(tmp_path)])
        kept = {name for name in sys.modules if name.startswith("proofs_check.claims.")}
        hidden = {name: sys.modules.pop(name) for name in kept}
        yield tmp_path
        for name in [name for name in sys.modules if name.startswith("proofs_check.claims.")]:
            del sys.modules[name]
        sys.modules.update(hidden)

    def test_no_file_is_not_run(self, folder):
        assert load("C11") is None and run_claim("C11") == ClaimResult("C11")
        row = judge({"C11": None}, {"C11": run_claim("C11")})["C11"]
        assert row.status == "NOT_RUN" and row.verdict == Verdict("OPEN", "OPEN")

    def test_a_broken_file_is_inconsistent(self, folder):
        (folder / "c11_gd.py").write_text("import no_such_library\n", encoding="utf-8")
        result = run_claim("C11")
        row = judge({"C11": None}, {"C11": result})["C11"]
        assert row.status == "INCONSISTENT" and "ModuleNotFoundError" in row.reasons[0]
        assert closure(["C11"]) == ["C11"]

    def test_a_file_must_hold_the_claim_of_its_name(self, folder):
        (folder / "c11_gd.py").write_text("claim = None\n", encoding="utf-8")
        assert "must hold one `claim`" in run_claim("C11").error

    def test_files_of_one_id_hold_one_claim(self, folder):
        text = "from proofs_check.claim import Claim, Statement, Verdict\n"
        text += "claim = Claim(id='C11', title='t', source='s', printed=Statement(then='x'), "
        text += "expected=Verdict('OPEN', 'OPEN'))\n"
        (folder / "c11_a.py").write_text(text, encoding="utf-8")
        (folder / "c11_b.py").write_text(
            "from proofs_check.claims.c11_a import claim\n", encoding="utf-8"
        )
        assert modules() == {"C11": ("proofs_check.claims.c11_a", "proofs_check.claims.c11_b")}
        assert load("C11").id == "C11"
        (folder / "c11_c.py").write_text(text, encoding="utf-8")
        assert "must hold one `claim`" in run_claim("C11").error

    def test_a_file_without_an_id_is_refused(self, folder):
        (folder / "unknown.py").write_text("", encoding="utf-8")
        with pytest.raises(ValueError, match="must be named like"):
            modules()


def test_caught_lets_an_interrupt_through():
    with pytest.raises(KeyboardInterrupt), Caught():
        raise KeyboardInterrupt
