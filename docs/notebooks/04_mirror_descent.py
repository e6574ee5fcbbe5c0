# %% [markdown]
# # Mirror descent, primal and dual
#
# [The last page](03_surrogates.py) replaced the bowl under a gradient step by a Bregman divergence
# $D_h$. To use it one has to minimise $\nabla f(\psi)^\top\phi+\frac1\alpha D_h(\phi,\psi)$ at
# every step. For the right $h$ that is no work at all: the step becomes a *gradient step in other
# coordinates*. This page explains the other coordinates.
#
# Claims of the ledger: {claim}`C19`, {claim}`C20`, {claim}`C21`, {claim}`C22`, {claim}`C23`,
# {claim}`C24a`; repairs {claim}`RA1`, {claim}`RA2`;
# another paper's proximal maps {claim}`M1`.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from scipy.optimize import minimize

from mdtheory import descend
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry import Geometry
from mdtheory.inner.estimators import estimators
from mdtheory.maps.base import maps
from mdtheory.meta import MetaLearner
from proofs_check.tools.models import (
    FromPotential,
    built,
    dual,
    mirror,
    point,
    vector,
)

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The mirror
#
# Let $h$ be differentiable and strictly convex. Its gradient sends each point $\phi$ (the *primal*
# variable) to a slope $z=\nabla h(\phi)$ (the *dual* variable). Different points have different
# slopes, so nothing is lost: $\nabla h$ can be inverted. The inverse is again a gradient, that of
# the *convex conjugate*
#
# $$h^*(z)=\sup_\phi\;\phi^\top z-h(\phi),\qquad\qquad \nabla h^* = (\nabla h)^{-1}.$$
#
# (At the maximum $z=\nabla h(\phi)$; and changing $z$ a little changes the maximum by $\phi^\top
# dz$, so $\nabla h^*(z)=\phi$.) Three facts follow, and hold for every mirror map of the library.
# The last says that the two sides are mirror images: the divergence between two points is the
# conjugate's divergence between their slopes, in reverse order.
#
# $$\begin{aligned}
# \nabla h^*(\nabla h(\phi))&=\phi, \\
# h(\phi)+h^*(z)&\ge\phi^\top z\quad\text{with equality iff } z=\nabla h(\phi), \\
# D_h(\phi_1,\phi_2)&=D_{h^*}(z_2,z_1).
# \end{aligned}$$


# %%
def some_map(slug, d=3):
    """A map with random parameters, where it has any."""
    map = built(slug, torch.ones(d)).requires_grad_(False)
    random = generator("some map")
    for parameter in map.parameters():
        parameter += torch.randn(parameter.shape, generator=random)
    return map


def divergence(function, x, y):
    return function(x) - function(y) - torch.func.grad(function)(y) @ (x - y)


for slug in maps:
    map = some_map(slug)
    h = lambda v, map=map: map.potential(map.own(), {"phi": v})
    conjugate = lambda v, map=map: map.conjugate(map.own(), {"phi": v})
    phi1, phi2 = vector(0.5, 1.5, 0.8), vector(1.2, 0.4, 0.9)
    z1, z2 = dual(map, phi1), dual(map, phi2)
    assert torch.allclose(torch.func.grad(conjugate)(z1), phi1)
    assert torch.allclose(point(map, z1), phi1)
    assert torch.allclose(h(phi1) + conjugate(z1), phi1 @ z1)
    assert h(phi1) + conjugate(z2) > phi1 @ z2
    forth = map.bregman(map.own(), {"phi": phi1}, {"phi": phi2})
    assert torch.allclose(forth, divergence(conjugate, z2, z1))
print("hold for", ", ".join(maps))

# %% [markdown]
# ## The step
#
# Put $u=\nabla f(\phi^{k-1})$ and minimise $u^\top\phi+\frac1\alpha D_h(\phi,\phi^{k-1})$: the
# gradient, $u+\frac1\alpha(\nabla h(\phi)-\nabla h(\phi^{k-1}))$, vanishes where
#
# $$\nabla h(\phi^k)=\nabla h(\phi^{k-1})-\alpha\nabla f(\phi^{k-1}).$$
#
# In the dual variable $z^k=\nabla h(\phi^k)$ this is plain subtraction:
#
# $$\boxed{\;z^k=z^{k-1}-\alpha\,\nabla f(\phi^{k-1}),\qquad \phi^k=\nabla h^*(z^k).\;}$$
#
# Walk along the gradient in the mirror; look through the mirror to see where one is.


