"""Activations, linear maps, convolutions, pooling and norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.user.zoo_base import (
    Net,
    W,
    _Function,
    add,
    image,
    signal,
    vector,
    volumes,
)

# activations
for kind in (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.ReLU6, nn.PReLU,
):  # fmt: skip
    vector(kind.__name__, kind)
vector("ReLU in place", lambda: nn.ReLU(inplace=True))
vector("Softmax", lambda: nn.Softmax(1))
vector("LogSoftmax", lambda: nn.LogSoftmax(1))
vector("Softmin", lambda: nn.Softmin(1))
vector("GLU", lambda: nn.Sequential(nn.Linear(W, 2 * W), nn.GLU(1)))
vector("GELU by tanh", lambda: nn.GELU("tanh"))
vector("Threshold", lambda: nn.Threshold(0.1, 0.0))
vector("RReLU in training", nn.RReLU)
vector("RReLU in evaluation", lambda: nn.RReLU().eval())

# linear maps
vector("Linear", lambda: nn.Linear(W, W))
vector("Linear without bias", lambda: nn.Linear(W, W, bias=False))
vector("Bilinear with itself", lambda: _Bilinear())
vector("Identity", nn.Identity)
vector("Flatten", nn.Flatten)
vector("CosineSimilarity", lambda: _Cosine())
vector("Residual", lambda: _Residual())
vector("frozen layer", lambda: nn.Linear(W, W).requires_grad_(False))
vector("Sequential of three", lambda: nn.Sequential(*[nn.Linear(W, W) for _ in range(3)]))
vector("one layer three times", lambda: nn.Sequential(*[nn.Linear(W, W)] * 3))
vector("ModuleList", lambda: _List())
vector("ModuleDict", lambda: _Dict())
vector("ParameterList", lambda: _Parameters())


class _Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(W, W, W)

    def forward(self, x):
        return self.layer(x, x)


class _Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(W, W))

    def forward(self, x):
        return F.cosine_similarity(x[:, None], self.weight[None], dim=-1)


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(W, W)

    def forward(self, x):
        y = self.layer(x)
        y += x
        return y


class _List(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(W, W) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class _Dict(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"a": nn.Linear(W, W), "b": nn.Linear(W, W)})

    def forward(self, x):
        return self.layers["a"](x) * self.layers["b"](x)


class _Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(W, W)) for _ in range(2)])

    def forward(self, x):
        return torch.tanh(x @ self.weights[0]) @ self.weights[1]


# convolution and pooling
image("Conv2d", lambda: nn.Conv2d(W, W, 3))
image("Conv2d grouped", lambda: nn.Conv2d(W, W, 3, groups=2))
image("Conv2d depthwise", lambda: nn.Conv2d(W, W, 3, groups=W))
image("Conv2d dilated and strided", lambda: nn.Conv2d(W, W, 3, stride=2, dilation=2, padding=2))
image("Conv2d circular", lambda: nn.Conv2d(W, W, 3, padding=1, padding_mode="circular"))
image("Conv2d reflecting", lambda: nn.Conv2d(W, W, 3, padding=1, padding_mode="reflect"))
image("ConvTranspose2d", lambda: nn.ConvTranspose2d(W, W, 2, stride=2))
signal("Conv1d", lambda: nn.Conv1d(W, W, 3))
signal("ConvTranspose1d", lambda: nn.ConvTranspose1d(W, W, 3))
add("Conv3d", lambda: Net(nn.Conv3d(2, W, 3, padding=1)), volumes)
add("ConvTranspose3d", lambda: Net(nn.ConvTranspose3d(2, W, 2)), volumes)
image("MaxPool2d", lambda: nn.MaxPool2d(2))
image("AvgPool2d", lambda: nn.AvgPool2d(2))
image("LPPool2d", lambda: nn.LPPool2d(2, 2))
image("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(2))
image("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d(2))
image("FractionalMaxPool2d", lambda: nn.FractionalMaxPool2d(2, output_size=3))
signal("MaxPool1d", lambda: nn.MaxPool1d(2))
signal("AvgPool1d", lambda: nn.AvgPool1d(2))
image("Upsample nearest", lambda: nn.Upsample(scale_factor=2))
image("Upsample bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"))
image("PixelShuffle", lambda: nn.Sequential(nn.Conv2d(W, 4 * W, 1), nn.PixelShuffle(2)))
image("Unfold", lambda: nn.Sequential(nn.Unfold(2), nn.Conv1d(4 * W, W, 1)))
image("ReflectionPad2d", lambda: nn.ReflectionPad2d(1))
image("ZeroPad2d", lambda: nn.ZeroPad2d(1))
image("ChannelShuffle", lambda: nn.ChannelShuffle(2))
image("grid_sample", lambda: _Grid())


class _Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[1.0, 0.1, 0.05], [-0.1, 0.9, 0.02]]))

    def forward(self, x):
        grid = F.affine_grid(self.theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


# normalisation
image("BatchNorm2d", lambda: nn.BatchNorm2d(W))
image("BatchNorm2d untracked", lambda: nn.BatchNorm2d(W, track_running_stats=False))
image("BatchNorm2d in evaluation", lambda: nn.BatchNorm2d(W).eval())
image("BatchNorm2d without affine", lambda: nn.BatchNorm2d(W, affine=False))
image("BatchNorm2d, momentum=None", lambda: nn.BatchNorm2d(W, momentum=None))
image("InstanceNorm2d", lambda: nn.InstanceNorm2d(W))
image("InstanceNorm2d affine", lambda: nn.InstanceNorm2d(W, affine=True))
image("InstanceNorm2d tracked", lambda: nn.InstanceNorm2d(W, track_running_stats=True))
image(
    "InstanceNorm2d tracked, in evaluation",
    lambda: nn.InstanceNorm2d(W, affine=True, track_running_stats=True).eval(),
)
image("GroupNorm", lambda: nn.GroupNorm(2, W))
image("LocalResponseNorm", lambda: nn.LocalResponseNorm(2))
vector("BatchNorm1d", lambda: nn.BatchNorm1d(W))
vector("LayerNorm", lambda: nn.LayerNorm(W))
vector("LayerNorm without bias", lambda: nn.LayerNorm(W, bias=False))
vector("LayerNorm without affine", lambda: nn.LayerNorm(W, elementwise_affine=False))
vector("RMSNorm", lambda: nn.RMSNorm(W))
vector("layer_norm, bias and no weight", lambda: _BiasOnly())
vector("F.normalize", lambda: _Function(lambda x: F.normalize(x, dim=1)))
vector("batch_norm by hand, frozen statistics", lambda: _HandNorm(frozen=True))
vector("batch_norm by hand, own statistics", lambda: _Function(
    lambda x: F.batch_norm(x, None, None, training=True)))  # fmt: skip


class _BiasOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(W))

    def forward(self, x):
        return F.layer_norm(x, (W,), None, self.bias)


class _HandNorm(nn.Module):
    def __init__(self, frozen):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(W), requires_grad=False)
        self.var = nn.Parameter(torch.ones(W), requires_grad=False)

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var, training=self.training)
