"""Everything of torch that has no public name and is used here: nothing else in the library imports
what begins with an underscore. At each stands the public way that would replace it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch._C._functorch import TransformType, is_functorch_wrapped_tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm as WeightNorm
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "BatchNorm",  # instead: the tuple (nn.BatchNorm1d, nn.BatchNorm2d, ...), lazy ones included
    "Dropout",  # instead: the tuple (nn.Dropout, nn.Dropout1d, ..., nn.AlphaDropout, ...)
    "InstanceNorm",  # instead: the tuple (nn.InstanceNorm1d, ...), lazy ones included
    "TorchDispatchMode",  # none: torch documents it under this private path; __torch_function__
    # modes (torch.overrides.TorchFunctionMode) do not see what a backward pass runs
    "WeightNorm",  # none: nn.utils.parametrizations.weight_norm makes it and does not return it
    "foreach_add",  # instead: x + alpha * y in a loop, one launch per tensor
    "foreach_copy_",  # instead: target.copy_(source) in a loop, one launch per tensor
    "foreach_mul",  # instead: scale * x in a loop, one launch per tensor
    "foreach_norm",  # instead: torch.linalg.vector_norm in a loop, one launch per tensor
    "forward_mode",
    "gradient_levels",
    "is_caching",
    "is_compiled",
    "is_functorch_wrapped_tensor",  # instead: an is_batched of torch.func, which it does not have
]

foreach_add, foreach_mul = torch._foreach_add, torch._foreach_mul
foreach_copy_, foreach_norm = torch._foreach_copy_, torch._foreach_norm


def gradient_levels() -> int:
    """How many ``torch.func.grad`` or ``vjp`` are under way, one inside the other.

    Instead: an operation with ``setup_context`` for every order of derivative, which would refuse
    the third itself; it could then not fall back on ordinary operations.
    """
    return _transforms().count(TransformType.Grad)


def forward_mode() -> bool:
    """Whether a derivative in forward mode is under way, by ``torch.func.jvp`` or ``forward_ad``.

    Instead: ``forward_ad.unpack_dual(x).tangent is not None`` for every argument, which sees the
    innermost level alone.
    """
    return TransformType.Jvp in _transforms() or forward_ad._current_level >= 0


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` or ``module.compile`` has been applied to a module.

    Instead: a predicate of ``torch.compiler``, which has one for the time of compiling alone.
    """
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def is_caching() -> bool:
    """Whether this runs inside ``torch.nn.utils.parametrize.cached()``.

    Instead: reading a parametrized weight twice and comparing the objects, at its cost.
    """
    return parametrize._cache_enabled > 0


def _transforms() -> list[TransformType]:
    return [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
