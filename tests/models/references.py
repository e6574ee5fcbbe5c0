"""Slow, obvious truths for the models: finite differences, a loop over tasks, and networks written
with torch's own layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from mdtheory.core.types import Params

N_TASKS, N_ITEMS, N_STEPS, RATE = 2, 4, 2, 0.3
Tasks = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # support and query inputs and targets, stacked over tasks


def live(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """A float64 model whose parameters are all away from special values such as 0 and 1."""
    model = model.double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(scale * torch.randn(value.shape, generator=draw, dtype=torch.float64))
    return model


def trainable(model: nn.Module) -> Params:
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if value.requires_grad
    }


def regression_tasks(model: nn.Module, shape: tuple[int, ...]) -> Tasks:
    """Random inputs of ``shape`` and random targets of the model's output shape."""
    draw = torch.Generator().manual_seed(2)
    x, q = (
        torch.randn(N_TASKS, N_ITEMS, *shape, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    with torch.no_grad():
        out = model(x[0]).shape
    y, z = (torch.randn(N_TASKS, *out, generator=draw, dtype=torch.float64) for _ in range(2))
    return x, y, q, z


def meta_loss(model: nn.Module, *, first_order: bool = False) -> Callable[..., Tensor]:
    """The query loss after two gradient steps from ``params``. ``first_order`` stops the task
    gradients: a wrong surrogate.
    """

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(functional_call(model, params, (x,)), y)

    def after_steps(params: Params, x: Tensor, y: Tensor, q: Tensor, z: Tensor) -> Tensor:
        start = params
        for _ in range(N_STEPS):
            gradient = grad(loss)(params, x, y)
            params = {
                n: v - RATE * (gradient[n].detach() if first_order else gradient[n])
                for n, v in params.items()
            }
        assert params.keys() == start.keys()
        return loss(params, q, z)

    return after_steps


def looped(function: Callable[..., Tensor], params: Params, tasks: Tasks) -> Params:
    """The gradient of each task, one task after another, stacked."""
    grads = [grad(function)(params, *(part[t] for part in tasks)) for t in range(N_TASKS)]
    return {name: torch.stack([one[name] for one in grads]) for name in params}


def vmapped(function: Callable[..., Tensor], params: Params, tasks: Tasks) -> Params:
    """The same by vmap of the whole gradient."""
    return vmap(grad(function), in_dims=(None, 0, 0, 0, 0))(params, *tasks)


def central_differences(
    function: Callable[..., Tensor], params: Params, tasks: Tasks, step: float = 2e-6
) -> Params:
    """(f(p + h e_i) - f(p - h e_i)) / 2h, coordinate by coordinate, for each task."""
    grads = {
        name: torch.zeros(N_TASKS, *value.shape, dtype=value.dtype)
        for name, value in params.items()
    }
    for name, value in params.items():
        for i in range(value.numel()):
            shift = torch.zeros_like(value)
            shift.view(-1)[i] = step
            for t in range(N_TASKS):
                task = [part[t] for part in tasks]
                up, down = (
                    function({**params, name: value + sign * shift}, *task) for sign in (1, -1)
                )
                grads[name][t].view(-1)[i] = (up - down) / (2 * step)
    return grads


def directional_error(
    function: Callable[..., Tensor], params: Params, tasks: Tasks, grads: Params, step: float = 1e-6
) -> float:
    """The largest relative difference to central differences along one random direction for each
    task.
    """
    draw = torch.Generator().manual_seed(3)
    worst = 0.0
    for t in range(N_TASKS):
        task = [part[t] for part in tasks]
        way = {
            name: torch.randn(value.shape, generator=draw, dtype=value.dtype)
            for name, value in params.items()
        }
        up, down = (
            function({n: v + sign * step * way[n] for n, v in params.items()}, *task)
            for sign in (1, -1)
        )
        slope = float((up - down) / (2 * step))
        exact = float(sum((grads[name][t] * way[name]).sum() for name in params))
        worst = max(worst, abs(slope - exact) / max(abs(slope), 1e-3))
    return worst


def error(one: Params, other: Params) -> float:
    """The largest difference, relative to the largest entry of ``other``."""
    scale = max(float(value.abs().max()) for value in other.values())
    return max(float((one[name] - other[name]).abs().max()) for name in other) / scale


def conv4_outputs(p: Params, x: Tensor) -> Tensor:
    """Conv4 in the official order: convolution, batch norm, ReLU, max-pool."""
    for i in range(4):
        x = F.conv2d(x, p[f"blocks.{i}.conv.weight"], p[f"blocks.{i}.conv.bias"], padding=1)
        x = F.batch_norm(
            x,
            None,
            None,
            p[f"blocks.{i}.norm.weight"],
            p[f"blocks.{i}.norm.bias"],
            training=True,
            eps=1e-5,
        )
        x = F.max_pool2d(F.relu(x), 2)
    return F.linear(x.flatten(1), p["classifier.weight"], p["classifier.bias"])


def resnet12_outputs(p: Params, x: Tensor, n_stages: int) -> Tensor:
    """ResNet-12 in the usual order: the last leaky ReLU of a stage before its max-pool."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(
            x, None, None, p[f"{name}.weight"], p[f"{name}.bias"], training=True, eps=1e-5
        )

    for i in range(n_stages):
        at = f"stages.{i}"
        y = F.leaky_relu(norm(F.conv2d(x, p[f"{at}.conv1.weight"], padding=1), f"{at}.norm1"), 0.1)
        y = F.leaky_relu(norm(F.conv2d(y, p[f"{at}.conv2.weight"], padding=1), f"{at}.norm2"), 0.1)
        y = norm(F.conv2d(y, p[f"{at}.conv3.weight"], padding=1), f"{at}.norm3")
        y = y + norm(F.conv2d(x, p[f"{at}.shortcut.weight"]), f"{at}.shortcut_norm")
        x = F.max_pool2d(F.leaky_relu(y, 0.1), 2)
    return F.linear(
        F.adaptive_avg_pool2d(x, 1).flatten(1), p["classifier.weight"], p["classifier.bias"]
    )
