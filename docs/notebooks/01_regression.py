# %% [markdown]
# # Too few data: why a prior
#
# Fit a curve through four points with thirty adjustable numbers. Infinitely many curves pass
# through all four points, and almost all of them are useless in between. What singles out a useful
# one is not in the data: it is what was known before. This page makes that precise for linear
# regression, where everything can be computed, and ends with the question that the rest of these
# pages is about: *where does the knowledge come from?*
#
# Claims of the ledger: {claim}`C01`, {claim}`C02`.

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Ellipse

from mdtheory import descend
from mdtheory.data.synthetic import SinusoidStream
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry.prior import Prior
from proofs_check.tools.models import vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## More unknowns than equations
#
# Model the observations as $y = X\phi + \varepsilon$ with $N$ rows, $d$ unknowns $\phi$, and noise
# $\varepsilon\sim\mathcal N(0, s^2I)$. The loss is the negative logarithm of the likelihood,
#
# $$f(\phi) = \frac{1}{2s^2}\norm{y - X\phi}_2^2 .$$
#
# If $d > N$, then $X$ has a kernel: directions $v \ne 0$ with $Xv = 0$. Moving along them changes
# no prediction on the data, so with $\phi$ every $\phi + v$ is a minimiser too.

# %%
N, d, s = 4, 30, 0.3
generator = torch.Generator().manual_seed(3)
X = torch.randn(N, d, generator=generator) / math.sqrt(d)
y = torch.randn(N, generator=generator)


def f(phi):
    return (y - X @ phi).square().sum() / (2 * s**2)


kernel = torch.linalg.svd(X).Vh[N:].T  # its columns span ker X
fit = torch.linalg.pinv(X) @ y
other = fit + 10 * kernel @ torch.ones(d - N)

assert f(fit) < 1e-20 and f(other) < 1e-20  # both are perfect
assert (fit - other).norm() > 50  # and far apart

# %% [markdown]
# ## A prior makes the answer unique
#
# Before seeing data, suppose $\phi\sim\mathcal N(\theta, \Lambda^{-1})$: near $\theta$, with
# *precision* $\Lambda$ (large eigenvalue = strong belief in that direction). Bayes' rule multiplies
# likelihood and prior; after taking $-\log$, the most probable $\phi$ given the data (the *maximum
# a posteriori*, MAP) minimises a sum:
#
# $$\phi_{\rm MAP} = \arg\min_\phi\; f(\phi) + \tfrac12\norm{\phi-\theta}_\Lambda^2,
# \qquad \norm{v}_\Lambda^2 = v^\top\Lambda v .$$
#
# The Hessian of the sum is $X^\top X/s^2 + \Lambda$. Setting the gradient to zero and solving gives
#
# $$\phi_{\rm MAP} = \theta + \bigl(X^\top X/s^2+\Lambda\bigr)^{-1} X^\top (y - X\theta)/s^2 .$$


# %%
def map_estimate(theta, precision):
    hessian = X.T @ X / s**2 + precision
    return theta + torch.linalg.solve(hessian, X.T @ (y - X @ theta) / s**2)


theta = torch.randn(d, generator=generator)
root = torch.randn(d, d, generator=generator)
precision = root @ root.T / d + 0.1 * torch.eye(d)
estimate = map_estimate(theta, precision)


def regularised(phi):
    return f(phi) + 0.5 * (phi - theta) @ precision @ (phi - theta)


assert torch.func.grad(regularised)(estimate).norm() < 1e-9

# the library's geometry "prior", gradient descent on loss + prior
# with one precision per coordinate, ends there too
prior = Prior(precision=0.5)
prior.build({"phi": theta})
solved = descend(f, theta, task_lr=0.02, n_steps=1500, geometry=prior)[-1]
assert (solved - map_estimate(theta, 0.5 * torch.eye(d))).norm() < 1e-5

# %% [markdown]
# When is the answer unique? The Hessian must be positive definite, and a vector $v$ has
# $v^\top(X^\top X/s^2+\Lambda)v=0$ exactly if $Xv=0$ *and* $\Lambda v=0$. So:
#
# > The MAP estimate is unique if and only if $\ker X \cap \ker\Lambda = 0$.
#
# The prior has to speak about the directions that the data do not see. A prior that repeats what
# the data say, such as $\Lambda = X^\top X$, is of no help, however strong it is.

