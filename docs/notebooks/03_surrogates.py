# %% [markdown]
# # Three surrogates of a loss
#
# A gradient step looks like a rule of thumb: go downhill a little. It is more than that. It is the
# *exact* minimiser of a simple function, a *surrogate*, that stands in for the loss. Changing the
# surrogate changes the method; this page draws three of them over a loss.
#
# Claims of the ledger: {claim}`C11`, {claim}`C12`, {claim}`C13`, {claim}`C14`, {claim}`C15`,
# {claim}`C16`, {claim}`C17`, {claim}`C18`.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from scipy.optimize import minimize, minimize_scalar

from mdtheory import descend
from mdtheory.figures.plots import COLOURS, STYLE
from proofs_check.tools.models import built, dual, mirror, vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Gradient descent: a bowl
#
# At a point $\psi$, replace $f$ by its tangent and add a bowl that says "do not trust the tangent
# far away":
#
# $$Q_\alpha(\phi;\psi) = \underbrace{f(\psi)+\nabla f(\psi)^\top(\phi-\psi)}_{\text{tangent}}
# + \frac1{2\alpha}\norm{\phi-\psi}_2^2 .$$
#
# This is a quadratic in $\phi$. Its gradient, $\nabla f(\psi)+(\phi-\psi)/\alpha$, vanishes at
# $\phi=\psi-\alpha\nabla f(\psi)$: **the minimiser of the surrogate is the gradient step.**


# %%
def f(phi):  # flat on the left, bent near 1; second derivative <= 4.2
    return (phi**2 / 10 + torch.log(torch.cosh(2 * (phi - 1)))).sum()


slope = torch.func.grad(f)
L = 4.2


def bowl(phi, psi, alpha):
    gap = phi - psi
    return f(psi) + slope(psi) @ gap + gap @ gap / (2 * alpha)


psi, alpha = vector(-1.5), 1 / L
step = descend(f, psi, task_lr=alpha, n_steps=1)[-1]  # the library's MAML step
lowest = minimize_scalar(lambda x: bowl(vector(x), psi, alpha).item())
assert abs(step.item() - lowest.x) < 1e-6

# %% [markdown]
# If $\nabla f$ is $L$-Lipschitz ("$f$ is $L$-smooth"), then for $\alpha\le1/L$ the surrogate lies
# above the loss everywhere. A step to the lowest point of an upper bound that touches at $\psi$
# cannot go uphill:
#
# $$f(\phi^+) \le Q_\alpha(\phi^+;\psi) \le Q_\alpha(\psi;\psi) = f(\psi).$$
#
# More exactly: $Q_\alpha$ is an upper bound for every $\psi$ if and only if
# $\frac1{2\alpha}\norm\cdot^2-f$ is convex. With a larger step the promise is void, as the right
# picture shows.

# %%
grid = torch.linspace(-5, 5, 401)[:, None]


def worst_gap(alpha):
    gaps = [bowl(x, y, alpha) - f(x) for x in grid[::16] for y in grid[::16]]
    return torch.stack(gaps).min().item()


assert worst_gap(1 / L) > -1e-9  # above the loss, from every base point
assert worst_gap(2 / L) < -1.0  # not any more

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
x = torch.linspace(-3.2, 3.6, 400)[:, None]
values = torch.stack([f(v) for v in x])
for axis, factor in zip(axes, (1.0, 6.0), strict=True):
    axis.plot(x, values, color="black", linewidth=2, label="loss $f$")
    for start, colour in ((-2.2, BLUE), (0.2, ORANGE), (2.6, GREEN)):
        base = vector(start)
        curve = torch.stack([bowl(v, base, factor / L) for v in x])
        new = base - factor / L * slope(base)
        axis.plot(x, curve, color=colour, linewidth=1.3)
        axis.plot(base, f(base), "o", color=colour)
        axis.plot(new, bowl(new, base, factor / L), "v", color=colour)
    name = (
        r"$\alpha=1/L$: upper bounds"
        if factor == 1
        else r"$\alpha=6/L$: no bounds"
    )
    axis.set(title=name, ylim=(-2.5, 9), xlabel=r"$\phi$")
