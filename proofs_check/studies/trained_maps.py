r"""Beyond the poster: does the map that training finds behave like a mirror map? Measured, on real
adaptations.

One step of a geometry moves the point by $-\alpha A_ku$ for small $u$,
$A_k=-\frac1\alpha\,\partial\phi^{k+1}/\partial u$ at $u=0$: the Jacobian $J_g(z_k)$ for a point
map, the preconditioner for preconditioned descent. Mirror descent has $A$ symmetric and positive
definite. So, along adaptations to test tasks: the *asymmetry* $\|A-A^\top\|_F/\|A+A^\top\|_F$ (0
for a gradient map), $\lambda_{\min}$ of $(A+A^\top)/2$ (a negative one means that some gradient is
ascended), and the share of steps that increase the task loss.

``python -m proofs_check.studies.trained_maps [CHECKPOINT ...]`` measures checkpoints, or learners
that it trains itself, and writes ``docs/trained_maps.md`` and ``docs/figures/trained_maps.png`` and
``.svg`` (with checkpoints: below ``out/``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import vjp

from mdtheory.config import open_data, parse
from mdtheory.config.schema import RunConfig
from mdtheory.core import seeding, tree
from mdtheory.core.types import Episode, Params, State
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import visits
from mdtheory.inner.task import Task
from mdtheory.meta.learner import MetaLearner
from mdtheory.run.build import build_stream, build_trainer, load_learner

Operator = Callable[[Tensor], Tensor]
"""v -> A v on flat vectors. shapes: (d,) -> (d,)"""

RUN: dict[str, Any] = {
    "seed": 0,
    "dtype": "float64",
    "device": "cpu",
    "data": {"source": "glyphs"},
    "task": {"n_way": 5, "n_shot": 1, "n_query": 10, "n_steps": 3, "task_lr": 0.1},
    "model": {"name": "conv4", "options": {"channels": 8}},
    "meta": {"n_tasks": 2, "iterations": 20, "optimizer": {"name": "Adam", "meta_lr": 0.001}},
    "validation": {"enabled": False},
}
"""The small run of C32 and of this page, on glyphs; a method adds its geometry and nothing else."""

METHODS = ("metasgd", "metamida", "potential")
PROBES, TASKS, STEPS = 8, 5, 6


def config_of(method: str, *, iterations: int, meta_lr: float = 0.001) -> RunConfig:
    """:data:`RUN` for a method."""
    meta = {
        **RUN["meta"],
        "iterations": iterations,
        "optimizer": {"name": "Adam", "meta_lr": meta_lr},
    }
    return parse({**RUN, "meta": meta, "geometry": {"name": method}})


def briefly(
    method: str, *, iterations: int, meta_lr: float = 0.001
) -> tuple[MetaLearner, RunConfig]:
    """A learner after so many meta-iterations of :data:`RUN`, on one thread, in float64."""
    config = config_of(method, iterations=iterations, meta_lr=meta_lr)
    torch.set_num_threads(1)
    trainer = build_trainer(config, open_data(config.data))
    trainer.fit()
    return trainer.learner, config


def episodes(config: RunConfig, n_tasks: int) -> list[Episode]:
    """The first test tasks of a run, in float64."""
    stream = build_stream(config, open_data(config.data), split="test", n_query=1)
    return [stream(index).to(device="cpu", dtype=torch.float64) for index in range(n_tasks)]


def first_order(problem: Problem, meta: Params, state: State, k: int) -> tuple[Operator, Operator]:
    """A_k and its transpose at a state: how the point answers to an infinitely small gradient, per
    unit of task_lr.
    """
    like = problem.point(meta, state)
    zero = {name: torch.zeros_like(value) for name, value in like.items()}

    def moved(gradient: Params) -> Params:
        return problem.point(meta, problem.move(meta, state, gradient, k))

    back = vjp(moved, zero)[1]
    twice = vjp(lambda w: back(w)[0], zero)[
        1
    ]  # w -> A^T w is linear: its own transpose is A, without forward mode

    def forward(v: Tensor) -> Tensor:
        return -tree.flatten(twice(tree.unflatten(v, like))[0]) / problem.task_lr

    def transposed(v: Tensor) -> Tensor:
        return -tree.flatten(back(tree.unflatten(v, like))[0]) / problem.task_lr

    return forward, transposed


def asymmetry(
    forward: Operator, back: Operator, size: int, *, seed: int = 0, probes: int = PROBES
) -> float:
    """||A - A^T||_F / ||A + A^T||_F, both by Hutchinson's estimate E||M v||^2 with random signs;
    inf where A + A^T is 0.
    """
    draw = seeding.generator("proofs", "asymmetry", seed)
    odd = even = 0.0
    for _ in range(probes):
        v = torch.randint(0, 2, (size,), generator=draw).double() * 2 - 1
        a, b = forward(v), back(v)
        odd += float((a - b).square().sum())
        even += float((a + b).square().sum())
    return math.sqrt(odd / even) if even > 1e-28 * odd else math.inf


def extremes(forward: Operator, back: Operator, size: int, *, seed: int = 0) -> tuple[float, float]:
    """The least and largest eigenvalue of (A + A^T)/2, as Lanczos finds them (to 1e-4): an inner
    and never an outer bound.
    """

    def symmetric(x: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(np.ascontiguousarray(x.reshape(-1)))
        return (0.5 * (forward(v) + back(v))).detach().numpy()

    if size <= 32:
        values = np.linalg.eigvalsh(np.stack([symmetric(row) for row in np.eye(size)]))
        return float(values[0]), float(values[-1])
    start = torch.randn(
        size, generator=seeding.generator("proofs", "lanczos", seed), dtype=torch.float64
    ).numpy()
    operator = LinearOperator((size, size), matvec=symmetric, dtype=np.float64)
    found = [
        eigsh(operator, k=1, which=end, v0=start, tol=1e-4, return_eigenvectors=False)[0]
        for end in ("SA", "LA")
    ]
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class Measured:
    """One learner along adaptations to test tasks. shapes: (n_tasks, K + 1), ``loss`` too; A is
    taken at k = 0..K.
    """

    asymmetry: np.ndarray
    least: np.ndarray
    largest: np.ndarray
    loss: np.ndarray

    @property
    def ascents(self) -> float:
        """The share of steps that increase the task loss."""
        return float((np.diff(self.loss, axis=1) > 0).mean())

    @property
    def steps(self) -> int:
        """How many steps that is."""
        return int(np.diff(self.loss, axis=1).size)


def measure(
    problem: Problem,
    meta: Params,
    tasks: Sequence[Task],
    *,
    n_steps: int = STEPS,
    every: int = 2,
) -> Measured:
    """The loss at every step; A at every ``every``-th one (NaN between)."""
    meta = tree.detach(meta)
    rows: list[list[list[float]]] = []
    for number, task in enumerate(tasks):
        row = []
        noise = problem.noise(meta, task)
        for here in visits(problem, meta, task, noise, n_steps=n_steps, hold=tree.detach):
            of_map = [math.nan] * 3
            if here.k % every == 0:
                size = sum(value.numel() for value in here.point.values())
                forward, back = first_order(problem, meta, here.state, here.k)
                least, largest = extremes(forward, back, size, seed=number)
                of_map = [asymmetry(forward, back, size, seed=number), least, largest]
            row.append([*of_map, float(here.loss)])
        rows.append(row)
    return Measured(*np.moveaxis(np.array(rows), 2, 0))


def sentence(name: str, found: Measured) -> str:
    """What was measured, in words that the numbers alone decide."""
    worst, least, largest = (
        np.nanmax(found.asymmetry),
        np.nanmin(found.least),
        np.nanmax(found.largest),
    )
    symmetric = (
        "symmetric to rounding"
        if worst < 1e-10
        else f"not symmetric (asymmetry estimated up to {worst:.2g})"
    )
    definite = (
        f"its symmetric part is indefinite at some visited states (lambda_min down to {least:.3g})"
        if least < 0
        else (
            f"no negative eigenvalue of its symmetric part was found (lambda_min {least:.3g}, "
            f"lambda_max {largest:.3g})"
        )
    )
    return (
        f"*{name}*: {symmetric}; {definite}; {found.ascents:.0%} of {found.steps} steps increase "
        "the task loss."
    )


def verdict(found: Mapping[str, Measured]) -> str:
    """The answer for these learners and no others."""
    names = [name for name, one in found.items() if np.nanmax(one.asymmetry) >= 1e-10]
    if not names:
        return (
            "Every map measured here is a gradient map at the states visited, as far as first "
            "derivatives show."
        )
    bad = [name for name in names if np.nanmin(found[name].least) < 0]
    listed = ", ".join(names)
    end = (
        f"; for {', '.join(bad)} it is not even monotone there"
        if bad
        else "; at the states visited its symmetric part was still found positive definite"
    )
    return (
        f"So what training found is no exact mirror map for {listed}{end}. How near to one it is "
        "can be read off the numbers; "
        "a small asymmetry in the Frobenius norm, in which unaltered coordinates count fully, is "
        "no "
        "theorem."
    )


QUESTION = rf"""A BlockIAF with live conditioners is no mirror map: that is a theorem
([page 5](notebooks/05_blockiaf.py)). How far from one is the map that *training* arrives at? One
step moves the point by $-\alpha Au$ for a small task gradient $u$, and mirror descent has
$A=\nabla^2h^*$, symmetric and positive definite. So three things are measured along adaptations to
test tasks: the *asymmetry* $\|A-A^\top\|_F/\|A+A^\top\|_F$, zero for a gradient map; the extreme
eigenvalues of the symmetric part of $A$, of which a negative one means that some gradient would be
climbed; and how often a step really increases the task loss. The norms are Hutchinson's estimates
from {PROBES} random signs at a state, the eigenvalues are inner bounds by Lanczos."""


def page(found: Mapping[str, Measured], about: str) -> str:
    """The page: the question, one figure, its numbers, one paragraph."""
    lines = [
        "# Beyond the poster: what training finds",
        "",
        QUESTION,
        "",
        (
            "![Asymmetry, extreme eigenvalues and ascending steps of trained "
            "maps](figures/trained_maps.svg)"
        ),
        "",
        (
            r"| map | largest asymmetry estimated | least $\lambda_{\min}$ found | largest "
            r"$\lambda_{\max}$ found | steps that increase the loss |"
        ),
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        worst = np.nanmax(one.asymmetry)
        asymmetric = f"{worst:.2g}" if worst >= 1e-10 else "0, to rounding"
        values = f"{np.nanmin(one.least):.3g} | {np.nanmax(one.largest):.3g}"
        lines.append(f"| {name} | {asymmetric} | {values} | {one.ascents:.0%} of {one.steps} |")
    lines += [
        "",
        f"{verdict(found)} {about}",
        "",
        "Generated by `python -m proofs_check.studies.trained_maps`.",
        "",
    ]
    return "\n".join(lines)


def figure(found: Mapping[str, Measured]) -> Any:
    """Three panels: asymmetry, lambda_min and lambda_max of the symmetric part against k, task loss
    against k.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from mdtheory.figures import plots

    drawn = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(1, 3)
    for colour, marker, (name, one) in zip(
        plots.COLOURS, plots.MARKERS, found.items(), strict=False
    ):
        at = np.flatnonzero(~np.isnan(one.least[0]))
        look: Any = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.4}
        axes[0].plot(at, np.maximum(one.asymmetry[:, at].max(0), 1e-17), label=name, **look)
        axes[1].plot(at, one.least[:, at].min(0), label=name, **look)
        axes[1].plot(at, one.largest[:, at].max(0), linestyle=":", **look)
        axes[2].plot(one.loss.mean(0), label=f"{name}: {one.ascents:.0%} of steps ascend", **look)
    axes[0].set(
        yscale="log",
        ylabel=r"$\|A-A^\top\|_F\,/\,\|A+A^\top\|_F$",
        title="asymmetry of A (drawn at 1e-17 where it is 0)",
    )
    axes[1].set(
        ylabel="eigenvalue",
        title=r"$\lambda_{\min}$ (line) and $\lambda_{\max}$ (dotted) of sym $A$",
    )
    axes[1].axhline(0.0, color="#888888", linewidth=1)
    axes[2].set(yscale="log", title="mean task loss")
    for axis in (axes[0], axes[2]):
        axis.legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.set_xlabel("task step  $k$")
        axis.spines[["top", "right"]].set_visible(False)
    return drawn


