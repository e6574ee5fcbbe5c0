"""What a forward pass leaves in plain attributes: harmless where the next pass does not read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core import tree
from mdtheory.core.inputs import map_inputs
from mdtheory.models.user import attributes
from mdtheory.models.user.case import FAILURES, Case
from mdtheory.models.user.truth import WANDER, alike

N_PASSES = 12
"""Passes that must give equal outputs; a remainder of a call counter by less shows itself."""
FAR = tuple(10**exponent for exponent in range(1, 8))
"""What is added to a number that passes move, for what happens after so many calls."""


def check(case: Case, left: list[attributes.Place]) -> None:
    """Refuse, by name, an attribute in ``left`` that one pass writes and a later one reads."""
    model, empty = case.model, attributes.Held(case.model, left)
    in_place = {
        id(tensor): (place, tensor._version, tensor.detach().clone())
        for place, value in attributes.plain(model)
        if place in left
        for tensor in attributes.tensors(value)
    }
    outputs, always = [], list(left)
    for _ in range(N_PASSES):
        before = attributes.marks(model)
        outputs.append(_outputs(case, left[0]))
        moving = attributes.moved(before, attributes.marks(model))
        always = [place for place in always if place in moving]
    for place, value in attributes.plain(model):
        if place in left:
            for tensor in attributes.tensors(value):
                if id(tensor) in in_place and tensor._version != in_place[id(tensor)][1]:
                    raise ValueError(_sentence(place))
    if not all(alike(outputs[0], other) for other in outputs[1:]):
        raise ValueError(_sentence((always or left)[0]))
    for place in always:
        value = dict(attributes.plain(model)).get(place)
        for other in _disturbed(value):
            own = vars(model.get_submodule(place[0]))
            own[place[1]] = other
            if not alike(outputs[0], _outputs(case, place)):
                raise ValueError(_sentence(place))
    _check_caches(case, [place for place in left if place not in always], empty)


def _check_caches(case: Case, caches: list[attributes.Place], empty: attributes.Held) -> None:
    """Refuse what the first pass computes from weights or inputs and later ones only read: with
    others of these, outputs must not depend on whether it is there.
    """
    base = tree.axpy(WANDER, case.random("base"), case.weights)
    other = map_inputs(
        lambda v: 1.5 * v if isinstance(v, Tensor) and v.is_floating_point() else v, case.x
    )
    full = attributes.Held(case.model, caches)
    for tried in (replace(case, x=other), case) if caches else ():
        case.write(base)
        try:
            kept = tried.outputs()
            empty.put_back()
            fresh = tried.outputs()
        except FAILURES:  # not such an input
            continue
        finally:
            case.write(case.weights)
            full.put_back()
        if not alike(kept, fresh):
            raise ValueError(_sentence(caches[0]))


def dropped(model: nn.Module) -> str | None:
    """The name of an attribute that :func:`~mdtheory.models.user.prepare.prepare` has emptied."""
    for place, value in attributes.plain(model):
        for tensor in attributes.tensors(value):
            if tensor.is_floating_point() and tensor.numel() and bool(tensor.isnan().all()):
                return attributes.label(place)
    return None


def _outputs(case: Case, place: attributes.Place) -> Any:
    try:
        return case.outputs()
    except FAILURES as error:
        raise ValueError(_sentence(place)) from error


def _disturbed(value: Any) -> Iterator[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + far for far in FAR)
    elif isinstance(value, Tensor) and value.is_floating_point():
        yield torch.full_like(value.detach(), float("nan"))
    elif isinstance(value, Tensor):
        yield torch.zeros_like(value)


def _sentence(place: attributes.Place) -> str:
    return (
        f"the model must depend on its input and parameters alone, but forward changes the "
        f"attribute {attributes.label(place)!r}, which later passes read; compute it when the "
        "model is built, or pass it in as an input"
    )
