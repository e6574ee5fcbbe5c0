r"""A statement as a symbolic object: its LaTeX, its numbers and its false variants come from one
place, so that text, check and quantity cannot differ.

``Formula(left=..., relation="<=", right=..., text=..., given={...})`` says: under the conditions,
left <= right. The text around it holds no mathematics of its own: ``{formula}``, ``{left}``,
``{right}``, ``{given}`` and the names of ``terms`` (further expressions of the statement) are
filled in. Symbols may be named by LaTeX, as ``\|\phi^K\|``, and may be matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sympy as sp

Relation = Literal["<=", "<", "==", ">=", ">"]
_TEX = {"<=": r"\le", "<": "<", "==": "=", ">=": r"\ge", ">": ">"}
_FLIPPED: dict[Relation, Relation] = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}


def tex(expression: Any) -> str:
    r"""LaTeX of an expression; a symbol whose name is LaTeX stands as it is."""
    found = expression.atoms(sp.Symbol, sp.MatrixSymbol) if hasattr(expression, "atoms") else ()
    names = {symbol: symbol.name for symbol in found if "\\" in symbol.name}
    return str(sp.latex(expression, symbol_names=names))


@dataclass(frozen=True, kw_only=True)
class Formula:
    """left (relation) right, under the conditions ``given`` (by name)."""

    left: sp.Expr
    relation: Relation
    right: sp.Expr
    text: str = "{formula}"
    given: Mapping[str, sp.Basic] = field(default_factory=dict)
    terms: Mapping[str, sp.Expr] = field(default_factory=dict)

    @property
    def core(self) -> str:
        """The relation alone in LaTeX."""
        return f"{tex(self.left)}{_TEX[self.relation]} {tex(self.right)}"

    @property
    def latex(self) -> str:
        """The statement in LaTeX."""
        left, right = tex(self.left), tex(self.right)
        filled = self.text.replace("{formula}", self.core)
        filled = filled.replace("{left}", left).replace("{right}", right)
        for name, term in self.terms.items():
            filled = filled.replace(f"{{{name}}}", tex(term))
        return filled.replace("{given}", r",\ ".join(tex(one) for one in self.given.values()))

    def mutants(self) -> dict[str, Formula]:
        """False variants: the constant halved, an exponent changed (a bound of zero: moved by one
        to the stricter side), the relation turned round, each further term halved, and each
        condition dropped.
        """
        turned = (
            replace(self, right=-self.right)
            if self.relation == "=="
            else replace(self, relation=_FLIPPED[self.relation])
        )
        found = {
            "the constant halved": replace(self, right=self.right / 2),
            "an exponent changed": replace(self, right=_raised(self.right)),
            "the sign changed" if self.relation == "==" else "the inequality flipped": turned,
        }
        if self.right == 0:
            stricter = -1 if self.relation[0] == "<" else 1
            found["the constant moved"] = replace(self, right=sp.Integer(stricter))
            del found["the constant halved"], found["an exponent changed"]
        for name, term in self.terms.items():
            if term == 0:
                continue
            terms = {**self.terms, name: term / 2}
            found[f"the term ({name}) halved"] = replace(self, terms=terms)
        for name in self.given:
            rest = {other: one for other, one in self.given.items() if other != name}
            found[f"the condition ({name}) dropped"] = replace(self, given=rest)
        return found

    def applies(self, at: Mapping[Any, Any]) -> bool:
        """Whether all conditions hold at these values."""
        return all(bool(value(one, at)) for one in self.given.values())

    def gap(self, at: Mapping[Any, Any]) -> Any:
        """right - left at these values, exact where they are."""
        return value(self.right, at) - value(self.left, at)

    def holds(self, at: Mapping[Any, Any], slack: float = 0.0) -> bool:
        """Whether the relation holds at these values, up to ``slack`` where it is not strict."""
        gap = self.gap(at)
        if self.relation == "==":
            return bool(size(gap) <= slack)
        if gap.is_real is False:
            return False
        signed = gap if self.relation[0] == "<" else -gap
        return bool(signed > slack) if len(self.relation) == 1 else bool(signed >= -slack)


def size(found: Any) -> Any:
    """The largest entry of a matrix, or the modulus of a number."""
    return max(map(abs, found)) if isinstance(found, sp.MatrixBase) else abs(found)


def value(expression: Any, at: Mapping[Any, Any]) -> Any:
    """An expression at values by symbol, or by its name."""
    symbols = {one.name: one for one in expression.atoms(sp.Symbol, sp.MatrixSymbol)}
    chosen = {symbols[str(key)]: sp.sympify(one) for key, one in at.items() if str(key) in symbols}
    missing = {str(one) for one in expression.free_symbols - set(chosen)} - set(map(str, at))
    if missing:
        raise ValueError(f"a formula needs values for {sorted(missing)}; give them")
    found = expression.subs(chosen)
    found = found.doit() if hasattr(found, "doit") else found
    if isinstance(found, sp.MatrixExpr):
        found = found.as_explicit()
    return found if found.is_Boolean or getattr(found, "is_rational", None) else found.evalf(30)


def _raised(expression: sp.Expr) -> sp.Expr:
    """The expression with one exponent greater by one: that of its first power of a symbol, or of
    its first symbol.
    """
    powers = sorted(
        (one for one in expression.atoms(sp.Pow) if one.exp.is_number and one.base.free_symbols),
        key=sp.default_sort_key,
    )
    if powers:
        return expression.subs(powers[0], powers[0].base ** (powers[0].exp + 1))
    symbols = sorted(expression.atoms(sp.Symbol), key=sp.default_sort_key)
    if not symbols:
        return expression**2 if expression not in (0, 1) else expression + 1
    return expression.subs(symbols[0], symbols[0] ** 2)


def text_of(statement: str | sp.Basic | Formula) -> str:
    """LaTeX of a statement or condition, whatever it is written as."""
    if isinstance(statement, Formula):
        return statement.latex
    return statement if isinstance(statement, str) else tex(statement)
