"""What only forward and backward passes can show: hidden state and randomness, weights that cannot
be replaced, derivatives that are missing or wrong.

Everything happens on copies: the model itself is neither run nor changed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core.inputs import Inputs, leaves, map_inputs, n_items, rows
from mdtheory.core.types import Episode
from mdtheory.models.norm import BatchStatNorm
from mdtheory.models.user import attributes, culprit, glance, residue, targets, truth
from mdtheory.models.user.case import FAILURES, Case, Loss, drawn, loss_of, random_states
from mdtheory.models.user.guard import equal
from mdtheory.models.user.verdict import Verdict

N_ITEMS = 3
"""Items of the batch that are used; all of them where the model does not take so few. Statistics of
a batch of two would leave next to nothing to compare.
"""

REMEDIES = {
    "attention": (
        "run it inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or write the softmax out"
    ),
    "saved tensor hooks": (
        "do not checkpoint activations; the estimator `stepwise` saves memory instead"
    ),
    "autograd.Function": "give its autograd.Function a setup_context and a differentiable backward",
    "inside of a function": (
        "take derivatives inside of forward by torch.func.grad or jvp, without requires_grad_() or "
        "retain_grad()"
    ),
    "data pointer": (
        "packed sequences, extensions and other code that reads raw memory have no derivatives "
        "there; use padded tensors and ordinary torch operations"
    ),
    "": (
        "write the operation that torch names with ordinary torch arithmetic, or take "
        "estimator='first_order' where first derivatives exist"
    ),
}
"""What helps, by a fragment of torch's message; the first that fits."""


def mean_square(outputs: Tensor, targets: Any) -> Tensor:
    """The stand-in for a loss where none is given. shape: ()"""
    return outputs.square().mean()


@torch.inference_mode(False)
def probe(
    model: nn.Module, x: Inputs, y: Any = None, *, loss: Loss = mean_square, order: int = 2
) -> Verdict:
    """Run copies of a prepared model on a batch, forward and to the given order, and refuse what
    would go wrong later.

    ``x``: shape (n_items, ...), at least two items, as a support set has; ``y``: its targets.
    ``order`` 1 suffices for adapting and for the estimator "first_order". Refused, each by one
    ``ValueError`` that names cause and remedy: an output that is not one floating tensor with
    n_items rows, a changed input, buffer or frozen parameter, any random draw, plain attributes
    that one pass writes and the next one reads, weights that ``functional_call`` does not replace,
    functions that are others under ``torch.func``, derivatives that are missing or not true. That
    second derivatives are finite at the very weights shows in the first result
    (:func:`refuse_second`).

    Cost, in floating point operations of forward-backward passes over five items (Conv4,
    ResNet-12, a vision transformer at 84 x 84): 1.6 where all operations are common
    (:mod:`~mdtheory.models.user.glance`); 3.0 with another one, whose second derivatives are
    compared in float64; 4.8 where the declared derivative is not the one of the values; 8.3 where
    the model does not run in float64; 0.2 more to replace fused attention. By the clock on one CPU
    thread 2.6 to 3.1, 8 to 15 and 12 to 22. A model that takes no :data:`N_ITEMS` items costs as
    many passes over all of them: 2.7, or 5.0. A refusal searches for its cause besides.
    """
    x = map_inputs(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, x)
    if n_items(x) <= N_ITEMS:
        return _judge(Case(copy.deepcopy(model), x, y, loss), order)
    few = rows(x, slice(N_ITEMS)), None if y is None else rows(y, slice(N_ITEMS))
    try:
        return _judge(Case(copy.deepcopy(model), *few, loss), order)
    except ValueError:  # perhaps the model or the loss does not take so few
        return _judge(Case(copy.deepcopy(model), x, y, loss), order)


def _judge(case: Case, order: int) -> Verdict:
    outputs, stashes = _watched(case)
    _check_outputs(case, outputs)
    recurrent = order == 2 and any(
        isinstance(part, nn.RNNBase) and any(p.is_cuda for p in part.parameters())
        for part in case.model.modules()
    )
    verdict = Verdict(False, recurrent, stashes, outputs=tuple(outputs.shape))
    verdict, settled = glance.look(case, order, verdict)
    if settled:
        return verdict
    with verdict.kernels():
        comparison = truth.proved(case, order)
    if comparison is not None:
        return replace(verdict, unused=comparison.unused(), loss_learns=comparison.of_loss)
    if not all(truth.alike(outputs, case.outputs()) for _ in range(3)):
        raise ValueError(truth.UNEQUAL)
    verdict = _as_it_is(case, order, verdict)
    with verdict.kernels():
        comparison = _compared(case, order)
    return replace(verdict, unused=comparison.unused(), loss_learns=comparison.of_loss)


