# %% [markdown]
# # How close after K steps?
#
# The poster says of the task solver: it "converges to a stationary point,
# $\norm{\hat\phi-\bar\phi}=\mathcal O(L/K)$", where $L$ is the smoothness of the loss. Taken at its
# word this is false, and the reasons why are instructive: what is true depends on what one knows
# about the loss. This page goes through the possibilities, from the kindest losses to the most
# stubborn.
#
# Claims of the ledger: {claim}`C07`, {claim}`C04`, {claim}`C32`.

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import torch

from mdtheory import descend
from mdtheory.figures.plots import COLOURS, STYLE
from proofs_check.tools.models import built, dual, mirror, vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, YELLOW, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Why $\mathcal O(L/K)$ cannot be right
#
# Multiply the loss by $c$. Its smoothness becomes $cL$, the step $\alpha=1/L$ becomes $1/(cL)$, and
# the product $\alpha\nabla f$ does not change: *the same iterates*. But the claimed bound shrinks
# with $c$. Let $c\to0$ and it says that every iterate is the solution.


# %%
def wavy(c):
    return lambda x: c * (0.25 * x @ x + 0.1 * torch.cos(x).sum())


one = descend(wavy(1.0), vector(2.0), task_lr=1.0, n_steps=5)[-1]
tiny = descend(wavy(1e-6), vector(2.0), task_lr=1e6, n_steps=5)[-1]
assert torch.allclose(one, tiny)  # while L/K fell by a million

# %% [markdown]
# Some other quantity must come in: the initial distance $D$, or what is known about the curvature
# from *below*. In what follows $\alpha=1/L$.
#
# ## Strongly convex: exponentially fast
#
# If all curvatures lie between $\mu>0$ and $L$, every step shrinks the distance by $1-\mu/L$, and
# (largest value of $q(1-q)^K$ at $q=\frac1{K+1}$)
#
# $$\norm{\phi^K-\phi^*}\le\Bigl(1-\frac\mu L\Bigr)^KD
# \;\le\;\frac L\mu\,\frac{K^K}{(K+1)^{K+1}}\,D\;\le\;\frac{L}{e\,\mu K}\,D .$$
#
# So a bound of the form $L/K$ does exist here, with the factor $D/(e\mu)$ that the poster leaves
# out; but it is a very weak way to say "exponential".

# %%
for K in (1, 3, 10):
    mu = 1 / (K + 1)  # the worst case of the second bound, L = 1
    x = descend(
        lambda v, mu=mu: mu / 2 * v @ v, vector(1.0), task_lr=1.0, n_steps=K
    )[-1]
    second = (1 / mu) * K**K / (K + 1) ** (K + 1)
    assert abs(x.item() - (1 - mu) ** K) < 1e-14
    assert abs(x.item() - second) < 1e-14  # attained
    assert x.item() <= 1 / (math.e * mu * K)

# %% [markdown]
# ## Merely convex: the value has a rate, the distance has none
#
# Without a lower bound on the curvature, the loss still gets small ({cite}`drori2014performance`):
#
# $$f(\phi^K)-\min f\le\frac{LD^2}{4K+2},$$
#
# and Huber's function, a parabola that continues as a straight line, attains it for every $K$ when
# its kink is at $D/(2K+1)$.


# %%
def huber(kink):
    return lambda v: torch.where(
        v.abs() <= kink, 0.5 * v**2, kink * v.abs() - 0.5 * kink**2
    ).sum()


for K in (1, 2, 5, 20):
    worst = huber(1 / (2 * K + 1))
    reached = worst(descend(worst, vector(1.0), task_lr=1.0, n_steps=K)[-1])
    assert abs(reached.item() - 1 / (4 * K + 2)) < 1e-14

