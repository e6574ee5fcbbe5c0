"""One task from a few examples: predictions, how far to trust them, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdtheory.core.types import Episode
from mdtheory.meta.calibrate import (
    ConformalSets,
    check_coverage,
    held_out_folds,
    needed,
    split_conformal,
    temperature,
)
from mdtheory.meta.learner import MetaLearner

MOST_FOLDS = 5
"""Adaptations that calibrate the probabilities."""


@dataclass(frozen=True)
class HeldOut:
    """How an adaptation did on examples that it did not see: ``right`` of ``n``, with the exact
    95 % interval of the probability of being right.
    """

    right: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of Clopper and Pearson for the share of right answers."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.n).proportion_ci(method="exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Curve:
    """The loss after k = 0..K task steps, on the examples adapted to and on those held out (NaN
    where there are none). shapes: (K + 1,)
    """

    seen: Tensor
    unseen: Tensor


@dataclass(frozen=True)
class Answer:
    """``probabilities`` (n_queries, C), calibrated where ``temperature`` is not None; ``sets``,
    booleans of the same shape, or None; ``cautions``, sentences for whoever acts on them.
    """

    model: nn.Module
    probabilities: Tensor
    temperature: float | None
    sets: Tensor | None
    held_out: HeldOut | None
    curve: Curve
    cautions: tuple[str, ...]


class Alone(nn.Module):
    """Outputs that do not depend on the batch: every item is passed beside the support alone, so
    that batch statistics are those of the support and of that one item.
    """

    def __init__(self, adapted: nn.Module, support: Tensor):
        super().__init__()
        self.adapted = adapted
        self.register_buffer("examples", support)
        self.examples: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The outputs for inputs of shape (n_items, ...). shape: (n_items, C)"""
        rows = [self.adapted(torch.cat([self.examples, item[None]]))[-1:] for item in x.unbind(0)]
        return torch.cat(rows)


def answer(
    learner: MetaLearner,
    x: Tensor,
    y: Tensor,
    queries: Tensor,
    *,
    n_steps: int | None = None,
    coverage: float = 0.9,
    alone: bool = False,
) -> Answer:
    """Adapt to the support (x, y), predict the queries, and learn from held-out examples how sure
    to be. shapes: (n_support, ...), (n_support,), (n_queries, ...)

    Every class with at least two examples lends some to be held out: for the temperature each
    example once, over up to ``MOST_FOLDS`` adaptations to the others; for the sets half of them,
    from one adaptation to the other half, which also predicts the queries that the sets are for.
    Held-out examples and queries pass through the network in one batch, so that they are
    exchangeable under batch statistics too. ``alone``: every item passes beside the support only.
    """
    check_coverage(coverage)

    def outputs(kept: Tensor, asked: Tensor) -> Tensor:
        adapted = learner.adapt(x[kept], y[kept], n_steps=n_steps).eval()
        model = Alone(adapted, x[kept]) if alone else adapted
        return model(asked)

    with torch.no_grad():
        everything = torch.ones(len(y), dtype=torch.bool, device=y.device)
        adapted = learner.adapt(x, y, n_steps=n_steps).eval()
        model: nn.Module = Alone(adapted, x) if alone else adapted
        logits = model(queries)
        counts = torch.bincount(y)
        least = int(counts.min())
        cautions = _of_the_examples(counts.tolist())
        if least < 2:
            curve = _curve(learner, x, y, everything, everything, n_steps)
            chances = logits.softmax(-1).cpu()
            return Answer(model, chances, None, None, None, curve, tuple(cautions))

        scores, truths = [], []
        for part in held_out_folds(y, min(least, MOST_FOLDS)):
            kept = everything.clone()
            kept[part] = False
            scores.append(outputs(kept, torch.cat([x[part], queries]))[: len(part)])
            truths.append(y[part])
        found, truth = torch.cat(scores), torch.cat(truths)
        heat = temperature(found, truth)
        held = HeldOut(int((found.argmax(-1) == truth).sum()), len(truth))

        part = held_out_folds(y, 2)[1]
        kept = everything.clone()
        kept[part] = False
        both = outputs(kept, torch.cat([x[part], queries])).softmax(-1)
        made = split_conformal(both[: len(part)], y[part], coverage=coverage)
        probabilities = (logits / heat).softmax(-1)
        sets = _with_the_best(made, both[len(part) :], probabilities)
        cautions += _of_the_answer(held, made, n_classes=logits.shape[1])
        curve = _curve(learner, x, y, kept, ~kept, n_steps)
    return Answer(model, probabilities.cpu(), heat, sets.cpu(), held, curve, tuple(cautions))


def _with_the_best(made: ConformalSets, asked: Tensor, probabilities: Tensor) -> Tensor:
    """The sets, each with the class that is predicted, which can only add to the coverage."""
    best = probabilities == probabilities.max(dim=1, keepdim=True).values
    return made.sets(asked) | best


def _curve(
    learner: MetaLearner, x: Tensor, y: Tensor, kept: Tensor, asked: Tensor, n_steps: int | None
) -> Curve:
    seen = learner.trace(Episode(x[kept], y[kept], x[asked], y[asked]), n_steps=n_steps)
    unseen = seen.query_loss.cpu()
    nothing = bool((kept & asked).any())  # nothing was held out
    return Curve(seen.support_loss.cpu(), unseen * math.nan if nothing else unseen)


def _of_the_examples(counts: Sequence[int]) -> list[str]:
    if min(counts) >= 2:
        return []
    return [
        "a class has one example, so none can be held out: the probabilities are not calibrated, "
        "there are no prediction sets, and nothing here says how often the predictions are right; "
        "give every class at least two"
    ]


def _of_the_answer(held: HeldOut, made: ConformalSets, *, n_classes: int) -> list[str]:
    found = []
    low, high = held.interval
    if low <= 1 / n_classes:
        found.append(
            f"on held-out examples {held.right} of {held.n} predictions are right (95 % interval "
            f"{100 * low:.0f} to {100 * high:.0f} %), which may be no better than chance "
            f"({100 / n_classes:.0f} %): do not act on these predictions"
        )
    elif high - low > 0.3:
        found.append(
            f"on held-out examples {held.right} of {held.n} predictions are right, and so few "
            f"examples leave {100 * low:.0f} to {100 * high:.0f} % open: give more for a surer word"
        )
    n, least = len(made.scores), needed(made.coverage)
    if n < least:
        each = 2 * math.ceil(least / n_classes)
        found.append(
            f"sets with a coverage of {100 * made.coverage:g} % need {least} held-out examples, "
            f"got {n}: every set holds all classes; give every class {each} examples, or ask for a "
            "lower coverage"
        )
    return found
