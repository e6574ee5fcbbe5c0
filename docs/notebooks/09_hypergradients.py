# %% [markdown]
# # Hypergradients: through the steps or around them
#
# The outer problem of [page 2](02_bilevel.py) needs the gradient of
# $F(\theta)=\ell(\phi^*(\theta),\theta)$, the *hypergradient*. The solver only delivers
# $\hat\phi=\phi^K$. There are two ways to get a gradient from it, and they make different errors.
# This page compares them: theorems first, then the price.
#
# Claims of the ledger: {claim}`C08a`, {claim}`C08b`, {claim}`C03`.

# %% tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt
import torch

from mdtheory import descend
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry.prior import Prior
from mdtheory.inner.estimators import estimators
from mdtheory.meta import MetaLearner
from proofs_check.tools import hypergradient
from proofs_check.tools.models import vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Two estimators
#
# Let $f(\cdot,\theta)$ be strongly convex, with minimiser $\phi^*(\theta)$. By the implicit
# function theorem (page 2)
#
# $$\nabla F=\nabla_\theta\ell-\bigl(\nabla^2_{\phi\theta}f\bigr)^{\!\top}
# \bigl(\nabla^2_{\phi\phi}f\bigr)^{-1}\nabla_\phi\ell
# \qquad\text{at }\phi^*(\theta).$$
#
# - **Implicit** (`implicit`): evaluate this formula at $\hat\phi$ instead of $\phi^*$; the inverse
#   by conjugate gradients. It forgets how $\hat\phi$ was found, so memory does not grow with $K$.
# - **Unrolled** (`unrolled`): $\phi^K$ is an ordinary function of $\theta$, a composition of $K$
#   steps. Differentiate *it* by the chain rule, backwards through all the steps
#   ({cite}`griewank2008evaluating`).
#
# As a test bed, a random problem with 3 unknowns of which every constant is known. As functions of
# $\phi$: $f$ is $\mu$-strongly convex and $L$-smooth, its second derivatives $\nabla^2_{\phi\phi}f$
# and $\nabla^2_{\phi\theta}f$ are Lipschitz with constants $\rho$ and $\tau$, the gradients
# $\nabla_\phi\ell$ and $\nabla_\theta\ell$ with constants $L_\ell$ and $L'$.

# %%
problem = hypergradient.random_bilevel(3)
functions = (problem.task, problem.query)
truth = hypergradient.implicit_gradient(
    *functions, problem.best, problem.theta
)


def F(theta):
    best = hypergradient.newton(lambda v: problem.task(v, theta), problem.best)
    return problem.query(best, theta)


for i in range(3):  # the formula against finite differences of F
    nudge = torch.zeros(3)
    nudge[i] = 1e-5
    slope = (F(nudge) - F(-nudge)) / 2e-5
    assert abs(slope - truth[i]) < 1e-7

# %% [markdown]
# ## How large are the errors?
#
# Write $e=\norm{\phi^K-\phi^*}$, $J\ge\norm{\nabla^2_{\phi\theta}f}$ and
# $M=\norm{\nabla_\phi\ell(\phi^*)}$. The implicit error is at most **linear in the distance**:
#
# $$\norm{\widehat{\nabla F}-\nabla F}\le
# \Bigl(L'+\frac{JL_\ell}\mu+\frac{M\tau}\mu+\frac{MJ\rho}{\mu^2}\Bigr)e ,$$
#
# one term for every place where $\phi$ enters the formula. The poster claims the same for
# differentiating through the solver. That is not so: the *derivative* of $\phi^K$ lags behind
# $\phi^K$ itself. For $\alpha\le1/L$, with $q=1-\alpha\mu$, $D=\norm{\phi^0-\phi^*}$ and $E_k$ the
# error $\norm{\partial_\theta\phi^k-\partial_\theta\phi^*}$ of the Jacobian,
#
# $$E_K\le q^KE_0+\alpha\Bigl(\frac{\rho J}\mu+\tau\Bigr)K\,q^{K-1}D,$$
#
# and the extra factor $K$ is real. The gradient's error is then at most
# $(L'+JL_\ell/\mu)\,e+(M+L_\ell e)E_K$. Both bounds hold, step by step:

