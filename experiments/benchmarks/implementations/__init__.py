"""Who can do the work: one file each, found by folder. A file from outside comes in by ``--plugin
FILE``.

A class with ``methods`` (the slugs that it knows), ``variants`` (what to measure for each),
optionally ``package`` (the distribution whose version is recorded), a constructor ``(work,
weights)``, and ``meta_gradient(episodes) -> Params``: the gradient of the mean query loss over the
tasks, by the names of the weights; rates are ``rate.<name>``, and what else a geometry learns has
names of its own. The other library is imported by the constructor, so that its absence is an
``ImportError`` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from experiments.benchmarks.case import Precision, Work
from mdtheory.core.registry import Registry
from mdtheory.core.types import Episode, Params

implementations = Registry("implementation", "experiments.benchmarks.implementations")
"""The implementations by name."""

OURS = "ours"
PLAIN = "plain"


class Variant(NamedTuple):
    """One way to do the work; the first of a class is the one that others are compared with."""

    estimator: str | None = None
    precision: Precision = "float32"


class Implementation(Protocol):
    """What a class in this folder offers."""

    methods: Sequence[str]
    variants: Sequence[Variant]
    package: str | None

    def __init__(self, work: Work, weights: Params): ...

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By name, of the mean query loss over the tasks."""
        ...


def kind(name: str) -> type[Implementation]:
    """The class of an implementation; ``ValueError`` with the nearest known name otherwise."""
    return cast("type[Implementation]", implementations.get(name))


def gradients(named: Params) -> Params:
    """What backward passes have left in ``.grad``, taken out."""
    found = {name: value.grad for name, value in named.items() if value.grad is not None}
    for value in named.values():
        value.grad = None
    return found
