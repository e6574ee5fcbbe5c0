# %% [markdown]
# # The price: one more step, one wrong gradient
#
# [Page 9](09_hypergradients.py) counted costs in gradients and errors in norms. This page measures
# the first in milliseconds and bytes, and asks of the second what it does to the outer loop.
#
# Claims of the ledger: {claim}`C10`, {claim}`C30`; a follow-up's {claim}`F1`.

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import torch

from mdtheory.data import EpisodeStream, GlyphSet
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from proofs_check.tools import cost, hypergradient
from proofs_check.tools.memory import PeakTensorBytes
from proofs_check.tools.models import vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## What one more step costs
#
# The poster says that the complexity grows linearly with $K$. Counted, that is exact of the work of
# one meta-step and of what it stores ({claim}`C10`): every step adds the same number of operations
# and the same number of stored values. And measured? Below, one meta-gradient of a convolutional
# network on a 5-way task, for $K=1$ to $16$: a straight line is fitted, with 95 % intervals for
# slope and intercept (Student's $t$). Time is the processor's, the least of five; memory is what
# tensors alive at once occupy, which a counter at torch's dispatcher knows to the byte.

# %%
tasks = EpisodeStream(
    GlyphSet(), split="train", seed=0, n_way=5, n_shot=1, n_query=3
)
steps = (1, 2, 4, 8, 12, 16)


def measured(name, n_steps):
    network = models.get("conv4")(
        in_channels=1, image_size=28, n_way=5, channels=8
    )
    learner = MetaLearner(
        network.float(), "maml", n_steps=n_steps, estimator=name
    )
    with PeakTensorBytes() as meter:
        learner.meta_gradient([tasks(0)])
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        learner.meta_gradient([tasks(0)])
        seconds.append(time.process_time() - begin)
    return 1e3 * min(seconds), meter.peak / 1e3


table = {
    name: torch.tensor([measured(name, k) for k in steps]).T
    for name in ("unrolled", "stepwise", "first_order")
}
lines = {}
for name, (milliseconds, kilobytes) in table.items():
    for unit, values in (("ms", milliseconds), ("kB", kilobytes)):
        found = cost.line(steps, values.tolist())
        lines[name, unit] = found
        print(
            f"{name:11} {found.slope:6.1f} ± {found.slope_error:4.1f} {unit}"
            f" a step, {found.intercept:6.0f} ± {found.intercept_error:.0f}"
            f" {unit} at K = 0"
        )  # fmt: skip
for name in table:
    time_line = lines[name, "ms"]
    assert time_line.slope - time_line.slope_error > 0
assert lines["stepwise", "kB"].slope < 0.2 * lines["unrolled", "kB"].slope
assert lines["first_order", "ms"].slope < lines["unrolled", "ms"].slope

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
ends = torch.tensor([0.0, 17.0])
for (name, values), colour, mark in zip(
    table.items(), (ORANGE, PINK, GREEN), "svo", strict=True
):
    for axis, row, unit in zip(axes, values, ("ms", "kB"), strict=True):
        found = lines[name, unit]
        axis.plot(
            steps,
            row,
            mark,
            color=colour,
            markersize=5,
            label=name.replace("_", " "),
        )
        axis.plot(
            ends,
            found.intercept + found.slope * ends,
            color=colour,
            linewidth=1,
        )
for axis, label in zip(
    axes, ("processor time, ms", "peak memory, kB"), strict=True
):
    axis.set(xlabel="task steps $K$", ylabel=label, ylim=(0, None))
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# `stepwise` computes every task gradient twice and in return stores states only, so its memory
# hardly grows; `first_order` is the cheapest, and computes something else.
#
# ## From hypergradients to the outer loop
#
# Suppose the meta-objective $F$ is $L_F$-smooth and every gradient that we descend along is wrong
# by at most $b$. With the step $1/L_F$ ({claim}`C30`)
#
# $$\min_{r<R}\norm{\nabla F(\theta^r)}^2\le\frac{2L_F\,(F(\theta^0)-\inf F)}R+b^2 .$$
#
# (The upper bound of [page 3](03_surrogates.py) at $\theta-(\nabla F+e)/L_F$ gives a decrease of
# $(\norm{\nabla F}^2-\norm e^2)/2L_F$ at least. Sum.) So the outer loop gets as good as its
# gradients, and then stops improving: for a gradient of norm $\varepsilon$ it takes
# $R=O(\varepsilon^{-2})$ iterations *with* $K=O(\kappa\log\frac1\varepsilon)$ task steps in each.
# With a fixed $K$ there is a floor. For $f=\frac14p^2-\theta p$ and $\ell=\frac12(p-1)^2$ the floor
# is $2q^K/(1-q^K)$ with $q=\frac12$:


# %%
def descent(n_steps, rounds=60):
    """Norms of the exact gradient, 4 theta - 2, and errors of the used one."""
    theta, norms, errors = vector(3.0), [], []
    for _ in range(rounds):
        gradient, _ = hypergradient.unrolled_gradients(
            lambda p, t: (p * p / 4 - t * p).sum(),
            lambda p, t: ((p - 1) ** 2 / 2).sum(),
            vector(0.0), theta, alpha=1.0, n_steps=n_steps,
        )  # fmt: skip
        norms.append(abs(4 * theta - 2).item())
        errors.append(abs(gradient - (4 * theta - 2)).item())
        theta = theta - gradient / 4  # L_F = 4
    return norms, errors


curves = {}
F_start = (2 * 3.0 - 1) ** 2 / 2  # inf F = 0
for K in (1, 2, 4, 8, 16):
    norms, errors = descent(K)
    curves[K] = norms
    for R in range(1, 61):
        bound = 2 * 4 * F_start / R + max(errors[:R]) ** 2
        assert min(norms[:R]) ** 2 <= bound
    assert abs(norms[-1] - 2 * 0.5**K / (1 - 0.5**K)) < 1e-6

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(9.4, 3.2))
for (K, norms), colour in zip(
    curves.items(), (PINK, ORANGE, GREEN, BLUE, "black"), strict=True
):
    axis.plot(norms, color=colour, label=f"$K={K}$")
axis.set(
    yscale="log",
    xlabel="outer iteration $r$",
    ylabel=r"$|\nabla F(\theta^r)|$",
)
axis.legend(fontsize=8, ncols=5)
plt.show()

# %% [markdown]
# All this needs a finite $L_F$. For a map with a live scale there is none on all of $\R^d$ ([page
# 5](05_blockiaf.py)); [the next page](11_certificates.py) shows what can be proved about *given*
# weights on a *bounded* set.
