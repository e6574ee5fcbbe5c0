# %% [markdown]
# # The implicit prior of MAML
#
# MAML has no regulariser: it runs a few gradient steps from a learned start and stops ([page
# 2](02_bilevel.py)). But stopping early *is* a regulariser, and for a quadratic loss it is exactly
# a Gaussian prior around the start. Which one? A lemma of {cite}`grant2018recasting` says that
# there is such a prior. This page derives its precision in closed form, and shows where the
# poster's wording of the lemma goes wrong.
#
# Claims of the ledger: {claim}`C05`, {claim}`C06`.

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse

from mdtheory import descend
from mdtheory.figures.plots import COLOURS, STYLE
from proofs_check.tools import prior
from proofs_check.tools.models import vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, YELLOW, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## One dimension
#
# Let the loss have slope $g$ and curvature $\eta$ at the start $\theta$:
# $q(\phi)=g\,(\phi-\theta)+\frac\eta2(\phi-\theta)^2$. A gradient step multiplies the distance to
# the minimum by $r=1-\alpha\eta$. After $K$ steps from $\theta$ one has moved by
#
# $$\phi^K-\theta=-s_K\,g,\qquad s_K=\alpha\,(1+r+\dots+r^{K-1}).$$
#
# With a prior of precision $\lambda$ around $\theta$ one would minimise
# $q(\phi)+\frac\lambda2(\phi-\theta)^2$ and move by $-g/(\eta+\lambda)$. The two agree if
# $\eta+\lambda=1/s_K$. Since $s_K\,\eta=1-r^K$ (a geometric sum), this means
#
# $$\boxed{\;\lambda=\frac1{s_K}-\eta=\frac{r^K}{s_K}\;}\qquad\qquad
# \frac1\lambda=\alpha\sum_{j=1}^K r^{-j}.$$
#
# For a flat direction, $\eta=0$, it says $\lambda=1/(\alpha K)$: the fewer and shorter the steps,
# the stronger the prior.
#
# ## Any number of dimensions
#
# Replace $\eta$ by the Hessian $H$; everything is a function of one matrix, so the same algebra
# holds eigenvalue by eigenvalue. $H$ may be indefinite or singular: with
# $S_K=\alpha\sum_{k<K}(I-\alpha H)^k$ positive definite,
#
# $$\phi^K=\arg\min_\phi\;q(\phi)+\tfrac12\norm{\phi-\theta}_{\Lambda}^2,
# \qquad \Lambda=S_K^{-1}-H=(I-\alpha H)^K S_K^{-1}.$$

# %%
rng = np.random.default_rng(0)
basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
alpha = 0.1
for spectrum in ([0.5, 2.0, 6.0, 9.0], [-3.0, 0.0, 1.0, 8.0], [0.0] * 4):
    H = basis @ np.diag(spectrum) @ basis.T
    g, theta = rng.standard_normal(4), rng.standard_normal(4)
    q = prior.quadratic(H, g, theta)
    for K in (1, 2, 3, 7):
        weight = prior.precision(H, alpha, K)
        by_prior = prior.penalised_minimiser(H, g, theta, weight)
        by_steps = descend(q, torch.tensor(theta), task_lr=alpha, n_steps=K)[
            -1
        ]
        assert np.abs(by_prior - by_steps.numpy()).max() < 1e-10
        boxed = np.linalg.inv(prior.covariance(H, alpha, K))
        assert np.abs(boxed - weight).max() < 1e-8

# %% [markdown]
# The poster prints the lemma with $\frac12\norm{\phi-\theta}_2^2$, *without* $\Lambda$ in the norm.
# That is false already for a parabola: with $f=\frac14\phi^2$, $\alpha=1$, $K=3$, $\theta=1$, three
# steps give $(1/2)^3=0.125$; the printed formula gives $2/3$.

# %%
reached = descend(lambda x: 0.25 * x @ x, vector(1.0), task_lr=1.0, n_steps=3)[
    -1
]
assert reached.item() == 0.125
as_printed = prior.penalised_minimiser(*np.array([[[0.5]], [[0.5]]]), 1.0, 1.0)
assert abs(as_printed.item() - 2 / 3) < 1e-12

