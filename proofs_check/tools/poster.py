"""The poster's table of results as data: accuracies and half widths of 95 % intervals, as exact
fractions of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

INTERVAL = Fraction(196, 100)
"""Half width of a 95 % interval in standard errors, as everybody computes it."""


@dataclass(frozen=True)
class Accuracy:
    """A published mean accuracy over tasks; ``half_width`` of its interval, ``None`` where none is
    printed.
    """

    mean: Fraction
    half_width: Fraction | None = None

    @property
    def error(self) -> Fraction:
        """The standard error that the interval stands for."""
        if self.half_width is None:
            raise ValueError(
                "an accuracy must have an interval to have a standard error, got none; leave this "
                "row out"
            )
        return self.half_width / INTERVAL


@dataclass(frozen=True)
class Row:
    """A method with its 1-shot and 5-shot accuracy, ``None`` for a dash."""

    method: str
    one_shot: Accuracy | None
    five_shot: Accuracy | None

    def at(self, n_shot: int) -> Accuracy | None:
        """The accuracy in the column of 1 or 5 images per class."""
        return {1: self.one_shot, 5: self.five_shot}[n_shot]


def _percent(mean: str, half_width: str | None = None) -> Accuracy:
    return Accuracy(
        Fraction(mean) / 100, None if half_width is None else Fraction(half_width) / 100
    )


TABLE = (
    Row("MAML", _percent("48.70", "1.84"), _percent("63.11", "0.92")),
    Row("MetaSGD", _percent("50.47", "1.87"), _percent("64.03", "0.94")),
    Row("MT-net", _percent("51.70", "1.84"), None),
    Row("WarpGrad", _percent("52.3", "0.8"), _percent("68.4", "0.6")),
    Row("MetaCurvature", _percent("54.23", "0.88"), _percent("67.99", "0.73")),
    Row("MetaKFO", None, _percent("64.9")),
    Row("ECML", _percent("48.94", "0.80"), _percent("65.26", "0.67")),
    Row("MetaMiDA", _percent("56.10", "1.43"), _percent("69.59", "0.71")),
)
"""5-way miniImageNet, "mean accuracy and 95 % confidence interval on 600 new tasks"; the last row
is the poster's method.
"""

N_WAY, N_TASKS = 5, 600
"""Classes of a task, and the number of test tasks that the poster names."""


def row(method: str) -> Row:
    """The row of a method."""
    return next(one for one in TABLE if one.method == method)
