"""A task is two functions: what the task solver descends, and what the result is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mdtheory.core import seeding, tree
from mdtheory.core.functional import functional_call
from mdtheory.core.inputs import Inputs, arguments, joined, leaves, n_items
from mdtheory.core.types import Episode, LossFunction, Params
from mdtheory.models.norm import statistics_over_first


class Task(ABC):
    """``task_loss(meta, weights)`` and ``query_loss(meta, weights)``, both scalars and pure.

    ``weights`` are what the geometry makes of a point, by name; ``meta`` holds all meta-parameters,
    of which a task reads ``shared.<name>`` alone; shapes as the model's. ``seed`` is the address of
    the method's own noise for this task. :class:`EpisodeTask` is a network on an episode,
    :class:`FunctionTask` a plain function of R^d.

    >>> import torch
    >>> from mdtheory import Task
    >>> class Bowl(Task):
    ...     def task_loss(self, meta, weights):
    ...         return 0.5 * weights["x"].square().sum()
    ...     def query_loss(self, meta, weights):
    ...         return (weights["x"] - 1).square().sum()
    >>> Bowl().task_loss({}, {"x": torch.tensor([3.0, 4.0])})
    tensor(12.5000)
    """

    seed: int = 0
    strongly_convex = False
    """Whether the task loss has one minimiser without any penalty: the estimator ``implicit``
    asks.
    """

    @abstractmethod
    def task_loss(self, meta: Params, weights: Params) -> Tensor:
        """The mean loss that the steps see. shape: ()"""

    @abstractmethod
    def query_loss(self, meta: Params, weights: Params) -> Tensor:
        """The mean loss on what the steps do not see. shape: ()"""

    def score(self, meta: Params, weights: Params) -> tuple[Tensor, Tensor]:
        """The query loss, and the accuracy where there are classes, NaN elsewhere. shapes: (),
        ()
        """
        loss = self.query_loss(meta, weights)
        return loss, torch.full_like(loss.detach(), float("nan"))

    @property
    def targets(self) -> Tensor | None:
        """The support set's targets; ``None`` for a task without items. shape: (n_support, ...)"""
        return None

    def support_outputs(self, meta: Params, weights: Params) -> Tensor:
        """The outputs that the task loss compares with :attr:`targets`. shape: (n_support, ...)"""
        raise TypeError(f"{type(self).__name__} has no items, and so no outputs")

    def tensors(self) -> Params | None:
        """What differs from task to task, to be stacked where several are solved at once; ``None``
        for a task that can only be solved alone. shapes: any
        """
        return None

    def with_tensors(self, tensors: Params) -> Task:
        """The same task with other :meth:`tensors`."""
        raise TypeError(f"{type(self).__name__} has no tensors() to replace")


