r"""C23: mirror descent as an iteration of the dual variable, parametrised by (z^0, grad h*).

*Proof.* With $z^{k-1}=\nabla h(\phi^{k-1})$ the closed form (C19) reads $\phi^k=\nabla
h^*(z^{k-1}-\alpha u^{k-1})$; by C21 $z^k=\nabla h(\phi^k)=z^{k-1}-\alpha u^{k-1}$. If $h$ is s.c.
but not $C^1$, $\nabla h^*$ still exists (C20) and $z^k\in\partial h(\phi^k)$.
$z^0\leftrightarrow\phi^0$ is a bijection: nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import FromPotential, built, dual, mirror, point, vector

_DUAL = (
    r"z^k=z^{k-1}-\alpha\nabla f(\nabla h^*(z^{k-1})),\ \phi^k=\nabla h^*(z^k)"
    r"\text{ is mirror descent, parametrised by }(z^0,\nabla h^*)"
)

_ALPHA = sp.Symbol(r"\alpha", positive=True)
AVERAGING = Formula(
    left=sp.Symbol("z^K"),
    relation="==",
    right=sp.Symbol("z^0") - _ALPHA * sp.Symbol(r"\sum_{k<K}u^k"),
)

claim = Claim(
    id="C23",
    title="MD is optimisation over the dual variable",
    source="Learning loss geometry priors via mirror descent, learnable loss geometries",
    printed=Statement(
        given={"h": r"h\in C^1(\mathbb R^d)\text{ strongly convex, }z^k:=\nabla h(\phi^k)"},
        then=_DUAL,
    ),
    amended=Statement(
        given={"h": r"h\in C^1(\mathbb R^d)\text{ strongly convex, }z^k:=\nabla h(\phi^k)"},
        then=_DUAL,
        parts={
            "equal": r"\text{primal and dual iterations have the same }\phi^k",
            "averaging": AVERAGING,
            "subgradient": (
                r"\text{if only }h^*\in C^{1,1}:\ z^k\in\partial h(\phi^k),\text{ and "
                r"the dual form is MD with it}"
            ),
            "bijection": r"z^0\leftrightarrow\phi^0\text{ is one-to-one}",
        },
    ),
    expected=Verdict("HOLDS", "VERIFIED"),
    uses=("C19", "C21"),
)


def loss(phi: Tensor) -> Tensor:
    """A smooth loss of two positive variables."""
    return (phi - vector(2.0, 0.5)).square().sum() + torch.cos(phi[0] * phi[1])


def dual_points(h: MirrorMap, start: Tensor, alpha: float, n_steps: int) -> list[Tensor]:
    """The library's mirror descent: it iterates z."""
    geometry = mirror(h, start)
    return list(descend(loss, dual(h, start), task_lr=alpha, n_steps=n_steps, geometry=geometry))


def gradient_at_z(h: MirrorMap, start: Tensor, alpha: float, n_steps: int) -> list[Tensor]:
    """The gradient evaluated at z instead of grad h*(z)."""
    return [point(h, z) for z in descend(loss, dual(h, start), task_lr=alpha, n_steps=n_steps)]


def states(h: MirrorMap, start: Tensor, alpha: float, n_steps: int) -> list[Tensor]:
    """z^k returned for phi^k."""
    return [dual(h, phi) for phi in dual_points(h, start, alpha, n_steps)]


def cosh_map() -> MirrorMap:
    """h = sum x^2/2 + cosh x, inverted by the library's Newton method."""
    return FromPotential(lambda v: (0.5 * v**2 + torch.cosh(v)).sum())


@claim.check("exact", about="printed")
def thirty_steps(run: Run, *, points: Callable[..., list[Tensor]] = dual_points) -> None:
    """The library's dual iteration against the primal closed form, 30 steps, three maps: equal to
    1e-12.
    """
    for h in (
        built("entropy", vector(1.0, 1.0)),
        built("hypentropy", vector(1.0, 1.0)),
        cosh_map(),
    ):
        start = vector(1.0, 1.5)
        phi = start
        for k, found in enumerate(points(h, start, 0.05, 30)):
            run.close(found, phi, tolerance=1e-12, what=f"phi^{k}")
            phi = point(
                h, dual(h, phi) - 0.05 * torch.func.grad(loss)(phi)
            )  # primal: through grad h at every step


thirty_steps.mutant("gradient evaluated at z", points=gradient_at_z)
thirty_steps.mutant("z^K returned", points=states)


@claim.check("symbolic", part="equal")
def induction(
    run: Run, *, slope_at: Callable[[sp.Symbol, sp.Expr], sp.Expr] = lambda z, phi: phi
) -> None:
    """One step: z = H(phi) implies that primal and dual next points agree, with H and its inverse G
    = H^{-1} arbitrary.
    """
    z, alpha = sp.symbols("z alpha")
    forward, back, u = sp.Function("H"), sp.Function("G"), sp.Function("u")
    phi = back(z)
    primal = back(forward(phi) - alpha * u(phi)).subs(forward(phi), z)
    following = z - alpha * u(slope_at(z, phi))
    run.zero(primal - back(following), "next points")


