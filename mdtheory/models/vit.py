"""A small vision transformer, to adapt a part of a network: its head, its norms, or single
projections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdtheory.models.base import at_least, check_images, models, seeded


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V for each head, then a projection (vaswani2017attention, eq. (1)).
    shape: (N, T, width)

    Written out by hand: torch's fused attention has no second derivative on the CPU.
    """

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens. shape: (N, T, width)"""
        n, tokens, width = x.shape
        q, k, v = (
            self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5
        return self.projection(
            (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(n, tokens, width)
        )


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then the same with a GELU perceptron of four times the width. shape:
    (N, T, width)
    """

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """One block. shape: (N, T, width)"""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@models.register("vit")
class VisionTransformer(nn.Module):
    """Patches, learned positions, pre-norm encoder blocks, mean over tokens, linear classifier
    (dosovitskiy2021image).

    shapes: (N, in_channels, image_size, image_size) -> (N, n_way). ``patch`` divides ``image_size``
    and ``heads`` divides ``width``. ``*norm*`` matches all norms, ``classifier.*`` the head. First
    values are torch's own initialisers, positions N(0, 0.02^2), drawn from ``seed``. Deviations:
    mean pooling instead of a class token, and no dropout.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 84,
        n_way: int = 5,
        patch: int = 7,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        seed: int = 0,
    ):
        super().__init__()
        sizes = {
            "in_channels": in_channels,
            "n_way": n_way,
            "patch": patch,
            "depth": depth,
            "heads": heads,
            "width": width,
        }
        for name, value in sizes.items():
            at_least(name, value, 1)
        if depth > 1000:
            raise ValueError(f"depth must be at most 1000 blocks, got {depth}; 3 is usual")
        if image_size < patch or image_size % patch:
            raise ValueError(
                f"patch must divide image_size, got {patch} and {image_size}; choose e.g. "
                f"patch={image_size}"
            )
        if width % heads:
            raise ValueError(
                f"heads must divide width, got {heads} and {width}; choose e.g. heads=1"
            )
        self.in_channels = in_channels
        self.image_size = image_size
        with seeded(seed):
            self.patches = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
            self.positions = nn.Parameter(0.02 * torch.randn((image_size // patch) ** 2, width))
            self.blocks = nn.Sequential(*(EncoderBlock(width, heads=heads) for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.classifier = nn.Linear(width, n_way)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores. shape: (N, n_way)"""
        tokens = (
            self.patches(check_images(x, self.in_channels, self.image_size))
            .flatten(2)
            .transpose(1, 2)
        )
        return self.classifier(self.norm(self.blocks(tokens + self.positions)).mean(1))
