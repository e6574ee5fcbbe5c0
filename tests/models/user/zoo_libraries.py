"""Models of other libraries, small, where these are installed: families of torchvision, and peft's
adapters about a small network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import nn

from tests.models.user.zoo_base import Inputs, W, features

LIBRARIES = ("torchvision", "peft")


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def version(library: str) -> str:
    return importlib.metadata.version(library)


def pictures(n: int, draw: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=draw, dtype=torch.float64)


def torchvision_models() -> ModuleType:
    """Its models; they need none of its compiled operators, which may not fit this torch."""
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        return importlib.import_module("torchvision.models")


def _resnet() -> nn.Module:
    m = torchvision_models().resnet
    return m.ResNet(m.BasicBlock, [1, 1, 1, 1], num_classes=3)


def _densenet() -> nn.Module:
    m = torchvision_models()
    return m.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)


def _mobilenet() -> nn.Module:
    m = torchvision_models()
    rows = [[1, 8, 1, 1], [2, 8, 1, 2], [2, 16, 1, 2]]
    return m.MobileNetV2(
        num_classes=3, width_mult=0.25, inverted_residual_setting=rows, dropout=0.0
    )


def _mobilenet_v3() -> nn.Module:
    m = torchvision_models().mobilenetv3
    row = partial(m.InvertedResidualConfig, width_mult=1.0, dilation=1)
    rows = [row(8, 3, 16, 8, True, "RE", stride=2), row(8, 3, 16, 8, True, "HS", stride=1)]
    return m.MobileNetV3(rows, last_channel=16, num_classes=3, dropout=0.0)


def _efficientnet(rate: float = 0.0) -> nn.Module:
    m = torchvision_models().efficientnet
    rows = [m.MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), m.MBConvConfig(2, 3, 2, 8, 8, 2, 1.0, 1.0)]
    return m.EfficientNet(rows, dropout=0.0, stochastic_depth_prob=rate, num_classes=3)


def _convnext() -> nn.Module:
    m = torchvision_models().convnext
    rows = [m.CNBlockConfig(8, 16, 1), m.CNBlockConfig(16, None, 1)]
    return m.ConvNeXt(rows, num_classes=3)


def _vit() -> nn.Module:
    m = torchvision_models()
    return m.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16,
        num_classes=3,
    )  # fmt: skip


def _swin() -> nn.Module:
    m = torchvision_models()
    return m.SwinTransformer(
        [4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3, stochastic_depth_prob=0.0
    )


def _adapted(config: str, **options: object) -> nn.Module:
    """peft's adapter at two of three layers; its own weights alone are trainable, and the head."""
    peft = importlib.import_module("peft")
    network = nn.Sequential(nn.Linear(W, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    made = getattr(peft, config)(target_modules=["0", "2"], modules_to_save=["4"], **options)
    model = peft.get_peft_model(network, made)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad and not bool(value.any()):  # off the zeros that peft begins with
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


BY_CREATE_GRAPH = {"DoRA", "FourierFT"}
"""A detached norm, and arithmetic in single precision; besides, all of torchvision's models, whose
many kinks lie within a difference."""
ROWS: dict[str, dict[str, tuple[Callable[[], nn.Module], Inputs]]] = {
    "torchvision": {
        "ResNet, one block a stage": (_resnet, pictures),
        "DenseNet": (_densenet, pictures),
        "MobileNetV2": (_mobilenet, pictures),
        "MobileNetV3": (_mobilenet_v3, pictures),
        "EfficientNet": (_efficientnet, pictures),
        "EfficientNet with stochastic depth": (partial(_efficientnet, 0.2), pictures),
        "ConvNeXt": (_convnext, pictures),
        "VisionTransformer": (_vit, pictures),
        "SwinTransformer": (_swin, pictures),
    },
    "peft": {
        "LoRA": (partial(_adapted, "LoraConfig", r=2), features),
        "LoRA with dropout": (partial(_adapted, "LoraConfig", r=2, lora_dropout=0.1), features),
        "DoRA": (partial(_adapted, "LoraConfig", r=2, use_dora=True), features),
        "IA3": (partial(_adapted, "IA3Config", feedforward_modules=["2"]), features),
        "LoHa": (partial(_adapted, "LoHaConfig", r=2), features),
        "LoKr": (partial(_adapted, "LoKrConfig", r=2), features),
        "VeRA": (partial(_adapted, "VeraConfig", r=2), features),
        "RandLoRA": (partial(_adapted, "RandLoraConfig", r=2), features),
        "OFT": (partial(_adapted, "OFTConfig", oft_block_size=4), features),
        "BOFT": (partial(_adapted, "BOFTConfig", boft_block_size=4), features),
        "HRA": (partial(_adapted, "HRAConfig", r=2), features),
        "MiSS": (partial(_adapted, "MissConfig", r=2), features),
        "FourierFT": (partial(_adapted, "FourierFTConfig", n_frequency=4), features),
    },
}