axes[0].plot([], [], "o", color="gray", label=r"base point $\psi$")
axes[0].plot(
    [], [], "v", color="gray", label="minimum of the surrogate = step"
)
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# The left picture also shows the weakness: all three bowls have the *same* curvature $1/\alpha$.
# Where the loss is nearly straight (left and right of the bend), the bowl is far too narrow and the
# steps are timid. The surrogate adapts neither to the place nor to the direction nor to the task.
#
# ## Preconditioning: a stretched bowl
#
# Measure distance in another quadratic norm, with a symmetric positive definite $P$:
#
# $$\phi^+ = \arg\min_\phi\; f(\psi)+\nabla f(\psi)^\top(\phi-\psi)
# +\frac1{2\alpha}\norm{\phi-\psi}_{P^{-1}}^2
# = \psi-\alpha P\,\nabla f(\psi).$$
#
# This is *preconditioned* gradient descent. On a quadratic loss with Hessian $H$, the choice
# $P=H^{-1}$ makes surrogate and loss the same, and one step solves the problem. A learned diagonal
# $P$ is Meta-SGD ({cite}`li2017metasgd`); a block-diagonal one Meta-Curvature
# ({cite}`park2019metacurvature`).

# %%
H = torch.tensor([[4.0, 0.7], [0.7, 0.5]])
origin, like = vector(-1.4, 2.4), torch.zeros(2)


def valley(phi):
    return 0.5 * phi @ H @ phi


def preconditioned(P, alpha, n_steps):
    map = built("quadratic", like, matrix={"phi": P})  # phi = P z
    how = {"task_lr": alpha, "n_steps": n_steps}
    return descend(
        valley, dual(map, origin), **how, geometry=mirror(map, like)
    )


P = torch.diag(1 / torch.diagonal(H))
first = preconditioned(P, 0.5, 1)[-1]
assert torch.allclose(first, origin - 0.5 * P @ H @ origin)


def stretched(phi):  # the surrogate at the first point, for scipy
    gap = torch.as_tensor(phi) - origin
    tangent = valley(origin) + (H @ origin) @ gap
    return (tangent + gap @ torch.linalg.solve(P, gap) / (2 * 0.5)).item()


assert abs(minimize(stretched, [0.0, 0.0]).x - first.numpy()).max() < 1e-5
newton = preconditioned(torch.linalg.inv(H), 1.0, 1)[-1]
assert newton.norm() < 1e-12

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), sharey=True)
span = torch.linspace(-3, 3, 121)
xx, yy = torch.meshgrid(span, span, indexing="xy")
cells = torch.stack([xx, yy], dim=-1)
loss = 0.5 * torch.einsum("...i,ij,...j", cells, H, cells)
top = torch.linalg.eigvalsh(H)[-1].item()
choices = {
    "$P=I$": torch.eye(2),
    r"$P=\mathrm{diag}(H)^{-1}$": P,
    "$P=H^{-1}$": torch.linalg.inv(H),
}
for axis, (name, matrix) in zip(axes, choices.items(), strict=True):
    step_size = 1 / torch.linalg.eigvals(matrix @ H).real.max().item()
    axis.contour(
        xx,
        yy,
        loss,
        levels=[0.03, 0.2, 0.6, 1.5, 3, 6, 12],
        colors="gray",
        linewidths=0.7,
    )
    gap = cells - origin
    metric = torch.linalg.inv(matrix) / (2 * step_size)
    model = (
        valley(origin)
        + gap @ (H @ origin)
        + torch.einsum("...i,ij,...j", gap, metric, gap)
    )
    low = model.min().item()
    levels = [
        low + (valley(origin).item() - low) * share
        for share in (0.15, 0.5, 1.0)
    ]
    axis.contour(xx, yy, model, levels=levels, colors=[ORANGE], linewidths=1.2)
    track = preconditioned(matrix, step_size, 10)
    axis.plot(*track.T, "o-", color=BLUE, markersize=3)
    axis.plot(0, 0, "k+", markersize=10)
    axis.set(title=name, aspect="equal", xlabel=r"$\phi_1$")
axes[0].set_ylabel(r"$\phi_2$")
axes[0].plot([], [], color="gray", label="loss")
axes[0].plot([], [], color=ORANGE, label="surrogate at the first point")
axes[0].plot([], [], "o-", color=BLUE, markersize=3, label="10 steps")
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="lower center", ncols=3
)
figure.subplots_adjust(bottom=0.24)
plt.show()

# %% [markdown]
# Three warnings, each with a number:
#
# - the bowl is an upper bound if and only if $\nabla^2f\preceq\frac1\alpha P^{-1}$;
# - an *arbitrary* $P$ may as well hurt: what counts is the condition number of $P^{1/2}HP^{1/2}$;
# - if $P$ is not symmetric, the argmin is not $\psi-\alpha P\nabla f$: a quadratic form only sees
#   the symmetric part of $P^{-1}$. For $P=\begin{pmatrix}1&1\\0&1\end{pmatrix}$ the surrogate's
#   step uses $\begin{pmatrix}4/3&2/3\\2/3&4/3\end{pmatrix}$ instead.

