"""The scalar whose gradient an estimator returns: the objective along one trajectory, with its stops written out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mdtheory import tree
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import accuracy
from mdtheory.objectives import Term
from mdtheory.typing import Episode, Params, State


@dataclass(frozen=True)
class Tape:
    """The values at which stopped quantities are frozen: meta-parameters, z_0..z_K, and the K task gradients."""

    meta: Params
    states: list[State]
    gradients: list[Params]


def record_tape(problem: Problem, meta: Params, episode: Episode, noise: Params) -> Tape:
    """Roll the solver once, keeping values only."""
    meta = tree.detach(meta)
    states, gradients = [tree.detach(problem.start(meta, noise))], []
    for k in range(problem.n_steps):
        gradient, _ = problem.task_gradient(meta, problem.point(meta, states[k]), episode)
        gradients.append(tree.detach(gradient))
        states.append(tree.detach(problem.move(meta, states[k], gradients[k], k)))
    return Tape(meta, states, gradients)


def only(term: Term, live: Params, frozen: Params) -> Params:
    """``live`` for the meta-parameters that the term teaches, ``frozen`` for the others."""
    return {name: value if term.teaches(name) else frozen[name] for name, value in live.items()}


def surrogate(
    problem: Problem, meta: Params, episode: Episode, noise: Params, *, first_order: bool = False, tape: Tape | None = None
) -> tuple[Tensor, Params]:
    """sum of the objective's terms for one task, and statistics (query loss and accuracy at z_K).

    Stopped quantities take their values from ``tape``, or from ``detach`` where none is given, so that the gradient at
    ``tape.meta`` is the same either way, and finite differences of the taped form check it. ``first_order`` stops
    every task gradient, so that only the point map and the step rule are differentiated.
    """
    frozen = tree.detach(meta) if tape is None else tape.meta
    terms = problem.objective.terms(problem.n_steps)

    def advance(own: Params, state: State, k: int) -> State:
        gradient, _ = problem.task_gradient(own, problem.point(own, state), episode)
        if first_order:
            gradient = tree.detach(gradient) if tape is None else tape.gradients[k]
        return problem.move(own, state, gradient, k)

    def roll(own: Params) -> list[State]:
        states = [problem.start(own, noise)]
        for k in range(problem.n_steps):
            states.append(advance(own, states[k], k))
        return states

    total, stats = torch.zeros((), dtype=episode.support_x.dtype, device=episode.support_x.device), {}
    rolled: dict[tuple[str, ...], list[State]] = {}
    for term in terms:
        own = only(term, meta, frozen)
        if term.path == "trajectory":
            if term.learns not in rolled:
                rolled[term.learns] = roll(own)
            state = rolled[term.learns][term.step]
        else:
            held = tape.states if tape is not None else next(iter(rolled.values())) if rolled else roll(frozen)
            state = advance(own, tree.detach(held[term.step - 1]), term.step - 1)
        loss, outputs = problem.query_loss(own, state, episode)
        total = total + term.weight * loss
        if term.step == problem.n_steps:
            stats = {"query_loss": loss.detach(), "query_accuracy": accuracy(outputs.detach(), episode.query_y)}
    if problem.objective.penalty:
        total = total + problem.objective.penalty * _mean_penalty(problem, meta, rolled.get(("*",)) or roll(meta), episode)
    return total, stats


def _mean_penalty(problem: Problem, meta: Params, states: list[State], episode: Episode) -> Tensor:
    values = [problem.meta_penalty(meta, states[k], episode, k) for k in range(problem.n_steps)]
    return torch.stack([value for value in values if value is not None]).sum() / problem.n_steps
