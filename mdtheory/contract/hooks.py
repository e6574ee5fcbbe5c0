"""What a geometry owes by itself: documentation, pure hooks, a neutral start, parameters that learn
and can be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from mdtheory.contract.setting import TASK_LR, ContractViolation, NotApplicable, Setting, distance
from mdtheory.core import tree
from mdtheory.core.types import Episode, Params, State
from mdtheory.geometry.maml import MAML
from mdtheory.inner.solver import solve
from mdtheory.meta.learner import MetaLearner

LIVE = 1e-9
"""A tensor learns where its largest gradient entry is above this share of the largest of all, in
double precision: what cancels is below 1e-12 of it, and a second step may happen to be near a
minimum.
"""


def described(setting: Setting) -> None:
    """a docstring and a source"""
    geometry = setting.make()
    if not (type(geometry).__doc__ or "").strip():
        raise ContractViolation(
            f"{type(geometry).__name__} must have a docstring, got none; say what a step does, as "
            "a "
            "formula"
        )
    if not geometry.source.strip():
        raise ContractViolation(
            f'{type(geometry).__name__}.source must name where the method is from, got ""; write '
            '"own design" if it is'
        )


def state(setting: Setting) -> None:
    """hooks keep the state whole and change no argument in place"""
    learner = setting.learner(n_steps=3)
    task = learner.task(setting.episodes(1)[0])
    problem, meta = learner.problem(), tree.detach(learner.meta())
    geometry, own, anchor = learner.geometry, tree.sub(meta, "geometry."), tree.sub(meta, "anchor.")
    now: State = _untouched("init", geometry.init, own, anchor, problem.noise(meta, task))
    _holds("init", now, {f"z.{name}": value for name, value in anchor.items()})
    for k in range(problem.n_steps):
        now = tree.detach(now)
        point = _untouched("point", geometry.point, own, now)
        _untouched("weights", geometry.weights, own, tree.detach(point))
        gradient = tree.detach(problem.task_gradient(meta, point, task)[0])
        moved = _untouched("step", geometry.step, own, now, gradient, task_lr=TASK_LR, k=k)
        _holds("step", moved, now)
        now = moved


def _untouched(hook: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a hook, after a look at every tensor that it was given."""
    before = [{name: value.clone() for name, value in one.items()} for one in arguments]
    with torch.no_grad():
        result = function(*arguments, **options)
    for kept, one in zip(before, arguments, strict=True):
        changed = [
            name for name in kept if name not in one or not torch.equal(kept[name], one[name])
        ]
        if changed or len(kept) != len(one):
            what = repr(changed[0]) if changed else "the dictionary itself"
            raise ContractViolation(
                f"{hook} must leave its arguments as they are, but it changed {what}; return a new "
                "dictionary instead"
            )
    return result