def _watched(case: Case) -> tuple[Any, tuple[attributes.Place, ...]]:
    """One pass without gradients, which must not draw, write or remember anything; its outputs,
    and the plain attributes that it leaves behind.
    """
    model, given = case.model, [v for v in leaves(case.x) if isinstance(v, Tensor)]
    before = _registered(model)
    places, marks = [place for place, _ in attributes.plain(model)], attributes.marks(model)
    held, versions = attributes.Held(model, places), [value._version for value in given]
    states = random_states(case.x)
    try:
        outputs = case.outputs()
    except FAILURES as error:
        if "must stay constant" in str(error):
            raise
        raise ValueError(cannot_run(case, error)) from error
    if (source := drawn(states, random_states(case.x))) is not None:
        raise ValueError(
            "the model must give the same output twice, but its forward pass draws from "
            f"{source} in {culprit.drawing_layer(case)}; "
            "remove the dropout or noise, or call eval() on the model first"
        )
    if [value._version for value in given] != versions:
        raise ValueError(
            "the model must leave its input as it is, but it writes to it; set inplace=False in "
            "its first layer"
        )
    _check_registered(before, _registered(model))
    left = attributes.moved(marks, attributes.marks(model))
    if left:
        created = [place for place in left if place not in marks]
        held.put_back()
        attributes.Held.remove(model, created)
        residue.check(case, left)
        held.put_back()
        attributes.Held.remove(model, created)
        attributes.Stash(left).watch(model)
    return outputs, tuple(left)


def _check_outputs(case: Case, outputs: Any) -> None:
    n = n_items(case.x)
    if (
        not isinstance(outputs, Tensor)
        or not outputs.is_floating_point()
        or outputs.shape[:1] != (n,)
        or (outputs.dim() == 1 and not _one_per_item(case))
    ):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"the model must return one float tensor of {n} rows for {n} items, got {found}; wrap "
            "it"
        )
    if bool(outputs.isnan().any()) and (read := residue.dropped(case.model)):
        raise ValueError(
            f"the model must compute its outputs from its parameters in forward, but it reads "
            f"{read!r}, which was computed from them before; compute it in forward"
        )
    if case.y is not None:
        targets.check(case.loss, outputs, case.y)
    states = random_states(case.x)
    given = [v for v in leaves(case.y) if isinstance(v, Tensor)]
    versions = [v._version for v in given]
    try:
        with torch.no_grad():
            values = [loss_of(case.loss, outputs.clone(), case.y) for _ in range(2)]
    except FAILURES as error:
        if "loss(outputs, targets)" in str(error):
            raise
        raise ValueError(cannot_score(case, outputs, error)) from error
    if (
        drawn(states, random_states(case.x)) is not None
        or not truth.alike(*values)
        or [v._version for v in given] != versions
    ):
        raise ValueError(
            "the loss must give the same value for the same outputs and targets, but it draws "
            "random numbers, remembers earlier calls or writes to its targets; make it depend on "
            "what it is given alone"
        )


def _one_per_item(case: Case) -> bool:
    """Whether fewer items give fewer outputs: as many outputs as items may be an accident."""
    fewer = n_items(case.x) - 1
    try:
        found = replace(case, x=rows(case.x, slice(fewer))).outputs()
    except FAILURES:  # the model does not take so few
        return True
    return isinstance(found, Tensor) and found.shape == (fewer,)


def _as_it_is(case: Case, order: int, verdict: Verdict) -> Verdict:
    """Derivatives at the model's own weights and precision exist and are finite."""
    try:
        with verdict.kernels():
            found = case.derivatives(case.weights, order, case.random("way"))
    except FAILURES as error:
        if order == 2 and not verdict.plain_attention and "attention" in str(error):
            return _as_it_is(case, order, replace(verdict, plain_attention=True))
        if "must stay constant" in str(error):
            raise
        raise ValueError(missing(case, order, error)) from error
    finite = [
        all(bool(torch.isfinite(value).all()) for value in part.values())
        for part in (found.gradient, found.second)
    ]
    if finite == [True, False]:
        raise ValueError(
            truth.wrong_second(case, "not finite at these weights, though the gradient is")
        )
    return verdict


def _compared(case: Case, order: int) -> truth.Comparison:
    """A comparison that fits, in float64 where the model can be cast; ``ValueError`` if none."""
    try:
        tried = case.widened()
        comparison = truth.Comparison(tried, order)
    except FAILURES:
        tried = case
        comparison = truth.Comparison(tried, order)
    if comparison.foreign:
        raise ValueError(truth.foreign())
    for seed in (1, 2):
        if comparison.fits():
            return comparison
        comparison = truth.Comparison(tried.again(seed), order)
    if not comparison.fits():
        raise ValueError(truth.complaint(comparison))
    return comparison


