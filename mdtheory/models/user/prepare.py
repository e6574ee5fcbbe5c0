"""Make any ``nn.Module`` right under ``functional_call``, second derivatives and ``vmap``, or
refuse it with the reason.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core.registry import unknown
from mdtheory.core.torch_private import BatchNorm, Dropout, InstanceNorm
from mdtheory.models.norm import BatchStatNorm, FixedStatNorm, check_policy, set_policy
from mdtheory.models.user import attributes
from mdtheory.models.user.guard import guard_buffers
from mdtheory.models.user.instance_norm import keep_instance_statistics
from mdtheory.models.user.modes import mark_loud_switches
from mdtheory.models.user.probe import probe
from mdtheory.models.user.rules import (
    STOCHASTIC_DEPTH,
    check_module,
    check_parameters,
    described,
)
from mdtheory.models.user.weight_norm import write_out_weight_norm

DROPOUT = ("refuse", "off")
"""What becomes of dropout that is on."""


@torch.inference_mode(False)
def prepare(
    model: nn.Module, *, norm: str, example: Tensor | None = None, dropout: str = "refuse"
) -> nn.Module:
    """A deep copy of ``model`` whose task gradients and meta-gradients are right, looped or vmapped
    over whole tasks.

    ``norm``: the policy (see :class:`~mdtheory.models.norm.BatchStatNorm`) of every batch norm.
    ``example``: a batch of inputs, shape (n_items, ...), on the model's device; when given,
    :func:`~mdtheory.models.user.probe.probe` runs on it. ``dropout``: "refuse" a model with dropout
    in training mode, or switch all of it "off" for good.

    What changes in the copy; names, order, ties and sharing of parameters do not:

    - a native ``BatchNorm`` becomes a ``BatchStatNorm`` with its weights and buffers;
    - ``parametrizations.weight_norm``, whose second derivatives are wrong in torch, is written out;
    - what is in evaluation mode stays so, whatever ``train()`` says later: a ``BatchNorm`` or
      ``InstanceNorm`` with running statistics uses them for good, and a dropout probability becomes
      0;
    - results of an earlier forward pass that were kept on the modules are dropped;
    - a buffer that a forward pass changes is refused when that happens.

    Native layer, group and instance norms stay: inside a vmapped whole-task gradient they are
    exact. Recurrent layers work in a loop over tasks: torch has no vmap rule for them.

    Errors: ``ValueError`` that names the submodule, what is wrong with it and the remedy.
    """
    check_policy(norm)
    if dropout not in DROPOUT:
        raise unknown("dropout", dropout, list(DROPOUT))
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; pass the module itself"
        )
    check_parameters(model)
    for name, module in model.named_modules():
        check_module(name, module, dropout=dropout == "refuse")
    if not any(value.requires_grad and value.numel() for value in model.parameters()):
        raise ValueError(
            "the model must have a parameter that requires a gradient, got none; call "
            "requires_grad_(True)"
        )
    prepared = _copy(model)
    for module in prepared.modules():
        switch_dropout_off(module)
        write_out_weight_norm(module)
        if isinstance(module, BatchNorm):
            _become_batch_stat_norm(module)
        elif isinstance(module, InstanceNorm):
            keep_instance_statistics(module)
    mark_loud_switches(prepared)
    set_policy(prepared, norm)
    guard_buffers(prepared)
    if example is not None:
        probe(prepared, example)
    return prepared


def _copy(model: nn.Module) -> nn.Module:
    """A deep copy, in which NaN stands for what an earlier pass has left in plain attributes: it
    has a graph, cannot be copied, and must not be read.
    """
    memo: dict[int, Any] = {
        id(tensor): torch.full_like(tensor.detach(), float("nan"))
        for _, value in attributes.plain(model)
        for tensor in attributes.tensors(value)
        if tensor.grad_fn is not None
    }
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{described('', model)} must allow copy.deepcopy, but: "
            f"{str(error).splitlines()[0]}; drop what cannot be copied"
        ) from error


def switch_dropout_off(module: Any) -> None:
    """Dropout that is off, or is to be, stays off when the model is later set to training."""
    if isinstance(module, Dropout):
        module.p = 0.0
    elif isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        module.dropout = 0.0
    elif type(module).__name__ in STOCHASTIC_DEPTH:
        setattr(module, STOCHASTIC_DEPTH[type(module).__name__], 0.0)


def _become_batch_stat_norm(module: Any) -> None:
    """Change the class in place, as torch's lazy modules do: sharing, hooks, names and buffers stay
    as they are, and so does the state_dict.
    """
    frozen = not module.training and module.running_mean is not None
    if module.running_mean is None:
        like = next(module.parameters(recurse=False), torch.empty(0))
        module.running_mean = torch.zeros(module.num_features, device=like.device, dtype=like.dtype)
        module.running_var = torch.ones_like(module.running_mean)
        module._non_persistent_buffers_set |= {"running_mean", "running_var"}
    module.channels, module.policy = module.num_features, "transductive"
    module.__class__ = FixedStatNorm if frozen else BatchStatNorm
