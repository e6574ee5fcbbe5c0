"""Every module of the zoo through every estimator, against a loop written by hand on the module.

``python -m tests.models.user.sweep --write`` writes the page of what is right and what is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from mdtheory.core.functional import functional_call
from mdtheory.core.inputs import arguments, call
from mdtheory.core.types import Episode
from mdtheory.geometry.prior import Prior
from mdtheory.meta import MetaLearner
from tests.models.user import zoo_libraries
from tests.models.user.zoo import ZOO
from tests.models.user.zoo_base import Inputs

WAYS = ("unrolled", "stepwise", "first_order", "implicit", "adapt")
PAGE = Path(__file__).parents[3] / "docs" / "which-modules.md"
N_STEPS, RATE = 2, 0.1
STEPS = (1e-6, 1e-7)  # of the differences; the second where a kink lies within the first
PRECISION, PRIOR_RATE = 100.0, 0.008  # so strong that the minimiser is near the start
PLAIN_AUTOGRAD = {
    "straight through",
    "straight through by a Function",
    "detached half",
    "no_grad half",
    "Embedding with padding",
    "BERT-like block",
    "gradient reversal",
    "constant by .data",
}
"""Their declared derivative is not the one of their values, so differences cannot be the truth."""
CLOSE = 1e-5
Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, tuple[str, str]]


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """The module, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return make().double()


def episode_of(inputs: Inputs) -> Episode:
    draw = torch.Generator().manual_seed(6)
    x, q = (inputs(5, draw) for _ in range(2))
    y, z = (torch.randint(0, 3, (5,), generator=draw) for _ in range(2))
    return Episode(x, y, q, z)


def directions(model: nn.Module) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {
        n: torch.randn(p.shape, generator=draw, dtype=p.dtype)
        for n, p in model.named_parameters()
        if p.requires_grad
    }


def descended(
    model: nn.Module, task: Episode, loss: Loss, shift: float, *, prior: bool = False
) -> nn.Module:
    """SGD in place from the weights + shift * direction; with a ``prior``, to its minimiser."""
    way = directions(model)
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in own.items():
            p += shift * way[name]
    start = {name: p.detach().clone() for name, p in own.items()}
    for _ in range(20 if prior else N_STEPS):
        value = loss(call(model, task.support_x), task.support_y)
        slopes = torch.autograd.grad(value, list(own.values()), materialize_grads=True)
        with torch.no_grad():
            for (name, p), g in zip(own.items(), slopes, strict=True):
                g = g + PRECISION * (p - start[name]) if prior else g
                p -= (PRIOR_RATE if prior else RATE) * g
    return model


def query(model: nn.Module, task: Episode, loss: Loss) -> Tensor:
    return loss(call(model, task.query_x), task.query_y)


def truth(
    make: Callable[[], nn.Module],
    task: Episode,
    loss: Loss,
    way: str,
    plain: bool,
    h: float = STEPS[0],
) -> float:
    """The meta-gradient along the direction (for "adapt", the adapted query loss)."""
    if way == "adapt":
        return float(query(descended(make(), task, loss, 0.0), task, loss).detach())
    if way == "first_order":
        model = descended(make(), task, loss, 0.0)
        own = {n: p for n, p in model.named_parameters() if p.requires_grad}
        value = query(model, task, loss)
        slopes = torch.autograd.grad(value, list(own.values()), materialize_grads=True)
        v = directions(make())
        return float(sum((g * v[n]).sum() for n, g in zip(own, slopes, strict=True)))
    if plain:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
            return _by_create_graph(make(), task, loss, prior=way == "implicit")
    up, down = (
        float(query(descended(make(), task, loss, s, prior=way == "implicit"), task, loss).detach())
        for s in (h, -h)
    )
    return (up - down) / (2 * h)


def _by_create_graph(model: nn.Module, task: Episode, loss: Loss, *, prior: bool = False) -> float:
    start = {n: p for n, p in model.named_parameters() if p.requires_grad}
    weights: dict[str, Tensor] = dict(start)
    for _ in range(60 if prior else N_STEPS):
        value = loss(
            functional_call(model, weights, *arguments(model, task.support_x)), task.support_y
        )
        slopes = torch.autograd.grad(
            value, list(weights.values()), create_graph=True, materialize_grads=True
        )
        pulls = {n: PRECISION * (w - start[n]) if prior else 0 for n, w in weights.items()}
        rate = PRIOR_RATE if prior else RATE
        weights = {
            n: w - rate * (g + pulls[n]) for (n, w), g in zip(weights.items(), slopes, strict=True)
        }
    value = loss(functional_call(model, weights, *arguments(model, task.query_x)), task.query_y)
    slopes = torch.autograd.grad(value, list(start.values()), materialize_grads=True)
    v = directions(model)
    return float(sum((g * v[n]).sum() for n, g in zip(start, slopes, strict=True)))


ABOUT = {
    "torchvision": (
        "Small members of its families, 32 x 32, three classes, five images, against plain "
        "autograd through the loop. Two refusals come of one layer each: Hardsigmoid, and "
        "stochastic depth in training."
    ),
    "peft": (
        "Adapters at two of three linear layers; they and the head are adapted. DoRA and "
        "FourierFT against plain autograd. LoHa and LoKr draw a number in training mode even where "
        "nothing depends on it: call `eval()` on the model first."
    ),
}


