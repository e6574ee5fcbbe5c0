"""A geometry = a point map (state -> point) and a step rule (how a gradient at the point moves the
state).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import vjp

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.registry import Registry
from mdtheory.core.types import Params, State
from mdtheory.kernels.many import moved
from mdtheory.maps.base import DualMap
from mdtheory.maps.identity import Identity

geometries: Registry[Geometry] = Registry("geometry", "mdtheory.geometry")
"""Every known geometry, by slug."""

build = geometries.build

Pullback = Callable[[Params], Params]
"""v -> J_g(z)^T v at the current state: carries a gradient at the point back to the iterate."""

Outputs = Callable[[Params], Tensor]
"""point -> the model's outputs on the support set."""


class StepRule(nn.Module):
    """How a gradient moves the state. Owns parameters, reads only the ``meta`` it is given; written
    for one task.

    shapes: a state and a gradient have the anchor's.

    >>> import torch, mdtheory
    >>> class SignStep(mdtheory.StepRule):
    ...     def step(self, meta, state, grad, *, task_lr, k, pull):
    ...         step = {f"z.{name}": task_lr * g.sign() for name, g in grad.items()}
    ...         return {name: state[name] - moved for name, moved in step.items()}
    >>> signs = mdtheory.Geometry(rule=SignStep())
    >>> z, grad = {"z.w": torch.zeros(2)}, {"w": torch.tensor([3.0, -5.0])}
    >>> signs.step({}, z, grad, task_lr=0.5, k=0)
    {'z.w': tensor([-0.5000,  0.5000])}
    """

    def build(self, anchor: Params) -> None:
        """Create the parameters for points of these names and shapes."""

    def init(self, meta: Params, noise: Params) -> State:
        """What the rule itself keeps in the state besides ``z.*``."""
        return {}

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        """z_{k+1} from z_k and ``grad``, the task gradient at the point phi_k (k = 0, 1, ...)."""
        raise NotImplementedError(
            f"{type(self).__name__} must define step(meta, state, grad, *, task_lr, k, pull)"
        )


class GradientStep(StepRule):
    """z <- z - task_lr * grad: gradient descent, and mirror descent's dual step when the point map
    is grad h*.

    shapes: a state and a gradient have the anchor's.

    >>> import torch, mdtheory
    >>> z, grad = {"z.w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> mdtheory.GradientStep().step({}, z, grad, task_lr=0.25, k=0, pull=lambda v: v)
    {'z.w': tensor([0.5000])}
    """

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        names = [f"z.{name}" for name in grad]
        # the bits of z - task_lr * g, and one kernel less in its derivative
        new = moved([state[name] for name in names], list(grad.values()), -task_lr)
        return {**state, **dict(zip(names, new, strict=True))}


class Geometry(nn.Module):
    """Any point map with any step rule; hooks to override are all pure and written for one task.

    ``meta`` is always this module's own parameters by name (``map.*``, ``rule.*``, or a subclass's
    own); the anchor comes beside it. The defaults are MAML.

    shapes: anchor, state, point and gradient are trees of the adapted parameters' shapes.

    >>> import torch, mdtheory
    >>> descent = mdtheory.Geometry(map=mdtheory.maps.NegativeEntropy())  # exponentiated gradient
    >>> z, grad = {"z.w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> descent.step({}, z, grad, task_lr=0.25, k=0)
    {'z.w': tensor([0.5000])}
    >>> descent.point({}, z)  # grad h*(z) = exp(z)
    {'w': tensor([2.7183])}
    """

    source = ""  # bib key and equation, or "own design"
    objective = Objective()  # what the method's authors train it with
    vmappable = True  # False: solvers must loop over tasks
    capturable = True  # False: needs host synchronisation inside a step
    # False: the first step at the initialisation is not MAML's, with the reason in the docstring
    starts_as_maml = True
    never_trained: tuple[
        str, ...
        # patterns of own parameters that never receive a gradient, with the reason in the docstring
    ] = ()

    def __init__(self, map: DualMap | None = None, rule: StepRule | None = None):
        super().__init__()
        self.map = map if map is not None else Identity()
        self.rule = rule if rule is not None else GradientStep()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network to train, with any layers that the method adds; may modify and return
        ``model`` (already a copy).
        """
        return model

    def adapts(self, name: str) -> bool:
        """Whether the task solver may move this parameter of the wrapped model; False for layers
        that ``wrap`` added.
        """
        return True

    def build(self, anchor: Params) -> None:
        """Create the meta-parameters for points of these names and shapes. Called once, after
        ``wrap``.
        """
        self.map.build(anchor)
        self.rule.build(anchor)

    def draw(self, seed: int) -> Params:
        """The task's own noise, on the CPU, from its address alone. Stacked over tasks by the
        solver.
        """
        return {}

    def init(self, meta: Params, anchor: Params, noise: Params) -> State:
        """z_0 = anchor (the anchor *is* the dual start), with the rule's own state."""
        return {**tree.prefixed("z.", anchor), **self.rule.init(tree.sub(meta, "rule."), noise)}

    def prepared(self, meta: Params) -> Params:
        """``meta`` with the map's part as :meth:`~mdtheory.maps.base.DualMap.prepared` gives it,
        which every other hook takes as well.
        """
        others = {name: value for name, value in meta.items() if not name.startswith("map.")}
        own = self.map.prepared(tree.sub(meta, "map."))
        return {**others, **tree.prefixed("map.", own)}

    def point(self, meta: Params, state: State) -> Params:
        """phi = g(z), where the task loss is differentiated."""
        return self.map.point(tree.sub(meta, "map."), tree.sub(state, "z."))

    def weights(self, meta: Params, point: Params) -> Params:
        """What the model consumes in place of the adapted parameters."""
        return point

    def task_penalty(self, meta: Params, anchor: Params, point: Params) -> Tensor | None:
        """R(phi; theta), added to the task loss; ``None`` for no penalty."""
        return None

    def meta_penalty(
        self, meta: Params, point: Params, outputs: Outputs, targets: Tensor, k: int
    ) -> Tensor | None:
        """A term of the meta-objective at every phi_k, k < K, where ``Objective.penalty`` > 0.

        ``outputs``: point -> the model's outputs on the support set, shape (n_way * n_shot, ...);
        ``targets``: its labels.
        """
        return None

    def step(self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int) -> State:
        """The state after one step with ``grad``, the task gradient at ``point(meta, state)``."""

        def pull(covector: Params) -> Params:
            of_z = tree.sub(meta, "map.")
            return vjp(lambda z: self.map.point(of_z, z), tree.sub(state, "z."))[1](covector)[0]

        return self.rule.step(tree.sub(meta, "rule."), state, grad, task_lr=task_lr, k=k, pull=pull)