# %%


def smallest_curvature(precision):
    return torch.linalg.eigvalsh(X.T @ X / s**2 + precision)[0].item()


on_the_kernel = kernel @ kernel.T
assert smallest_curvature(on_the_kernel) > 0.1  # rank 26 of 30 is enough
assert (
    abs(smallest_curvature(1e6 * X.T @ X)) < 1e-6
)  # rank 4, a million times stronger: still singular

# %% [markdown]
# ## What the data never correct
#
# Take $\Lambda=\lambda I$. The correction in the formula is then a combination of the rows of $X$,
# hence orthogonal to the kernel:
#
# $$P_{\ker X}\,\phi_{\rm MAP} = P_{\ker X}\,\theta \qquad\text{for every } y .$$
#
# In the directions that the data do not see, the estimate *is* the prior mean, for ever. With
# correlations in $\Lambda$ this is no longer so: what is learned about one direction leaks into
# another.

# %%
project = kernel @ kernel.T
isotropic = map_estimate(theta, 0.5 * torch.eye(d))
assert torch.allclose(project @ isotropic, project @ theta, atol=1e-12)
assert (
    project @ (estimate - theta)
).norm() > 0.1  # the correlated prior leaks

# %% [markdown]
# ## Gradient descent is a prior in disguise
#
# Let the prior get weak, $\lambda\to0$. The estimate does not become arbitrary: it tends to the
# solution of $X\phi=y$ that is *nearest to* $\theta$, namely $\theta + X^+(y-X\theta)$ with the
# pseudo-inverse $X^+$. And plain gradient descent on $f$ alone, started at $\theta$, ends at the
# very same point if its steps are short enough to converge, since each of them is a combination of
# rows of $X$ too. Where one starts *is* a prior. The picture has $d=2$, $N=1$.

# %%
nearest = theta + torch.linalg.pinv(X) @ (y - X @ theta)
assert (map_estimate(theta, 1e-8 * torch.eye(d)) - nearest).norm() < 1e-6
rate = 1 / torch.linalg.matrix_norm(X.T @ X / s**2, 2).item()
assert (
    descend(f, theta, task_lr=rate, n_steps=3000)[-1] - nearest
).norm() < 1e-6

# %% tags=["hide-input"]
row, target, start = vector(1.0, 2.0), 2.0, vector(1.6, 1.4)


def plane_loss(phi):
    return 0.5 * (row @ phi - target) ** 2


def plane_map(weight):
    hessian = torch.outer(row, row) + weight
    return start + torch.linalg.solve(hessian, row * (target - row @ start))


figure, axis = plt.subplots(figsize=(9.4, 3.8))
line = torch.linspace(-1, 3, 2)
axis.plot(
    line,
    (target - line) / 2,
    color="black",
    label=r"all solutions of $X\phi=y$",
)
steps = descend(plane_loss, start, task_lr=0.06, n_steps=25)
axis.plot(
    *steps.T,
    "o-",
    color=BLUE,
    markersize=4,
    label=r"gradient descent from $\theta$",
)
tilted = torch.tensor([[1.0, -0.7], [-0.7, 1.0]])
for weight, colour, name in (
    (torch.eye(2), GREEN, r"$\Lambda=\lambda I$"),
    (tilted, ORANGE, r"correlated $\Lambda$"),
):
    track = torch.stack(
        [
            plane_map(weight * strength)
            for strength in torch.logspace(-3, 2, 60)
        ]
    )
    axis.plot(
        *track.T,
        color=colour,
        linewidth=2,
        label=rf"MAP, {name}, $\lambda$ from $10^2$ to $10^{{-3}}$",
    )
    values, vectors = torch.linalg.eigh(weight)
    angle = math.degrees(math.atan2(vectors[1, 0], vectors[0, 0]))
    width, height = (0.5 / values.sqrt()).tolist()
    axis.add_patch(
        Ellipse(
            start.tolist(),
            width,
            height,
            angle=angle,
            fill=False,
            color=colour,
            linestyle=":",
        )
    )