induction.mutant("gradient at z", slope_at=lambda z, phi: z)


@claim.check("exact", part="averaging")
def dual_averaging(run: Run, *, sign: float = -1.0) -> None:
    """z^K of the library equals z^0 - alpha times the sum of all gradients at phi^0..phi^{K-1}, by
    telescoping.
    """
    h, start, alpha = built("entropy", vector(1.0, 1.0)), vector(1.0, 1.5), 0.05
    seen = dual_points(h, start, alpha, 12)
    total = sum(torch.func.grad(loss)(phi) for phi in seen[:-1])
    run.close(
        dual(h, seen[-1]), dual(h, start) + sign * alpha * total, tolerance=1e-13, what="z^12"
    )


dual_averaging.mutant("+ alpha", sign=1.0)


class SoftThreshold(MirrorMap):
    """h = sum |x| + x^2/2, not C^1: grad h* is the soft threshold; ``inverse`` is the subgradient
    at x != 0.
    """

    def point(self, meta: Params, z: Params) -> Params:
        return {name: value.sign() * (value.abs() - 1).clamp(min=0) for name, value in z.items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {name: value + value.sign() for name, value in phi.items()}

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return torch.stack([(value.abs() + 0.5 * value**2).sum() for value in phi.values()]).sum()

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return torch.stack(
            [0.5 * (value.abs() - 1).clamp(min=0).square().sum() for value in z.values()]
        ).sum()


@claim.check("exact", part="subgradient")
def without_smoothness(run: Run, *, reading: float = 1.0) -> None:
    """Soft threshold: every iterate minimises u phi + D/alpha with D built from the subgradient
    z^{k-1}, on a grid.
    """
    geometry, alpha = mirror(SoftThreshold(), vector(0.0)), 0.3
    target = lambda v: ((v - 1.2) ** 2).sum()  # noqa: E731
    z, grid = vector(0.2), torch.linspace(-3, 3, 6001, dtype=torch.float64)
    crossed = False
    for _ in range(10):
        phi = point(geometry.map, z)
        u = torch.func.grad(target)(phi)
        following = descend(target, z, task_lr=alpha, n_steps=1, geometry=geometry)[-1]
        surrogate = u * grid + reading * (grid.abs() + 0.5 * grid**2 - z * grid) / alpha
        run.close(
            following, grid[surrogate.argmin()], tolerance=1e-3, what="minimiser of the surrogate"
        )
        run.at_most(
            float((z - phi).abs()), 1.0, slack=1e-15, what="z is a subgradient: |z - phi| <= 1"
        )
        crossed, z = crossed or bool(phi == 0), z - alpha * u
    run.that(crossed, "the kink was visited")


without_smoothness.mutant("half of the divergence", reading=0.5)


@claim.check("exact", part="bijection")
def bijection(run: Run, *, shift: float = 0.0) -> None:
    """Both round trips phi -> z -> phi and z -> phi -> z on the library's maps."""
    for h in (built("entropy", vector(1.0)), built("hypentropy", vector(1.0)), cosh_map()):
        for value in (0.1, 1.0, 3.0):
            start = vector(value)
            run.close(
                point(h, dual(h, start) + shift), start, tolerance=1e-11, what="phi^0 from its z^0"
            )
            run.close(dual(h, point(h, start)), start, tolerance=1e-11, what="z^0 from its phi^0")


bijection.mutant("another start", shift=0.1)


@claim.check("symbolic", about="printed")
def one_step_of_both(
    run: Run, *, slope_at: Callable[[sp.Symbol, sp.Expr], sp.Expr] = lambda z, phi: phi
) -> None:
    """Induction over k with grad h and its inverse arbitrary: where z = grad h(phi), the primal
    step and the dual one end at the same point, which is again grad h* of its z.
    """
    induction.function(run, slope_at=slope_at)


one_step_of_both.mutant("gradient at z", slope_at=lambda z, phi: z)


@claim.check("symbolic", part="averaging")
def telescope(run: Run, *, sign: int = -1) -> None:
    """z^k = z^0 - alpha S_k holds at k = 0, and one step keeps it: S_{k+1} = S_k + u."""
    z0, total, u, alpha = sp.symbols("z0 S u alpha")
    run.zero(z0 + sign * alpha * total - alpha * u - (z0 + sign * alpha * (total + u)), "one step")


telescope.mutant("+ alpha", sign=1)


@claim.check("exact", part="averaging")
def stated_sum(run: Run, *, stated: Formula) -> None:
    """z^K of the library after 2 and 7 steps against the printed sum, coordinate by coordinate."""
    h, start, alpha = built("entropy", vector(1.0, 1.0)), vector(1.0, 1.5), 0.05
    for k in (2, 7):
        seen = dual_points(h, start, alpha, k)
        total = sum(torch.func.grad(loss)(phi) for phi in seen[:-1])
        for end, z0, s in zip(dual(h, seen[-1]), dual(h, start), total, strict=True):
            at = {"z^K": float(end), "z^0": float(z0), r"\sum_{k<K}u^k": float(s)}
            run.stands(stated, {**at, r"\alpha": alpha}, slack=1e-12)