def _holds(hook: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ContractViolation(
            f"{hook} must return the whole state, got one without {missing[0]!r}; return "
            f"{{**state, ...}}"
        )
    odd = [
        name for name in wanted if name.startswith("z.") and found[name].shape != wanted[name].shape
    ]
    if odd:
        shapes = f"{tuple(wanted[odd[0]].shape)}, got {tuple(found[odd[0]].shape)}"
        raise ContractViolation(
            f"{hook} must keep the shape of {odd[0]!r}, {shapes}; the state is what the model's "
            "parameters are"
        )


def repeatable(setting: Setting) -> None:
    """the same task gives the same answer twice, and nothing is left behind"""
    learner, episodes = setting.learner(), setting.episodes()
    held = {name: value.clone() for name, value in learner.state_dict().items()}
    before = torch.get_rng_state()
    problem, meta = learner.problem(), learner.meta()
    solutions = [solve(problem, meta, learner.task(episodes[0])) for _ in range(2)]
    gradients = [learner.meta_gradient(episodes).grads for _ in range(2)]
    for first, second in (solutions, gradients):
        if (gap := distance(second, first)) > setting.exact:
            raise ContractViolation(
                f"a task must be solved the same way twice, got a difference of {gap:.1e}; "
                f"{_REMEMBER}"
            )
    changed = [
        name for name, value in learner.state_dict().items() if not torch.equal(held[name], value)
    ]
    if changed:
        raise ContractViolation(
            f"a meta-gradient must change no parameter or buffer, but it changed {changed[0]!r}; "
            f"{_REMEMBER}"
        )
    if not torch.equal(before, torch.get_rng_state()):
        raise ContractViolation(
            "no hook may draw from the global generator, but one did; draw in `draw(seed)` from "
            "mdtheory.core.seeding"
        )


_REMEMBER = "carry what a step leaves behind in the state, never on self"


def only_meta(setting: Setting) -> None:
    """everything learned is read from `meta`"""
    learner, other = setting.learner(), setting.learner(perturbed=False)
    episodes = setting.episodes(1)
    learner.meta_gradient(episodes)  # refuses a model that cannot be used at all
    tasks = [[each.task(episode) for episode in episodes] for each in (learner, other)]
    expected = learner.estimator(learner.problem(), learner.meta(), tasks[0])
    found = other.estimator(other.problem(), learner.meta(), tasks[1])
    gap = max(distance(found.grads, expected.grads), abs(float(found.value - expected.value)))
    if gap > max(setting.exact, 1e-12):
        raise ContractViolation(
            "hooks must read everything learned from meta, but the module's own parameters make a "
            f"difference of {gap:.1e}; "
            'write meta["name"] for self.name'
        )


def neutral(setting: Setting) -> None:
    """the first step at the start is MAML's"""
    geometry = setting.make()
    if not geometry.starts_as_maml:
        raise NotApplicable("declared: starts_as_maml = False; its docstring says why")
    points = []
    for each in (setting, Setting(MAML, setting.model, setting.device)):
        learner = each.learner(perturbed=False, n_steps=1)
        problem, meta = learner.problem(), tree.detach(learner.meta())
        task = learner.task(setting.episodes(1)[0])
        points.append(problem.point(meta, solve(problem, meta, task)))
    gap = distance(points[0], {name: points[1][name] for name in points[0]})
    if gap > 1e-6:
        raise ContractViolation(
            f"the first step at the start must be MAML's to 1e-6, got a difference of {gap:.1e}; "
            "start as MAML, or declare starts_as_maml = False and say why"
        )


def learns(setting: Setting) -> None:
    """by the second meta-step every parameter has a gradient"""
    learner = setting.learner(perturbed=False)
    sizes = gradient_sizes(learner, [setting.episodes()] * 2, meta_lr=0.03)
    names = silent(sizes, learner.geometry.never_trained, before_norm=setting.model == "conv4")
    if names:
        raise ContractViolation(
            f"every meta-parameter must have a gradient by the second meta-step, but {len(names)} "
            f"of {len(sizes)} have none, "
            f"{names[0]!r} first; start only one factor of a product at zero, or declare them in "
            "`never_trained` and say why"
        )


def gradient_sizes(
    learner: MetaLearner, batches: Iterable[list[Episode]], *, meta_lr: float
) -> dict[str, float]:
    """The largest |gradient| of every meta-parameter over some steps of Adam, relative to the
    largest of all.
    """
    optimizer = torch.optim.Adam(learner.parameters(), lr=meta_lr)
    seen: dict[str, float] = {}
    for episodes in batches:
        optimizer.zero_grad()
        for name, value in learner.backward(episodes).grads.items():
            seen[name] = max(seen.get(name, 0.0), float(value.abs().max()))
        optimizer.step()
    return {name: size / max(seen.values()) for name, size in seen.items()}


def silent(
    sizes: Mapping[str, float], never_trained: Iterable[str], *, before_norm: bool
) -> list[str]:
    """The meta-parameters that do not learn, but for those declared and those that act on a bias
    which cancels.

    ``before_norm``: convolution biases stand before batch statistics, where they cancel. What
    *reads* one (an encoder of a block-triangular map, a projection of a potential) acts on other
    tensors too and is not exempt.
    """

    def exempt(name: str) -> bool:
        cancels = (
            before_norm
            and ".conv.bias" in name
            and not any(part in name for part in (".encoders.", ".map.factors."))
        )
        return cancels or any(fnmatchcase(name, f"geometry.{pattern}") for pattern in never_trained)

    return [name for name, size in sizes.items() if size <= LIVE and not exempt(name)]


def saved(setting: Setting) -> None:
    """a state_dict brings everything back"""
    learner, fresh, episodes = (
        setting.learner(),
        setting.learner(perturbed=False),
        setting.episodes(1),
    )
    fresh.load_state_dict(learner.state_dict())
    gap = distance(fresh.meta_gradient(episodes).grads, learner.meta_gradient(episodes).grads)
    if gap > setting.exact:
        raise ContractViolation(
            "a loaded state_dict must bring back the same learner, got gradients that differ by "
            f"{gap:.1e}; "
            "make parameters or buffers of what is drawn, and draw from mdtheory.core.seeding"
        )


def addressed(setting: Setting) -> None:
    """a task's noise is decided by its address"""
    geometry = setting.learner().geometry
    before = torch.get_rng_state()
    first, again, other = geometry.draw(1000), geometry.draw(1000), geometry.draw(1001)
    same = first.keys() == again.keys() and all(
        torch.equal(value, again[name]) for name, value in first.items()
    )
    if not same or not torch.equal(before, torch.get_rng_state()):
        raise ContractViolation(
            "draw(seed) must depend on its seed alone, got two different draws; use "
            "mdtheory.core.seeding.generator"
        )
    if any(torch.equal(value, other[name]) for name, value in first.items()):
        raise ContractViolation(
            "draw(seed) must differ from task to task, got the same noise for two seeds; use the "
            "seed"
        )


def bijective(setting: Setting) -> None:
    """the point map has an inverse"""
    learner = setting.learner()
    meta = tree.detach(learner.meta())
    own, z = tree.sub(meta, "geometry.map."), tree.sub(meta, "anchor.")
    gap = distance(learner.geometry.map.inverse(own, learner.geometry.map.point(own, z)), z)
    if not gap < 1e-9:
        raise ContractViolation(
            f"map.inverse(map.point(z)) must be z, got a difference of {gap:.1e}; correct either"
        )


def adapted(setting: Setting) -> None:
    """the adapted module is the point after k steps"""
    learner, episode = setting.learner(), setting.episodes(1)[0]
    episode = Episode(episode.support_x, episode.support_y, episode.query_x, episode.query_y)
    problem, meta, task = learner.problem(), tree.detach(learner.meta()), learner.task(episode)
    point = problem.point(meta, solve(problem, meta, task))
    expected: Tensor = task.query_outputs(meta, problem.weights(meta, point)).detach()
    found: Params = {
        "outputs": learner.adapt(episode.support_x, episode.support_y)(episode.query_x)
    }
    gap = distance(found, {"outputs": expected})
    if gap > 1e-9:
        raise ContractViolation(
            f"adapt must give the module of the last point, got outputs that differ by {gap:.1e}; "
            "keep hooks pure"
        )


HOOKS: dict[str, Callable[[Setting], None]] = {
    each.__name__: each
    for each in (
        described,
        state,
        repeatable,
        only_meta,
        neutral,
        learns,
        saved,
        addressed,
        bijective,
        adapted,
    )
}
"""The properties of this file by name; each docstring says what holds."""
