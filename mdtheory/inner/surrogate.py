"""The scalar whose gradient an estimator returns: the objective along one trajectory, with its
stops written out.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.objectives import Term
from mdtheory.core.stop_gradient import Tape, recording, replaying, stop
from mdtheory.core.types import Episode, Params, State
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import accuracy


def record_tape(
    problem: Problem, meta: Params, episode: Episode, noise: Params, *, first_order: bool = False
) -> Tape:
    """The values at ``meta`` of everything that :func:`surrogate` stops there, for its argument
    ``tape``.
    """
    with recording() as tape:
        surrogate(problem, tree.detach(meta), episode, noise, first_order=first_order)
    return tape


def surrogate(
    problem: Problem,
    meta: Params,
    episode: Episode,
    noise: Params,
    *,
    first_order: bool = False,
    tape: Tape | None = None,
) -> tuple[Tensor, Params]:
    """sum of the objective's terms for one task, and statistics (query loss and accuracy at z_K).

    ``first_order`` stops every task gradient, so that only the point map and the step rule are
    differentiated. With a ``tape``, everything stopped keeps its recorded value: the derivative at
    the recorded ``meta`` is then a plain one, which finite differences can check, and it equals the
    derivative without a tape.
    """
    with nullcontext() if tape is None else replaying(tape):
        rollout = _Rollout(problem, episode, noise, first_order)
        total = torch.zeros((), dtype=episode.support_x.dtype, device=episode.support_x.device)
        for term in problem.objective.terms(problem.n_steps):
            own = {
                name: value if term.teaches(name) else stop(value) for name, value in meta.items()
            }
            state = rollout.state_of(term, own)
            loss, outputs = problem.query_loss(own, state, episode)
            total = total + term.weight * loss
            if term.step == problem.n_steps:
                rollout.stats = {
                    "query_loss": loss.detach(),
                    "query_accuracy": accuracy(outputs.detach(), episode.query_y),
                }
        if problem.objective.penalty:
            total = total + problem.objective.penalty * rollout.mean_penalty(meta)
    return total, rollout.stats


class _Rollout:
    """The trajectories of one task: one for each set of taught meta-parameters that some term goes
    through.
    """

    def __init__(self, problem: Problem, episode: Episode, noise: Params, first_order: bool):
        self.problem, self.episode, self.noise, self.first_order = (
            problem,
            episode,
            noise,
            first_order,
        )
        self.rolled: dict[tuple[str, ...], list[State]] = {}
        self.stats: Params = {}

    def state_of(self, term: Term, own: Params) -> State:
        """z_step as the term sees it."""
        if term.path == "trajectory":
            return self._through(term.learns, own)[term.step]
        held = next(iter(self.rolled.values())) if self.rolled else self._roll(own)
        before = {name: stop(value) for name, value in held[term.step - 1].items()}
        return self._advance(own, before, term.step - 1)

    def mean_penalty(self, meta: Params) -> Tensor:
        """The mean over k < K of the geometry's own term, through the whole trajectory."""
        states = self._through(Term(step=0).learns, meta)
        total = torch.zeros(
            (), dtype=self.episode.support_x.dtype, device=self.episode.support_x.device
        )
        for k in range(self.problem.n_steps):
            value = self.problem.meta_penalty(meta, states[k], self.episode, k)
            total = total if value is None else total + value / self.problem.n_steps
        return total

    def _through(self, learns: tuple[str, ...], own: Params) -> list[State]:
        if learns not in self.rolled:
            self.rolled[learns] = self._roll(own)
        return self.rolled[learns]

    def _roll(self, own: Params) -> list[State]:
        states = [self.problem.start(own, self.noise)]
        for k in range(self.problem.n_steps):
            states.append(self._advance(own, states[k], k))
        return states

    def _advance(self, own: Params, state: State, k: int) -> State:
        gradient, _ = self.problem.task_gradient(own, self.problem.point(own, state), self.episode)
        if self.first_order:
            gradient = {name: stop(value) for name, value in gradient.items()}
        return self.problem.move(own, state, gradient, k)