# %%
bad = torch.diag(vector(1.0, 10.0))  # for the loss with Hessian diag(1, 10)
spectrum = torch.linalg.eigvalsh(bad @ bad)
assert spectrum[-1] / spectrum[0] == 100  # ten times worse than without

inverse = torch.linalg.inv(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
effective = torch.linalg.inv((inverse + inverse.T) / 2)
assert torch.allclose(effective, torch.tensor([[4.0, 2.0], [2.0, 4.0]]) / 3)

# %% [markdown]
# The last two concern what is *learned* ({claim}`C16`). To first order a step with $P$ goes
# downhill if and only if $u^\top Pu>0$ for the gradient $u$. To be sure of that for every gradient,
# the symmetric part of $P$ must be positive definite. Meta-SGD's diagonal is, if its rates are
# exponentials of free numbers. Meta-Curvature multiplies the gradient by free matrices from both
# sides, and nothing keeps their product positive: starting from the identity it usually is, but
# there is no promise, and no bowl behind the step where $P$ is not symmetric.

# %%
random = torch.Generator().manual_seed(0)
u = torch.randn(200, 6, generator=random)
rates = torch.randn(6, generator=random).exp()  # Meta-SGD
left, right = torch.randn(2, 3, generator=random).diag_embed()
free = torch.kron(left[:2, :2], right)  # Meta-Curvature, matrices far from I
assert ((u * rates * u).sum(1) > 0).all()
assert ((u @ free * u).sum(1) < 0).any()  # some of these steps go uphill

# %% [markdown]
# ## Mirror descent: any convex shape
#
# A quadratic bowl has the same shape around every base point. To let it adapt, replace the squared
# distance by a *Bregman divergence*. Take a differentiable, strictly convex function $h$ and
# measure how far it rises above its own tangent:
#
# $$D_h(\phi,\psi) = h(\phi)-h(\psi)-\nabla h(\psi)^\top(\phi-\psi)\;\ge\;0,
# \qquad =0\text{ only for }\phi=\psi .$$
#
# For $h=\frac12\norm\cdot_{P^{-1}}^2$ this is $\frac12\norm{\phi-\psi}_{P^{-1}}^2$, so the two
# methods above are special cases. The general surrogate is
#
# $$f(\psi)+\nabla f(\psi)^\top(\phi-\psi)+\frac1\alpha D_h(\phi,\psi).$$
#
# Here is a loss that no bowl fits: counts $y_j$ with a Poisson law of mean $c_j\phi+b_j$ give a
# negative log-likelihood that falls like a cliff near $0$ and is almost straight far away. As $h$
# we take the *logarithmic barrier* $h(\phi)=-\log\phi$, which has a cliff at the same place.

# %%
c, b = vector(1.0, 2.0, 0.5), vector(0.02, 0.05, 0.02)
y = vector(3.0, 5.0, 2.0)


def poisson(phi):  # phi > 0
    mean = c * phi + b
    return (mean - y * torch.log(mean)).sum()


barrier = built("barrier", torch.ones(1))
slope = torch.func.grad(poisson)


def bregman_surrogate(phi, psi, alpha):
    distance = barrier.bregman({}, {"phi": phi}, {"phi": psi})
    return poisson(psi) + slope(psi) @ (phi - psi) + distance / alpha


x, psi = vector(0.3), vector(1.7)  # for this h: phi/psi - log(phi/psi) - 1
by_hand = x / psi - torch.log(x / psi) - 1
assert torch.allclose(barrier.bregman({}, {"phi": x}, {"phi": psi}), by_hand)

# %% [markdown]
# When is it an upper bound? The gap between surrogate and loss is itself a Bregman divergence, that
# of $w=\frac1\alpha h-f$, and a Bregman divergence is non-negative everywhere exactly if its
# function is convex:
#
# > The surrogate majorises $f$ from every $\psi$ if and only if $\frac1\alpha h-f$ is convex
# > ("$f$ is $\frac1\alpha$-smooth relative to $h$", {cite}`bauschke2017descent`,
# > {cite}`lu2018relatively`).
#
# Here $f''(\phi)=\sum_j y_jc_j^2/(c_j\phi+b_j)^2\le\sum_jy_j/\phi^2$, so $\alpha=1/\sum_jy_j$ will
# do, although $f$ is hardly smooth: its curvature at $0$ is 16,750.

# %%
alpha = 1 / y.sum().item()
assert torch.allclose((y * (c / b) ** 2).sum(), torch.tensor(16750.0))
points = torch.logspace(-2, 1, 16)[:, None]


def worst_gap(alpha):
    gaps = [
        bregman_surrogate(p, q, alpha) - poisson(p)
        for p in points
        for q in points
    ]
    return torch.stack(gaps).min().item()


def w(phi):
    return -torch.log(phi).sum() / alpha - poisson(phi)


p, q = vector(0.2), vector(3.0)
divergence_of_w = w(p) - w(q) - torch.func.grad(w)(q) @ (p - q)
gap = bregman_surrogate(p, q, alpha) - poisson(p)
assert torch.allclose(divergence_of_w, gap)  # the gap is a divergence
assert worst_gap(alpha) > -1e-9  # an upper bound from every base point
assert worst_gap(4 * alpha) < -1  # four times the step: no

# the library's mirror step is the surrogate's minimiser
psi = vector(0.1)
geometry = mirror("barrier", psi)
how = {"task_lr": alpha, "n_steps": 1, "geometry": geometry}
step = descend(poisson, dual(barrier, psi), **how)[-1]
lowest = minimize_scalar(
    lambda v: bregman_surrogate(vector(v), psi, alpha).item(),
    bounds=(0.01, 5.0),
    method="bounded",
    options={"xatol": 1e-9},
)
assert abs(step.item() - lowest.x) < 1e-6

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.4), width_ratios=(1.4, 1)
)
x = torch.linspace(0.01, 6, 500)[:, None]
left.plot(
    x,
    torch.stack([poisson(v) for v in x]),
    color="black",
    linewidth=2,
    label="Poisson loss",
)
for start, colour in ((0.25, BLUE), (1.0, ORANGE), (4.5, GREEN)):
    base = vector(start)
    left.plot(
        x,
        torch.stack([bregman_surrogate(v, base, alpha) for v in x]),
        color=colour,
        linewidth=1.3,
    )
    curvature = torch.func.hessian(poisson)(base).item()
    bowl_values = (
        poisson(base)
        + slope(base) * (x - base)
        + curvature / 2 * (x - base) ** 2
    )
    left.plot(x, bowl_values, color=colour, linewidth=1, linestyle=":")
    left.plot(base, poisson(base), "o", color=colour)
