"""Conv4 as anybody writes it in torch: what the plain loop and the other libraries are given."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.benchmarks.case import BLOCKS, Size
from mdtheory.core.types import Params


class Block(nn.Module):
    """conv3x3, batch norm with the statistics of the batch at hand, ReLU, max-pool."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels, track_running_stats=False)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """shapes: (N, in_channels, H, W) -> (N, channels, H // 2, W // 2)"""
        return self.pool(self.relu(self.norm(self.conv(x))))


class Conv4(nn.Module):
    """Four blocks and a linear classifier, with the names of the library's ``conv4``, and the
    weights given with their device.
    """

    def __init__(self, size: Size, weights: Params):
        super().__init__()
        widths = [3] + [size.channels] * BLOCKS
        self.blocks = nn.Sequential(*(Block(widths[i], widths[i + 1]) for i in range(BLOCKS)))
        self.classifier = nn.Linear(size.channels * (size.image_size // 2**BLOCKS) ** 2, size.n_way)
        self.to(next(iter(weights.values()))).load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores. shape: (N, n_way)"""
        return self.classifier(self.blocks(x).flatten(1))