# %%
alpha, start = 1 / problem.big_l, problem.best + vector(1.0, -1.0, 0.5)
D = (start - problem.best).norm().item()
task = lambda v: problem.task(v, problem.theta)
exact_jacobian = torch.linalg.norm(
    torch.linalg.solve(
        torch.func.hessian(task)(problem.best),
        torch.func.jacfwd(torch.func.grad(problem.task), 1)(
            problem.best, problem.theta
        ),
    ),
    2,
).item()  # the norm of d phi* / d theta; the start does not depend on theta

counts = (1, 2, 5, 10, 20, 40, 80, 160)
names = ("implicit", "unrolled", "first_order")
errors = {name: [] for name in names}
bounds = {"implicit": [], "unrolled": []}
for K in counts:
    reached = descend(task, start, task_lr=alpha, n_steps=K)[-1]
    e = (reached - problem.best).norm().item()
    found = hypergradient.implicit_gradient(*functions, reached, problem.theta)
    errors["implicit"].append((found - truth).norm().item())
    bounds["implicit"].append(hypergradient.implicit_bound(problem, e))
    for name in ("unrolled", "first_order"):
        found, _ = hypergradient.unrolled_gradients(
            *functions, start, problem.theta,
            alpha=alpha, n_steps=K, estimator=name,
        )  # fmt: skip
        errors[name].append((found - truth).norm().item())
    E = hypergradient.jacobian_bound(
        problem, alpha=alpha, n_steps=K, distance=D, start=exact_jacobian
    )
    bounds["unrolled"].append(
        hypergradient.unrolled_bound(problem, e=e, jacobian=E)
    )
for name, limits in bounds.items():
    for error, limit in zip(errors[name], limits, strict=True):
        assert error <= limit + 1e-12
assert errors["unrolled"][-1] < 1e-3 * errors["unrolled"][0]
assert errors["first_order"][-1] > 0.05  # does not converge to it

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(9.4, 3.8))
for name, colour, mark in zip(
    names, (BLUE, ORANGE, GREEN), "osv", strict=True
):
    axis.plot(
        counts,
        [max(error, 1e-16) for error in errors[name]],
        marker=mark,
        color=colour,
        label=name.replace("_", " "),
    )
    if name in bounds:
        axis.plot(
            counts, bounds[name], ":", color=colour, label=f"bound, {name}"
        )
axis.set(
    xscale="log",
    yscale="log",
    xlabel="solver steps $K$",
    ylabel="error of the hypergradient",
    ylim=(1e-7, 1e3),
)
axis.legend(fontsize=8, loc="lower left", ncols=2)
plt.show()

# %% [markdown]
# The green line is `first_order`, which treats every inner gradient as a constant. It is cheap and
# does not tend to the hypergradient at all; with a learned *start* it may still be useful, as a
# heuristic.
#
# ## When $\theta$ is the start
#
# For MAML the distance says nothing about the gradient. Take $f=\frac12(0.1\,\phi_1^2+\phi_2^2)$,
# $\alpha=1$, the start $\theta=(0,2)$ and $\ell(\phi)=\phi_1+\phi_2$. After one step $\hat\phi=0$
# is *exactly* the minimiser, distance zero; yet the meta-gradient is $(0.9^K,0)$, while the
# minimiser does not depend on $\theta$ at all.


# %%
def bowl(phi):
    return (0.1 * phi[0] ** 2 + phi[1] ** 2) / 2


for K in (1, 5, 20):
    start = vector(0.0, 2.0)
    assert descend(bowl, start, task_lr=1.0, n_steps=K)[-1].norm() == 0
    _, gradient = hypergradient.unrolled_gradients(
        lambda phi, theta: bowl(phi), lambda phi, theta: phi.sum(),
        start, vector(0.0), alpha=1.0, n_steps=K,
    )  # fmt: skip
    assert torch.allclose(gradient, vector(0.9**K, 0.0))

# %% [markdown]
# ## Accuracy against cost
#
# Now a problem as in practice: classify three classes from 20 features and 15 examples, with a
# learned prior (mean and precision for every weight). Count a gradient as one unit and a product
# with the Hessian as two. Unrolling costs $3K$: $K$ gradients forward, $K$ products back. The
# implicit way costs $K+2(c+1)$ with $c$ iterations of conjugate gradients, and *both* numbers must
# be chosen. Too few conjugate gradients waste an accurate $\hat\phi$, and the other way round.