left.plot([], [], color="gray", label=r"Bregman surrogate, $h=-\log$")
own = "bowl with the loss's own curvature there"
left.plot([], [], color="gray", linestyle=":", label=own)
left.set(ylim=(-8, 22), xlabel=r"$\phi$")
left.legend(fontsize=8, loc="upper center", frameon=True, framealpha=0.9)

start, n_steps = vector(0.05), 60
best = minimize_scalar(
    lambda v: poisson(vector(v)).item(),
    bounds=(0.5, 5),
    method="bounded",
    options={"xatol": 1e-12},
).fun
runs = {
    "mirror descent, $h=-\\log$": descend(
        poisson,
        dual(barrier, start),
        task_lr=alpha,
        n_steps=n_steps,
        geometry=geometry,
    )
}
for label, rate in (
    (
        r"GD, $\alpha=1/f''(0.05)$",
        1 / torch.func.hessian(poisson)(start).item(),
    ),
    (r"GD, ten times that", 10 / torch.func.hessian(poisson)(start).item()),
):
    runs[label] = descend(poisson, start, task_lr=rate, n_steps=n_steps)
for (label, track), colour in zip(
    runs.items(), (BLUE, ORANGE, PINK), strict=True
):
    right.plot(
        [max(poisson(v).item() - best, 1e-14) for v in track],
        color=colour,
        label=label,
    )
right.set(
    yscale="log",
    xlabel="step $k$",
    ylabel=r"$f(\phi^k)-\min f$",
    ylim=(1e-12, 1e3),
)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# The bowls (dotted) have been given the best curvature one could wish for, that of the loss at the
# base point, and still cross it. The three Bregman surrogates come from *one* function $h$ and
# *one* step size $\alpha$; around each base point they have the shape that is needed there.
#
# So a good $h$ knows the loss before it has been seen, like the prior of the first page. Where does
# a good $h$ come from? It can be *learned from related tasks*. How one computes with it is the
# subject of [the next page](04_mirror_descent.py).