# %% [markdown]
# The *distance*, though, may not shrink at all. For each $K$ there is a parabola, $\frac\mu2x^2$
# with $\mu=L/K^2$, so flat that $K$ steps cover at most the fraction $1/K$ of the way. And a single
# fixed function can be slower than any $1/K$: for $|x|^p/p$ with $p>2$
#
# $$x_K\approx\bigl(\alpha\,(p-2)\,K\bigr)^{-1/(p-2)},$$
#
# which is as good as $1/K$ only for $p\le3$.

# %%
for K in (2, 10, 50):
    mu = 1 / K**2
    x = descend(
        lambda v, mu=mu: mu / 2 * v @ v, vector(1.0), task_lr=1.0, n_steps=K
    )[-1]
    assert x.item() >= 1 - 1 / K


def power(p):
    return lambda v: (v.abs() ** p / p).sum()


last = {}
for p in (3, 4, 6):
    alpha = 1 / (p - 1)  # L = p - 1 on [-1, 1]
    how = {"task_lr": alpha, "n_steps": 2000}
    last[p] = descend(power(p), vector(1.0), **how)[-1].item()
    predicted = (alpha * (p - 2) * 2000) ** (-1 / (p - 2))
    assert abs(last[p] / predicted - 1) < 0.03
assert last[4] > 25 / 2000 and last[6] > 200 / 2000  # slower than 1/K

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.6))
K = 500
ks = torch.arange(1, K + 1)
series = {
    r"$\mu$-strongly convex, $\mu=L/20$": descend(
        lambda v: v @ v / 40, vector(1.0), task_lr=1.0, n_steps=K
    ),
    r"$|x|^{2.5}$": descend(
        power(2.5), vector(1.0), task_lr=1 / 1.5, n_steps=K
    ),
    r"$|x|^3$": descend(power(3), vector(1.0), task_lr=1 / 2, n_steps=K),
    r"$x^4$": descend(power(4), vector(1.0), task_lr=1 / 3, n_steps=K),
    r"$x^6$": descend(power(6), vector(1.0), task_lr=1 / 5, n_steps=K),
}
for (name, points), colour in zip(
    series.items(), (BLUE, GREEN, YELLOW, ORANGE, PINK), strict=True
):
    left.plot(
        ks, [abs(x.item()) for x in points[1:]], color=colour, label=name
    )
left.plot(ks, 1 / ks, "k--", linewidth=1, label="$1/K$")
left.set(
    xscale="log",
    yscale="log",
    ylim=(1e-6, 1.5),
    xlabel="$K$",
    ylabel="distance / $D$",
    title="single functions",
)
left.legend(fontsize=8, loc="lower left")
flat = torch.linspace(-3.5, 0, 200)
for n_steps, colour in zip(
    (3, 10, 30, 100), (GREEN, BLUE, ORANGE, PINK), strict=True
):
    right.plot(
        10**flat,
        (1 - 10**flat) ** n_steps,
        color=colour,
        label=f"$K={n_steps}$",
    )
right.set(
    xscale="log",
    xlabel=r"$\mu/L$",
    ylabel="distance / $D$",
    title=r"parabolas: whatever $K$, some are not solved",
)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Not convex
#
# - If $f$ satisfies the Polyak-Łojasiewicz inequality $\frac12\norm{\nabla f}^2\ge\mu\,(f-\min f)$,
#   as over-parametrised least squares do, the iterates converge to *some* minimiser,
#   exponentially: with $\Delta_0=f(\phi^0)-\min f$,
#   $\norm{\phi^K-\bar\phi}\le2\sqrt{2\Delta_0/\mu}\,(1-\mu/L)^{K/2}$.
# - If $f$ is only smooth, the smallest gradient so far obeys $\min_{k\le K}\norm{\nabla
#   f(\phi^k)}^2\le\frac{4L\Delta_0}{3K+2}$, and there is nothing to say about distances. The limit
#   need not be the global optimum, as the next cell shows; and a small gradient does not mean to be
#   close: for $x^8/8$ at $0.3$ the slope is $2\cdot10^{-4}$.

