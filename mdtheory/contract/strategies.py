"""Random anchors, points, maps, geometries, networks, images and episodes, as strategies of
hypothesis: for property tests of the library, and of what a user adds to it.

Needs ``hypothesis``, which comes with ``mdtheory[test]``. Everything registered is found by its
registry, and an option is varied by its type and default, so that nothing here knows a name: a
float is up to four times larger or smaller, a whole number lies between 1 and its default (or 4),
and a ``Literal`` takes each of its values. What a constructor refuses is left out. Tensors are
float64 and drawn from a seed, so that an example is small and is repeated exactly.

>>> from hypothesis import find
>>> from mdtheory.contract import strategies
>>> case = find(strategies.dual_maps(), lambda case: case.name == "entropy")
>>> type(case.map).__name__, case.point.keys() == case.z.keys()
('NegativeEntropy', True)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from hypothesis import assume, reject, strategies as st
from torch import Tensor, nn

from mdtheory.contract.map import inside
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode, Params
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.images import ClassImages
from mdtheory.data.splits import SPLITS, Division
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.maps.base import DualMap, maps
from mdtheory.models.base import models

Factory = Callable[..., Any]

LARGEST = 8
"""Numbers in one tensor of an anchor at most, so that dense Jacobians stay cheap."""

NAMES = [f"{layer}.{part}" for layer in ("stem", "body", "head") for part in ("weight", "bias")]

IMAGE_SIZE = 16


def seeds() -> st.SearchStrategy[int]:
    """The address of a draw."""
    return st.integers(0, 2**20)


def randn_like(tensors: Params, seed: int, scale: float = 1.0) -> Params:
    """Normal numbers of the same names and shapes: the same for the same seed."""
    rng = generator("strategies", seed)
    return {
        name: scale * torch.randn(value.shape, generator=rng, dtype=torch.float64)
        for name, value in tensors.items()
    }


@st.composite
def anchors(draw: st.DrawFn) -> Params:
    """One to six tensors of no to four axes, each of :data:`LARGEST` numbers at most."""
    shape = st.lists(st.integers(1, 3), max_size=4).filter(lambda sizes: prod(sizes) <= LARGEST)
    shapes = draw(st.lists(shape, min_size=1, max_size=len(NAMES)))
    zeros = {
        name: torch.zeros(sizes, dtype=torch.float64)
        for name, sizes in zip(NAMES, shapes, strict=False)
    }
    return randn_like(zeros, draw(seeds()))


def points(anchor: Params, *, scale: float = 3.0) -> st.SearchStrategy[Params]:
    """Trees of the anchor's shapes, of sizes from 0.01 to ``scale``."""
    return st.builds(
        lambda seed, size: randn_like(anchor, seed, size), seeds(), st.floats(0.01, scale)
    )


def options(factory: Factory) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a factory's options with other values than their defaults; the others are left
    out.
    """
    maker = factory.__init__ if inspect.isclass(factory) else factory
    hints = get_type_hints(maker)
    varied = {
        name: values
        for name, parameter in inspect.signature(factory).parameters.items()
        if (values := _values(name, parameter.default, hints.get(name))) is not None
    }
    return st.fixed_dictionaries({}, optional=varied)


def _values(name: str, default: Any, hint: Any) -> st.SearchStrategy[Any] | None:
    """The values of one option; ``None`` where its type does not tell."""
    if words := _literals(hint):
        return st.sampled_from(words)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        most = 999 if name == "seed" else max(default, 4)
        return st.integers(min(default, 1), most)
    if isinstance(default, float):
        return st.floats(-2.0, 2.0).map(lambda power: default * 2.0**power)
    return None


def _literals(hint: Any) -> list[Any]:
    """The words of the ``Literal`` in a type, alone or as a part of a union."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for part in get_args(hint) for word in _literals(part)]


@st.composite
def accepted(draw: st.DrawFn, factory: Factory) -> dict[str, Any]:
    """Some of a factory's :func:`options` that it does not refuse together."""
    chosen = draw(options(factory))
    try:
        factory(**chosen)
    except ValueError:
        reject()
    return chosen


class MapCase:
    """A map with parameters away from its start, and two dual variables of its domain."""

    def __init__(
        self,
        name: str,
        chosen: dict[str, Any],
        made: DualMap,
        meta: Params,
        z: Params,
        other: Params,
    ):
        self.name = name
        self.options = chosen
        self.map = made
        self.meta = meta
        self.z = z
        self.other = other

    def __repr__(self) -> str:
        shapes = {name: tuple(value.shape) for name, value in self.z.items()}
        return f"MapCase({self.name!r}, {self.options}, {shapes})"

    @property
    def point(self) -> Params:
        """g(z)."""
        return self.map.point(self.meta, self.z)


def map_factories() -> dict[str, Factory]:
    """Every registered map, and the map of every registered geometry, by slug."""
    own = {slug: maps.get(slug) for slug in maps.names()}
    used = {f"geometry {slug}": _map_of(geometries.get(slug)) for slug in geometries.names()}
    return own | used


