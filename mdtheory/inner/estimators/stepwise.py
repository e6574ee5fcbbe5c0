"""The unrolled gradient in constant graph memory: keep the K states, sweep back one step at a
time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp

from mdtheory.core import tree
from mdtheory.core.objectives import Term
from mdtheory.core.types import Params, State
from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import visits
from mdtheory.inner.surrogate import surrogate
from mdtheory.inner.task import Task


@estimators.register("stepwise")
class Stepwise(Estimator):
    """Exactly ``unrolled``'s gradient by explicit vector-Jacobian products, one step's graph at a
    time.

    lambda_K = dl/dz_K; lambda_k = (dF_k/dz)^T lambda_{k+1} + dl_k/dz_k, where z_{k+1} = F_k(z_k,
    meta) (Griewank and Walther 2008, ch. 4). Memory: K states and the graph of one step. Cost: K
    more gradients than ``unrolled``.
    """

    def surrogate(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> tuple[Tensor, Params]:
        return surrogate(problem, meta, task, noise)

    def task_gradient(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> TaskGradient:
        sweep = _Sweep(problem, tree.detach(meta), task)
        states = sweep.forward(noise)
        for k in range(problem.n_steps, -1, -1):
            if k < problem.n_steps:
                sweep.back_through_step(states.pop(), k)
            else:
                sweep.last = states.pop()
            sweep.add_terms(k)
        sweep.back_through_start(noise)
        return TaskGradient(sweep.value, sweep.grads, sweep.stats)


class _Sweep:
    """The reverse pass: one adjoint per set of parameters in a term's ``wrt``, and the gradients
    gathered so far.
    """

    last: State

    def __init__(self, problem: Problem, meta: Params, task: Task):
        self.problem = problem
        self.meta = meta
        self.task = task
        self.terms = problem.objective.terms(problem.n_steps)
        self.grads = {name: torch.zeros_like(value) for name, value in meta.items()}
        self.value: Tensor = problem.zero(meta)
        self.stats: Params = {}
        self.adjoints: dict[Term, State] = {}
        self.local: dict[Term, State] = {}

    def forward(self, noise: Params) -> list[State]:
        way = visits(self.problem, self.meta, self.task, noise, hold=tree.detach)
        return [here.state for here in way]

    def add_terms(self, k: int) -> None:
        """The terms at z_k: their value, their direct gradient, and their share of the adjoints."""
        here = [term for term in self.terms if term.step == k]
        if here:
            gradients, (loss, accuracy) = grad_and_value(self._query, argnums=(0, 1), has_aux=True)(
                self.last, self.meta
            )
            by_state, by_meta = gradients
            for term in here:
                self.value = self.value + term.weight * loss
                self._gather(term, by_meta, term.weight)
                if term.backprop == "full":
                    self._add_adjoint(Term(step=0, wrt=term.wrt), by_state, term.weight)
                else:
                    self.local[term] = _scaled(term.weight, by_state)
            if k == self.problem.n_steps:
                self.stats = {"query_loss": loss, "query_accuracy": accuracy}
        if self.problem.objective.penalty and k < self.problem.n_steps:
            self._add_penalty(k)

    def back_through_step(self, state: State, k: int) -> None:
        """Carry every adjoint from z_{k+1} to z_k; adjoints of one-step terms end here."""
        pullback = vjp(lambda z, own: self.problem.advance(own, z, self.task, k), state, self.meta)[
            1
        ]
        for key, adjoint in self.adjoints.items():
            by_state, by_meta = pullback(adjoint)
            self.adjoints[key] = by_state
            self._gather(key, by_meta)
        for term, adjoint in self.local.items():
            self._gather(term, pullback(adjoint)[1])
        self.local = {}
        self.last = state

    def back_through_start(self, noise: Params) -> None:
        pullback = vjp(lambda own: self.problem.start(own, noise), self.meta)[1]
        for key, adjoint in self.adjoints.items():
            self._gather(key, pullback(adjoint)[0])

    def _query(self, state: State, meta: Params) -> tuple[Tensor, Tensor]:
        return self.problem.score(meta, state, self.task)

    def _add_penalty(self, k: int) -> None:
        scale = self.problem.objective.penalty / self.problem.n_steps

        def penalty(state: State, meta: Params) -> Tensor:
            value = self.problem.meta_penalty(meta, state, self.task, k)
            return torch.zeros_like(self.value) if value is None else value

        (by_state, by_meta), value = grad_and_value(penalty, argnums=(0, 1))(self.last, self.meta)
        self.value = self.value + scale * value
        self._gather(Term(step=0), by_meta, scale)
        self._add_adjoint(Term(step=0), by_state, scale)

    def _add_adjoint(self, key: Term, by_state: State, scale: float) -> None:
        held = self.adjoints.get(key)
        self.adjoints[key] = (
            _scaled(scale, by_state) if held is None else tree.axpy(scale, by_state, held)
        )

    def _gather(self, term: Term, by_meta: Params, scale: float = 1.0) -> None:
        for name, gradient in by_meta.items():
            if term.includes(name):
                self.grads[name] = self.grads[name] + scale * gradient


def _scaled(scale: float, x: State) -> State:
    return {name: scale * value for name, value in x.items()}
