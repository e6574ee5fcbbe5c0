"""The rivals once more, slowly: plain PyTorch, one task, ``autograd.grad`` step by step, dense
matrices.

Nothing here touches the library's solver, geometries or networks: a Conv4 is written out with
torch's own layers, every method with the order of operations of its public code. Each function
returns the scalar that the method minimises (or two scalars, where different parameters learn from
different ones). Keywords named after mistakes build the mutants.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad

Params = dict[str, Tensor]
DEPTH = 4


def unchanged(index: int, x: Tensor) -> Tensor:
    return x


def conv4(
    p: Params,
    x: Tensor,
    *,
    before_norm=unchanged,
    after_norm=unchanged,
    after_block=unchanged,
    on_logits=None,
) -> Tensor:
    """Conv4 in the official order: convolution, batch norm, ReLU, max-pool."""
    for i in range(DEPTH):
        x = F.conv2d(x, p[f"blocks.{i}.conv.weight"], p[f"blocks.{i}.conv.bias"], padding=1)
        x = before_norm(i, x)
        x = F.batch_norm(
            x,
            None,
            None,
            p[f"blocks.{i}.norm.weight"],
            p[f"blocks.{i}.norm.bias"],
            training=True,
            eps=1e-5,
        )
        x = F.max_pool2d(F.relu(after_norm(i, x)), 2)
        x = after_block(i, x)
    x = F.linear(x.flatten(1), p["classifier.weight"], p["classifier.bias"])
    return x if on_logits is None else on_logits(x)


def slopes(loss: Tensor, p: Params) -> Params:
    return dict(zip(p, grad(loss, list(p.values()), create_graph=True), strict=True))


def below(meta: Params, prefix: str) -> Params:
    return {
        name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)
    }


def metacurvature(
    meta: Params,
    episode,
    *,
    n_steps: int,
    task_lr: float,
    forget_kernel: bool = False,
    symmetric: bool = False,
) -> Tensor:
    """Every gradient flattened and multiplied by one dense Kronecker matrix."""
    point, own = below(meta, "anchor."), below(meta, "geometry.rule.curvature.")
    if symmetric:
        own = {n: value.T @ value if value.dim() == 2 else value**2 for n, value in own.items()}

    def dense(name: str, g: Tensor) -> Tensor:
        if g.dim() == 1:
            return torch.diag(own[f"scale.{name}"])
        matrix = torch.kron(own[f"out.{name}"], own[f"in.{name}"])
        if g.dim() == 4:
            kernel = own[f"kernel.{name}"]
            matrix = torch.kron(matrix, torch.eye(len(kernel)) if forget_kernel else kernel)
        return matrix

    for _ in range(n_steps):
        g = slopes(F.cross_entropy(conv4(point, episode.support_x), episode.support_y), point)
        point = {
            n: point[n] - task_lr * (dense(n, g[n]) @ g[n].reshape(-1)).reshape(g[n].shape)
            for n in point
        }
    return F.cross_entropy(conv4(point, episode.query_x), episode.query_y)


class KroneckerOptimizer:
    """A transform as the public code keeps it: a bag of tensors that ``autograd.grad`` can be asked
    about.
    """

    def __init__(self, tensors: Params, hidden: int):
        self.tensors, self.hidden = tensors, hidden

    def __call__(self, name: str, g: Tensor) -> Tensor:
        """Dense: every slice G of shape (n, m) is flattened and multiplied by L (x) R^T."""
        slices = (
            list(g.reshape(g.shape[0], g.shape[1], -1)) if g.dim() == 4 else [g.reshape(len(g), -1)]
        )
        for layer in range(self.hidden + 1):
            a, b = self.tensors[f"left.{layer}.{name}"], self.tensors[f"right.{layer}.{name}"]
            dense = torch.kron(a.T @ a, (b.T @ b).T.contiguous())
            slices = [(dense @ x.reshape(-1)).reshape(x.shape) for x in slices]
            if layer < self.hidden:
                slope = self.tensors[f"slope.{layer}.{name}"]
                slices = [torch.where(x > 0, x, slope * x) for x in slices]
        return torch.stack(slices).reshape(g.shape)


def metakfo(
    meta: Params,
    episode,
    *,
    n_steps: int,
    task_lr: float,
    hidden: int = 0,
    frozen: bool = False,
    from_start: bool = False,
) -> Tensor:
    """The public order: from the second step on the transform moves first, by this step's loss,
    then the weights.

    Mutants: ``frozen``, a transform that is never adapted; ``from_start``, one that moves by the
    gradient with respect to its first value, through all updates so far.
    """
    point = below(meta, "anchor.")
    first = transform = KroneckerOptimizer(below(meta, "geometry.rule.transform."), hidden)
    for k in range(n_steps):
        loss = F.cross_entropy(conv4(point, episode.support_x), episode.support_y)
        if k > 0 and not frozen:
            xi_slope = slopes(loss, (first if from_start else transform).tensors)
            transform = KroneckerOptimizer(
                {n: v - task_lr * xi_slope[n] for n, v in transform.tensors.items()}, hidden
            )
        g = slopes(loss, point)
        point = {n: point[n] - task_lr * transform(n, g[n]) for n in point}
    return F.cross_entropy(conv4(point, episode.query_x), episode.query_y)


def warpgrad(
    meta: Params, episode, *, n_steps: int, task_lr: float, through_trajectory: bool = False
) -> tuple[Tensor, Tensor]:
    """(the anchor's loss with the warps held, the warps' loss with every theta_{k-1} held).

    Mutant: ``through_trajectory``, whose warp losses differentiate all the steps.
    """

    def logits(theta: Params, warps: Params, x: Tensor) -> Tensor:
        def warp(i: int, h: Tensor) -> Tensor:
            if f"blocks.{i}.warp.weight" not in warps:
                return h
            return F.conv2d(
                h, warps[f"blocks.{i}.warp.weight"], warps[f"blocks.{i}.warp.bias"], padding=1
            )

        return conv4(theta, x, after_block=warp)

    def step(theta: Params, warps: Params) -> Params:
        g = slopes(
            F.cross_entropy(logits(theta, warps, episode.support_x), episode.support_y), theta
        )
        return {n: theta[n] - task_lr * g[n] for n in theta}

    anchor, warps = below(meta, "anchor."), below(meta, "shared.")
    held = {name: value.detach() for name, value in warps.items()}
    theta, own, warp_loss = anchor, anchor, torch.zeros(())
    for _ in range(n_steps):
        if not through_trajectory:
            own = {name: value.detach().requires_grad_() for name, value in theta.items()}
        own = step(own, warps)
        warp_loss = warp_loss + F.cross_entropy(
            logits(own, warps, episode.query_x), episode.query_y
        )
        theta = step(theta, held)
    return F.cross_entropy(logits(theta, held, episode.query_x), episode.query_y), warp_loss


def mtnet(
    meta: Params,
    gumbel: Params,
    episode,
    *,
    n_steps: int,
    task_lr: float,
    norms: bool = True,
    after_norm: bool = False,
    bias_free: bool = False,
    hard: bool = False,
) -> Tensor:
    """The literal network, T as 1 x 1 convolutions, and masked steps; straight-through
    Gumbel-softmax over [zeta, 0].

    Mutants: ``after_norm`` puts T behind the norm, ``bias_free`` leaves biases unmasked, ``hard``
    drops the soft gradient.
    """
    anchor, shared = below(meta, "anchor."), below(meta, "shared.")
    own, zeta = below(meta, "geometry.metric."), below(meta, "geometry.rule.zeta.")
    mask = {}
    for layer, logit in zeta.items():
        two = F.softmax(
            (torch.stack([logit, torch.zeros_like(logit)]) + gumbel[layer]) / 1.0, dim=0
        )
        one_hot = F.one_hot(two.argmax(0), 2).T.to(two.dtype)
        mask[layer] = (one_hot if hard else (one_hot - two).detach() + two)[0]

    def mix(i: int, x: Tensor) -> Tensor:
        return F.conv2d(x, own[f"blocks.{i}.conv"][:, :, None, None])

    def loss(p: Params, x: Tensor, y: Tensor) -> Tensor:
        place = {"after_norm": mix} if after_norm else {"before_norm": mix}
        return F.cross_entropy(
            conv4({**shared, **p}, x, **place, on_logits=lambda h: h @ own["classifier"].T), y
        )

    def masked(name: str, g: Tensor) -> Tensor:
        layer, _, kind = name.rpartition(".")
        if layer not in mask or (bias_free and kind == "bias"):
            return g
        return mask[layer].reshape(-1, *[1] * (g.dim() - 1)) * g

    point = anchor
    for _ in range(n_steps):
        g = slopes(loss(point, episode.support_x, episode.support_y), point)
        point = {n: point[n] - task_lr * masked(n, g[n]) for n in point}
    return loss(point, episode.query_x, episode.query_y)


def jacobian(
    p: Params, x: Tensor, y: Tensor, names: list[str], *, kind: str = "root", alone: bool = False
) -> Tensor:
    """d r_i / d p_j, one ``autograd.grad`` per item. Mutant: ``alone``, each item in a batch by
    itself.
    """
    rows = []
    for i in range(len(x)):
        batch, label, item = (x[i : i + 1], y[i : i + 1], 0) if alone else (x, y, i)
        loss = F.cross_entropy(conv4(p, batch), label, reduction="none")[item]
        residual = torch.sqrt(2 * loss + 1e-12) if kind == "root" else loss
        rows.append(
            torch.cat(
                [g.reshape(-1) for g in grad(residual, [p[n] for n in names], create_graph=True)]
            )
        )
    return torch.stack(rows)


def ecml(
    meta: Params,
    episode,
    *,
    n_steps: int,
    task_lr: float,
    gamma: float,
    names: list[str],
    **options,
) -> Tensor:
    """MAML's loss and the mean spread of the log-eigenvalues of J J^T along the trajectory."""
    point, spread = below(meta, "anchor."), torch.zeros(())
    for _ in range(n_steps):
        rows = jacobian(point, episode.support_x, episode.support_y, names, **options)
        logs = torch.linalg.eigvalsh(rows @ rows.T).log()
        spread = spread + ((logs - logs.mean()) ** 2).mean() / n_steps
        g = slopes(F.cross_entropy(conv4(point, episode.support_x), episode.support_y), point)
        point = {n: point[n] - task_lr * g[n] for n in point}
    return F.cross_entropy(conv4(point, episode.query_x), episode.query_y) + gamma * spread
