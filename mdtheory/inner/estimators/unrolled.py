"""The reference: differentiate the whole adaptation, and its first-order truncation."""

from __future__ import annotations

from torch.func import grad_and_value

from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.surrogate import surrogate
from mdtheory.typing import Episode, Params


@estimators.register("unrolled")
class Unrolled(Estimator):
    """The exact gradient of the objective by reverse mode through all K steps (Finn et al. 2017, sec. 2.2).

    Cost: O(K) gradients and Hessian-vector products; memory: the graph of all K steps.
    """

    first_order = False

    def task_gradient(self, problem: Problem, meta: Params, episode: Episode, noise: Params) -> TaskGradient:
        grads, (value, stats) = grad_and_value(
            lambda own: surrogate(problem, own, episode, noise, first_order=self.first_order), has_aux=True
        )(meta)
        return TaskGradient(value, grads, stats)


@estimators.register("first_order")
class FirstOrder(Unrolled):
    """The gradient with every task gradient held constant (Finn et al. 2017, sec. 5.2: FOMAML).

    The point map and the step rule are still differentiated, so a learned geometry learns. Cost: K gradients, no
    Hessian-vector product.
    """

    first_order = True
