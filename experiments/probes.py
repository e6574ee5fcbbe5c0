"""What is measured on a trained learner besides its accuracy: its paths on test tasks, and how
monotone its map is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import vjp

from experiments.records import MapProbe, Paths
from mdtheory.core import seeding, tree
from mdtheory.core.types import Params
from mdtheory.data.episodes import EpisodeStream
from mdtheory.geometry.base import Geometry
from mdtheory.inner.solver import states, trace
from mdtheory.maps.base import DualMap
from mdtheory.maps.identity import Identity
from mdtheory.meta.learner import MetaLearner

DIGITS = 4  # significant, of losses and norms in paths.json
PROBED_TASKS = 5
LANCZOS_STEPS = 30


def paths(
    learner: MetaLearner, meta: Params, stream: EpisodeStream, *, n_tasks: int, n_steps: int
) -> Paths:
    """Task loss, gradient norm and correct answers at k = 0..n_steps on the first test tasks, from
    the start in ``meta``.
    """
    problem = learner.problem()
    like = next(iter(meta.values()))
    tables: tuple[list[list[float | None]], list[list[float | None]], list[list[int]]] = (
        [],
        [],
        [],
    )
    for index in range(n_tasks):
        episode = stream(index).to(device=like.device, dtype=like.dtype)
        found = trace(problem, meta, learner.task(episode), n_steps=n_steps)
        tables[0].append(_rounded(found.support_loss))
        tables[1].append(_rounded(found.grad_norm))
        tables[2].append(
            [round(float(share) * len(episode.query_y)) for share in found.query_accuracy]
        )
    return Paths(support_loss=tables[0], grad_norm=tables[1], correct=tables[2])


def common_start(learner: MetaLearner, maml: Path) -> Params | None:
    """:func:`started_at` MAML's trained weights; ``None`` where there are none."""
    from safetensors.torch import load

    from experiments import shards

    if not shards.pieces(maml):
        return None
    return started_at(learner, tree.sub(load(shards.read(maml)), "network."))


def started_at(learner: MetaLearner, start: Params) -> Params | None:
    """The meta-parameters with the anchor from which the method starts at the point ``start``.

    With a point map that is z_0 = g^{-1}(start). Methods with layers of their own (WarpGrad's
    warps, MT-net's T) compute another function from the same weights, so that they have no common
    start: ``None``.
    """
    meta = tree.detach(learner.meta())
    own_layers = any(name.startswith("shared.") for name in meta)
    if own_layers or type(learner.geometry).weights is not Geometry.weights:
        return None
    like = tree.sub(meta, "anchor.")
    moved = {name: start[name].to(value.device, value.dtype) for name, value in like.items()}
    with torch.no_grad():
        dual = learner.geometry.map.inverse(tree.sub(meta, "geometry.map."), moved)
    return {**meta, **tree.prefixed("anchor.", tree.detach(dual))}


def map_probe(learner: MetaLearner, stream: EpisodeStream) -> MapProbe | None:
    """How far the point map g is from the gradient of a convex function where the task solver uses
    it; ``None`` without one.

    ``path_*``: extremes over tasks of <g(z_K) - g(z_0), z_K - z_0> / ||z_K - z_0||^2.
    ``symmetric_*``: extremes over tasks of Rayleigh quotients of sym J_g at z_K, found by Lanczos
    steps: where the smallest is negative, g is not monotone at that point; where not, none was
    found. ``asymmetry``: the largest ||J v - J^T v|| / ||J v|| met on the way, 0 for a gradient
    map. float64.
    """
    if isinstance(learner.geometry.map, Identity):
        return None
    double = copy.deepcopy(learner).double()
    meta = tree.detach(double.meta())
    of_map = tree.sub(meta, "geometry.map.")
    quotients, extremes, asymmetries = [], [], []
    for index in range(PROBED_TASKS):
        episode = stream(index).to(device=next(iter(meta.values())).device, dtype=torch.float64)
        problem = double.problem(n_steps=learner.eval_steps)
        with torch.no_grad():
            first, *_, state = states(problem, meta, double.task(episode))
            moved = tree.axpy(-1.0, tree.sub(first, "z."), tree.sub(state, "z."))
            gap = tree.axpy(-1.0, problem.point(meta, first), problem.point(meta, state))
        quotients.append(float(tree.dot(gap, moved) / tree.dot(moved, moved)))
        low, high, asymmetry = symmetric_extremes(
            double.geometry.map, of_map, tree.sub(state, "z."), seed=index
        )
        extremes.append((low, high))
        asymmetries.append(asymmetry)
    return MapProbe(
        tasks=PROBED_TASKS,
        path_smallest=_round(min(quotients)),
        path_largest=_round(max(quotients)),
        symmetric_smallest=_round(min(low for low, _ in extremes)),
        symmetric_largest=_round(max(high for _, high in extremes)),
        asymmetry=_round(max(asymmetries)),
    )


def symmetric_extremes(
    map: DualMap, meta: Params, z: Params, *, seed: int
) -> tuple[float, float, float]:
    """Extreme Rayleigh quotients of (J + J^T) / 2 at z as Lanczos finds them, and the asymmetry;
    see :func:`map_probe`.
    """

    transposed = vjp(lambda at: map.point(meta, at), z)[1]
    twice = vjp(lambda covector: transposed(covector)[0], tree.tree_map(torch.zeros_like, z))[
        1
    ]  # of a linear map: J itself

    def both(v: Tensor) -> tuple[Tensor, Tensor]:
        direction = tree.unflatten(v, z)
        return tree.flatten(twice(direction)[0]), tree.flatten(transposed(direction)[0])

    asymmetry = 0.0

    def symmetric(v: Tensor) -> Tensor:
        nonlocal asymmetry
        forward, back = both(v)
        asymmetry = max(asymmetry, float((forward - back).norm() / forward.norm().clamp_min(1e-30)))
        return 0.5 * (forward + back)

    size = sum(value.numel() for value in z.values())
    start = torch.randn(size, generator=seeding.generator("map probe", seed), dtype=torch.float64)
    low, high = lanczos(
        symmetric, start.to(next(iter(z.values())).device), steps=min(LANCZOS_STEPS, size)
    )
    return low, high, asymmetry


def lanczos(
    operator: Callable[[Tensor], Tensor], start: Tensor, *, steps: int
) -> tuple[float, float]:
    """The extreme eigenvalues of a symmetric operator on the Krylov space of ``start``, fully
    reorthogonalised.

    They are Rayleigh quotients: the true extremes lie at them or beyond (Parlett 1998, ch. 13).
    """
    basis = [start / start.norm()]
    images: list[Tensor] = []
    for _ in range(steps):
        images.append(operator(basis[-1]))
        q = torch.stack(basis)
        rest = images[-1] - q.T @ (q @ images[-1])
        rest = rest - q.T @ (q @ rest)
        if float(rest.norm()) < 1e-10 * max(1.0, float(images[-1].norm())):
            break
        basis.append(rest / rest.norm())
    q = torch.stack(basis[: len(images)])
    values = torch.linalg.eigvalsh(q @ torch.stack(images).T)
    return float(values[0]), float(values[-1])


def _rounded(values: Tensor) -> list[float | None]:
    return [_round(float(value), DIGITS) for value in values]


def _round(value: float, digits: int = 6) -> float | None:
    """``None`` stands for what is no longer finite: an adaptation that diverges."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