class Unsolved(Exception):
    """The task solver found no stationary point: there is no implicit gradient to compare."""


def ours(make: Callable[[], nn.Module], task: Episode, loss: Loss, way: str) -> tuple[float, bool]:
    """The same by the library, and whether it switched kernels by itself."""
    model = make()
    if way == "implicit":
        learner = MetaLearner(
            model, Prior(PRECISION), n_steps=40, task_lr=PRIOR_RATE, estimator=way, loss=loss
        )
    else:
        estimator = "unrolled" if way == "adapt" else way
        learner = MetaLearner(model, n_steps=N_STEPS, task_lr=RATE, estimator=estimator, loss=loss)
    if way == "adapt":
        adapted = learner.adapt(task.support_x, task.support_y)
        return float(loss(adapted(task.query_x), task.query_y).detach()), False
    result = learner.meta_gradient([task])
    grads = result.grads
    if way == "implicit" and float(result.stats["solve_residual"]) > 1e-6:
        raise Unsolved
    total = sum(
        float((grads[f"anchor.{n}"] * v).sum())
        for n, v in directions(make()).items()
        if f"anchor.{n}" in grads
    )
    return total, learner.gate.switched


def verdict(
    make: Callable[[], nn.Module], task: Episode, loss: Loss, way: str, *, plain: bool = False
) -> tuple[str, str]:
    """right, switched (right, by other kernels), refused, wrong or crash; and what was said."""
    try:
        found, switched = ours(make, task, loss, way)
    except Unsolved:
        return "unsolved", ""
    except ValueError as refusal:
        said = str(refusal)
        return ("refused" if said and "\n" not in said else "crash"), said
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}"
    for h in STEPS:
        expected = truth(make, task, loss, way, plain, h)
        if abs(found - expected) <= CLOSE * max(1.0, abs(expected)):
            break
    else:
        return "wrong", f"{found} instead of {expected}"
    return ("switched" if switched else "right"), ""


def row(name: str) -> Row:
    """The verdict on one module, by estimator."""
    return judged(*ZOO[name], plain=name in PLAIN_AUTOGRAD)


def judged(make: Callable[[], nn.Module], inputs: Inputs, *, plain: bool) -> Row:
    """The verdicts on a module, by estimator."""
    task = episode_of(inputs)
    return {
        way: verdict(lambda: built(make), task, cross_entropy, way, plain=plain) for way in WAYS
    }


def library_row(library: str, name: str) -> Row:
    """The verdict on a model of another library."""
    plain = library == "torchvision" or name in zoo_libraries.BY_CREATE_GRAPH
    return judged(*zoo_libraries.ROWS[library][name], plain=plain)


def page(rows: dict[str, dict[str, tuple[str, str]]]) -> str:
    """The table, in Markdown."""
    text = [
        "# Which modules work",
        "",
        "Made by `python -m tests.models.user.sweep --write`, which runs every row: the",
        "meta-gradient against central differences of a loop written by hand on the module itself",
        "(where its declared derivative is another one, as in a straight-through estimator,",
        "against plain autograd). *right*: equal to the truth;",
        "*switched*: right, after a fused kernel without second derivatives was replaced;",
        "*unsolved*: the task solver jumps about a kink (its statistic `solve_residual` says so),",
        "where no implicit gradient is defined; *refused*: by one sentence that names layer, cause",
        "and remedy; the first one that the row",
        "meets is quoted.",
        "",
        *table("layer or pattern", rows),
    ]
    return "\n".join(text) + "\n"


def table(what: str, rows: dict[str, Row]) -> list[str]:
    """Its lines."""
    text = [
        f"| {what} | {' | '.join(WAYS)} | the sentence |",
        f"|---|{'---|' * (len(WAYS) + 1)}",
    ]
    for name, verdicts in rows.items():
        said = next((s for kind, s in verdicts.values() if kind == "refused"), "")
        cells = [verdicts[way][0] for way in WAYS]
        quoted = said.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        text.append(f"| {name} | {' | '.join(cells)} | {quoted} |")
    return text


def section(library: str, before: str) -> str:
    """The rows of another library, with its version; as they were where it is not installed."""
    if not zoo_libraries.installed(library):
        _, heading, rest = before.partition(f"\n## {library} ")
        return heading + rest.partition("\n## ")[0].rstrip() + "\n" if heading else ""
    rows = {name: library_row(library, name) for name in zoo_libraries.ROWS[library]}
    found = zoo_libraries.version(library), torch.__version__.partition("+")[0]
    head = ["", f"## {library} {found[0]}, with torch {found[1]}", "", ABOUT[library], ""]
    return "\n".join([*head, *table("model", rows)]) + "\n"


def main(arguments: list[str]) -> None:
    names = [
        name for name in ZOO if not arguments or arguments[0] == "--write" or name in arguments
    ]
    rows = {}
    for name in names:
        rows[name] = row(name)
        kinds = [rows[name][way][0] for way in WAYS]
        said = next((s for _, s in rows[name].values() if s), "")
        print(f"{name:45s} {' '.join(f'{k:8s}' for k in kinds)} {said[:230]}", flush=True)
    if arguments[:1] == ["--write"]:
        before = PAGE.read_text(encoding="utf-8")
        others = [section(library, before) for library in zoo_libraries.LIBRARIES]
        PAGE.write_text(page(rows) + "".join(others), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