# %%
random = generator("frontier")
scales = torch.logspace(0, -1.5, 20)  # features of different sizes
means = torch.randn(3, 20, generator=random)


def examples(per_class):
    labels = torch.arange(3).repeat_interleave(per_class)
    noise = torch.randn(3 * per_class, 20, generator=random)
    return scales * (means[labels] + noise), labels


episode = Episode(*examples(5), *examples(20))


def learner(estimator, n_steps):
    model = torch.nn.Linear(20, 3)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    how = {"n_steps": n_steps, "task_lr": 1.0, "estimator": estimator}
    return MetaLearner(model, Prior(precision=0.02), **how)


def hypergradient_of(estimator, n_steps):
    grads = learner(estimator, n_steps).meta_gradient([episode]).grads
    return torch.cat([value.flatten() for value in grads.values()])


Implicit = estimators.get("implicit")
exact = hypergradient_of(Implicit(tolerance=1e-13, cg_tolerance=1e-14), 3000)
frontier = {}
for K in (1, 2, 4, 8, 16, 32, 64, 128):
    found = hypergradient_of(estimators.get("unrolled")(), K)
    error = ((found - exact).norm() / exact.norm()).item()
    frontier.setdefault("unrolled", []).append((3 * K, error))
    for c in (2, 8, 32):
        found = hypergradient_of(Implicit(cg_steps=c), K)
        error = ((found - exact).norm() / exact.norm()).item()
        series = frontier.setdefault(f"implicit, {c} conjugate gradients", [])
        series.append((K + 2 * (c + 1), error))

final = {name: points[-1][1] for name, points in frontier.items()}
assert final["implicit, 32 conjugate gradients"] < 0.05
assert final["implicit, 2 conjugate gradients"] > 0.1  # a floor

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(9.4, 4))
for (name, points), colour, mark in zip(
    frontier.items(), (ORANGE, "#9ecae1", "#4292c6", BLUE), "sov^", strict=True
):
    axis.plot(
        *zip(*points, strict=True),
        marker=mark,
        color=colour,
        markersize=5,
        linewidth=1,
        label=name,
    )
cloud = sorted(point for points in frontier.values() for point in points)
best, low = [], float("inf")
for price, error in cloud:
    if error < low:
        low = error
        best.append((price, error))
axis.step(
    *zip(*best, strict=True),
    where="post",
    color="black",
    linewidth=1,
    linestyle=":",
    label="frontier",
)
axis.set(
    xscale="log",
    yscale="log",
    xlabel="cost in gradients",
    ylabel="relative error of the hypergradient",
)
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# Reading the picture from left to right: for a rough gradient, differentiate through a handful of
# steps, or be content with a few conjugate gradients; for a precise one, iterate both. The dotted
# line is the *frontier*: nothing measured here is better at the same cost. Three more things to
# know before choosing:
#
# - **memory**: unrolling stores all $K$ steps (the estimator `stepwise` gives the same gradient and
#   stores only the $K$ states), the implicit way stores one;
# - **what is asked**: with a learned geometry the path matters, and the implicit formula does not
#   see it: its gradient by a step size is zero. The library refuses to compute it;
# - **complexity**: "grows linearly with $K$" is true of one meta-step, as measured below. To reach
#   error $\varepsilon$ one needs $K=\Theta(\kappa\log\frac1\varepsilon)$ steps with condition
#   number $\kappa=L/\mu$ in the worst case. A good geometry makes $\kappa$ small, and this is where
#   it pays.

# %%
try:
    metasgd = MetaLearner(
        torch.nn.Linear(20, 3), "metasgd", estimator="implicit"
    )
    metasgd.meta_gradient([episode])
except ValueError as refusal:
    print(textwrap.fill(str(refusal), 79))
else:
    raise AssertionError("must be refused")

# %% [markdown]
# It refuses, with the reason. [Next](10_cost.py): what does one more task step cost, and what do
# wrong gradients cost the outer loop?
