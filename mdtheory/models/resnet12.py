"""ResNet-12, the residual network of few-shot learning."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mdtheory.models.base import at_least, check_images, models, seeded
from mdtheory.models.conv_block import conv_norm
from mdtheory.models.norm import BatchStatNorm

SLOPE = 0.1


class Residual(nn.Module):
    """leaky(norm(conv3x3)) twice, norm(conv3x3), plus norm(conv1x1(x)), pooled 2x2, leaky. (N, in,
    H, W) -> (N, out, H/2, W/2)

    The shapes above round H / 2 and W / 2 down. Pooling before the last leaky ReLU equals the usual
    order, as in ``conv4``.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = BatchStatNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = BatchStatNorm(out_channels)
        self.conv3 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm3 = BatchStatNorm(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.shortcut_norm = BatchStatNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """One stage. shape: (N, out, H // 2, W // 2)"""
        y = conv_norm(self.conv1, self.norm1, x, pool=False, slope=SLOPE)
        y = conv_norm(self.conv2, self.norm2, y, pool=False, slope=SLOPE)
        y = conv_norm(self.conv3, self.norm3, y, pool=False, slope=1.0) + conv_norm(
            self.shortcut, self.shortcut_norm, x, pool=False, slope=1.0
        )
        return F.leaky_relu(F.max_pool2d(y, 2), SLOPE)


@models.register("resnet12")
class ResNet12(nn.Module):
    """Four residual stages, global average pool, linear classifier (lee2019metaoptnet, sec. 4.1;
    oreshkin2018tadam).

    shapes: (N, in_channels, image_size, image_size) -> (N, n_way). ``widths``: the channels of the
    stages; 64, 160, 320, 640 give 12,424,320 numbers before the classifier. Convolutions start
    Kaiming-normal (fan out, leaky ReLU of slope 0.1), drawn from ``seed``. Deviation: no dropout or
    DropBlock, which would draw new noise in every task step.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 84,
        n_way: int = 5,
        widths: Sequence[int] = (64, 160, 320, 640),
        seed: int = 0,
    ):
        super().__init__()
        if len(widths) < 1:
            raise ValueError(
                "widths must name at least one stage, got none; (64, 160, 320, 640) is the usual "
                "choice"
            )
        at_least("image_size", image_size, 2 ** len(widths))
        for name, value in [
            ("in_channels", in_channels),
            ("n_way", n_way),
            *(("widths", width) for width in widths),
        ]:
            at_least(name, value, 1)
        self.in_channels = in_channels
        self.image_size = image_size
        with seeded(seed):
            self.stages = nn.Sequential(
                *(Residual(before, after) for before, after in pairwise([in_channels, *widths]))
            )
            self.classifier = nn.Linear(widths[-1], n_way)
            for module in self.stages.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(
                        module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu"
                    )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores. shape: (N, n_way)"""
        return self.classifier(
            self.stages(check_images(x, self.in_channels, self.image_size)).mean((2, 3))
        )
