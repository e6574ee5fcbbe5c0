"""Low-rank updates of chosen weights, so that a task moves few numbers of a large network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mdtheory.core import seeding

LOW_RANK = "*.parametrizations.*.0.*"
"""The pattern that matches exactly the new factors: ``MetaLearner(..., adapt=LOW_RANK)``."""


class LowRankUpdate(nn.Module):
    """W -> W + up down with ``up`` (out, rank), zero at the start, and ``down`` (rank, in)
    (hu2022lora, eq. (3), scale 1).

    A kernel (out, in, *k) counts as a matrix (out, in * prod k).
    """

    def __init__(self, weight: Tensor, *, rank: int, generator: torch.Generator):
        super().__init__()
        n_out, n_in = weight.shape[0], weight[0].numel()
        drawn = torch.randn(rank, n_in, generator=generator, dtype=torch.float64) / math.sqrt(n_in)
        self.up = nn.Parameter(weight.new_zeros(n_out, rank))
        self.down = nn.Parameter(drawn.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight. shape: as weight"""
        return weight + (self.up @ self.down).reshape(weight.shape)


def with_low_rank(
    model: nn.Module, pattern: str | Sequence[str], *, rank: int, seed: int = 0
) -> nn.Module:
    """A copy of ``model`` in which every weight whose name matches is W + up down, with W frozen;
    the function is unchanged.

    Adapt the factors alone with ``adapt=LOW_RANK``; all other parameters are meta-learned as
    before, or frozen by ``requires_grad_(False)`` on the copy. At the start only ``up`` has a
    gradient, then both.

    >>> from mdtheory.models import models
    >>> network = models.build("vit", image_size=14, width=8, depth=1)
    >>> small = with_low_rank(network, "*.qkv.weight", rank=2)
    >>> [name for name, value in small.named_parameters() if fnmatchcase(name, LOW_RANK)]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['blocks.0.attention.qkv.parametrizations.weight.0.up',
    'blocks.0.attention.qkv.parametrizations.weight.0.down']
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    made = copy.deepcopy(model)
    found = list(_matches(made, patterns))
    for one in patterns:
        if not any(fnmatchcase(name, one) for name, _, _ in found):
            names = [name for name, value in made.named_parameters() if value.ndim > 1][:3]
            raise ValueError(
                f"pattern must match weights of the model, got {one!r}, which matches none; there "
                f"are {names}..."
            )
    for name, module, attribute in found:
        weight = module.get_parameter(attribute)
        _check(made, name, weight, rank)
        weight.requires_grad_(False)
        update = LowRankUpdate(
            weight, rank=rank, generator=seeding.generator("low_rank", seed, name)
        )
        parametrize.register_parametrization(module, attribute, update)
    return made


def _matches(model: nn.Module, patterns: Sequence[str]) -> Iterator[tuple[str, nn.Module, str]]:
    for name, _ in list(model.named_parameters()):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            path, _, attribute = name.rpartition(".")
            yield name, model.get_submodule(path), attribute


def _check(model: nn.Module, name: str, weight: Tensor, rank: int) -> None:
    owners = sum(value is weight for _, value in model.named_parameters(remove_duplicate=False))
    if owners > 1:
        raise ValueError(
            f"a low-rank update must have its weight alone, got {name!r}, shared by {owners} "
            "modules; untie it"
        )
    most = min(weight.shape[0], weight[0].numel()) if weight.ndim > 1 else 0
    if not 1 <= rank <= most:
        raise ValueError(
            f"rank must be from 1 to {most} for {name!r} of shape {tuple(weight.shape)}, got "
            f"{rank}; lower it"
        )