# %% [markdown]
# ## When is it a prior at all?
#
# A Gaussian needs $\lambda>0$. With $x=\alpha\eta$, the sign of $\lambda=r^K/s_K$ is easy to read
# off: for $x<1$ it is positive, *also for negative curvature*. At $x=1$ the direction is solved in
# one step and nothing of the prior remains. Beyond, $r$ is negative, and it depends on whether $K$
# is even or odd. The left picture shows $\alpha\lambda$ as a function of $x$.

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.7))
xs = np.linspace(-1.2, 2.4, 1201)
for K, colour in zip((1, 2, 3, 5), (BLUE, ORANGE, GREEN, PINK), strict=True):
    r = 1 - xs
    with np.errstate(divide="ignore", invalid="ignore"):
        values = r**K / sum(r**k for k in range(K))
    values[np.abs(values) > 3] = np.nan
    left.plot(xs, values, color=colour, label=f"$K={K}$")
left.axhline(0, color="black", linewidth=0.8)
left.axvspan(1, 2.4, color="gray", alpha=0.12)
left.text(1.7, 1.75, r"$\alpha\eta>1$", ha="center", color="#444444")
left.set(
    xlabel=r"$x=\alpha\eta$",
    ylabel=r"$\alpha\lambda$",
    ylim=(-1.2, 2.2),
    title="precision against curvature",
)
left.legend(fontsize=8, loc="lower left")

H2, theta2, g2 = (
    np.array([[3.0, 1.0], [1.0, 0.6]]),
    np.array([1.6, 1.2]),
    np.array([4.0, 2.4]),
)
g2 = H2 @ theta2
q2, rate, K2 = prior.quadratic(H2, g2, theta2), 0.2, 4
steps = descend(q2, torch.tensor(theta2), task_lr=rate, n_steps=K2)
span = np.linspace(-1, 2.6, 150)
xx, yy = np.meshgrid(span, span)
gap = np.stack([xx, yy], -1) - theta2
right.contour(
    xx,
    yy,
    gap @ g2 + np.einsum("...i,ij,...j", gap, H2, gap) / 2,
    levels=10,
    colors="gray",
    linewidths=0.6,
)
covariance = np.linalg.inv(prior.precision(H2, rate, K2))
values, vectors = np.linalg.eigh(covariance)
angle = math.degrees(math.atan2(vectors[1, 0], vectors[0, 0]))
for size in (0.5, 1.0):
    widths = 2 * size * np.sqrt(values)
    right.add_patch(
        Ellipse(
            theta2,
            *widths,
            angle=angle,
            fill=False,
            color=ORANGE,
            linewidth=1.4,
        )
    )
right.plot(
    *steps.T, "o-", color=BLUE, markersize=4, label=f"{K2} gradient steps"
)
end = prior.penalised_minimiser(H2, g2, theta2, prior.precision(H2, rate, K2))
right.plot(
    *end,
    "s",
    color=ORANGE,
    fillstyle="none",
    markersize=11,
    label="minimum of loss + prior",
)
right.plot([], [], color=ORANGE, label="the implicit prior")
right.plot(*theta2, "k*", markersize=11)
right.set(
    aspect="equal",
    xlim=(-1, 2.6),
    ylim=(-0.6, 2.6),
    title="the prior that four steps imply",
    xlabel=r"$\phi_1$",
    ylabel=r"$\phi_2$",
)
right.legend(fontsize=8, loc="lower left")
plt.show()

# %% [markdown]
# Two things to take from the pictures. First, $\lambda$ *falls* as the curvature grows (for $x<1$):
# flat directions are held tightly, steep ones are left to the data. The ellipse is long where the
# loss is steep; this is the data-dependent half of the "prior", and the reason why it is no prior
# in Bayes' sense: $\Lambda$ depends on the task's own training data through $H$.
#
# Second, for steps longer than $1/\eta$ the picture of a prior can break down: with $K$ odd there
# is then *no* Gaussian that does what the steps do.

# %%
curvatures = np.linspace(-2.0, 0.99, 300)  # times alpha
for K in (1, 2, 3, 5, 10):
    values = [
        prior.precision(np.array([[x]]), 1.0, K).item() for x in curvatures
    ]
    assert min(values) > 0  # a prior, also for negative curvature
    assert (np.diff(values) < 0).all()  # flat directions held more tightly
    overshooting = prior.precision(np.array([[1.5]]), 1.0, K).item()
    assert (overshooting < 0) == (K % 2 == 1)
flat = prior.precision(np.zeros((1, 1)), 0.1, 5).item()
assert abs(flat - 1 / (0.1 * 5)) < 1e-12

