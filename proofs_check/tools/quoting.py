"""A check of one claim run as a check of another: what is proved once is not written twice."""

from __future__ import annotations

from proofs_check.claim import Check
from proofs_check.run import Run


def quoted(run: Run, check: Check, wrong: bool) -> None:
    """Another claim's check, with its first mutant where the quotation is to be wrong."""
    change = {check.mutants[0].ingredient: check.mutants[0].replacement} if wrong else {}
    check.function(run, **change)