def accuracy(outputs: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """The share of items whose largest output, along axis 1, is the class of the target.
    shapes: (N, C, ...), (N, ...) -> ()

    Targets outside 0 .. C - 1, or equal to ``ignore_index``, are not counted; an item with an
    output that is NaN has no largest one, and is wrong. NaN where the targets are not class indices
    of that shape, where there is one class only, and where none counts.
    """
    fits = outputs.dim() > 1 and outputs.shape[1] > 1
    if (
        not fits
        or targets.dtype.is_floating_point
        or targets.dtype.is_complex
        or targets.shape != outputs.shape[:1] + outputs.shape[2:]
    ):
        return torch.full((), float("nan"), device=outputs.device)
    kind = torch.promote_types(outputs.dtype, torch.float32)
    right = (outputs.argmax(1) == targets) & ~outputs.isnan().any(1)
    counted = targets.clamp(0, outputs.shape[1] - 1) == targets
    if ignore_index is not None:
        counted = counted & (targets != ignore_index)
        right = right & counted
    return right.sum().to(kind) / counted.sum()


def binary_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The share of entries whose logit lies on the side of 0 where the target is: above for 1, not
    above for 0. shapes: (...), (...) -> ()

    Targets other than 0 and 1 are not counted, and a logit that is NaN is wrong. NaN where the
    shapes differ, and where none counts.
    """
    if logits.shape != targets.shape:
        return torch.full((), float("nan"), device=logits.device)
    kind = torch.promote_types(logits.dtype, torch.float32)
    counted = (targets == 0) | (targets == 1)
    right = ((logits > 0) == (targets == 1)) & counted & ~logits.isnan()
    return right.sum().to(kind) / counted.sum()


def is_binary(loss: LossFunction) -> bool:
    """Whether a loss is, by name, the binary cross-entropy of logits: torch's function, a partial
    of it, or its module. What a function of one's own computes cannot be seen.
    """
    function = getattr(loss, "func", loss)
    return function is binary_cross_entropy_with_logits or isinstance(loss, nn.BCEWithLogitsLoss)


def ignored(loss: LossFunction) -> int | None:
    """The class index that a loss leaves out, as far as it says so: an ``ignore_index`` of its own
    or of the partial function that it is.
    """
    found = getattr(loss, "ignore_index", getattr(loss, "keywords", {}).get("ignore_index"))
    return found if isinstance(found, int) else None


def joint_outputs(forward: Callable[[Inputs], Tensor], episode: Episode) -> Tensor:
    """The outputs on the query set, normalised by the support set's statistics (policy "support").
    shape: (n_query, ...)
    """
    n_support = n_items(episode.support_x)
    both = joined(episode.support_x, episode.query_x)
    with statistics_over_first(n_support, of=n_items(both)):
        return forward(both)[n_support:]


@dataclass(frozen=True, kw_only=True)
class EpisodeTask(Task):
    """A network and a loss on an episode's support and query sets.

    ``constants``: the network's frozen parameters; ``joint_query``: the query set is passed behind
    the support set, whose statistics then normalise both (norm policy "support").
    shapes: losses (), outputs (n_items, ...).

    >>> import torch
    >>> from mdtheory import Episode, EpisodeTask
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> mean_square = torch.nn.functional.mse_loss
    >>> task = EpisodeTask(model=torch.nn.Identity(), loss=mean_square, episode=Episode(x, x, x, x))
    >>> task.task_loss({}, {})
    tensor(0.)
    """

    model: nn.Module
    loss: LossFunction
    episode: Episode
    constants: Params = field(default_factory=dict)
    joint_query: bool = False

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The seed that the episode carries, for the method's own noise, or one made of its support
        set.
        """
        one = self.episode
        if one.seed is None:
            return seeding.address_of([*leaves(one.support_x), *leaves(one.support_y)])
        return one.seed

    def outputs(self, meta: Params, weights: Params, x: Inputs) -> Tensor:
        """The network's outputs with these weights. shape: (n_items, ...)"""
        named = {**self.constants, **tree.sub(meta, "shared."), **weights}
        return functional_call(self.model, named, *arguments(self.model, x))

    def query_outputs(self, meta: Params, weights: Params) -> Tensor:
        """The network's outputs on the query set. shape: (n_way * n_query, ...)"""
        if not self.joint_query:
            return self.outputs(meta, weights, self.episode.query_x)
        return joint_outputs(lambda x: self.outputs(meta, weights, x), self.episode)

    def task_loss(self, meta: Params, weights: Params) -> Tensor:
        return self.loss(self.support_outputs(meta, weights), self.episode.support_y)

    def query_loss(self, meta: Params, weights: Params) -> Tensor:
        return self.loss(self.query_outputs(meta, weights), self.episode.query_y)

    def score(self, meta: Params, weights: Params) -> tuple[Tensor, Tensor]:
        outputs = self.query_outputs(meta, weights)
        loss = self.loss(outputs, self.episode.query_y)
        outputs, y = outputs.detach(), self.episode.query_y
        if not isinstance(y, Tensor):
            return loss, torch.full_like(loss.detach(), float("nan"))
        if is_binary(self.loss):
            return loss, binary_accuracy(outputs, y)
        return loss, accuracy(outputs, y, ignore_index=ignored(self.loss))

    @property
    def targets(self) -> Tensor:
        return self.episode.support_y

    def support_outputs(self, meta: Params, weights: Params) -> Tensor:
        return self.outputs(meta, weights, self.episode.support_x)

    def tensors(self) -> Params:
        return {name: getattr(self.episode, name) for name in EPISODE_TENSORS}

    def with_tensors(self, tensors: Params) -> EpisodeTask:
        return replace(self, episode=replace(self.episode, **tensors))  # type: ignore[arg-type]


EPISODE_TENSORS = ("support_x", "support_y", "query_x", "query_y")


@dataclass(frozen=True)
class FunctionTask(Task):
    """The functions f (descended) and l (judged by; default f) of one tensor, the weight ``phi``.

    Where ``shared.theta`` is among the meta-parameters, both are functions of (phi, theta). shapes:
    (d,) or any other, (p,) -> ().
    ``strongly_convex``: f has one minimiser, so that the estimator ``implicit`` needs no penalty.
    shapes: phi as the anchor, values ().

    >>> import torch
    >>> from mdtheory import FunctionTask
    >>> bowl = FunctionTask(lambda phi: 0.5 * phi.square().sum())
    >>> bowl.task_loss({}, {"phi": torch.tensor([3.0, 4.0])})
    tensor(12.5000)
    """

    f: Callable[..., Tensor]
    l: Callable[..., Tensor] | None = None
    strongly_convex: bool = False

    def task_loss(self, meta: Params, weights: Params) -> Tensor:
        return self.f(*_arguments(meta, weights))

    def query_loss(self, meta: Params, weights: Params) -> Tensor:
        return (self.f if self.l is None else self.l)(*_arguments(meta, weights))


def _arguments(meta: Params, weights: Params) -> tuple[Tensor, ...]:
    phi = weights["phi"]
    return (phi, meta["shared.theta"]) if "shared.theta" in meta else (phi,)