axis.plot(
    *start,
    "k*",
    markersize=12,
    label=r"$\theta$, with the shape of each prior",
)
axis.set(
    xlim=(-0.4, 2.6),
    ylim=(-0.1, 1.8),
    xlabel=r"$\phi_1$",
    ylabel=r"$\phi_2$",
    aspect="equal",
)
axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
plt.show()

# %% [markdown]
# Gradient descent and the isotropic prior approach the line at a right angle and meet it in the
# same point. The correlated prior meets it elsewhere: it expected the two numbers to move together.
#
# ## Learning the prior from other tasks
#
# Now the thirty numbers are coefficients of cosines, and each *task* is to recover a curve
# $a\sin(x-p)$ from four points, with another amplitude $a$ and phase $p$ every time. Here nobody
# tells us $\theta$ and $\Lambda$. But if we have seen 200 related tasks in full, their coefficients
# show what curves of this family look like: take their mean as $\theta$ and the inverse of their
# covariance as $\Lambda$.

# %%
frequencies = torch.arange(d // 2) * 0.3


def features(x):  # shape: (n,) -> (n, d)
    return torch.cat(
        [
            torch.cos(frequencies * x[:, None]),
            torch.sin(frequencies * x[:, None]),
        ],
        dim=1,
    )


tasks = SinusoidStream(seed=0, n_shot=N, n_query=60, dtype=torch.float64)


def coefficients(index):
    task = tasks(index)
    return (
        torch.linalg.pinv(features(task.query_x[:, 0]), rtol=1e-6)
        @ task.query_y[:, 0]
    )


seen = torch.stack([coefficients(index) for index in range(200)])
learned_mean = seen.mean(0)
learned_precision = torch.linalg.inv(torch.cov(seen.T) + 1e-6 * torch.eye(d))

# %% [markdown]
# The *standard* prior has $\theta=0$ and $\Lambda=I$; the *learned* one comes from the 200 tasks.

# %%
priors = {
    "standard": (torch.zeros(d), torch.eye(d)),
    "learned": (learned_mean, learned_precision),
}
errors = {name: [] for name in priors}
for index in range(1000, 1100):  # new tasks
    task = tasks(index)
    X, y = features(task.support_x[:, 0]), task.support_y[:, 0]
    for name, prior in priors.items():
        predicted = features(task.query_x[:, 0]) @ map_estimate(*prior)
        errors[name].append((predicted - task.query_y[:, 0]).square().mean())
for name, values in errors.items():
    error = torch.stack(values).mean()
    print(f"{name} prior: mean squared error on new tasks {error:.4f}")
naive, learned = (torch.stack(values).mean() for values in errors.values())
assert learned < naive / 20

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), sharey=True)
grid = torch.linspace(-5, 5, 300)
for axis, index in zip(axes, (1001, 1002, 1004), strict=True):
    task, (amplitude, phase) = tasks(index), tasks.wave(index)
    X, y = features(task.support_x[:, 0]), task.support_y[:, 0]
    axis.plot(
        grid,
        amplitude * torch.sin(grid - phase),
        color="black",
        linewidth=1,
        label="the task's curve",
    )
    for (name, prior), colour in zip(
        priors.items(), (ORANGE, BLUE), strict=True
    ):
        axis.plot(
            grid,
            features(grid) @ map_estimate(*prior),
            color=colour,
            linestyle="--",
            label=f"MAP, {name} prior",
        )
    axis.plot(task.support_x[:, 0], y, "ko", markersize=5)
    axis.set(title=f"new task {index}", xlabel="$x$")
axes[0].set_ylabel("$y$")
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="lower center", ncols=3
)
figure.subplots_adjust(bottom=0.28)
plt.show()

# %% [markdown]
# Four points and thirty unknowns are enough once the prior knows the family (which has only two
# degrees of freedom, amplitude and phase: the prior has discovered that). That is meta-learning in
# its simplest form: *learn from related tasks what to expect of the next one*. For a neural network
# there is no closed form, nobody has seen its "true" coefficients, and $\Lambda$ would have $d^2$
# entries with $d$ in the millions. What to do then is [the next page](02_bilevel.py).
