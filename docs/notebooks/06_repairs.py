# %% [markdown]
# # Repairs: three ways to get a theorem back
#
# The dual step with a BlockIAF has no descent theorem, and [page 5](05_blockiaf.py) ended with a
# quadratic on which it diverges at every rate. That example is the patient of this page. Each of
# three cures is one line in the library:
#
# - **pull the gradient back** (RD): step with $J_g^\top\nabla f$. This is gradient descent on
#   $f\circ g$, and moves $\phi$ by $-\alpha JJ^\top\nabla f$, a symmetric positive definite
#   preconditioner wherever $J$ is invertible, as that of every BlockIAF is;
# - **rates per block** (RC): later blocks take so much longer steps that what leaks into them from
#   earlier blocks is outweighed;
# - **build monotone maps**: either the conjugate $h^*$ itself (RA1, `potential`), or a BlockIAF
#   whose coupling is bounded by construction (RB, `certified`).
#
# Claims of the ledger: theorem {claim}`T6`; repairs {claim}`RA1`, {claim}`RB`, {claim}`RC`,
# {claim}`RD`, {claim}`RE`.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch

from mdtheory import descend
from mdtheory.core.seeding import generator
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry import Geometry
from mdtheory.geometry.rules import BlockDualStep, PullbackStep, block_rates
from mdtheory.maps import DualMap
from mdtheory.maps.iaf.certified_forms import CertifiedMLPIAF
from proofs_check.tools.models import built, point, vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## A patient
#
# A shift by $4z_1$ in the second coordinate turns the gradient of a harmless quadratic uphill:
#
# $$g(z)=\begin{pmatrix}\tfrac12&0\\4&\tfrac12\end{pmatrix}z,\qquad
# f(\phi)=\tfrac12\,\phi^\top\!\begin{pmatrix}1&-\tfrac12\\-\tfrac12&1\end{pmatrix}\phi .$$


# %%
class TwoBlocks(DualMap):
    """phi_a = z_a / 2, phi_b = z_b / 2 + 4 z_a: two blocks of one number."""

    def point(self, meta, z):
        return {"a": z["a"] / 2, "b": z["b"] / 2 + 4 * z["a"]}

    def inverse(self, meta, phi):
        return {"a": 2 * phi["a"], "b": 2 * (phi["b"] - 8 * phi["a"])}


A = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])


def run(geometry, start, *, alpha, n_steps):
    """The library's hooks by hand: point, gradient, step."""
    z = geometry.map.inverse({}, {"a": start[0], "b": start[1]})
    state = {"z.a": z["a"], "z.b": z["b"]}
    visited = []
    for k in range(n_steps + 1):
        phi = geometry.point({}, state)
        visited.append(torch.stack([phi["a"], phi["b"]]))
        u = A @ visited[-1]
        gradient = {"a": u[0], "b": u[1]}
        state = geometry.step({}, state, gradient, task_lr=alpha, k=k)
    return torch.stack(visited)


start = vector(1.0, 1.5)
losses = lambda points: torch.einsum("ki,ij,kj->k", points, A, points) / 2

# %% [markdown]
# ## Two steps that descend
#
# Pulled back, and with rates per block, against the plain dual step and against gradient descent,
# each at a rate that suits it:

# %%
coupling = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
rates = block_rates(coupling=coupling, diagonal=vector(0.5, 0.5))
repairs = {
    "gradient descent": (None, 0.5),
    "dual step with $g$": (Geometry(map=TwoBlocks()), 0.05),
    "pulled back": (Geometry(map=TwoBlocks(), rule=PullbackStep()), 0.1),
    "rates per block": (
        Geometry(map=TwoBlocks(), rule=BlockDualStep([["a"], ["b"]], rates)),
        0.05,
    ),
}
runs = {}
for name, (geometry, alpha) in repairs.items():
    if geometry is None:
        step = torch.eye(2) - alpha * A
        powers = [torch.matrix_power(step, k) @ start for k in range(201)]
        runs[name] = torch.stack(powers)
    else:
        runs[name] = run(geometry, start, alpha=alpha, n_steps=200)
    decreasing = losses(runs[name])[-1] < losses(runs[name])[0]
    assert decreasing == (name != "dual step with $g$")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained"
)
xs, ys = torch.linspace(-2, 2.2, 100), torch.linspace(-3, 3, 100)
xx, yy = torch.meshgrid(xs, ys, indexing="xy")
cells = torch.stack([xx, yy], dim=-1)
left.contour(
    xx,
    yy,
    torch.einsum("...i,ij,...j", cells, A, cells) / 2,
    levels=[0.1, 0.4, 1, 2, 3, 5],
    colors="gray",
    linewidths=0.6,
)
for (name, points), colour, mark in zip(
    runs.items(), (BLUE, ORANGE, GREEN, PINK), "osv^", strict=True
):
    left.plot(
        *points[:60].T,
        marker=mark,
        color=colour,
        markersize=3,
        linewidth=1,
        label=name,
    )
    right.plot(losses(points), color=colour, label=name)
