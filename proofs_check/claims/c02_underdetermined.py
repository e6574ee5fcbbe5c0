r"""C02: with d >> N, rely on an informative prior; a Gaussian one makes underdetermined regression
well posed.

*Proof.* $\frac1{2s^2}\|y-X\phi\|^2+\frac12\|\phi-\theta\|_\Lambda^2$ has Hessian $X^\top
X/s^2+\Lambda$; for $\Lambda\succeq0$ it is $\succ0$ iff $\ker X\cap\ker\Lambda=0$. Its minimiser is
$\theta+(X^\top X/s^2+\Lambda)^{-1} X^\top(y-X\theta)/s^2$. For $\Lambda=\lambda I$ the correction
lies in $\mathrm{row}X$, for $(X^\top X/s^2+\lambda I)^{-1}$ maps $\mathrm{row}X$ to itself; for
correlated $\Lambda$ it leaks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry, geometries
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run

_UNIQUE = (
    r"\text{the MAP estimate of }\phi\text{ in linear regression with }d\gg N\text{ is unique}"
)

_N, _D = sp.symbols("N d", integer=True, positive=True)
_X, _LAMBDA = sp.MatrixSymbol("X", _N, _D), sp.MatrixSymbol(r"\Lambda", _D, _D)
_THETA, _Y = sp.MatrixSymbol(r"\theta", _D, 1), sp.MatrixSymbol("y", _N, 1)
_S = sp.Symbol("s", positive=True)
MAP = Formula(
    left=sp.MatrixSymbol(r"\phi_{\rm MAP}", _D, 1),
    relation="==",
    right=_THETA + (_X.T * _X / _S**2 + _LAMBDA).I * _X.T * (_Y - _X * _THETA) / _S**2,
)
_V, _ROOT = sp.MatrixSymbol("v", _D, 1), sp.MatrixSymbol("C", _D, _D)
UNIQUE = Formula(
    left=_V.T * (_X.T * _X / _S**2 + _ROOT.T * _ROOT) * _V,
    relation="==",
    right=(_X * _V).T * (_X * _V) / _S**2 + (_ROOT * _V).T * (_ROOT * _V),
    text=r"\Lambda=C^\top C:\ {formula},\text{ zero for no }v\ne0\iff\ker X\cap\ker\Lambda"
    r"\text{ is trivial}",
)

claim = Claim(
    id="C02",
    title="d >> N: rely on an informative R; a Gaussian prior cures underdetermined regression",
    source="Motivating context",
    printed=Statement(
        then=_UNIQUE, given={"prior": r"\phi\sim\mathcal N(\theta,\Lambda^{-1}),\ \Lambda\succeq0"}
    ),
    amended=Statement(
        then=_UNIQUE,
        given={
            "prior": r"\phi\sim\mathcal N(\theta,\Lambda^{-1}),\ \Lambda\succeq0",
            "kernel": r"\Lambda\succ0\text{ on }\ker X",
        },
        parts={
            "unique": UNIQUE,
            "map": MAP,
            "kernel": (
                r"\Lambda=\lambda I:\ \Pi_{\ker X}\phi_{\rm MAP}=\Pi_{\ker X}\theta;\text{ "
                r"false for correlated }\Lambda"
            ),
            "limit": (
                r"\lambda\to0\text{ and GD from }\theta\text{ with }K\to\infty\text{ give the "
                r"same }\theta+X^+(y-X\theta)"
            ),
        },
        scopes={"limit": "limit"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    remark=(
        "For networks 'must rely on R' is no theorem: the implicit bias of GD already selects a "
        "solution."
    ),
)

X = np.array([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0]])
KERNEL = np.eye(4) - np.linalg.pinv(X) @ X
"""The orthogonal projection onto ker X."""
ISOTROPIC = 0.7 * np.ones(4)


def full_rank(weight: np.ndarray) -> bool:
    """Whether X^T X + Lambda is positive definite, by its rank."""
    return int(np.linalg.matrix_rank(X.T @ X + weight)) == 4


@claim.check("counterexample", about="printed", drops=("kernel",))
def prior_on_the_row_space(run: Run, *, weight: np.ndarray = X.T @ X) -> None:
    """Lambda = X^T X (a prior supported on row X): a whole plane of MAP estimates, so the prior
    does not help.
    """
    run.that(not full_rank(weight), "the Hessian is singular")
    shift = KERNEL @ np.ones(4)
    values = [float((X @ p) @ (X @ p) + p @ weight @ p) for p in (np.zeros(4), shift)]
    run.close(values[0], values[1], tolerance=1e-12, what="the same objective along ker X")
    run.above(np.linalg.norm(shift), 0.5, what="distance between two MAP estimates")


prior_on_the_row_space.mutant("Lambda = I", weight=np.eye(4))


@claim.check("symbolic", part="unique")
def kernels(run: Run, *, share: int = 1) -> None:
    """v^T(X^T X/s^2 + Lambda)v = |X v|^2/s^2 + |C v|^2 with Lambda = C^T C: zero iff v lies in both
    kernels.
    """
    x, c, v = (sp.Matrix(2, 3, sp.symbols(f"{n}0:6", real=True)) for n in "xcu")
    s, v = sp.Symbol("s", positive=True), v.row(0).T
    form = (v.T * (x.T * x / s**2 + share * c.T * c) * v)[0]
    run.zero(
        form - (x * v).dot(x * v) / s**2 - (c * v).dot(c * v),
        "the quadratic form is a sum of two squares",
    )
    run.that(
        full_rank(KERNEL) and not full_rank(X.T @ X),
        "rank test: Lambda = projection onto ker X, and X^T X",
    )


kernels.mutant("Lambda subtracted", share=-1)


def prior_geometry(precision: np.ndarray) -> Geometry:
    """The library's explicit Gaussian prior with these precisions."""
    geometry = geometries.get("prior")()
    geometry.build({"phi": torch.zeros(len(precision), dtype=torch.float64)})
    geometry.log_precision.phi.data = torch.tensor(precision).log()
    return geometry


