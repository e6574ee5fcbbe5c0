"""MAML as one writes it in JAX: ``grad`` of ``grad``, ``vmap`` over tasks, ``jit`` around all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from experiments.benchmarks.case import BLOCKS, Work
from mdtheory.core.types import Episode, Params

EPS = 1e-5


class Jax:
    """``ImportError`` where it is not installed. ``precision``: of products, as torch names it."""

    def __init__(self, work: Work, weights: Params, precision: str = "float32"):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        self.jax, self.size = jax, work.size
        self.like = next(iter(weights.values()))
        self.weights = {name: self._taken(value) for name, value in weights.items()}
        one = jax.grad(self._objective)
        products = {"float32": "highest", "tf32": "tensorfloat32"}[precision]

        def mean(own: Any, tasks: Any) -> Any:
            with jax.default_matmul_precision(products):
                found = jax.vmap(one, in_axes=(None, 0))(own, tasks)
            return jax.tree.map(lambda value: value.mean(0), found)

        self.whole = jax.jit(mean)
        self.tasks: Any = None

    def _taken(self, value: torch.Tensor) -> Any:
        return self.jax.numpy.asarray(value.detach().cpu().numpy())

    def _outputs(self, own: Any, x: Any) -> Any:
        np, lax = self.jax.numpy, self.jax.lax
        for i in range(BLOCKS):
            at = f"blocks.{i}."
            x = lax.conv_general_dilated(x, own[at + "conv.weight"], (1, 1), "SAME")
            x = x + own[at + "conv.bias"][:, None, None]
            x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(
                x.var((0, 2, 3), keepdims=True) + EPS
            )
            x = x * own[at + "norm.weight"][:, None, None] + own[at + "norm.bias"][:, None, None]
            n, c, h, w = x.shape
            x = self.jax.nn.relu(x)[:, :, : h // 2 * 2, : w // 2 * 2]
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
        return x.reshape(len(x), -1) @ own["classifier.weight"].T + own["classifier.bias"]

    def _loss(self, own: Any, x: Any, y: Any) -> Any:
        scores = self.jax.nn.log_softmax(self._outputs(own, x))
        return -self.jax.numpy.take_along_axis(scores, y[:, None], 1).mean()

    def _objective(self, own: Any, task: Any) -> Any:
        x, y, query_x, query_y = task
        for _ in range(self.size.n_steps):
            slopes = self.jax.grad(self._loss)(own, x, y)
            own = {name: value - self.size.task_lr * slopes[name] for name, value in own.items()}
        return self._loss(own, query_x, query_y)

    def run(self, episodes: Sequence[Episode]) -> Any:
        """The gradient as JAX holds it, computed to the end; the tasks are moved once."""
        if self.tasks is None:
            parts = ("support_x", "support_y", "query_x", "query_y")
            rows = [[self._taken(getattr(task, part)) for task in episodes] for part in parts]
            self.tasks = tuple(map(self.jax.numpy.stack, rows))
        return self.jax.block_until_ready(self.whole(self.weights, self.tasks))

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """The mean over tasks."""
        import numpy

        found = self.run(episodes).items()
        return {name: torch.tensor(numpy.asarray(value)).to(self.like) for name, value in found}