# %%
def f(phi):
    return (phi[0] - 1) ** 2 + 3 * (phi[1] + 0.5 * phi[0] ** 2 - 1) ** 2


map, alpha = some_map("hypentropy", d=2), 0.05
before = vector(-0.5, 0.3)
geometry = Geometry(map=map)
how = {"task_lr": alpha, "n_steps": 1, "geometry": geometry}
after = descend(f, dual(map, before), **how)[-1]


def surrogate(phi):
    phi = torch.as_tensor(phi)
    distance = map.bregman(map.own(), {"phi": phi}, {"phi": before})
    return (torch.func.grad(f)(before) @ phi + distance / alpha).item()


assert abs(minimize(surrogate, [0.0, 0.0]).x - after.numpy()).max() < 1e-6

# %% [markdown]
# The dual variable only ever accumulates gradients: $z^K=z^0-\alpha\sum_{k<K}\nabla f(\phi^k)$.
# Note *where* the gradient is taken: at the point $\phi$, not at $z$.

# %%
track = descend(
    f, dual(map, before), task_lr=alpha, n_steps=30, geometry=geometry
)
gradients = torch.stack([torch.func.grad(f)(phi) for phi in track[:-1]])
total = dual(map, before) - alpha * gradients.sum(0)
assert torch.allclose(point(map, total), track[-1])

# %% [markdown]
# ## Both sides of the mirror
#
# When is this better than gradient descent? Consider many tasks that share their shape and differ
# in one vector $b$:
#
# $$f_b(\phi) = H(\phi) - b^\top\phi,\qquad H\text{ strictly convex}.$$
#
# Logistic regressions with the same inputs and different labels are of this kind. Take $h=H$. Then
# $\nabla f_b(\phi)=\nabla h(\phi)-b=z-b$: in the dual plane every task is a simple round bowl
# around its own $b$, and each step goes *straight* to it, $z^k-b=(1-\alpha)^k(z^0-b)$. With
# $\alpha=1$, one step solves any of the tasks.

# %%
ridges = torch.tensor([[1.2, 0.5], [-0.4, 1.2], [0.8, -0.7]])
shifts = vector(0.8, -0.5, -1.0)


def shape(phi):  # curvature between 0.08 and 1.5
    bends = torch.log(torch.cosh(ridges @ phi - shifts))
    return 0.04 * phi @ phi + 0.6 * bends.sum()


ideal = FromPotential(shape)  # h = H, inverted numerically
solutions = [vector(-4.0, 2.5), vector(-1.0, -4.0), vector(3.5, 3.0)]
slopes = [dual(ideal, phi) for phi in solutions]  # their b
tasks = [lambda phi, b=b: shape(phi) - b @ phi for b in slopes]
start = vector(1.5, -2.0)
z0 = dual(ideal, start)
runs = []
for task, b, solution in zip(tasks, slopes, solutions, strict=True):
    how = {"task_lr": 0.3, "n_steps": 12, "geometry": Geometry(map=ideal)}
    mirrored = descend(task, z0, **how)
    plain = descend(
        task, start, task_lr=1.0, n_steps=12
    )  # more than 1/L, less than 2/L
    for k, phi in enumerate(mirrored):
        assert torch.allclose(dual(ideal, phi), b + 0.7**k * (z0 - b))
    one = descend(task, z0, **{**how, "task_lr": 1.0, "n_steps": 1})[-1]
    assert torch.allclose(one, solution)
    runs.append((mirrored, plain))

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.4))
ticks, line = torch.linspace(-1.5, 1.5, 17), torch.linspace(-1.5, 1.5, 31)
grey = {"color": "#c4c4c4", "linewidth": 0.7}
for tick in ticks:
    for straight in (
        torch.stack([torch.full_like(line, tick), line], 1),
        torch.stack([line, torch.full_like(line, tick)], 1),
    ):
        left.plot(*straight.T, **grey)
        right.plot(*torch.stack([point(ideal, z) for z in straight]).T, **grey)
for (mirrored, plain), solution, b in zip(
    runs, solutions, slopes, strict=True
):
    for series, colour, name in (
        (plain, BLUE, "gradient descent"),
        (mirrored, ORANGE, "mirror descent"),
    ):
        right.plot(*series.T, "o-", color=colour, markersize=3, label=name)
        left.plot(
            *torch.stack([dual(ideal, phi) for phi in series]).T,
            "o-",
            color=colour,
            markersize=3,
        )
    right.plot(*solution, "k+", markersize=10)
    left.plot(*b, "k+", markersize=10)