def regression(y: np.ndarray, noise: float = 1.0) -> Callable[[Tensor], Tensor]:
    """|y - X phi|^2 / (2 s^2)."""
    design, target = torch.tensor(X), torch.tensor(y)
    return lambda phi: 0.5 * (target - design @ phi).square().sum() / noise**2


def solved(y: np.ndarray, anchor: np.ndarray, precision: np.ndarray, noise: float) -> np.ndarray:
    """The library's solver run to convergence on loss plus penalty."""
    top = np.linalg.eigvalsh(X.T @ X / noise**2 + np.diag(precision))[-1]
    end = descend(
        regression(y, noise),
        torch.tensor(anchor),
        task_lr=1 / top,
        n_steps=300,
        geometry=prior_geometry(precision),
    )[-1]
    return end.numpy()


def closed(y: np.ndarray, anchor: np.ndarray, precision: np.ndarray, noise: float) -> np.ndarray:
    """theta + (X^T X/s^2 + Lambda)^{-1} X^T (y - X theta)/s^2."""
    return anchor + np.linalg.solve(
        X.T @ X / noise**2 + np.diag(precision), X.T @ (y - X @ anchor) / noise**2
    )


@claim.check("symbolic", part="map")
def stationary(run: Run, *, noise_power: int = 2) -> None:
    """The closed form solves X^T(X phi - y)/s^2 + Lambda (phi - theta) = 0: as matrices that do not
    commute, of any size, and symbolically for N = 1, d = 2.
    """
    xt, xs, w, t, d, ys = sp.symbols("Xt X W t d y", commutative=False)
    whole, variance = xt * xs + w, sp.Symbol("s", positive=True) ** (2 - noise_power)
    left = xt * (xs * (t + d) - ys) + w * d  # d = phi - theta, s = 1; W d = X^T(y - X t) - X^T X d
    rest = sp.expand(left - (whole * d - xt * (ys - xs * t) * variance))
    run.that(rest == 0, f"stationarity is (X^T X + Lambda) d = X^T (y - X theta): {rest}")
    x, theta, y, s = (
        sp.Matrix([sp.symbols("x1 x2")]),
        sp.Matrix(sp.symbols("t1 t2")),
        sp.Symbol("y"),
        sp.Symbol("s", positive=True),
    )
    weight = sp.diag(*sp.symbols("l1 l2", positive=True))
    phi = theta + (x.T * x / s**2 + weight).inv() * x.T * (y - (x * theta)[0]) / s**noise_power
    run.zero(
        x.T * ((x * phi)[0] - y) / s**2 + weight * (phi - theta), "gradient at the closed form"
    )


stationary.mutant("s in place of s^2", noise_power=1)


@claim.check("property", part="map")
def library_reaches_the_map(run: Run, *, form: Callable[..., np.ndarray] = closed) -> None:
    """Geometry ``prior`` solved to convergence equals the closed form, for random y, theta,
    precisions and noise.
    """
    for seed in range(2):
        rng = np.random.default_rng(seed)
        y, anchor, precision = (
            rng.standard_normal(2),
            rng.standard_normal(4),
            rng.uniform(0.5, 2.0, 4),
        )
        noise = rng.uniform(0.8, 2.0)
        run.close(
            solved(y, anchor, precision, noise),
            form(y, anchor, precision, noise),
            tolerance=1e-8,
            what="MAP",
        )


library_reaches_the_map.mutant(
    "covariance for precision", form=lambda y, a, p, s: closed(y, a, 1 / p, s)
)
library_reaches_the_map.mutant("noise forgotten", form=lambda y, a, p, s: closed(y, a, p, 1.0))