# %%
two_valleys = lambda x: ((x @ x - 1) ** 2 / 4 + 0.1 * x).sum()
end = descend(two_valleys, vector(0.9), task_lr=1 / 8, n_steps=2000)[-1]
assert torch.func.grad(two_valleys)(end).norm() < 1e-12
assert abs(two_valleys(end) - 0.0974) < 1e-4
grid = torch.linspace(-2, 2, 4001)[:, None]
assert torch.stack([two_valleys(x) for x in grid]).min() < -0.1023

X = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 1.0]])  # PL, not s.c.
y, start = vector(1.0, -2.0), vector(1.0, 1.0, 1.0)
pl = lambda v: 0.5 * (X @ v - y).square().sum()
values = torch.linalg.eigvalsh(X @ X.T)
mu, L = values[0].item(), values[-1].item()
limit = start + torch.linalg.pinv(X) @ (y - X @ start)
for K in (1, 5, 20):
    distance = (
        descend(pl, start, task_lr=1 / L, n_steps=K)[-1] - limit
    ).norm()
    scale = 2 * (2 * pl(start) / mu).sqrt()
    assert distance <= scale * (1 - mu / L) ** (K / 2)

# %% [markdown]
# ## Mirror descent
#
# Everything has a counterpart when $f$ is convex and $L$-smooth *relative to $h$* (that is, $Lh-f$
# is convex, [page 3](03_surrogates.py)): with $\alpha=1/L$, for every $x$ and a minimiser $\phi^*$,
#
# $$f(\phi^K)-f(x)\le\frac{L\,D_h(x,\phi^0)}K,\qquad
# D_h(\phi^*,\phi^K)\le\Bigl(1-\frac\mu L\Bigr)^KD_h(\phi^*,\phi^0),$$
#
# the second if also $f-\mu h$ is convex. The gain of a good geometry is hidden in the constants:
# $L$ and $D_h$ are measured with $h$.

# %%
y = vector(3.0, 0.2, 1.0)
poisson = lambda phi: (phi - y * phi.log()).sum() + 0.05 * phi.sum()
barrier = built("barrier", y)
start, best, L = torch.ones(3), y / 1.05, y.max().item()
geometry = mirror("barrier", y)
apart = barrier.bregman({}, {"phi": best}, {"phi": start})
track = descend(
    poisson, dual(barrier, start), task_lr=1 / L, n_steps=40, geometry=geometry
)
for K in range(1, 41):
    assert poisson(track[K]) - poisson(best) <= L * apart / K

# %% [markdown]
# ## The whole table
#
# The worst cases stand in the ledger as exact examples and as semidefinite programs, which compute
# the worst function of a whole class ({claim}`C07`).
#
# | what is known of $f$ | what holds after $K$ steps, $\alpha=1/L$ | sharp? |
# |---|---|---|
# | $\mu$-strongly convex | distance $\le(1-\mu/L)^KD$ | yes, $\frac\mu2x^2$ |
# | convex | value $\le LD^2/(4K+2)$ | yes, Huber |
# | convex | distance: no rate, $\sup=D$ for every $K$ | yes |
# | $\vert x\vert^p/p$, $p>2$ | distance $\sim(\alpha(p-2)K)^{-1/(p-2)}$ | exact |
# | PL, not convex | distance $\le2\sqrt{2\Delta_0/\mu}\,(1-\mu/L)^{K/2}$ | no |
# | smooth | $\min\norm{\nabla f}^2\le4L\Delta_0/(3K+2)$ | yes |
# | convex, $L$-smooth relative to $h$ | value $\le LD_h(x,\phi^0)/K$ | yes, over all $h$ |
# | the same, $\mu$-strongly convex relative to $h$ | $D_h\le(1-\mu/L)^KD_h(\phi^*,\phi^0)$ | yes |
#
# So much for how near the solver gets. [The next page](09_hypergradients.py) asks what the rest of
# the way costs the *meta-gradient*.
