"""Operations of a matrix with 5 rows and 4 columns, for their second derivatives alone.

Those of the zoo and of the losses are not repeated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 2, 1, 1], [0, 0, 0, 0]])
ROWS = torch.tensor([0, 1, 1, 2, 3])
FIRST = torch.tensor([0])
OTHER = torch.linspace(0.1, 0.9, 20, dtype=torch.float64).reshape(5, 4)


def images(h: Tensor) -> Tensor:
    return h.reshape(1, 2, 2, 5)


def volumes(h: Tensor) -> Tensor:
    return h.reshape(1, 1, 2, 2, 5)


def solid(h: Tensor) -> Tensor:
    return h[:4] @ h[:4].T + torch.eye(4)


def assigned(h: Tensor) -> Tensor:
    y = torch.zeros_like(h)
    y[:, :2] = h[:, 2:]
    y[0] += h[0]
    return y * y


def conjugate(h: Tensor) -> Tensor:
    z = torch.view_as_complex(h.reshape(5, 2, 2))
    return torch.view_as_real(z.conj() * z.square())


def located(h: Tensor) -> Tensor:
    grid = F.affine_grid(h[:3].reshape(2, 2, 3), (2, 1, 3, 3), align_corners=False)
    return F.grid_sample(images(h), grid[:1], align_corners=False)


def unpooled(h: Tensor) -> Tensor:
    out, where = F.max_pool1d(h[None], 2, return_indices=True)
    return F.max_unpool1d(out, where, 2)


NAMES = [
    "abs",
    "acos",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "frac",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "reciprocal",
    "round",
    "rsqrt",
    "sign",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "tan",
]
FUNCTIONAL = ["celu", "glu", "hardshrink", "logsigmoid", "selu", "softshrink", "softsign"]
OPERATIONS = {
    # number by number; the matrix has entries from 0.2 to 0.8
    **{name: getattr(torch, name) for name in NAMES},
    **{name: getattr(F, name) for name in FUNCTIONAL},
    "power": lambda h: h**2.5,
    "power of two matrices": lambda h: h**h,
    "power of a number": lambda h: 2.0**h,
    "trunc": lambda h: (3 * h).trunc() * h,
    "fmod": lambda h: h.fmod(0.3),
    "remainder": lambda h: h.remainder(0.3),
    "clamp": lambda h: h.clamp(0.3, 0.6),
    "clamp by a tensor": lambda h: h.clamp(h.roll(1, 0) - 0.1, h.roll(1, 0) + 0.1),
    "clamp from below": lambda h: h.clamp_min(0.4),
    "threshold": lambda h: F.threshold(h, 0.5, 0.0),
    "prelu": lambda h: F.prelu(0.5 - h, h[0, :1]),
    "where": lambda h: torch.where(h > 0.5, h, h.square()),
    # of two
    "maximum": lambda h: torch.maximum(h, h.roll(1, 1)),
    "minimum": lambda h: torch.minimum(h, h.roll(1, 1)),
    "atan2": lambda h: torch.atan2(h, h.roll(1, 1)),
    "hypot": lambda h: torch.hypot(h, h.roll(1, 1)),
    "logaddexp": lambda h: torch.logaddexp(h, h.roll(1, 1)),
    "lerp": lambda h: torch.lerp(h, h.square(), 0.3),
    "lerp by a tensor": lambda h: torch.lerp(h, h.square(), h),
    "addcmul": lambda h: torch.addcmul(h, h, h),
    "addcdiv": lambda h: torch.addcdiv(h, h, h.exp()),
    # sums and choices
    "max of a row": lambda h: h.max(1)[0],
    "min of a row": lambda h: h.min(1)[0],
    "max": lambda h: h.max() * h.min(),
    "amax": lambda h: h.amax(1) * h.amin(1),
    "median": lambda h: h.median(1)[0],
    "cummax": lambda h: h.cummax(1)[0],
    "sort": lambda h: h.sort(1)[0],
    "topk": lambda h: h.topk(2, 1)[0],
    "cumsum": lambda h: h.cumsum(1).cumprod(1),
    "logsumexp": lambda h: h.logsumexp(1) + h.logcumsumexp(1).sum(1),
    "prod": lambda h: h.prod(1).prod(),
    "std": lambda h: h.std(1) * h.std(),
    "var": lambda h: h.var(1) * torch.var_mean(h)[0],
    "vector norm": lambda h: h.norm(dim=1) * h.norm(),
    "distance": lambda h: torch.dist(h, h.square()) * F.pairwise_distance(h, h.square()),
    # places
    "gather": lambda h: h.gather(1, COLUMNS),
    "index_select": lambda h: h.index_select(0, ROWS),
    "index": lambda h: h[ROWS],
    "masked_select": lambda h: h.masked_select(h > 0.5),
    "masked_fill": lambda h: h.masked_fill(h > 0.5, 1.0),
    "masked_scatter": lambda h: h.masked_scatter(h > 0.5, h.square()),
    "index_put": lambda h: h.index_put((FIRST,), h[1:2].square()),
    "index_add": lambda h: torch.zeros_like(h).index_add(0, ROWS, h.square()),
    "index_fill": lambda h: h.index_fill(0, FIRST, 0.0),
    "index_copy": lambda h: h.index_copy(0, FIRST, h[1:2].square()),
    "scatter": lambda h: torch.zeros_like(h).scatter(1, COLUMNS.argsort(1), h.square()),
    "scatter_add": lambda h: torch.zeros_like(h).scatter_add(1, COLUMNS, h.square()),
    "scatter_reduce": lambda h: torch.zeros_like(h).scatter_reduce(1, COLUMNS, h, "amax"),
    "select_scatter": lambda h: h.select_scatter(h[1].square(), 0, 0),
    "slice_scatter": lambda h: h.slice_scatter(h[:1].square(), 0, 0, 1),
    "diagonal_scatter": lambda h: h.diagonal_scatter(h[0].square()),
    "diagonal": lambda h: torch.diag_embed(h.diagonal().square()),
    "trace": lambda h: h[:4].trace() * h.flip(1),
    "triangles": lambda h: h.tril() * h.triu(),
    "unfold": lambda h: h.unfold(1, 2, 1),
    "as_strided": lambda h: h.contiguous().as_strided((2, 2), (1, 2)),
    "assigned": assigned,
    "copied": lambda h: torch.zeros_like(h).copy_(h),
    "squeeze": lambda h: h[None].squeeze() * h[None].squeeze(0),
    # products
    "addmm": lambda h: torch.addmm(h, h, h[:4]),
    "addmv": lambda h: torch.addmv(h[:, 0], h, h[0]),
    "addr": lambda h: torch.addr(h, h[:, 0], h[0]),
    "addbmm": lambda h: torch.addbmm(h, h[None], h[None, :4]),
    "baddbmm": lambda h: torch.baddbmm(h[None], h[None], h[None, :4]),
    "dot": lambda h: (h[0] @ h[1]) * (h @ h[0]),
    "cross": lambda h: torch.linalg.cross(h[:3].T, h[1:4].T),
    "trilinear": lambda h: F.bilinear(h, h, h[:4].reshape(1, 4, 4)),
    "inverse": lambda h: torch.linalg.inv(solid(h)),
    "solve": lambda h: torch.linalg.solve(solid(h), h[4]),
    "cholesky": lambda h: torch.linalg.cholesky(solid(h)),
    "triangular": lambda h: torch.linalg.solve_triangular(solid(h).tril(), h[:4], upper=False),
    "exponential": lambda h: torch.linalg.matrix_exp(h[:4]),
    # complex numbers
    "fft": lambda h: torch.fft.ifft(torch.fft.fft(h) * (1 + 1j)).real,
    "rfft": lambda h: torch.fft.irfft(torch.fft.rfft(h).square(), n=4),
    "complex": lambda h: torch.complex(h, h.exp()).square().abs(),
    "conjugate": conjugate,
    "cast": lambda h: h.to(torch.complex128).square().real,
    # images
    "upsampled": lambda h: F.interpolate(images(h), scale_factor=2),
    "bilinear": lambda h: F.interpolate(images(h), scale_factor=2, mode="bilinear"),
    "bicubic": lambda h: F.interpolate(images(h), scale_factor=2, mode="bicubic"),
    "linear": lambda h: F.interpolate(h[None], scale_factor=2, mode="linear"),
    "nearest": lambda h: F.interpolate(h[None], scale_factor=2),
    "grid": located,
    "shuffled": lambda h: F.pixel_shuffle(h.reshape(1, 4, 1, 5), 2),
    "columns": lambda h: F.fold(F.unfold(images(h), 2), (2, 5), 2),
    "reflected": lambda h: F.pad(images(h), (1, 1, 1, 1), mode="reflect"),
    "reflected line": lambda h: F.pad(h[None], (1, 1), mode="reflect"),
    "replicated": lambda h: F.pad(images(h), (1, 1, 1, 1), mode="replicate"),
    "replicated line": lambda h: F.pad(h[None], (1, 1), mode="replicate"),
    "max pool 3d": lambda h: F.max_pool3d(volumes(h), 2),
    "average pool 3d": lambda h: F.adaptive_avg_pool3d(F.avg_pool3d(volumes(h), 1), (1, 2, 2)),
    "adaptive max pool": lambda h: F.adaptive_max_pool2d(images(h), (1, 2)),
    "unpooled": unpooled,
    # norms without weights, losses
    "batch norm": lambda h: F.batch_norm(h, None, None, training=True),
    "batch norm by statistics": lambda h: F.batch_norm(h, OTHER[0], OTHER[1], h[2], h[3]),
    "instance norm": lambda h: F.instance_norm(h[None]),
    "layer norm": lambda h: F.layer_norm(h, (4,)),
    "group norm": lambda h: F.group_norm(h, 2),
    "smooth l1": lambda h: F.smooth_l1_loss(h, OTHER),
    "huber": lambda h: F.huber_loss(h, OTHER, delta=0.1),
    "margin": lambda h: F.soft_margin_loss(h, (OTHER - 0.5).sign()),
    "binary": lambda h: F.binary_cross_entropy(h, OTHER),
    "classes of pixels": lambda h: F.nll_loss(images(h), torch.ones(1, 2, 5, dtype=torch.int64)),
}  # fmt: skip