@claim.check("exact", part="kernel")
def data_never_correct_the_kernel(run: Run, *, precision: np.ndarray = ISOTROPIC) -> None:
    """Lambda = lambda I on the library: the component in ker X stays theta's; X^T w stays in row X
    under the inverse.
    """
    anchor, y = np.array([1.0, -2.0, 0.5, 3.0]), np.array([2.0, -1.0])
    end = solved(y, anchor, precision, 1.0)
    run.close(KERNEL @ end, KERNEL @ anchor, tolerance=1e-10, what="component in ker X")
    run.above(np.abs(end - anchor).max(), 0.1, what="the data do correct something")
    lam = sp.Symbol("lambda", positive=True)
    x = sp.Matrix(X.astype(int).tolist())
    inside = (x.T * x + lam * sp.eye(4)) * x.T - x.T * (x * x.T + lam * sp.eye(2))
    run.zero(inside, "push-through: (X^T X + lambda I) X^T = X^T (X X^T + lambda I)")


data_never_correct_the_kernel.mutant(
    "a Lambda correlated with row X (leakage)", precision=np.array([0.2, 3.0, 0.5, 1.5])
)


@claim.check("exact", part="limit")
def ridgeless(
    run: Run,
    *,
    end: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda a, y: (
        a + np.linalg.pinv(X) @ (y - X @ a)
    ),
) -> None:
    """MAML's GD with K = 400 reaches theta + X^+(y - X theta), and the MAP with lambda = 1e-2, 1e-4
    and 1e-6 comes within ten times lambda of it.
    """
    anchor, y = np.array([1.0, -2.0, 0.5, 3.0]), np.array([2.0, -1.0])
    top = np.linalg.eigvalsh(X.T @ X)[-1]
    descended = descend(regression(y), torch.tensor(anchor), task_lr=1 / top, n_steps=400)[
        -1
    ].numpy()
    run.close(descended, end(anchor, y), tolerance=1e-10, what="gradient descent")
    for small in (1e-2, 1e-4, 1e-6):
        run.close(
            closed(y, anchor, small * np.ones(4), 1.0),
            end(anchor, y),
            tolerance=10 * small,
            what=f"lambda = {small}",
        )


ridgeless.mutant("the minimum-norm solution", end=lambda a, y: np.linalg.pinv(X) @ y)


@claim.check("symbolic", part="kernel")
def push_through(run: Run, *, both: int = 1) -> None:
    """Matrices that do not commute: (X^T X + l) X^T = X^T (X X^T + l), so the correction is X^T
    times something, and a projection with P X^T = 0 kills it.
    """
    x, xt, p, w = sp.symbols("X Xt P w", commutative=False)
    lam = sp.Symbol("lambda", positive=True)
    rest = sp.expand((xt * x + lam) * xt - xt * (x * xt + both * lam))
    run.that(rest == 0, f"push-through: {rest} is left over")
    run.that((p * xt * w).subs(p * xt, 0) == 0, "P X^T w = 0")


push_through.mutant("lambda on one side only", both=0)


@claim.check("symbolic", part="limit", covers="limit")
def singular_values(run: Run, *, power: int = 1) -> None:
    """Per singular value s > 0: the ridge factor s/(s^2 + lambda) and GD's (1 - (1 - a s^2)^K)/s
    both tend to 1/s; at s = 0 both are 0, so theta stays.
    """
    s, lam, k = sp.symbols("s lambda K", positive=True)
    q = 1 / (1 + sp.Symbol("e", positive=True))  # |1 - a s^2| < 1, for 0 < a < 2/s^2
    target = s**-power
    run.zero(sp.limit(s / (s**2 + lam), lam, 0) - target, "the ridge factor")
    gone = sp.limit(q**k, k, sp.oo)  # |1 - a s^2|^K
    run.zero((1 - gone) / s - target, "GD's factor")
    run.zero((s / (s**2 + lam)).subs(s, 0), "nothing moves in ker X")


singular_values.mutant("s in place of 1/s", power=-1)


@claim.check("exact", part="map")
def stated_map(run: Run, *, stated: Formula) -> None:
    """The printed formula in rationals, N = 2, d = 4, against the solution of the normal
    equations.
    """
    x = sp.Matrix(X.astype(int).tolist())
    weight, theta = sp.diag(1, 2, 3, 1), sp.Matrix([1, -1, 2, 0])
    y, s = sp.Matrix([3, -2]), sp.Rational(3, 2)
    best = (x.T * x / s**2 + weight).LUsolve(x.T * y / s**2 + weight * theta)
    at = {"N": 2, "d": 4, "X": x, r"\Lambda": weight, r"\theta": theta, "y": y, "s": s}
    run.stands(stated, {**at, r"\phi_{\rm MAP}": best})


@claim.check("exact", part="unique")
def stated_squares(run: Run, *, stated: Formula) -> None:
    """Rational X (2 x 4), C and two vectors, one of them in the kernel of X."""
    x = sp.Matrix(X.astype(int).tolist())
    root = sp.diag(1, 2, 3, 1)
    for v in (sp.Matrix([1, -1, 2, 0]), x.nullspace()[0]):
        run.stands(stated, {"N": 2, "d": 4, "X": x, "C": root, "v": v, "s": sp.Rational(3, 2)})
