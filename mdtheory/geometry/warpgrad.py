"""WarpGrad: layers that the task leaves alone warp the gradients of those it adapts (Flennerhag et
al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import skip_init

from mdtheory.core.objectives import Objective
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.models.conv_block import Fused

Layer = nn.Linear | nn.Conv2d
ACTIVATIONS = "torch.nn.modules.activation"


@geometries.register("warpgrad")
class WarpGrad(Geometry):
    """f = w_L o h_L o ... o w_1 o h_1: plain steps on the task layers h, back-propagated through
    meta-learned warp layers w.

    After an image layer w is a linear 3 x 3 convolution C -> C with padding 1, after a matrix a
    linear map, both with bias, in their simplest official form (no activation, norm or residual).
    They start as the identity (Dirac, zero bias), so that the method starts as MAML: the paper
    leaves the start open, and the official code uses torch's default. The warps are shared
    meta-parameters, ``shared.<module>.warp.weight`` and ``.bias``. Their gradient is that of sum_k
    L_query(theta_{k-1} - task_lr * grad L_support(theta_{k-1}; w); w), theta_{k-1} held constant;
    the anchor's is MAML's (:class:`mdtheory.core.objectives.Objective`, schedule "warp").

    ``after``: patterns of submodule paths, part by part ("blocks.*" is every block and nothing
    inside one); the output of each goes through a warp. Default: every child of ``blocks`` where
    the model has one, otherwise every hidden ``nn.Linear`` or ``nn.Conv2d`` that learns, with the
    activation that follows it in an ``nn.Sequential``. On Conv4 this is after each pooled block:
    147,712 numbers at 64 channels. The re-implementation of Huisman et al. leaves out the first,
    ``after=("blocks.1", "blocks.2", "blocks.3")``: 110,784. A module that is called several times
    has one warp.
    """

    source = "flennerhag2020warpgrad; place and start of the warps are settings"
    objective = Objective(schedule="warp")

    def __init__(self, after: str | Sequence[str] | None = None):
        super().__init__()
        self.after = (after,) if isinstance(after, str) else after
        self._added: frozenset[str] = frozenset()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Put the warp layers in; the other parameters keep their names."""
        paths = _default_places(model) if self.after is None else _matching(model, self.after)
        for path in paths:
            _insert(model.get_submodule(path), _identity_layer(_last_layer(model, path)), path)
        self._added = frozenset(
            f"{path}.warp.{kind}" for path in paths for kind in ("weight", "bias")
        )
        return model

    def adapts(self, name: str) -> bool:
        """Whether a parameter is adapted: every one but those of the warps."""
        return name not in self._added


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The paths of submodules that match a pattern part by part; every pattern must match one."""
    paths = [path for path, _ in model.named_modules() if path]
    found: list[str] = []
    for pattern in patterns:
        parts = pattern.split(".")
        here = [
            p
            for p in paths
            if len(p.split(".")) == len(parts) and all(map(fnmatchcase, p.split("."), parts))
        ]
        if not here:
            some = ", ".join(paths[:4])
            raise ValueError(
                f"after must match submodules of the model, got {pattern!r}; choose from {some}, "
                "..."
            )
        found += [path for path in here if path not in found]
    return found


def _default_places(model: nn.Module) -> list[str]:
    blocks = [
        path
        for path, _ in model.named_modules()
        if path.startswith("blocks.") and path.count(".") == 1
    ]
    if blocks:
        return blocks
    layers = [path for path, module in model.named_modules() if isinstance(module, Layer)]
    hidden = [
        path
        for path in layers[:-1]
        if model.get_submodule(path).get_parameter("weight").requires_grad
    ]
    if not hidden:
        raise ValueError(
            "after must name modules where there are no `blocks` or hidden layers, got None; give "
            'after=("path",)'
        )
    return [_behind_activation(model, path) for path in hidden]


def _behind_activation(model: nn.Module, path: str) -> str:
    """The next module's path where both stand in a plain ``nn.Sequential`` and the next is an
    activation; else ``path``.
    """
    above, _, name = path.rpartition(".")
    parent = model.get_submodule(above)
    names = list(parent._modules)
    after = names[names.index(name) + 1 :][:1]
    if (
        type(parent) not in (nn.Sequential, Fused)
        or not after
        or type(parent.get_submodule(after[0])).__module__ != ACTIVATIONS
    ):
        return path
    return f"{above}.{after[0]}" if above else after[0]


def _last_layer(model: nn.Module, path: str) -> Layer:
    """The layer whose width the output of ``path`` has: the last one inside the module, or else
    before it.
    """
    last, entered = None, False
    for name, module in model.named_modules():
        inside = name == path or name.startswith(path + ".")
        if entered and not inside:
            break
        entered = entered or inside
        last = module if isinstance(module, Layer) else last
    if last is None:
        raise ValueError(
            f"after must name modules behind an nn.Linear or nn.Conv2d, got {path!r}; warp a later "
            "module"
        )
    return last


def _identity_layer(layer: Layer) -> Layer:
    """A layer from the outputs of ``layer`` to as many, which is the identity. No random number is
    drawn.
    """
    place: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    warp: Layer
    if isinstance(layer, nn.Conv2d):
        warp = skip_init(nn.Conv2d, layer.out_channels, layer.out_channels, 3, padding=1, **place)
        nn.init.dirac_(warp.weight)
    else:
        warp = skip_init(nn.Linear, layer.out_features, layer.out_features, **place)
        nn.init.eye_(warp.weight)
    nn.init.zeros_(warp.get_parameter("bias"))
    return warp


def _insert(module: nn.Module, warp: nn.Module, path: str) -> None:
    """Let ``module`` return warp(output). A hook keeps the names; a plain ``nn.Sequential`` just
    grows by one.
    """
    if "warp" in dict(module.named_children()):
        raise ValueError(
            f"a module must be warped once, got {path!r}, which has a `warp`; pass the bare model, "
            "or share no module"
        )
    module.add_module("warp", warp)
    if type(module).forward not in (nn.Sequential.forward, Fused.forward):
        module.register_forward_hook(_warped)


def _warped(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return module.get_submodule("warp")(output)