right.plot(*start, "k*", markersize=11)
left.plot(*z0, "k*", markersize=11)
left.set(
    title="dual plane, $z$", aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5)
)
right.set(
    title=r"primal plane, $\phi=\nabla h^*(z)$",
    aspect="equal",
    xlim=(-5, 5),
    ylim=(-5, 5),
)
for axis in (left, right):
    axis.grid(False)
handles, labels = right.get_legend_handles_labels()
right.legend(handles[:2], labels[:2], fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# Left, a straight grid in the dual plane; right, what the mirror makes of it. Three tasks (+) are
# solved from one start (★). Mirror descent runs straight on the left, and therefore along curves on
# the right that know the terrain; gradient descent, with the largest sensible step, is still on its
# way after 12.

# %% [markdown]
# ## What $h$ has to satisfy
#
# If $h$ is *strongly* convex with modulus $\sigma$, then $h^*$ is defined on all of $\R^d$ and
# $\nabla h^*$ is Lipschitz with constant $1/\sigma$; more even, for $\phi_i=\nabla h^*(z_i)$
#
# $$(z_1-z_2)^\top(\phi_1-\phi_2)\;\ge\;\sigma\norm{\phi_1-\phi_2}^2 .$$
#
# So $\nabla h^*$ is *monotone*: moving along some direction in the dual moves the point along that
# direction too, never against it. Without strong convexity things go wrong: for
# $h=\operatorname{softplus}$, $\nabla h$ only reaches the interval $(0,1)$, and a dual step can
# leave it. Without differentiability, e.g. $h=|x|+x^2/2$, the inverse mirror is soft thresholding,
# which sends many $z$ to one $\phi$.
#
# The library's learnable potentials have both constants by construction, for *every* value of their
# parameters:

# %%
for slug in ("icnn", "potential"):
    map = some_map(slug, d=4)
    low, high = map.curvature(map.own())
    assert map.mu <= low <= high <= map.L
    z = torch.randn(4, generator=generator("z"))
    jacobian = torch.func.jacfwd(lambda z, map=map: point(map, z))(z)
    assert (jacobian - jacobian.T).abs().max() < 1e-12  # a gradient map
    spectrum = torch.linalg.eigvalsh(jacobian)
    assert low - 1e-9 <= spectrum[0] and spectrum[-1] <= high + 1e-9
    print(f"{slug:10s} certified [{low:.3f}, {high:.3f}]   "
          f"here [{spectrum[0]:.3f}, {spectrum[-1]:.3f}]")  # fmt: skip

# %% [markdown]
# ## Good mirrors, bad mirrors
#
# The best imaginable choice was $h=f$ up to a linear term. A bad choice is as easy: $h=50x^2$ for
# $f=\frac12x^2$ shrinks the distance by 0.99 per step, where gradient descent needs a single one.

# %%
quadratic = built("quadratic", torch.ones(1), matrix=0.01)  # h = 50 x^2
how = {"task_lr": 1.0, "geometry": mirror(quadratic, vector(1.0))}
slow = descend(lambda x: 0.5 * x @ x, vector(100.0), n_steps=10, **how)[-1]
fast = descend(lambda x: 0.5 * x @ x, vector(1.0), task_lr=1.0, n_steps=1)[-1]
assert torch.allclose(slow, vector(0.99**10)) and fast == 0

# %% [markdown]
# Between these extremes, $h$ is a *prior about the solution*, like start and precision on the first
# page. Suppose only 4 of 80 coefficients are non-zero, and there are 40 equations. Gradient descent
# from zero ends at the solution of least Euclidean norm, which spreads over all coordinates. The
# *hyperbolic entropy* ({cite}`ghai2020exponentiated`) has $\phi=\beta\sinh z$: a coordinate near
# zero hardly moves until its dual has collected much evidence. That is what "few are non-zero"
# means.

# %%
random = torch.Generator().manual_seed(1)
X = torch.randn(40, 80, generator=random) / 40**0.5
truth = torch.zeros(80)
truth[[7, 22, 45, 61]] = vector(1.0, -1.5, 0.7, 1.2)
y = X @ truth


def regression(phi):
    return 0.5 * (X @ phi - y).square().sum()


sparse = mirror("hypentropy", truth, beta=1e-5)
dense_solution = descend(regression, 0 * truth, task_lr=0.1, n_steps=800)[-1]
how = {"task_lr": 0.3, "n_steps": 800, "geometry": sparse}
sparse_solution = descend(regression, 0 * truth, **how)[-1]

for solution in (dense_solution, sparse_solution):
    assert regression(solution) < 1e-4  # both fit the data
least_norm = torch.linalg.pinv(X) @ y
assert (dense_solution - least_norm).norm() < 1e-3
assert (dense_solution - truth).norm() > 0.5 * truth.norm()
assert (sparse_solution - truth).norm() < 0.01 * truth.norm()

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
names = ("gradient descent", "mirror descent, hyperbolic entropy")
for axis, name, solution, colour in zip(
    axes, names, (dense_solution, sparse_solution), (BLUE, ORANGE), strict=True
):
    places = torch.arange(80)
    axis.vlines(places, 0, solution, color=colour, linewidth=1.5)
    axis.plot(
        places[truth != 0],
        truth[truth != 0],
        "ko",
        fillstyle="none",
        markersize=8,
        label="the true coefficients",
    )
    axis.set(title=name, xlabel="coordinate")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# Same data, same fit, same start $\phi^0=0$; another geometry, another answer.
#
# ## Learning the mirror
#
# Where does a good $h$ come from, if nobody writes down $H$? From related tasks, by the outer
# problem of [page 2](02_bilevel.py): choose the parameters of $\nabla h^*$ such that a *few* steps
# solve *many* tasks well. Below, tasks of the family above arrive 16 at a time; the learner sees
# their losses, never $H$; three steps each.


# %%
class Family(torch.nn.Module):
    """The loss f_b(phi), with b as the only datum of a task."""

    def __init__(self):
        super().__init__()
        self.phi = torch.nn.Parameter(torch.zeros(2))

    def forward(self, b):
        return shape(self.phi) - b @ self.phi


def family(seed, n_tasks):
    draw = 3 * torch.randn(n_tasks, 2, generator=generator("family", seed))
    given = [torch.func.grad(shape)(phi)[None] for phi in draw]
    nothing = torch.zeros(1)
    return draw, [Episode(b, nothing, b, nothing) for b in given]


def learner(map):
    return MetaLearner(
        Family(),
        Geometry(map=map),
        n_steps=3,
        task_lr=1.0,
        loss=lambda outputs, targets: outputs.mean(),
        estimator=estimators.get("unrolled")(batched=True),
    )


best, new_tasks = family("new", 200)
values = [
    shape(p) - e.query_x[0] @ p for p, e in zip(best, new_tasks, strict=True)
]
lowest = torch.stack(values).mean().item()
before = learner(maps.get("identity")()).meta_gradient(new_tasks).value
learned = learner(maps.get("icnn")(mu=0.3, L=14.0, width=8, depth=1))
optimiser = torch.optim.Adam(learned.parameters(), lr=0.1)
for iteration in range(80):
    optimiser.zero_grad()
    learned.backward(family(iteration, 16)[1])
    optimiser.step()
after = learned.meta_gradient(new_tasks).value
print("mean excess loss on new tasks after 3 steps")
print(f"gradient descent {before - lowest:.3f}")
print(f"learned mirror {after - lowest:.3f}")
assert after - lowest < 0.5 * (before - lowest)

# %% [markdown]
# The dual iteration needs two things from the outside: a start $z^0$ and the inverse mirror $\nabla
# h^*$. Learning both is the idea of MetaMiDA ({cite}`zhang2024metamida`), the poster that this
# project referees. There are two ways to model the second:
#
# - **model $h^*$ itself** and differentiate, as just done. What comes out is a gradient of a convex
#   function by construction (the geometry `potential`; the poster's outlook);
# - **model a map $g$ directly** and hope that it is as good as a gradient. That is what the poster
#   does, with a network called BlockIAF.
#
# Whether the hope is justified is the question of [the next page](05_blockiaf.py).
#
# To meta-learn the divergence is older than the poster, which does not cite it: Meta Mirror
# Descent, MetaMD ({cite}`gao2022metamd`), learns a Bregman divergence for whole trainings, and
# minimises a regret bound instead of the loss on query data, so that it comes with a convergence
# guarantee and needs no validation data. New in MetaMiDA are few-shot tasks, the learned start and
# the network in the mirror's place.
