"""Handing meta-gradients to ``.grad`` the way autograd does."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def accumulate(meta: Mapping[str, Tensor], grads: Mapping[str, Tensor], scale: Any = None) -> None:
    """Add ``grads`` into the parameters' ``.grad``; tensor hooks and post-accumulate hooks run.

    ``scale``: a ``torch.amp.GradScaler``, whose scale the gradients get, or a number.
    """
    names = list(meta)
    given = [grads[name] for name in names]
    if scale is not None:
        given = [scale.scale(g) if hasattr(scale, "scale") else scale * g for g in given]
    torch.autograd.backward([meta[name] for name in names], given)


def refuse_wrapped(learner: nn.Module) -> None:
    """Refuse a learner inside ``DistributedDataParallel``, whose averaging never sees a
    meta-gradient.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    parallel = nn.parallel.DistributedDataParallel
    if any(isinstance(one, parallel) and one.module is learner for one in gc.get_objects()):
        raise ValueError(
            "a MetaLearner must not be wrapped in DistributedDataParallel, which would not average "
            "its meta-gradients; use mdtheory.meta.distributed.meta_gradient in processes "
            "started by torchrun"
        )
