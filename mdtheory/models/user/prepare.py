"""Make any ``nn.Module`` right under ``functional_call``, second derivatives and ``vmap``, or
refuse it with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mdtheory.models.norm import BatchStatNorm, FixedStatNorm, check_policy, set_policy
from mdtheory.models.user.probe import guard_buffers, probe
from mdtheory.models.user.weight_norm import write_out_weight_norm

NATIVE_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Rule:
    """A kind of submodule that cannot be prepared when ``broken`` is true of it."""

    kind: type | tuple[type, ...]
    broken: Callable[[Any], bool]
    reason: str
    remedy: str


def _has_torch_hook(module: nn.Module) -> bool:
    """Old-style weight_norm, spectral_norm and pruning recompute a weight as a plain attribute in a
    pre-hook.
    """
    return any(
        type(hook).__module__.startswith("torch.nn.utils.")
        for hook in module._forward_pre_hooks.values()
    )


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


RULES = (
    Rule(
        torch.jit.ScriptModule,
        lambda m: True,
        "is compiled by TorchScript",
        "pass the Python module",
    ),
    Rule(
        nn.Module,
        _is_compiled,
        "is compiled, and would ignore replaced parameters",
        "pass the uncompiled module",
    ),
    Rule(
        (nn.DataParallel, nn.parallel.DistributedDataParallel),
        lambda m: True,
        "is a parallel wrapper",
        "pass its .module",
    ),
    Rule(
        nn.Module,
        _has_torch_hook,
        "has an old-style hook of torch.nn.utils that rewrites its weight",
        "use torch.nn.utils.parametrizations, or remove the hook",
    ),
    Rule(
        nn.Module,
        lambda m: type(m).__name__ == "_SpectralNorm" and m.training,
        "changes buffers in every training pass",
        "call eval() on the parametrized module first",
    ),
    Rule(
        _DropoutNd,
        lambda m: m.p > 0 and m.training,
        "draws from the global random generator, so one task has no single loss",
        "set p=0, or call eval() on it first",
    ),
    Rule(
        (nn.MultiheadAttention, nn.RNNBase),
        lambda m: m.dropout > 0 and m.training,
        "has dropout > 0, which draws from the global random generator",
        "set dropout=0, or call eval() on it first",
    ),
    Rule(
        (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
        lambda m: True,
        "draws from the global random generator",
        "use nn.LeakyReLU, or an ordinary pooling layer",
    ),
    Rule(
        _InstanceNorm,
        lambda m: m.track_running_stats,
        "tracks running statistics, which change in every training pass",
        "set track_running_stats=False",
    ),
    Rule(
        (nn.LayerNorm, nn.GroupNorm, _InstanceNorm),
        lambda m: m.weight is None and m.bias is not None,
        "has a bias without a weight, for which torch's second derivatives are wrong",
        "give it a weight of ones with requires_grad=False",
    ),
    Rule(
        nn.RNNBase,
        lambda m: any(p.is_cuda for p in m.parameters()),
        "is on CUDA, where cuDNN has no second derivatives",
        "keep the model on the CPU, or write the recurrence out by hand",
    ),
    Rule(
        (nn.Embedding, nn.EmbeddingBag),
        lambda m: m.max_norm is not None or m.sparse,
        "renormalises its weight in the forward pass or has sparse gradients",
        "set max_norm=None and sparse=False",
    ),
    Rule(
        _BatchNorm,
        lambda m: type(m) not in NATIVE_BATCH_NORMS,
        "is a batch norm of another class, whose arithmetic is unknown",
        "use nn.BatchNorm1d, 2d or 3d, or mdtheory.models.BatchStatNorm",
    ),
    Rule(
        _BatchNorm,
        lambda m: m.momentum is None and m.training,
        "has momentum=None, a running average over all batches ever seen",
        "set momentum=0.1",
    ),
)


def prepare(model: nn.Module, *, norm: str, example: Tensor | None = None) -> nn.Module:
    """A deep copy of ``model`` whose task gradients and meta-gradients are right, looped or vmapped
    over whole tasks.

    ``norm``: the policy (see :class:`~mdtheory.models.norm.BatchStatNorm`) of every batch norm.
    ``example``: a batch of inputs, shape (n_items, ...), on the model's device; when given,
    :func:`~mdtheory.models.user.probe.probe` runs on it.

    What changes in the copy; names, order, ties and sharing of parameters do not:

    - a native ``BatchNorm`` becomes a ``BatchStatNorm`` with its weights and buffers;
    - ``parametrizations.weight_norm``, whose second derivatives are wrong in torch, is written out;
    - what is in evaluation mode stays so, whatever ``train()`` says later: a ``BatchNorm`` with
      running statistics uses them for good (``FixedStatNorm``), and a dropout probability becomes
      0;
    - a buffer that a forward pass changes is refused when that happens.

    Native layer, group and instance norms stay: inside a vmapped whole-task gradient they are
    exact. Recurrent layers work on the CPU and only in a loop over tasks: torch has no vmap rule
    for them and says so. Beyond any check here: ``F.layer_norm`` and its kin, called by hand with a
    bias but no weight, have wrong second derivatives in torch 2.13.

    Errors: ``ValueError`` that names the submodule, what is wrong with it and the remedy.
    """
    check_policy(norm)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; pass the module itself"
        )
    _check_parameters(model)
    for name, module in model.named_modules():
        _check_module(name, module)
    if not any(value.requires_grad for value in model.parameters()):
        raise ValueError(
            "the model must have a parameter that requires a gradient, got none; call "
            "requires_grad_(True)"
        )
    prepared = _copy(model)
    for module in prepared.modules():
        _keep_evaluation_mode(module)
        write_out_weight_norm(module)
        if isinstance(module, _BatchNorm):
            _become_batch_stat_norm(module)
    set_policy(prepared, norm)
    guard_buffers(prepared)
    if example is not None:
        probe(prepared, example)
    return prepared


def _label(name: str, module: nn.Module) -> str:
    where = f"submodule {name!r}" if name else "the model itself"
    return f"{where} ({type(module).__name__})"


def _check_module(name: str, module: nn.Module) -> None:
    """Refuse a submodule by the rules, and one that holds weights outside its parameters."""
    label = _label(name, module)
    for rule in RULES:
        if isinstance(module, rule.kind) and rule.broken(module):
            raise ValueError(
                f"{label} must be pure, twice differentiable and complete, but it {rule.reason}; "
                f"{rule.remedy}"
            )
    for attribute, value in vars(module).items():
        if isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f"{label} must register its weights, but {attribute!r} is a plain tensor that "
                "requires a gradient; "
                "make it an nn.Parameter, or detach() it"
            )


def _check_parameters(model: nn.Module) -> None:
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


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        label = _label("", model)
        raise ValueError(
            f"{label} must allow copy.deepcopy, but: {error}; drop what cannot be copied"
        ) from error


def _keep_evaluation_mode(module: nn.Module) -> None:
    """Dropout that is off stays off when the whole model is later set to training."""
    if isinstance(module, _DropoutNd):
        module.p = 0.0
    elif isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        module.dropout = 0.0


def _become_batch_stat_norm(module: Any) -> None:
    """Change the class in place, as torch's lazy modules do: sharing, hooks, names and buffers stay
    as they are.
    """
    frozen = not module.training and module.running_mean is not None
    if module.running_mean is None:
        like = next(module.parameters(recurse=False), torch.empty(0))
        module.running_mean = torch.zeros(module.num_features, device=like.device, dtype=like.dtype)
        module.running_var = torch.ones_like(module.running_mean)
    module.channels, module.policy = module.num_features, "transductive"
    module.__class__ = FixedStatNorm if frozen else BatchStatNorm