def main(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(help="Trained learners; without any, short runs.")
    ] = None,
    iterations: Annotated[
        int, typer.Option(min=0, help="Meta-iterations of the short runs.")
    ] = 200,
    out: Annotated[Path | None, typer.Option(help="Where page and figure go.")] = None,
) -> None:
    """Measure trained maps; print what was found, write the page and its figure."""
    from mdtheory.figures import plots

    made = [load_learner(path) for path in checkpoints or []] or [
        briefly(name, iterations=iterations) for name in METHODS
    ]
    names = [path.stem for path in checkpoints or []] or list(METHODS)
    found = {
        name: measure(
            learner.double().problem(),
            learner.meta(),
            [learner.task(episode) for episode in episodes(config, TASKS)],
        )
        for name, (learner, config) in zip(names, made, strict=True)
    }
    task = made[0][1].task
    about = (
        f"Learners after {made[0][1].meta.iterations} meta-iterations on {made[0][1].data.source}, "
        f"{TASKS} test tasks "
        f"({task.n_way}-way {task.n_shot}-shot), {STEPS} task steps each."
    )
    if not checkpoints:
        about += (
            " These are short runs, close to their start, where every map is the identity: "
            "longer training moves further."
        )
    folder = out or Path("out/trained_maps" if checkpoints else "docs")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    plots.save_figure(figure(found), folder / "figures" / "trained_maps")
    (folder / "trained_maps.md").write_text(page(found, about), encoding="utf-8")
    for name, one in found.items():
        print(sentence(name, one))
    print(verdict(found))


if __name__ == "__main__":
    typer.run(main)
