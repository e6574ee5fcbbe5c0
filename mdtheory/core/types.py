"""The nouns that every part of the library shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mdtheory.core.inputs import map_inputs

Params = dict[str, Tensor]
"""A flat, ordered dictionary from dotted parameter names to tensors."""

State = dict[str, Tensor]
"""What the task solver iterates: ``z.<name>`` is the iterate, other prefixes (``xi.``, ``mask.``,
...) are a rule's own.
"""


@dataclass(frozen=True)
class Episode:
    """One few-shot task's data.

    shapes: ``support_x`` (n_way * n_shot, ...), ``query_x`` (n_way * n_query, ...); the labels are
    int64 class indices (class-major order) for classification, or float targets for regression.
    ``seed`` is the 63-bit address from which a method draws its own noise (MT-net its masks): tasks
    of one seed get the same; ``None``: an address made of the numbers in the support set.

    >>> import torch, mdtheory
    >>> x, y = torch.rand(5, 1, 28, 28), torch.arange(5)
    >>> mdtheory.Episode(x, y, x, y).to(dtype=torch.float64).support_x.dtype
    torch.float64
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    seed: int | None = None

    def to(self, *args: Any, **kwargs: Any) -> Episode:
        """Move (``device``) or cast (a floating ``dtype``; integer labels keep theirs); inputs of
        several parts too.
        """

        def move(value: Tensor) -> Tensor:
            moved = value.to(*args, **kwargs)
            return moved if value.is_floating_point() else moved.to(value.dtype)

        return Episode(
            map_inputs(move, self.support_x),
            map_inputs(move, self.support_y),
            map_inputs(move, self.query_x),
            map_inputs(move, self.query_y),
            self.seed,
        )


@dataclass(frozen=True)
class MetaGradient:
    """The value of a meta-objective (mean over tasks), its gradient by name, and per-task
    statistics of shape (n_tasks,).

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), n_steps=1)
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> result = learner.meta_gradient([mdtheory.Episode(x, y, x, y)])
    >>> result.grads["anchor.weight"].shape, result.stats["query_loss"].shape
    (torch.Size([2, 2]), torch.Size([1]))
    """

    value: Tensor
    grads: Params
    stats: Mapping[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets) -> scalar``, a mean over the items."""
