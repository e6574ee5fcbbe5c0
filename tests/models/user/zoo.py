"""Modules of every kind that people bring, and which of them are refused."""

from __future__ import annotations

from tests.models.user import zoo_blocks, zoo_layers, zoo_patterns  # they fill it
from tests.models.user.zoo_base import ZOO, Doing, Last, Net, W

__all__ = ["NEVER", "TO_FIRST_ORDER", "ZOO", "Doing", "Last", "Net", "W"]

_Folding, _GPT = zoo_blocks._Folding, zoo_blocks._GPT
_keep, _TwoInputs = zoo_patterns._keep, zoo_patterns._TwoInputs
FILLED = zoo_layers, zoo_blocks, zoo_patterns


NEVER = {
    "RReLU in training",
    "FractionalMaxPool2d",
    "BatchNorm2d, momentum=None",
    "InstanceNorm2d tracked",
    "batch_norm by hand, frozen statistics",
    "spectral_norm in training",
    "old weight_norm",
    "old spectral_norm",
    "LSTM with dropout",
    "TransformerEncoderLayer with dropout",
    "packed sequence",
    "Embedding with max_norm",
    "Embedding, sparse",
    "checkpoint",
    "dropout(training=True)",
    "dropout(training=self.training)",
    "noise",
    "bernoulli gates",
    "buffer changed",
    "autograd.Function, old style",
    "lambdas over self",
    "weight kept in a list",
    "forward hook over self",
    "full backward hook",
    "gradient hook on a parameter",
    "call counter that is read",
    "moving average that is read",
    "own generator",
    "other at one level of torch.func",
    "detached at one level",
    "other for weights that are leaves",
    "gradient inside by autograd",
}
"""What has no meta-gradient, or none that torch.func can take: refused."""
TO_FIRST_ORDER = {
    "Hardsigmoid",
    "layer_norm, bias and no weight",
    "torch._weight_norm by hand",
    "EmbeddingBag",
    "EmbeddingBag, sum",
    "cdist",
    "autograd.Function, once differentiable",
    "det at the identity",
    "other at two levels of torch.func",
    "Function that saves an intermediate",
    "the same behind a zero gate",
    "constant by .data",
}
"""What has no right second derivatives in torch: accepted by "first_order" and adapt() alone."""