def explain(
    model: nn.Module, loss: Loss, tasks: list[Episode], verdict: Verdict | None, error: Exception
) -> None:
    """Raise the sentence for the task whose inputs or targets the model or loss does not take, or,
    with a ``verdict`` on second derivatives, for those that are missing, if there is one.
    """
    if isinstance(error, ValueError):
        return
    for index, task in enumerate(tasks):
        for name, x, y in (
            ("support", task.support_x, task.support_y),
            ("query", task.query_x, task.query_y),
        ):
            if n_items(x) == 0:
                continue
            case = Case(copy.deepcopy(model), x, y, loss)
            try:
                outputs = case.outputs()
            except FAILURES as again:
                raise ValueError(f"task {index}, {name} set: {cannot_run(case, again)}") from error
            try:
                with torch.no_grad():
                    loss_of(loss, outputs, y)
            except FAILURES as again:
                said = cannot_score(case, outputs, again)
                raise ValueError(f"task {index}, {name} set: {said}") from error
    if verdict is not None:
        refuse_second(model, loss, tasks, verdict)


def refuse_second(model: nn.Module, loss: Loss, tasks: list[Episode], verdict: Verdict) -> None:
    """Raise the sentence for second derivatives at the model's own weights that are missing or not
    finite, where that is so on one of these tasks.
    """
    for task in tasks:
        _as_it_is(Case(copy.deepcopy(model), task.support_x, task.support_y, loss), 2, verdict)


def missing(case: Case, order: int, error: Exception) -> str:
    """The sentence for derivatives that torch does not have."""
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    remedy = next(remedy for fragment, remedy in REMEDIES.items() if fragment in said)
    where = culprit.failing_layer(case, truth.missing_alone(order))
    often = "twice differentiable" if order == 2 else "differentiable"
    return (
        f"the model must be {often} under torch.func{f', but {where} is not' if where else ''}; "
        f"{remedy}. torch says: {said or type(error).__name__}"
    )


def cannot_run(case: Case, error: Exception) -> str:
    """The sentence for a forward pass that fails."""
    said = (str(error).splitlines() or [""])[0].rstrip(".")
    inputs = [
        f"{tuple(v.shape)} {str(v.dtype).removeprefix('torch.')} on {v.device}"
        for v in leaves(case.x)
        if isinstance(v, Tensor)
    ]
    like = next(iter(case.weights.values()))
    whole = any(isinstance(v, Tensor) and not v.is_floating_point() for v in leaves(case.x))
    remedy = (
        "give floating inputs, for instance x.float() / 255 for images, or int64 for indices"
        if whole
        else "give inputs of the shape, type and device that its forward takes"
    )
    if "does not require grad" in said:
        remedy = "take derivatives inside of forward by torch.func.grad or jvp"
    return (
        f"the model must run on the task's inputs, got {', '.join(inputs)} for weights of "
        f"{str(like.dtype).removeprefix('torch.')} on {like.device}; {remedy}. It says: "
        f"{type(error).__name__}: {said}"
    )


def cannot_score(case: Case, outputs: Tensor, error: Exception) -> str:
    """The sentence for a loss that fails."""
    y, said = case.y, (str(error).splitlines() or [""])[0].rstrip(".")
    got = "no targets"
    if isinstance(y, Tensor):
        got = f"targets of shape {tuple(y.shape)} {str(y.dtype).removeprefix('torch.')}"
        if y.numel() and not y.is_floating_point():
            got += f" from {int(y.min())} to {int(y.max())}"
    remedy = (
        "class labels are int64 from 0 to the number of outputs - 1, other targets need a loss of "
        "their own (loss=...)"
    )
    if isinstance(y, Tensor) and y.numel() == outputs.numel() and y.shape != outputs.shape:
        remedy = "give the targets the shape of the outputs, for instance y[:, None]"
    return (
        f"the loss must take the outputs, of shape {tuple(outputs.shape)}, got {got}; {remedy}. "
        f"It says: {type(error).__name__}: {said}"
    )


def _registered(model: nn.Module) -> dict[str, tuple[Tensor, int, Tensor]]:
    """Parameters and buffers that no pass may change, with their versions and values."""
    kept = [part for part in model.modules() if isinstance(part, BatchStatNorm)]
    free = {id(value) for part in kept for value in part.buffers(recurse=False)}
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: (value, value._version, value.detach().clone())
        for name, value in named
        if id(value) not in free
    }


def _check_registered(
    before: dict[str, tuple[Tensor, int, Tensor]], after: dict[str, tuple[Tensor, int, Tensor]]
) -> None:
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if (
            old is None
            or new is None
            or old[0] is not new[0]
            or old[1] != new[1]
            or not equal(old[2], new[2])
        ):
            kind = "parameter" if old and isinstance(old[0], nn.Parameter) else "buffer"
            raise ValueError(
                f"{kind} {name!r} must stay constant, but the forward pass changed it; "
                "compute it when the model is built, or keep batch statistics in "
                "mdtheory.models.BatchStatNorm"
            )