def _map_of(geometry: Factory) -> Factory:
    """A factory of a geometry's map that takes the geometry's options."""

    def make(**chosen: Any) -> DualMap:
        return geometry(**chosen).map

    make.__signature__ = inspect.signature(geometry)  # type: ignore[attr-defined]
    make.__annotations__ = get_type_hints(geometry.__init__)
    return make


@st.composite
def dual_maps(
    draw: st.DrawFn, kind: type[DualMap] = DualMap, *factories: Factory, spread: float = 1.0
) -> MapCase:
    """Maps of a kind, on a random anchor: of the given factories, or of all that are registered.

    ``spread``: how far the parameters are moved from their start at most.
    """
    known = {one.__name__: one for one in factories} or map_factories()
    fitting = [name for name, one in known.items() if isinstance(one(), kind)]
    name = draw(st.sampled_from(fitting))
    chosen, anchor = draw(accepted(known[name])), draw(anchors())
    made = known[name](**chosen)
    assume(isinstance(made, kind))
    made.build(anchor)
    made.double()
    start = {key: value.detach() for key, value in made.own().items()}
    moved = randn_like(start, draw(seeds()), draw(st.floats(0.0, spread)))
    meta = {key: value + moved[key] for key, value in start.items()}
    z, other = (_inside(made, meta, draw(points(anchor))) for _ in range(2))
    assume(not all(torch.equal(z[key], other[key]) for key in z))
    return MapCase(name, chosen, made, meta, z, other)


def _inside(made: DualMap, meta: Params, z: Params) -> Params:
    """z, or the nearest thing to it whose signs the map accepts."""
    try:
        return inside(made, meta, z)
    except ValueError:
        return reject()


@st.composite
def makers(draw: st.DrawFn, *factories: Factory) -> Callable[[], Geometry]:
    """Functions that make one and the same geometry anew: of the given factories, or of all that
    are registered, with random options.
    """
    factory = draw(st.sampled_from(factories or [geometries.get(s) for s in geometries.names()]))
    return partial(factory, **draw(accepted(factory)))


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A small registered network in float64, and a batch for it: shape (5, 1, 16, 16)."""
    slug = draw(st.sampled_from(models.names()))
    factory = models.get(slug)
    wanted = {
        "in_channels": 1,
        "image_size": IMAGE_SIZE,
        "in_features": IMAGE_SIZE**2,
        "n_way": draw(st.integers(2, 5)),
        "seed": draw(seeds()),
    }
    fixed = {name: wanted[name] for name in wanted if name in inspect.signature(factory).parameters}
    small: dict[str, Any] = {}
    sizes = st.sampled_from([1, 2, 4, 8])
    for name, parameter in inspect.signature(factory).parameters.items():
        if name not in fixed and isinstance(parameter.default, int):
            small[name] = draw(sizes)
        elif name not in fixed and isinstance(parameter.default, tuple):
            small[name] = tuple(draw(sizes) for _ in parameter.default)
    try:
        network = factory(**fixed, **small).double()
    except ValueError:
        reject()
    rng = generator("strategies", "batch", wanted["seed"])
    return network, torch.rand(5, 1, IMAGE_SIZE, IMAGE_SIZE, generator=rng, dtype=torch.float64)


@st.composite
def sources(draw: st.DrawFn) -> ClassImages:
    """Images of 3 to 6 classes a split and 20 to 24 images a class; every image is its own
    number. shapes: (n, 1, 1, 3)
    """
    splits = {
        split: tuple(f"{split}-{k}" for k in range(draw(st.integers(3, 6)))) for split in SPLITS
    }
    listing = sorted(
        (name, f"{k:02d}")
        for names in splits.values()
        for name in names
        for k in range(draw(st.integers(20, 24)))
    )
    numbers = np.arange(len(listing))
    pixels = np.stack([numbers // 256, numbers % 256, 0 * numbers], axis=-1).astype(np.uint8)
    return ClassImages(
        pixels[:, None, None, :],
        class_ids=[name for name, _ in listing],
        files=[file for _, file in listing],
        division=Division(splits, by="hand"),
    )


@st.composite
def streams(draw: st.DrawFn, n_query: int = 5) -> EpisodeStream:
    """Streams of 2- or 3-way tasks with 1 to 5 shots from :func:`sources`."""
    return EpisodeStream(
        draw(sources()),
        split=draw(st.sampled_from(SPLITS)),
        seed=draw(seeds()),
        n_way=draw(st.integers(2, 3)),
        n_shot=draw(st.integers(1, 5)),
        n_query=n_query,
    )


@st.composite
def episodes(draw: st.DrawFn, *shape: int, n_way: int = 3) -> Episode:
    """Tasks of random inputs. shapes: (n_way * n_shot, *shape), (n_way * n_query, *shape)"""
    n_shot, n_query = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    labels, seed = torch.arange(n_way), draw(seeds())
    rng = generator("strategies", "episode", seed)
    support, query = (
        torch.randn(n * n_way, *shape, generator=rng, dtype=torch.float64)
        for n in (n_shot, n_query)
    )
    return Episode(
        support, labels.repeat_interleave(n_shot), query, labels.repeat_interleave(n_query), seed
    )
