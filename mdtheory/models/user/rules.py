"""What can be seen without a forward pass: kinds of submodule that cannot be prepared, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mdtheory.core.torch_private import BatchNorm, Dropout, InstanceNorm, is_compiled
from mdtheory.models.user import attributes

NATIVE_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
STOCHASTIC_DEPTH = {"StochasticDepth": "p", "DropPath": "drop_prob"}
"""Layers of other libraries that leave out whole branches, by class name: their probability."""
NO_DROPOUT = "or pass dropout='off' to MetaLearner"


@dataclass(frozen=True)
class Rule:
    """A kind of submodule that cannot be prepared when ``broken`` is true of it."""

    kind: type | tuple[type, ...]
    broken: Callable[[Any], bool]
    reason: str
    remedy: str
    dropout: bool = False  # nothing is wrong with it once its probability is 0


def _has_torch_hook(module: nn.Module) -> bool:
    """Old-style weight_norm, spectral_norm and pruning recompute a weight as a plain attribute in a
    pre-hook.
    """
    return any(
        type(hook).__module__.startswith("torch.nn.utils.")
        for hook in module._forward_pre_hooks.values()
    )


RULES = (
    Rule(
        torch.jit.ScriptModule,
        lambda m: True,
        "is compiled by TorchScript",
        "pass the Python module",
    ),
    Rule(
        nn.Module,
        is_compiled,
        "is compiled, and would ignore replaced parameters",
        "pass the uncompiled module",
    ),
    Rule(
        (nn.DataParallel, nn.parallel.DistributedDataParallel),
        lambda m: True,
        "is a parallel wrapper",
        "pass its .module, and share out tasks by torchrun as mdtheory.meta.distributed does",
    ),
    Rule(
        nn.Module,
        _has_torch_hook,
        "has an old-style hook of torch.nn.utils that rewrites its weight",
        "use torch.nn.utils.parametrizations, or remove the hook",
    ),
    Rule(
        nn.Module,
        lambda m: bool(m._backward_hooks or m._backward_pre_hooks),
        "has a backward hook, which torch.func cannot run",
        "remove it, or write what it does to the gradient into forward",
    ),
    Rule(
        nn.Module,
        lambda m: type(m).__name__ == "_SpectralNorm" and m.training,
        "changes buffers in every training pass",
        "call eval() on the parametrized module first",
    ),
    Rule(
        Dropout,
        lambda m: m.p > 0 and m.training,
        "draws from the global random generator, so one task has no single loss",
        f"set p=0, or call eval() on it first, {NO_DROPOUT}",
        dropout=True,
    ),
    Rule(
        (nn.MultiheadAttention, nn.RNNBase),
        lambda m: m.dropout > 0 and m.training,
        "has dropout > 0, which draws from the global random generator",
        f"set dropout=0, or call eval() on it first, {NO_DROPOUT}",
        dropout=True,
    ),
    Rule(
        nn.Module,
        lambda m: m.training and getattr(m, STOCHASTIC_DEPTH.get(type(m).__name__, ""), 0) > 0,
        "draws from the global random generator which branches to leave out",
        f"set its probability to 0, or call eval() on it first, {NO_DROPOUT}",
        dropout=True,
    ),
    Rule(
        (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
        lambda m: m._random_samples is None,
        "draws from the global random generator",
        "use an ordinary pooling layer",
    ),
    Rule(
        nn.RReLU,
        lambda m: m.training and m.lower != m.upper,
        "draws from the global random generator",
        "use nn.LeakyReLU, or call eval() on it first",
    ),
    Rule(
        InstanceNorm,
        lambda m: m.track_running_stats and m.training,
        "tracks running statistics, which change in every training pass",
        "set track_running_stats=False, or call eval() on it first to use what it has tracked",
    ),
    Rule(
        (nn.LayerNorm, nn.GroupNorm, InstanceNorm),
        lambda m: m.weight is None and m.bias is not None,
        "has a bias without a weight, for which torch's second derivatives are wrong",
        "give it a weight of ones with requires_grad=False",
    ),
    Rule(
        (nn.Embedding, nn.EmbeddingBag),
        lambda m: m.max_norm is not None or m.sparse,
        "renormalises its weight in the forward pass or has sparse gradients",
        "set max_norm=None and sparse=False",
    ),
    Rule(
        BatchNorm,
        lambda m: type(m) not in NATIVE_BATCH_NORMS,
        "is a batch norm of another class, whose arithmetic is unknown",
        "use nn.BatchNorm1d, 2d or 3d, or mdtheory.models.BatchStatNorm",
    ),
    Rule(
        BatchNorm,
        lambda m: m.momentum is None and m.training and m.track_running_stats,
        "has momentum=None, a running average over all batches ever seen",
        "set momentum=0.1",
    ),
)


def described(name: str, module: nn.Module) -> str:
    """How a submodule is called in a sentence."""
    where = f"submodule {name!r}" if name else "the model itself"
    return f"{where} ({type(module).__name__})"


def check_module(name: str, module: nn.Module, *, dropout: bool = True) -> None:
    """Refuse a submodule by the rules, and one that holds weights outside its parameters.

    ``dropout=False``: it is going to be switched off, and no reason to refuse.
    """
    said = described(name, module)
    for rule in RULES:
        if rule.dropout and not dropout:
            continue
        if isinstance(module, rule.kind) and rule.broken(module):
            raise ValueError(
                f"{said} must be pure, twice differentiable and complete, but it {rule.reason}; "
                f"{rule.remedy}"
            )
    own = {id(value) for value in module.parameters()}
    for attribute, value in vars(module).items():
        if attribute in attributes.OWN_TO_TORCH:
            continue
        for tensor in attributes.tensors(value):
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in own:
                raise ValueError(
                    f"{said} must register its weights, but {attribute!r} is or holds a plain "
                    "tensor that requires a gradient; "
                    "make it an nn.Parameter, or detach() it"
                )


def check_parameters(model: nn.Module) -> None:
    """Refuse tensors that do not exist yet, and parameters that can have no derivatives."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            raise ValueError(
                f"{name!r} must have a shape, but it is uninitialised; run one batch through the "
                "lazy module first"
            )
        if value.is_meta:
            raise ValueError(
                f"{name!r} must hold numbers, but it is on the meta device; materialise the model "
                "first"
            )
    for name, value in model.named_parameters():
        if not value.is_floating_point():
            raise ValueError(
                f"parameter {name!r} must be real floating point, got {value.dtype}; make it a "
                "buffer"
            )
        if _hooked(value):
            raise ValueError(
                f"parameter {name!r} must have no gradient hook, which the task solver would not "
                "run; write what the hook does into forward, or register it on the learner's "
                "parameters to have it on meta-gradients"
            )


def _hooked(value: Tensor) -> bool:
    after: Any = getattr(value, "_post_accumulate_grad_hooks", None)
    return bool(value._backward_hooks) or bool(after)
