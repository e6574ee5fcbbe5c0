"""A block-triangular bijection that is strongly monotone and Lipschitz on all of R^d, by
construction.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.iaf.base import BlockIAF
from mdtheory.maps.spectral_bounds import gram, largest, log_top, within

DIAGONAL, GATE, COUPLING = 0.5, 0.25, 0.25
"""The shares of 1 - m and of M - 1 that the diagonal a, the gated term tau and the coupling eta may
use.
"""

BISECTIONS, NEWTON_STEPS = 30, 3
UNIT = 0.1

Heads = tuple[list[Tensor], list[Tensor]]
"""The last weight matrices behind a block's gates and behind its shifts, one per tensor of the
block.
"""


def contraction(matrix: Tensor) -> Tensor:
    """A matrix of norm below 1, whose singular values are near 1 where those of A are large.
    shapes: (..., o, i)

    A / sqrt(UNIT^2 + bound(||A||^2)), then two steps B <- 3/2 B - 1/2 B B^T B, which map [0, 1]
    into itself and lift 0.7 to 0.97: near-orthogonal layers lose no signal, so that certified and
    realised slopes stay close (the iteration of bjorck1971iterative). No singular value is
    computed, and nothing is undefined at A = 0 or at ties. UNIT is the size at which weights are
    stored: the smaller, the faster an optimizer turns them.
    """
    wide = matrix.shape[-2] <= matrix.shape[-1]
    b = matrix * torch.rsqrt(UNIT**2 + log_top(gram(matrix)).exp())[..., None, None]
    for _ in range(2):
        b = 1.5 * b - 0.5 * (gram(b) @ b if wide else b @ gram(b))
    return b


def spectral(matrix: Tensor) -> float:
    """||A||_2, exactly."""
    return float(torch.linalg.matrix_norm(matrix, ord=2))


def monotone_modulus(*, diagonal: float, coupling: float, n_blocks: int) -> float:
    """diagonal - coupling sqrt((B - 1) / (2 B)): the least <v, J v> / ||v||^2 over block-triangular
    J = D + N.

    D >= diagonal; row i of N has norm k_i and coupling = (sum k_i^2)^(1/2). Sharp: attained by
    scalar blocks with N_ij = -kappa for all j < i. Below it
    cos(pi / (B + 1)) in place of the root is valid too, but larger for B > 2.
    """
    return diagonal - coupling * math.sqrt((n_blocks - 1) / (2 * n_blocks))


class CertifiedIAF(BlockIAF):
    """g_i(z) = a_i z_i + tau c tanh(z_i / c) tanh(alpha_i(z_<i) / 2) + nu_i(z_<i): m-strongly
    monotone and M-Lipschitz.

    With k_i = tau c l_i^alpha / 2 + l_i^nu (l: Lipschitz constants of the conditioners) and eta^2 =
    sum_i k_i^2,

        m = min a - tau - eta sqrt((B - 1) / (2 B)),    M = max a + tau + eta,

    on all of R^d. A BlockIAF with a non-constant scale is neither; hence the saturation tanh(z
    / c), c = ``reach``. Every weight matrix of the conditioners goes through :func:`contraction`,
    so that only their last layers have norms; those are multiplied by eta_max / sqrt(eta_max^2 +
    eta^2), and a = 1 + within(...). So the constructor's m and M hold for all parameter values, 0 <
    m < 1 < M; :meth:`certificate` computes the narrower pair of the actual weights. At the start a
    = 1, alpha = nu = 0: the identity.

    tanh(alpha / 2) stands for the poster's sigmoid(alpha), so that the gated term vanishes at the
    start; its sign is free, hence the - tau in m. The Jacobian is triangular and not symmetric, so
    this is *no* mirror map: monotone dual-space preconditioning, with a descent theorem (task_lr <
    2 m / (L_f M^2)) but without a Bregman divergence. The inverse solves one increasing scalar
    equation per coordinate, block after block.
    """

    diagonal: nn.Parameter
    gain = 1.0  # Lipschitz constant of a conditioner's units together

    def _set_bounds(self, *, m: float, M: float, reach: float) -> None:
        if not 0 < m < 1 < M < math.inf:
            raise ValueError(
                f"m and M must satisfy 0 < m < 1 < M, got {m} and {M}; the start is the identity"
            )
        if not 0 < reach < math.inf:
            raise ValueError(
                f"reach must be positive and finite, got {reach}; 1.0 saturates beyond |z| = 1"
            )
        self.m = m
        self.M = M
        self.reach = reach
        self.tau = GATE * min(1 - m, M - 1)

    def build(self, anchor: Params) -> None:
        super().build(anchor)
        self.diagonal = nn.Parameter(torch.zeros_like(tree.flatten(anchor)))
        self.body_names = self.bodies()
        self.tail_names = self.tails()
        crossing = monotone_modulus(diagonal=0.0, coupling=-1.0, n_blocks=len(self.blocks))
        self.eta = COUPLING * (min((1 - self.m) / crossing, self.M - 1) if crossing else self.M - 1)

    @abstractmethod
    def bodies(self) -> list[str]:
        """Names of the weight matrices that are contracted."""

    @abstractmethod
    def tails(self) -> list[str]:
        """Names of the last weight matrices, which carry the size of the conditioners."""

    @abstractmethod
    def heads(self, meta: Params) -> list[Heads]:
        """The tails of every later block, as matrices."""

    @abstractmethod
    def lipschitz(self, meta: Params) -> list[tuple[float, float]]:
        """(l_i^alpha, l_i^nu) of every later block's conditioners, from exact norms of enforced
        parameters.
        """

    def _diagonal(self, meta: Params) -> Tensor:
        return 1 + within(
            meta["diagonal"], low=DIAGONAL * (1 - self.m), high=DIAGONAL * (self.M - 1)
        )

    def _row(self, gates: Tensor, shifts: Tensor) -> Tensor:
        """k_i from the squared Lipschitz constants of gates and shifts. shape: as either"""
        return 0.5 * self.tau * self.reach * gates.sqrt() + shifts.sqrt()

    def enforced(self, meta: Params) -> Params:
        """The parameters with which the conditioners satisfy eta < eta_max: bodies contracted,
        tails scaled.
        """
        meta = dict(meta)
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name in self.body_names:
            shapes.setdefault(tuple(meta[name].shape), []).append(name)
        for names in shapes.values():
            meta.update(
                zip(
                    names,
                    contraction(torch.stack([meta[name] for name in names])).unbind(),
                    strict=True,
                )
            )
        if len(self.blocks) == 1:
            return meta
        squares = self._head_squares(self.heads(meta))
        eta = self.gain * self._row(squares[:, 0] + 1e-12, squares[:, 1] + 1e-12)
        scale = self.eta * torch.rsqrt(self.eta**2 + eta.square().sum())
        meta.update({name: scale * meta[name] for name in self.tail_names})
        return meta

    def _head_squares(self, heads: list[Heads]) -> Tensor:
        """Smooth bounds on max ||head||^2 per later block, for gates and for shifts. shape: (B - 1,
        2)
        """
        flat = [head for block in heads for kind in block for head in kind]
        shapes: dict[torch.Size, list[int]] = {}
        for position, head in enumerate(flat):
            shapes.setdefault(head.shape, []).append(position)
        bounds: dict[int, Tensor] = {}
        for positions in shapes.values():
            tops = log_top(gram(torch.stack([flat[p] for p in positions]))).exp()
            bounds.update(zip(positions, tops.unbind(), strict=True))
        values = iter([bounds[p] for p in range(len(flat))])
        rows = [
            torch.stack([largest(torch.stack([next(values) for _ in kind])) for kind in block])
            for block in heads
        ]
        return torch.stack(rows)

    @torch.no_grad()
    def certificate(self, meta: Params) -> tuple[float, float]:
        """(m, M) of these very parameters, from exact norms in float64: inside the constructor's
        pair.
        """
        meta = self.enforced({name: value.detach().double() for name, value in meta.items()})
        a = self._diagonal(meta)
        rows = [
            0.5 * self.tau * self.reach * gates + shifts for gates, shifts in self.lipschitz(meta)
        ]
        eta = math.hypot(*rows)
        low = monotone_modulus(
            diagonal=float(a.min()) - self.tau, coupling=eta, n_blocks=len(self.blocks)
        )
        return low, float(a.max()) + self.tau + eta

    def _flat(self, meta: Params, z: Params) -> tuple[Tensor, Tensor, Tensor]:
        """z, tanh(alpha / 2) and nu as vectors. shapes: (d,)"""
        gates, shifts = (
            tree.flatten({name: each[name] for name in z}) for each in self.read(meta, z)
        )
        return tree.flatten(z), torch.tanh(0.5 * gates), shifts

    def read(self, meta: Params, z: Params) -> tuple[Params, Params]:
        """alpha and nu at z. shapes: as z"""
        pieces = self.split(z)
        gates, shifts = self.conditioners(self.enforced(meta), pieces)
        return self.join(gates), self.join(shifts)

    def point(self, meta: Params, z: Params) -> Params:
        x, gate, shift = self._flat(meta, z)
        gated = self.tau * self.reach * torch.tanh(x / self.reach) * gate
        return tree.unflatten(self._diagonal(meta) * x + gated + shift, z)

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        x, gate, _ = self._flat(meta, z)
        return torch.log(
            self._diagonal(meta) + self.tau * (1 - torch.tanh(x / self.reach).square()) * gate
        ).sum()

    def inverse(self, meta: Params, phi: Params) -> Params:
        """Block after block; every phi is in the range. Differentiable, as the scalar roots are."""
        diagonal = self.split(tree.unflatten(self._diagonal(meta), phi))
        meta, targets = self.enforced(meta), self.split(phi)
        pieces, codes = Params(), list[Tensor]()
        for i, names in enumerate(self.blocks):
            gates, shifts = self.decode(meta, {i: torch.cat(codes)}) if i else self.constants(meta)
            for name in names:
                pieces[name] = self._root(
                    targets[name] - shifts[name], diagonal[name], torch.tanh(0.5 * gates[name])
                )
            if i + 1 < len(self.blocks):
                codes += self.encode(meta, pieces, [i])
        return self.join({name: pieces[name] for name in targets})

    def _root(self, y: Tensor, a: Tensor, gate: Tensor) -> Tensor:
        """x with a x + tau c tanh(x / c) gate = y. shape: as y

        The root is within tau c / a of y / a: bisection from there, without a graph. Newton's steps
        from the constant that it leaves are differentiable and double the order each time, so three
        give value and derivatives of all orders to 3 in float64.
        """
        width = self.tau * self.reach

        def value(x: Tensor) -> Tensor:
            return a * x + width * torch.tanh(x / self.reach) * gate - y

        def derivative(x: Tensor) -> Tensor:
            return a + self.tau * (1 - torch.tanh(x / self.reach).square()) * gate

        low, high = ((y - width) / a).detach(), ((y + width) / a).detach()
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            above = value(middle).detach() > 0
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        x = 0.5 * (low + high)
        for _ in range(NEWTON_STEPS):
            x = x - value(x) / derivative(x)
        return x
