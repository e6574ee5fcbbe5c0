"""What a meta-learner minimises, as data: which losses along the trajectory, and for which
meta-parameters each one is differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Backprop = Literal["full", "one_step"]


@dataclass(frozen=True, kw_only=True)
class Term:
    """``weight`` times the query loss at state z_step.

    ``wrt``: patterns of the meta-parameters that receive the gradient; for all others it stops
    *everywhere* in this term. ``backprop``: "full" differentiates through all the steps from z_0;
    "one_step" holds z_{step-1} constant.
    """

    step: int
    weight: float = 1.0
    backprop: Backprop = "full"
    wrt: tuple[str, ...] = ("*",)

    def includes(self, name: str) -> bool:
        """Whether the meta-parameter ``name`` receives this term's gradient."""
        return any(fnmatchcase(name, pattern) for pattern in self.wrt)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A sum of terms for every number of steps K, plus ``penalty`` times the mean of the geometry's
    ``meta_penalty`` at k < K.

    ``schedule``: "last" is the loss at z_K alone (MAML); "every" weights z_1..z_K equally by 1/K;
    "warp" trains ``task_names`` by the loss at z_K through the trajectory and everything else by
    the sum over k of the loss after one step from a constant z_{k-1} (WarpGrad's
    trajectory-detached objective).

    units: ``penalty`` is a factor on a loss.

    >>> import mdtheory
    >>> [(term.step, term.weight) for term in mdtheory.Objective(schedule="every").terms(2)]
    [(1, 0.5), (2, 0.5)]
    """

    schedule: Literal["last", "every", "warp"] = "last"
    penalty: float = 0.0
    task_names: tuple[str, ...] = ("anchor.*",)
    other_names: tuple[str, ...] = ("shared.*", "geometry.*")

    def terms(self, n_steps: int) -> tuple[Term, ...]:
        """The terms for K = ``n_steps``."""
        if self.schedule == "last":
            return (Term(step=n_steps),)
        steps = range(1, n_steps + 1)
        if self.schedule == "every":
            return tuple(Term(step=k, weight=1 / n_steps) for k in steps) or (Term(step=0),)
        warp = tuple(Term(step=k, backprop="one_step", wrt=self.other_names) for k in steps)
        return (Term(step=n_steps, wrt=self.task_names), *warp)
