"""Step rules that make any bijective point map descend: pull the gradient back, or weight its
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacrev

from mdtheory.core import tree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Pullback, StepRule
from mdtheory.maps.base import DualMap


class PullbackStep(StepRule):
    """z <- z - task_lr J_g(z)^T grad: gradient descent on f o g, one more backward pass through the
    map.

    The point moves by -task_lr J J^T grad, up to O(task_lr^2) where J is Lipschitz: a symmetric
    preconditioner, positive definite wherever J is invertible (as that of every BlockIAF is),
    monotone or not. There exact stationary points are those of f; approximate ones are not:
    ||grad f|| <= ||grad (f o g)|| / sigma_min(J), and a scale that saturates makes sigma_min
    vanish.

    Composed as any rule is, here with a block-triangular map that plain dual steps need not descend
    with:

    >>> import torch
    >>> from mdtheory.geometry import Geometry
    >>> from mdtheory.geometry.metamida import MLPIAF
    >>> from mdtheory.meta import MetaLearner
    >>> geometry = Geometry(map=MLPIAF(partition=1, hidden=4), rule=PullbackStep())
    >>> learner = MetaLearner(torch.nn.Linear(3, 2), geometry, n_steps=2, task_lr=0.1)
    >>> adapted = learner.adapt(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]))
    >>> adapted(torch.ones(1, 3)).shape
    torch.Size([1, 2])
    """

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        return {
            **state,
            **{f"z.{name}": state[f"z.{name}"] - task_lr * v for name, v in pull(grad).items()},
        }


class BlockDualStep(StepRule):
    """z <- z - task_lr Q grad with Q = diag(q_i I): one rate per block of tensors, from
    :func:`block_rates`.

    With these rates sym(J Q) >= 1/2 diag(d_i q_i) > 0 wherever the given bounds hold, so that the
    descent theorem applies to g(Q .) with m = min_i d_i q_i / 2 although g itself need not be
    monotone. The bounds must hold on a convex set with every segment
    [z_k, z_{k+1}]; whether they do along a run is for the caller to check (:func:`block_bounds`).
    Rates may grow geometrically with the block.

    ``blocks``: lists of tensor names, in the map's order (``map.blocks`` of a Kronecker map);
    ``rates``: q_i. No parameters.

    >>> from mdtheory.geometry import Geometry
    >>> from mdtheory.geometry.metamida import KroneckerIAF
    >>> coupling, diagonal = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([1.0, 0.5])
    >>> rates = block_rates(coupling=coupling, diagonal=diagonal)
    >>> rates.tolist()
    [1.0, 18.0]
    >>> rule = BlockDualStep([["weight"], ["bias"]], rates)
    >>> geometry = Geometry(map=KroneckerIAF(partition=1), rule=rule)
    """

    def __init__(self, blocks: Sequence[Sequence[str]], rates: Tensor | Sequence[float]):
        super().__init__()
        rates = torch.as_tensor(rates, dtype=torch.float64)
        if rates.shape != (len(blocks),) or not (torch.isfinite(rates).all() and (rates > 0).all()):
            raise ValueError(
                f"rates must be {len(blocks)} positive finite numbers, one per block, got "
                f"{rates.tolist()}; use block_rates"
            )
        self.rate_of = {
            name: float(rate) for block, rate in zip(blocks, rates, strict=True) for name in block
        }

    def build(self, anchor: Params) -> None:
        if set(self.rate_of) != set(anchor):
            raise ValueError(
                f"blocks must hold every adapted tensor, got {sorted(self.rate_of)}; the adapted "
                f"tensors are {sorted(anchor)}"
            )

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        return {
            **state,
            **{f"z.{n}": state[f"z.{n}"] - task_lr * self.rate_of[n] * g for n, g in grad.items()},
        }


def block_rates(*, coupling: Tensor, diagonal: Tensor) -> Tensor:
    """q_1 = 1, q_i = max(1, max_{j<i} (B - 1)^2 n_ij^2 q_j / (d_i d_j)). shapes: (B, B) and (B,) ->
    (B,)

    ``coupling``: n_ij >= ||J_ij|| for j < i (the rest is not read); ``diagonal``: d_i > 0 with J_ii
    >= d_i I, diagonal.
    """
    n_blocks = len(diagonal)
    if coupling.shape != (n_blocks, n_blocks) or not (
        (diagonal > 0).all() and torch.isfinite(coupling).all()
    ):
        raise ValueError(
            f"coupling must be finite of shape {(n_blocks, n_blocks)} and diagonal positive, got "
            f"{tuple(coupling.shape)} and "
            f"{diagonal.tolist()}; a map without these bounds cannot be rescued by block rates"
        )
    rates = torch.ones_like(diagonal)
    for i in range(1, n_blocks):
        needed = (
            ((n_blocks - 1) * coupling[i, :i]).square() * rates[:i] / (diagonal[i] * diagonal[:i])
        )
        rates[i] = needed.max().clamp(min=1.0)
    return rates


def block_bounds(
    map: DualMap, meta: Params, z: Params, blocks: Sequence[Sequence[str]]
) -> tuple[Tensor, Tensor]:
    """||J_ij|| for j < i and min diag J_ii at one z, by the dense Jacobian: small d only. shapes:
    (B, B), (B,)

    An estimate to be maximised (minimised) over the points that matter, not a bound on a set.
    """
    jacobian = jacrev(lambda value: tree.flatten(map.point(meta, tree.unflatten(value, z))))(
        tree.flatten(z)
    ).detach()
    ends = torch.tensor([value.numel() for value in z.values()]).cumsum(0).tolist()
    spans = {
        name: range(end - value.numel(), end)
        for (name, value), end in zip(z.items(), ends, strict=True)
    }
    index = [torch.tensor([i for name in block for i in spans[name]]) for block in blocks]
    coupling = jacobian.new_zeros(len(blocks), len(blocks))
    for i, rows in enumerate(index):
        for j, columns in enumerate(index[:i]):
            coupling[i, j] = torch.linalg.matrix_norm(jacobian[rows][:, columns], ord=2)
    return coupling, torch.stack([jacobian[rows, rows].min() for rows in index])