# %% [markdown]
# ## Losses that are not quadratic
#
# For a general $f$ the statement holds for its second-order Taylor model at $\theta$, with
# $g=\nabla f(\theta)$, $H=\nabla^2f(\theta)$. How far are the true steps $\phi^K$ from the model's
# $\psi^K$? One step is always exact. After that the change of curvature along the way counts: if
# $\nabla^2f$ is $\rho$-Lipschitz, $f$ convex and $\alpha\le1/L$, then with $G=\norm{\nabla
# f(\theta)}$
#
# $$\norm{\phi^K-\psi^K}\;\le\;\rho\,\alpha^3G^2\,\frac{K(K-1)(2K-1)}{12}.$$
#
# (Each step adds at most $\alpha\frac\rho2\norm{\phi^k-\theta}^2\le\alpha\frac\rho2(\alpha kG)^2$
# to the difference, and convex steps do not enlarge what is there; the sum of $k^2$ gives the
# fraction.) It is third order in the length $\alpha K$ of the trajectory, and sharp: for $K=2$ a
# cubic attains it.

# %%
slope, curvature, rho, alpha = -0.8, 0.5, 0.9, 0.5
cubic = prior.cubic(slope, curvature, rho, until=1.0)
measured = prior.deviation(cubic, vector(0.0), alpha=alpha, n_steps=2)
how = {"rho": rho, "alpha": alpha, "n_steps": 2}
bound = prior.convex_error(slope=abs(slope), **how)
assert abs(measured / bound - 1) < 1e-12

features = np.random.default_rng(3).standard_normal((12, 5))
logistic, big_l, rho = prior.logistic(features)
start = vector(0.3, -0.8, 0.5, 1.0, -0.4)
G = torch.func.grad(logistic)(start).norm().item()
counts = (1, 2, 3, 5, 8, 13, 21)
errors, limits, travelled = [], [], []
for K in counts:
    how = {"alpha": 0.5 / big_l, "n_steps": K}
    errors.append(prior.deviation(logistic, start, **how))
    limits.append(prior.convex_error(rho=rho, slope=G, **how))
    reached = descend(logistic, start, task_lr=0.5 / big_l, n_steps=K)[-1]
    travelled.append((reached - start).norm().item())
    assert errors[-1] <= limits[-1] + 1e-15
assert errors[0] < 1e-15  # one step is exact

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(9.4, 3.4))
axis.plot(
    counts[1:],
    travelled[1:],
    "^:",
    color="gray",
    label=r"distance travelled $\|\phi^K-\theta\|$",
)
axis.plot(counts[1:], limits[1:], "--", color=ORANGE, label="bound")
axis.plot(
    counts[1:],
    errors[1:],
    "o-",
    color=BLUE,
    label=r"$\|\phi^K-\psi^K\|$, logistic loss",
)
axis.set(
    xscale="log",
    yscale="log",
    xlabel="steps $K$",
    xticks=counts[1:],
    xticklabels=counts[1:],
)
axis.minorticks_off()
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# For the few steps that MAML takes, the difference is a small fraction of the distance travelled,
# and the implicit prior is a good description. For many steps, or a network whose curvature changes
# quickly, it describes the beginning of the path only: without convexity the bound grows
# exponentially in $\alpha LK$.
#
# With a symmetric positive definite preconditioner $P$ everything carries over,
# $\Lambda^{-1}=\alpha\sum_{j=1}^K(I-\alpha PH)^{-j}P$: **a learned preconditioner is a learned
# covariance.** That is the deeper reason to learn one. [Next](08_rates.py): how fast do the steps
# arrive where they are going?

# %%
H = basis @ np.diag([0.5, 2.0, 6.0, 9.0]) @ basis.T
root = rng.standard_normal((4, 4))
P = root @ root.T / 10
g, theta, K, alpha = rng.standard_normal(4), rng.standard_normal(4), 4, 0.1
phi = theta.copy()
for _ in range(K):
    phi -= alpha * P @ (g + H @ (phi - theta))
back = np.linalg.inv(np.eye(4) - alpha * P @ H)
powers = [np.linalg.matrix_power(back, j) @ P for j in range(1, K + 1)]
weight = np.linalg.inv(alpha * sum(powers))
assert np.abs(weight - weight.T).max() < 1e-8
expected = prior.penalised_minimiser(H, g, theta, weight)
assert np.abs(expected - phi).max() < 1e-9
