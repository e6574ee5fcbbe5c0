"""The four-block convolutional network of few-shot learning, with the official MetaMiDA code's
tensors and order.
"""

from __future__ import annotations

from torch import Tensor, nn

from mdtheory.models.base import at_least, check_images, models, seeded
from mdtheory.models.conv_block import conv_norm
from mdtheory.models.norm import BatchStatNorm

DEPTH = 4
SMALLEST = 2**DEPTH


class ConvBlock(nn.Module):
    """norm(conv3x3(x)), pooled 2x2 and rectified. shapes: (N, in, H, W) -> (N, out, H // 2, W // 2)

    The official order is ReLU, then max-pool. Both commute, being monotone, and pooling first
    rectifies a quarter of the values. Values are equal; gradients are equal except where two values
    of one window tie above zero.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = BatchStatNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """One block. shape: (N, out, H // 2, W // 2)"""
        return conv_norm(self.conv, self.norm, x, pool=True, slope=0.0)


@models.register("conv4")
class Conv4(nn.Module):
    """4 x {3x3 convolution with bias, batch norm, ReLU, 2x2 max-pool}, then a linear classifier
    (vinyals2016matching).

    shapes: (N, in_channels, image_size, image_size) -> (N, n_way). Tensors, in order:
    ``blocks.<i>.conv.weight``, ``blocks.<i>.conv.bias``, ``blocks.<i>.norm.weight``,
    ``blocks.<i>.norm.bias`` for i = 0..3, ``classifier.weight``, ``classifier.bias`` (18; 121,093
    numbers at 64 channels, 84 x 84 RGB and 5-way; 463,365 at 128 channels). First values are
    torch's own initialisers, drawn from ``seed``. A convolution's bias cancels in batch statistics:
    its gradient is 0.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 84,
        n_way: int = 5,
        channels: int = 64,
        seed: int = 0,
    ):
        super().__init__()
        at_least("image_size", image_size, SMALLEST)
        for name, value in {
            "in_channels": in_channels,
            "n_way": n_way,
            "channels": channels,
        }.items():
            at_least(name, value, 1)
        self.in_channels = in_channels
        self.image_size = image_size
        widths = [in_channels] + [channels] * DEPTH
        with seeded(seed):
            self.blocks = nn.Sequential(
                *(ConvBlock(widths[i], widths[i + 1]) for i in range(DEPTH))
            )
            self.classifier = nn.Linear(channels * (image_size // SMALLEST) ** 2, n_way)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores. shape: (N, n_way)"""
        return self.classifier(
            self.blocks(check_images(x, self.in_channels, self.image_size)).flatten(1)
        )
