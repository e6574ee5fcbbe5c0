"""Calling a module with other parameters in place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(
    model: nn.Module,
    values: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """``model(*args, **kwargs)`` with these parameters; one given under any name is replaced in
    every slot that it is tied to.

    Deviation from ``torch.func.functional_call``: a *module* registered under two names is restored
    afterwards. There (torch 2.13) its first name gets the original back and its second one, the
    same slot, the replacement, which stays for good.
    """
    slots = [
        (f"{path}.{name}" if path else name, value)
        for path, module in model.named_modules()
        for name, value in module._parameters.items()
        if value is not None
    ]
    given = {id(value): values[name] for name, value in slots if name in values}
    spread = {name: given[id(value)] for name, value in slots if id(value) in given}
    return torch.func.functional_call(model, spread, args, kwargs, tie_weights=False)
