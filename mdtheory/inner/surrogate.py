"""The scalar whose gradient an estimator returns: the objective along one trajectory, with its
stopped gradients written out.
"""

from __future__ import annotations

from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.objectives import Term
from mdtheory.core.stop_gradient import stop_gradient
from mdtheory.core.types import Params, State
from mdtheory.inner.batching import vmapping
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import visits
from mdtheory.inner.task import Task


def surrogate(
    problem: Problem, meta: Params, task: Task, noise: Params, *, first_order: bool = False
) -> tuple[Tensor, Params]:
    """sum of the objective's terms for one task, and statistics (query loss and accuracy at z_K).

    ``first_order`` stops every task gradient, so that only the point map and the step rule are
    differentiated.
    """
    rollout = _Rollout(problem, task, noise, first_order)
    stats: Params = {}
    total = problem.zero(meta)
    for term in problem.objective.terms(problem.n_steps):
        own = {
            name: value if term.includes(name) else stop_gradient(value)
            for name, value in meta.items()
        }
        own = problem.prepared(own) if vmapping() else own
        loss, accuracy = problem.score(own, rollout.state_of(term, own), task)
        total = total + term.weight * loss
        if term.step == problem.n_steps:
            stats = {"query_loss": loss.detach(), "query_accuracy": accuracy}
    if problem.objective.penalty:
        total = total + problem.objective.penalty * rollout.mean_penalty(meta)
    return total, stats


class _Rollout:
    """The trajectories of one task: one for each set of meta-parameters that some term is
    differentiated by.
    """

    def __init__(self, problem: Problem, task: Task, noise: Params, first_order: bool):
        self.problem = problem
        self.task = task
        self.noise = noise
        self.hold = _stopped if first_order else _kept
        self.rolled: dict[tuple[str, ...], list[State]] = {}

    def state_of(self, term: Term, own: Params) -> State:
        """z_step as the term sees it."""
        if term.backprop == "full":
            return self._through(term.wrt, own)[term.step]
        held = next(iter(self.rolled.values())) if self.rolled else self._roll(own)
        k = term.step - 1
        before = _stopped(held[k])
        gradient, _ = self.problem.task_gradient(own, self.problem.point(own, before), self.task)
        return self.problem.move(own, before, self.hold(gradient), k)

    def mean_penalty(self, meta: Params) -> Tensor:
        """The mean over k < K of the geometry's own term, through the whole trajectory."""
        states = self._through(Term(step=0).wrt, meta)
        total = self.problem.zero(meta)
        for k in range(self.problem.n_steps):
            value = self.problem.meta_penalty(meta, states[k], self.task, k)
            total = total if value is None else total + value / self.problem.n_steps
        return total

    def _through(self, wrt: tuple[str, ...], own: Params) -> list[State]:
        if wrt not in self.rolled:
            self.rolled[wrt] = self._roll(own)
        return self.rolled[wrt]

    def _roll(self, own: Params) -> list[State]:
        way = visits(self.problem, own, self.task, self.noise, hold_gradient=self.hold)
        return [here.state for here in way]


def _stopped(tensors: Params) -> Params:
    return tree.tree_map(stop_gradient, tensors)


def _kept(tensors: Params) -> Params:
    return tensors
