"""The task solver: K steps of a geometry, and the trace that the poster's figures draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Episode, Params, State
from mdtheory.inner.problem import Problem


def noise_of(problem: Problem, episode: Episode) -> Params:
    """The method's own draw for this task, on the episode's device."""
    reference = episode.support_x
    drawn = problem.geometry.draw(episode.seed)
    return {name: value.to(reference.device, reference.dtype) for name, value in drawn.items()}


def solve(problem: Problem, meta: Params, episode: Episode, *, n_steps: int | None = None) -> State:
    """z_K for one task, with nothing kept for differentiation. Cost: K gradients."""
    meta = tree.detach(meta)
    with torch.no_grad():
        state = problem.start(meta, noise_of(problem, episode))
        for k in range(problem.n_steps if n_steps is None else n_steps):
            state = tree.detach(problem.advance(meta, state, episode, k))
    return state


@dataclass(frozen=True)
class Trace:
    """Along one adaptation, at k = 0..K. shapes: (K + 1,); ``query_accuracy`` is NaN for
    regression.

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), n_steps=3)
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> learner.trace(mdtheory.Episode(x, y, x, y)).support_loss.shape
    torch.Size([4])
    """

    support_loss: Tensor
    grad_norm: Tensor
    query_loss: Tensor
    query_accuracy: Tensor


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of correct classes; NaN where the targets are not class indices. shape: ()"""
    if targets.is_floating_point():
        return torch.full((), float("nan"), device=outputs.device)
    return (outputs.argmax(-1) == targets).to(outputs.dtype).mean()


def trace(problem: Problem, meta: Params, episode: Episode, *, n_steps: int | None = None) -> Trace:
    """Task loss, norm of the task gradient (at the point phi_k), query loss and accuracy at every
    k.
    """
    meta = tree.detach(meta)
    rows = []
    with torch.no_grad():
        state = problem.start(meta, noise_of(problem, episode))
        last = problem.n_steps if n_steps is None else n_steps
        for k in range(last + 1):
            gradient, support_loss = problem.task_gradient(
                meta, problem.point(meta, state), episode
            )
            query_loss, outputs = problem.query_loss(meta, state, episode)
            rows.append(
                torch.stack(
                    [
                        support_loss,
                        tree.norm(gradient),
                        query_loss,
                        accuracy(outputs, episode.query_y),
                    ]
                )
            )
            if k < last:
                state = tree.detach(problem.move(meta, state, gradient, k))
    return Trace(*torch.stack(rows, dim=1))
