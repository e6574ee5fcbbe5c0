"""MT-net: a learned metric behind every layer, and a mask that chooses which units move (Lee and
Choi 2018).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mdtheory.core import seeding, tree
from mdtheory.core.stop_gradient import stop_gradient
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, Pullback, StepRule, geometries

MaskAtTest = Literal["sampled", "expected", "threshold"]
PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def units(anchor: Params, *, but: frozenset[str] = frozenset()) -> dict[str, str]:
    """Every adapted tensor with output units -> the layer (the path of its module) that it belongs
    to.

    A layer is a tensor called "weight" with two or more axes, the first being the outputs, and its
    sibling "bias". ``but`` names weights to leave out. A model that is a single layer has the path
    "layer"; a layer that holds another one goes by the name of its weight.
    """
    owners: dict[str, str] = {}
    for name, value in anchor.items():
        path, _, last = name.rpartition(".")
        if last == "weight" and value.dim() >= 2 and name not in but:
            owners |= {
                each: path or "layer"
                for each in (name, f"{name.removesuffix('weight')}bias")
                if each in anchor
            }
    layers = set(owners.values())
    holders = {one for one in layers if any(each.startswith(f"{one}.") for each in layers)}
    return {
        name: f"{layer}.weight" if layer in holders else layer for name, layer in owners.items()
    }


class MaskedStep(StepRule):
    """z <- z - task_lr * m (*) grad, with one m in {0, 1} per output unit, the same for its weights
    and its bias.

    m is the first of two classes with logits [zeta, 0], sampled once per task, from the episode's
    ``seed`` (for one made by hand that has none, from its support set), by the Gumbel-max trick and
    kept in the state as ``mask.<layer>`` (out,). Its derivative is that of the soft
    sample at temperature 1 (straight through), sigmoid(zeta + gumbel_0 - gumbel_1).
    ``zeta.<layer>`` (out,) is 0 at the start: half of the units move. ``mask_at_test``, used in
    evaluation mode (``learner.eval()``): "sampled" as in training (the authors' code), "expected"
    for sigmoid(zeta), "threshold" for zeta >= 0. Tensors without output units (norms) take MAML's
    step.
    """

    def __init__(self, mask_at_test: MaskAtTest = "sampled"):
        super().__init__()
        if mask_at_test not in get_args(MaskAtTest):
            raise ValueError(
                f"mask_at_test must be one of {get_args(MaskAtTest)}, got {mask_at_test!r}; choose "
                "'sampled'"
            )
        self.mask_at_test = mask_at_test
        self.left_out = frozenset[str]()

    def build(self, anchor: Params) -> None:
        self.owners = units(anchor, but=self.left_out)
        self.zeta = ParameterTree(
            {layer: value.new_zeros(len(value)) for layer, value in _weights(anchor, self.owners)}
        )

    def init(self, meta: Params, noise: Params) -> State:
        """One mask per layer."""
        return {
            f"mask.{layer}": self._mask(zeta, noise[layer])
            for layer, zeta in tree.sub(meta, "zeta.").items()
        }

    def _mask(self, zeta: Tensor, gumbel: Tensor) -> Tensor:
        if not self.training and self.mask_at_test == "expected":
            return zeta.sigmoid()
        if not self.training and self.mask_at_test == "threshold":
            return (zeta >= 0).to(zeta.dtype)
        gumbel = gumbel.to(zeta.dtype)
        return straight_through(zeta + gumbel[0] - gumbel[1])

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        moved = {}
        for name, g in grad.items():
            layer = self.owners.get(name)
            masked = (
                g if layer is None else state[f"mask.{layer}"].reshape(-1, *[1] * (g.dim() - 1)) * g
            )
            moved[f"z.{name}"] = state[f"z.{name}"] - task_lr * masked
        return {**state, **moved}


def straight_through(logit: Tensor) -> Tensor:
    """1 where ``logit`` > 0, else 0, with the derivative of sigmoid(logit). shape: as logit"""
    soft = logit.sigmoid()
    return soft + stop_gradient((logit > 0).to(logit.dtype) - soft)


def _weights(anchor: Params, owners: dict[str, str]) -> list[tuple[str, Tensor]]:
    return [(layer, anchor[name]) for name, layer in owners.items() if anchor[name].dim() >= 2]


@geometries.register("mtnet")
class MTNet(Geometry):
    """Gradient descent on W below a learned T, along a learned random subspace of units (Lee and
    Choi 2018).

    Every layer computes T (W x + b) before whatever follows it (norm, activation): T is (out, out),
    a 1 x 1 convolution for a convolution, the identity at the start, and never adapted. Being
    linear it is folded into what the model consumes, W' = T W, b' = T b, where W and b are both
    adapted; a bias that is not adapted is added after T. Two layers with one weight in common have
    one T; the bias of the second is added after it, and takes MAML's step. Grouped and transposed
    convolutions, embeddings and other modules whose first axis is not the mixed outputs have
    neither T nor mask.

    Not neutral at the start: half of the units stand still. With all masks 1 the first step is
    MAML's.

    ``adapt_norms``: the authors adapt only W and b; their norms have no scale, and a shift that is
    meta-learned but not adapted. That is ``False``. The default adapts the norms by MAML's step, so
    that in a comparison every method adapts the same tensors. On Conv4 with 64 channels, 5-way, T
    holds 16,409 numbers and zeta 261.
    """

    source = "lee2018mtnet; the authors' code for place, mask and initial values"
    starts_as_maml = False
    rule: MaskedStep

    def __init__(self, mask_at_test: MaskAtTest = "sampled", adapt_norms: bool = True):
        super().__init__(rule=MaskedStep(mask_at_test))
        self.adapt_norms = adapt_norms
        self._norms = frozenset[str]()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Adds nothing; notes which tensors are norms, and which belong to modules that T cannot be
        folded into.
        """
        named = dict(model.named_parameters())
        other = {
            id(value)
            for module in model.modules()
            if not _mixes(module)
            for value in module.parameters(recurse=False)
        }
        self.rule.left_out = frozenset(name for name, value in named.items() if id(value) in other)
        norms = [list(module.parameters(recurse=False)) for module in model.modules()]
        vectors = {
            id(value) for own in norms if all(each.dim() < 2 for each in own) for value in own
        }
        self._norms = frozenset(name for name, value in named.items() if id(value) in vectors)
        return model

    def adapts(self, name: str) -> bool:
        """Every tensor, or, with ``adapt_norms=False``, all but the vectors of modules that hold
        nothing else.
        """
        return self.adapt_norms or name not in self._norms

    def build(self, anchor: Params) -> None:
        super().build(anchor)
        weights = _weights(anchor, self.rule.owners)
        self.metric = ParameterTree(
            {layer: torch.eye(len(w), dtype=w.dtype, device=w.device) for layer, w in weights}
        )

    def draw(self, seed: int) -> Params:
        """Standard Gumbel noise for the two classes of every unit, by layer. shapes: (2, out)"""
        drawn = {}
        for layer, zeta in self.rule.zeta.named_parameters():
            uniform = torch.empty(2, len(zeta), dtype=torch.float64)
            drawn[layer] = -uniform.exponential_(
                generator=seeding.generator("mtnet", layer, seed)
            ).log()
        return drawn

    def weights(self, meta: Params, point: Params) -> Params:
        """T W and T b for every layer, the rest as it is."""
        consumed = dict(point)
        for name, layer in self.rule.owners.items():
            value = point[name]
            consumed[name] = (meta[f"metric.{layer}"] @ value.reshape(len(value), -1)).reshape(
                value.shape
            )
        return consumed


def _mixes(module: nn.Module) -> bool:
    """Whether the module is linear in its weight, output unit by output unit, over all of its
    inputs.
    """
    return isinstance(module, PLAIN) and getattr(module, "groups", 1) == 1
