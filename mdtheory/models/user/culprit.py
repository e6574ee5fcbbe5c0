"""Which layer it was: run every submodule on the inputs that it had, innermost first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.models.user.case import FAILURES, Case, drawn, random_states
from mdtheory.models.user.rules import described


def drawing_layer(case: Case) -> str:
    """The innermost submodule in whose pass a random generator moved, described."""
    found: list[tuple[str, nn.Module]] = []
    before: dict[str, Any] = {}
    handles = []
    for name, module in case.model.named_modules():

        def enter(m: nn.Module, args: Any, name: str = name) -> None:
            before[name] = random_states(case.x)

        def leave(m: nn.Module, args: Any, output: Any, name: str = name) -> None:
            if drawn(before.pop(name), random_states(case.x)) is not None:
                found.append((name, m))

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        case.outputs()
    except FAILURES:
        found = []
    finally:
        for handle in handles:
            handle.remove()
    return described(*found[0]) if found else described("", case.model)


def failing_layer(case: Case, fails: Callable[[Case], bool]) -> str | None:
    """The innermost submodule that fails on its own, described; ``None`` if only the whole does."""
    seen: dict[str, tuple[nn.Module, Any, Any]] = {}
    handles = []
    for name, module in case.model.named_modules():

        def enter(m: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            seen.setdefault(name, (m, _detached(args), _detached(kwargs)))

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
    try:
        case.outputs()
    except FAILURES:
        return None
    finally:
        for handle in handles:
            handle.remove()
    for name, (module, args, kwargs) in reversed(seen.items()):
        if name and fails(Case(_Alone(module, args, kwargs), (), None, _mean_square, case.seed)):
            return described(name, module)
    return None


class _Alone(nn.Module):
    """One layer on given inputs, which count as weights where they are floating."""

    def __init__(self, layer: nn.Module, args: Any, kwargs: Any):
        super().__init__()
        self.layer = layer
        self.args = args
        self.kwargs = kwargs
        self.inputs = nn.ParameterList(
            nn.Parameter(a.clone()) for a in args if isinstance(a, Tensor) and a.is_floating_point()
        )

    def forward(self) -> Tensor:
        """All floating outputs, as one vector. shape: (n,)"""
        given = (value.clone() for value in self.inputs)  # a layer may write to what it is given
        args = [
            next(given) if isinstance(a, Tensor) and a.is_floating_point() else a for a in self.args
        ]
        made = self.layer(*args, **self.kwargs)
        parts = [o for o in _tensors(made) if o.is_floating_point()]
        return torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)


def _mean_square(outputs: Tensor, targets: Any) -> Tensor:
    weights = torch.linspace(0.5, 1.5, outputs.numel(), dtype=outputs.dtype, device=outputs.device)
    return (weights * outputs.reshape(-1).square()).mean() + (weights * outputs.reshape(-1)).mean()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in _tensors(v)]
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    return type(value)(_detached(v) for v in value) if type(value) in (tuple, list) else value
