# %% [markdown]
# # A hyper-parameter by its implicit gradient
#
# How much should ridge regression be regularised? Differentiate the *validation* loss at the
# solution by the *strength* of the penalty: with $\phi^*(\theta)$ the minimiser of
# $f(\phi,\theta)=\frac1n\lVert X\phi-y\rVert^2+e^{\theta}\lVert\phi\rVert^2$, the implicit
# function theorem gives
#
# $$\frac{d}{d\theta}\,\ell(\phi^*(\theta))=-\nabla^2_{\theta\phi}f\,
# (\nabla^2_{\phi\phi}f)^{-1}\nabla\ell ,$$
#
# without a trace of how $\phi^*$ was found. The library's estimator `implicit` does that for any
# strongly convex task, by Hessian-vector products.

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %%
import matplotlib.pyplot as plt
import torch

from mdtheory import FunctionTask, Problem, geometry
from mdtheory.inner import estimators

torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(0)
d, n = 30, 40
truth = torch.randn(d, generator=generator) * (torch.arange(d) < 6)
X = torch.randn(2, n, d, generator=generator)
y = X @ truth + 1.5 * torch.randn(2, n, generator=generator)


def f(phi, theta):
    penalty = theta.exp().sum() * phi.square().sum()
    return (X[0] @ phi - y[0]).square().mean() + penalty


def validation(phi, theta):
    return (X[1] @ phi - y[1]).square().mean()


# %% [markdown]
# The task is two functions of the weights `phi` and the hyper-parameter `theta`; the problem says
# how it is solved: here by at most 3,000 gradient steps. The estimator returns the gradient by
# everything that is learned.

# %%
maml = geometry.MAML()
maml.build({"phi": torch.zeros(d)})
problem = Problem(geometry=maml, n_steps=3000, task_lr=0.2)
task = FunctionTask(f, validation, strongly_convex=True)
implicit = estimators.build("implicit")


def value_and_slope(theta):
    meta = {"anchor.phi": torch.zeros(d), "shared.theta": theta}
    found = implicit(problem, meta, [task])
    return found.value, found.grads["shared.theta"]


def ridge(theta):
    """The solution in closed form, to check with."""
    gram = X[0].T @ X[0] / n + theta.exp() * torch.eye(d)
    return torch.linalg.solve(gram, X[0].T @ y[0] / n)


theta = torch.tensor([-2.0])
value, slope = value_and_slope(theta)
ends = [validation(ridge(theta + h), None) for h in (1e-5, -1e-5)]
by_differences = (ends[0] - ends[1]) / 2e-5
print(f"implicit {slope.item():.8f}, differences {by_differences:.8f}")
assert abs(slope - by_differences) < 1e-6

# %% [markdown]
# Gradient descent on the hyper-parameter itself; the curve is the closed form on a grid.

# %%
theta, seen = torch.tensor([-4.0]), []
for _ in range(15):
    value, slope = value_and_slope(theta)
    seen.append((theta.item(), value.item()))
    theta = theta - 0.5 * slope
grid = torch.linspace(-7, 2, 100)[:, None]
curve = torch.stack([validation(ridge(one), None) for one in grid])
figure, axis = plt.subplots(figsize=(6.4, 3.6))
axis.plot(grid, curve, label="closed form")
axis.plot(*zip(*seen, strict=True), "o-", markersize=4, label="descent")
axis.set(xlabel=r"log strength  $\theta$", ylabel="validation loss")
axis.legend()
figure.tight_layout()
plt.show()
print(f"found {theta.item():.2f}, best {grid[curve.argmin()].item():.2f}")
assert seen[-1][1] < curve.min() * 1.01