left.plot(*start, "k*", markersize=11)
left.set(xlim=(-2, 2.2), ylim=(-3, 3), xlabel=r"$\phi_1$", ylabel=r"$\phi_2$")
right.set(
    yscale="log", ylim=(1e-12, 1e6), xlabel="step $k$", ylabel=r"$f(\phi^k)$"
)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# Both repairs descend where the plain dual step diverges. They are no match for gradient descent
# here: the map is a bad one for this loss, and pulling back squares its condition number. A repair
# gives a guarantee, not a good geometry; that has to be learned.
#
# ## Monotone by construction
#
# For a map with $\frac12(J+J^\top)\succeq mI$ and $\norm J\le M$ there is a theorem (T6): if $f$ is
# $L$-smooth, convex or not, then
#
# $$f(\phi^+)\le f(\phi)-\alpha\Bigl(m-\frac{\alpha LM^2}2\Bigr)\norm{\nabla f(\phi)}^2,$$
#
# a descent for every $\alpha<2m/(LM^2)$. The certified map has both constants for every value of
# its parameters, here with random ones. The `potential` has them too, and is a gradient besides;
# symmetry allows steps up to $2/(LM)$ whatever $m$ is.


# %%
def f(phi):
    return torch.logsumexp(phi, 0) + (phi - 1).square().sum() / 8


def jacobian(map, z):
    return torch.func.jacfwd(lambda z: point(map, z))(z)


z = torch.randn(12, generator=generator("z"))
blocks = [list(range(i, i + 4)) for i in (0, 4, 8)]
certified = CertifiedMLPIAF(blocks, hidden=16, m=0.25, M=3.0)
certified.build({"phi": z})
random = generator("specimen", 2)
for parameter in certified.requires_grad_(False).parameters():
    parameter += 0.2 * torch.randn(parameter.shape, generator=random)
m, M = certified.certificate(certified.own())
assert 0.25 <= m <= M <= 3.0
potential = built("potential", z)
for map, low, high in (
    (certified, m, M),
    (potential, *potential.curvature(potential.own())),
):
    for seed in range(20):
        far = 10 * torch.randn(12, generator=generator("points", seed))
        J = jacobian(map, far)
        assert torch.linalg.eigvalsh((J + J.T) / 2)[0] >= low - 1e-9
        assert torch.linalg.matrix_norm(J, 2) <= high + 1e-9

L = 1.25  # of f: at most 1 from log-sum-exp, 1/4 from the square
points = descend(
    f, z, task_lr=m / (L * M**2), n_steps=50, geometry=Geometry(map=certified)
)
values = torch.stack([f(phi) for phi in points])
squares = torch.stack(
    [torch.func.grad(f)(phi).square().sum() for phi in points]
)
assert (
    values[1:] <= values[:-1] - m**2 / (2 * L * M**2) * squares[:-1] + 1e-12
).all()

# %% [markdown]
# | | BlockIAF (poster) | certified BlockIAF | convex potential |
# |---|---|---|---|
# | a bijection of $\R^d$ | yes | yes | yes |
# | inverse in closed form | yes | one root per coordinate | Newton's method |
# | log-determinant in closed form | yes | yes | no |
# | monotone, Lipschitz | with constant scales | yes, with constants | yes, with constants |
# | gradient of a potential | only as Meta-SGD | only with constant gates and shifts | yes |
# | descent theorem for the dual step | none | T6 | T6, with longer steps |
#
# [Next](07_implicit_prior.py), back to the plain gradient step: what prior hides in it?
