"""The reference: differentiate the whole adaptation, and its first-order truncation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad_and_value

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.inner.batching import vmapping
from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.surrogate import surrogate
from mdtheory.inner.task import Task


@estimators.register("unrolled")
class Unrolled(Estimator):
    """The exact gradient of the objective by reverse mode through all K steps (Finn et al. 2017,
    sec. 2.2).

    Cost: O(K) gradients and Hessian-vector products; memory: the graph of all K steps.
    """

    def surrogate(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> tuple[Tensor, Params]:
        return surrogate(problem, meta, task, noise, first_order=self.first_order)

    def task_gradient(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> TaskGradient:
        def objective(own: Params) -> tuple[Tensor, Params]:
            return self.surrogate(problem, own, task, noise)

        if vmapping():
            grads, (value, stats) = grad_and_value(objective, has_aux=True)(meta)
            return TaskGradient(value, grads, stats)
        with torch.enable_grad():  # frees the graph as it goes back, and records no further one
            own = {name: value.detach().requires_grad_() for name, value in meta.items()}
            value, stats = objective(own)
            if not value.requires_grad:  # a query loss that no weight reaches
                return TaskGradient(value, tree.tree_map(torch.zeros_like, own), stats)
            slopes = torch.autograd.grad(value, list(own.values()), materialize_grads=True)
        return TaskGradient(value.detach(), dict(zip(own, slopes, strict=True)), stats)


@estimators.register("first_order")
class FirstOrder(Unrolled):
    """The gradient with every task gradient held constant (Finn et al. 2017, sec. 5.2: FOMAML).

    The point map and the step rule are still differentiated, so a learned geometry learns. Cost: K
    gradients, no Hessian-vector product.
    """

    first_order = True
