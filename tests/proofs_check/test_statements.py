"""A statement's constants, exponents and inequalities come from symbolic objects: what an author
types around them holds none, and every symbolic part is falsified in three ways at least.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sympy as sp

from proofs_check.engine import load, modules, run_check
from proofs_check.formula import Formula

CLAIMS = {name: load(name) for name in modules()}

NAMES = (
    re.compile(r"\{\{?\w+\}\}?"),  # filled in from the formula
    re.compile(
        r"C\^1\b|C\^\{1,1\}|\^\{(k)?-1\}|\\nabla\^2|(\\[pP][hs]i|z)\^\d"
    ),  # orders, iterates
    re.compile(r"_\{[^{}]*\}|_\w|_\\\w+"),  # indices
    re.compile(r"\\\|[^|]*\\\|\s*\^2|\\(sigma|eta)\^2=|\bk\s*\^2"),  # squares that define
    re.compile(r"(\\ne|=|\\to)\s*0|\\succ\s*0"),  # zero
    re.compile(r"1&|&1|\b[BKN]=\d|\bd=1|\bT\d|C\d+|\d-shot|\\Theta\(K"),  # cases, other claims
)
"""Signs that are no constants of the statement: taken out one after another."""
MATHEMATICS = re.compile(r"\d|\\le\b|\\ge\b|<|>|\\t?frac|\\sqrt|\\prec|\\succ|\\ll\b|O\(|\\Theta")

WORDS = {("C25", "indices"): "ranges of indices", ("T1", "bijection"): "an order of indices"}
"""Parts in which a sign is left that is no constant and no bound."""


def typed(text: str) -> list[str]:
    """The constants and comparisons in a text that are not filled in."""
    for names in NAMES:
        text = names.sub(" ", text)
    return MATHEMATICS.findall(text)


def own_parts(claim):
    """What the claim states of its own: the amended statement, or the printed one where there is
    no other.
    """
    statement = claim.amended if claim.amended is not None else claim.printed
    return {part: statement.parts[part] if part else statement.then
            for part in statement.part_names()}  # fmt: skip


PARTS = [(name, part, value) for name, claim in CLAIMS.items()
         for part, value in own_parts(claim).items()]  # fmt: skip


@pytest.mark.parametrize(("name", "part", "value"), PARTS, ids=[f"{a}-{b}" for a, b, _ in PARTS])
def test_no_constant_of_a_statement_is_typed(name, part, value):
    text = value.text if isinstance(value, Formula) else value
    if (name, part) not in WORDS:
        assert typed(text) == [], text


@pytest.mark.parametrize(("name", "part", "value"), PARTS, ids=[f"{a}-{b}" for a, b, _ in PARTS])
def test_every_placeholder_is_filled_and_braces_close(name, part, value):
    if isinstance(value, Formula):
        asked = re.findall(r"(?<![a-z}^])\{(\w{3,})\}", value.text)
        assert set(asked) <= {"formula", "left", "right", "given", *value.terms}
        assert all("{" + term + "}" in value.text for term in value.terms)
        assert value.latex.count("{") == value.latex.count("}")


def test_the_reader_of_texts_finds_what_is_typed():
    assert typed(r"\text{steps of }\tfrac m2") and typed(r"x\le y") and typed("a<b")
    assert typed(r"2\sqrt K") == ["2", r"\sqrt"]
    assert typed(r"\phi^0,\ \|x\|^2,\ \nabla^2f,\ {formula},\ x\ne0,\ K=1,\ s_{i\ge2}") == []


BELOW_THREE = [f"{name}/{part}" for name, part, value in PARTS
               if isinstance(value, Formula) and len(value.mutants()) < 3]  # fmt: skip


def test_every_formula_is_falsified_in_three_ways_or_compares_with_zero():
    """A bound of zero has no half: it is moved to its stricter side, and turned round."""
    for name in BELOW_THREE:
        claim, _, part = name.partition("/")
        assert own_parts(CLAIMS[claim])[part].right == 0, name


def with_constant(claim, part, factor):
    """The claim's checks of one formula, each given the formula with its right side multiplied."""
    found = [check for check in CLAIMS[claim].checks if check.stated and check.part == part]
    assert found
    return [
        replace(check, mutants=[], stated=None, function=given(check, factor)) for check in found
    ]


def given(check, factor):
    """The check's function with the false formula."""
    false = replace(check.stated, right=check.stated.right * factor)

    def function(run):
        check.function(run, stated=false)

    return function


@pytest.mark.parametrize(
    ("claim", "part", "factor"),
    [("C05", "convex", sp.Rational(1, 2)), ("RB", "lipschitz", sp.Rational(1, 9)),
     ("RB", "modulus", 9)],
)  # fmt: skip
def test_the_audit_s_impostors_are_red(claim, part, factor):
    """Half of C05's constant, and a ninth of RB's bound, in the text are in the check."""
    assert any(not run_check(check).passed for check in with_constant(claim, part, factor))
