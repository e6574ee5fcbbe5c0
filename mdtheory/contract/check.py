"""A finding for every property of whatever is registered: geometries, maps, networks, estimators,
data sources and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mdtheory.contract.setting import ContractViolation, NotApplicable

FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What code from outside may raise where it is wrong."""

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """Whether a property holds, and what was found where it does not.

    units: none; ``said`` is a sentence.
    """

    property: str
    verdict: Literal["holds", "not applicable", "broken"]
    said: str


def examine_property(subject: Subject, name: str, holds: Callable[[Subject], Any]) -> Finding:
    """One property of a subject; an error in the subject's own code is a finding, too.

    ``holds`` raises :class:`ContractViolation` or :class:`NotApplicable`; its docstring says what
    holds. Where the subject has a name of its own (``model`` of a setting), a fault is said to be
    on it.
    """
    where = f"on {subject.model}: " if hasattr(subject, "model") else ""
    try:
        holds(subject)
    except NotApplicable as reason:
        return Finding(name, "not applicable", str(reason))
    except ContractViolation as fault:
        return Finding(name, "broken", f"{where}{fault}")
    except FOREIGN as error:
        said = " ".join(str(error).split())
        return Finding(name, "broken", f"{where}its code raised {type(error).__name__}: {said}")
    return Finding(name, "holds", " ".join((holds.__doc__ or "").split()))


def findings(
    subjects: Callable[[], list[Subject]], properties: Mapping[str, Callable[[Subject], Any]]
) -> Iterator[Finding]:
    """Every property in turn, on fresh subjects; the first one on which it is broken decides."""
    for name, holds in properties.items():
        found = [examine_property(subject, name, holds) for subject in subjects()]
        yield next((one for one in found if one.verdict == "broken"), found[0])
