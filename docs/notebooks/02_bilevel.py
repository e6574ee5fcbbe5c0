# %% [markdown]
# # From a prior to two nested problems
#
# [The last page](01_regression.py) ended with a prior that was read off from tasks whose true
# coefficients were known. Here the prior is *learned*, from tasks of which only a few data are
# known. That turns one minimisation into two, one inside the other.
#
# Claims of the ledger: {claim}`C01`, {claim}`C03`, {claim}`C09`.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from torch.distributions import MultivariateNormal
from torch.nn.functional import mse_loss

from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode
from mdtheory.data.synthetic import LeastSquaresStream, best_start, quadratic
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry.prior import Prior
from mdtheory.inner.estimators import estimators
from mdtheory.meta import MetaLearner

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Loss plus regulariser is Bayes' rule
#
# Let $p(y\mid\phi)$ be the likelihood of a task's data and $p(\phi)$ a prior density. Bayes' rule
# says $p(\phi\mid y) = p(y\mid\phi)\,p(\phi)/p(y)$, and $p(y)$ does not depend on $\phi$, so
#
# $$-\log p(\phi\mid y) = \underbrace{-\log p(y\mid\phi)}_{\text{loss } f(\phi)}
# + \underbrace{-\log p(\phi)}_{\text{regulariser } R(\phi)} + \text{constant}.$$
#
# A Gaussian example, with the posterior in closed form, shows the constant staying constant:

# %%
X = torch.tensor([[1.0, 2.0]])
prior = MultivariateNormal(torch.tensor([0.5, -1.0]), torch.eye(2))
seen = torch.tensor([1.5])
gain = X.T / (X @ X.T + 1.0)  # noise variance 1
mean = prior.mean + gain @ (seen - X @ prior.mean)
posterior = MultivariateNormal(mean, torch.eye(2) - gain @ X)
constants, random = [], generator("bayes")
for _ in range(5):
    phi = torch.randn(2, generator=random)
    loss = -MultivariateNormal(X @ phi, torch.eye(1)).log_prob(seen)
    regulariser = -prior.log_prob(phi)
    constants.append(-posterior.log_prob(phi) - loss - regulariser)
assert torch.stack(constants).std() < 1e-12

# %% [markdown]
# ## The outer problem
#
# Now there are many tasks $t=1,\dots,T$. Each has a small training set (here: *support set*), which
# gives a loss $f_t$, and further data (*query set*), which give a loss $\ell_t$. The prior has
# parameters $\theta$ that all tasks share. A good $\theta$ is one with which the tasks, each solved
# from its support set alone, predict their query sets well:
#
# $$\min_\theta\; F(\theta) = \frac1T\sum_{t=1}^T \ell_t\bigl(\phi_t^*(\theta)\bigr)
# \qquad\text{where}\quad \phi_t^*(\theta) = \arg\min_\phi\; f_t(\phi) + R(\phi;\theta).$$
#
# This is a *bilevel* problem: every value of the outer objective needs the solution of the inner
# ones. (With $\ell_t=f_t$ it would be pointless: nothing would reward a $\theta$ that generalises.)
#
# Our tasks are linear regressions with 8 unknowns and 4 data each. Their true coefficients scatter
# around a centre that nobody is told.

# %%
centre = torch.linspace(-2, 2, 8)[:, None]
stream = LeastSquaresStream(seed=1, n_features=8, n_support=4, n_query=8)


def episode(index):
    given = stream(index)
    support_y = given.support_y + given.support_x @ centre
    query_y = given.query_y + given.query_x @ centre
    return Episode(given.support_x, support_y, given.query_x, query_y)


def learner(geometry, **options):
    model = torch.nn.Linear(8, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return MetaLearner(model, geometry, loss=mse_loss, **options)


# %% [markdown]
# ## How the inner solution moves with the prior
#
# To descend $F$ we need $\partial\phi^*/\partial\theta$, although $\phi^*$ is only defined
# implicitly. Take the Gaussian prior $R=\frac12\norm{\phi-\theta}_\Lambda^2$. The solution is where
# the gradient vanishes,
#
# $$\nabla f(\phi^*) + \Lambda(\phi^*-\theta) = 0 .$$
#
# Move $\theta$ by $d\theta$; then $\phi^*$ moves by some $d\phi$ such that this stays zero. With
# the Hessian $H=\nabla^2f(\phi^*)$:
#
# $$H\,d\phi + \Lambda(d\phi - d\theta) = 0
# \qquad\Longrightarrow\qquad
# \frac{\partial\phi^*}{\partial\theta} = (H+\Lambda)^{-1}\Lambda .$$
#
# That is the implicit function theorem, and the chain rule does the rest: $\nabla F =
# \Lambda(H+\Lambda)^{-1}\nabla\ell(\phi^*)$. The library's estimator `implicit` computes it with
# conjugate gradients, without ever forming a matrix.

# %%
task, strength = episode(0), 0.5
support = quadratic(task.support_x, task.support_y)
query = quadratic(task.query_x, task.query_y)
theta = torch.zeros(8)


def solution(theta):
    regularised = support.hessian + strength * torch.eye(8)
    return torch.linalg.solve(regularised, support.linear + strength * theta)


jacobian = torch.func.jacfwd(solution)(theta)
assert torch.allclose(
    jacobian,
    torch.linalg.inv(support.hessian + strength * torch.eye(8)) * strength,
)

by_formula = jacobian.T @ query.gradient(solution(theta))
many_steps = {"n_steps": 400, "task_lr": 0.1, "estimator": "implicit"}
solver = learner(Prior(precision=strength), **many_steps)
by_library = solver.meta_gradient([task]).grads["anchor.weight"][0]
assert (by_library - by_formula).norm() < 1e-6 * by_formula.norm()

# %% [markdown]
# The order of the factors matters where $\Lambda$ is not a multiple of $I$; and the derivative
# exists only where the inner problem has *one* solution that moves smoothly. If the inner problem
# had several minimisers, $F(\theta)$ would not even be defined without saying which of them is
# meant.
#
# ## Learning the centre and the precision
#
# `Prior` has the anchor $\theta$ and one logarithm of a precision per coordinate. Descend $F$ with
# an ordinary optimiser, eight tasks at a time. (25 inner steps are nearly the exact solution here,
# so we may as well differentiate through them, all tasks at once; [page 9](09_hypergradients.py)
# compares the two ways.)

# %%
unrolled = estimators.get("unrolled")(batched=True)
options = {"n_steps": 25, "task_lr": 0.08, "estimator": unrolled}
solver = learner(Prior(precision=strength), **options)
optimiser = torch.optim.Adam(solver.parameters(), lr=0.1)
values = []
for iteration in range(80):
    optimiser.zero_grad()
    batch = [episode(8 * iteration + i) for i in range(8)]
    values.append(solver.backward(batch).value)
    optimiser.step()

learned = solver.meta()["anchor.weight"].detach()[0]
new_tasks = [episode(index) for index in range(5000, 5100)]


def query_loss(theta, tasks):
    total = 0.0
    for task in tasks:
        support = quadratic(task.support_x, task.support_y)
        hessian = support.hessian + strength * torch.eye(8)
        phi = torch.linalg.solve(hessian, support.linear + strength * theta)
        total += quadratic(task.query_x, task.query_y).value(phi).item()
    return total / len(tasks)


uninformed = query_loss(torch.zeros(8), new_tasks)
ideal = query_loss(centre[:, 0], new_tasks)
found = query_loss(learned, new_tasks)
for name, value in (
    ("theta = 0", uninformed),
    ("learned", found),
    ("the true centre", ideal),
):
    print(f"{name:16s} {value:.2f}")
assert ideal < found < 1.1 * ideal < uninformed / 2
assert (learned - centre[:, 0]).norm() < 0.3 * centre.norm()

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(values, color=BLUE, label="mini-batches of 8 tasks")
left.axhline(uninformed, color="gray", linestyle=":", label=r"$\theta=0$")
left.axhline(ideal, color="black", linestyle="--", label="the true centre")
left.set(
    xlabel="outer iteration", ylabel=r"query loss $F(\theta)$", ylim=(0, None)
)
left.legend()
places = torch.arange(8)
right.bar(places - 0.2, centre[:, 0], 0.4, color="black", label="true centre")
right.bar(places + 0.2, learned, 0.4, color=BLUE, label=r"learned $\theta$")
right.set(xlabel="coordinate", xticks=places)
right.legend()
plt.show()

# %% [markdown]
# The mini-batch is a *mean* over tasks, drawn afresh each time: an unbiased estimate of the
# gradient of the average loss. (The poster writes the objective as a sum; the factor $T$ then
# belongs into the step size.)
#
# ## The other form: no regulariser, few steps
#
# MAML ({cite}`finn2017maml`) drops $R$ and keeps only a start: run $K$ gradient steps on $f_t$ from
# $\theta$ and call the result $\hat\phi_t(\theta)$,
#
# $$\phi^0=\theta,\qquad \phi^{k}=\phi^{k-1}-\alpha\nabla f_t(\phi^{k-1}),
# \qquad \hat\phi_t=\phi^K .$$
#
# It is tempting to read this as "approximately $\arg\min_\phi f_t$". But that minimiser *contains
# no $\theta$*. For a quadratic with Hessian $H$,
#
# $$\frac{\partial\phi^K}{\partial\theta} = (I-\alpha H)^K ,$$
#
# and if all curvatures lie between $\mu>0$ and $1/\alpha$, then the meta-gradient is at most
# $(1-\alpha\mu)^K\norm{\nabla\ell}$: the better the inner problem is solved, the less there is to
# learn. MAML works *because* $K$ is small, or because $f_t$ has flat directions, in which
# $I-\alpha H$ is the identity for ever, or several valleys, between which the start chooses.

# %%
rate, counts = 0.1, (0, 1, 2, 5, 10, 20, 40, 80, 160)
norms = {}
for name, n_support in (("strongly convex", 16), ("4 data, 8 unknowns", 4)):
    task = LeastSquaresStream(seed=2, n_features=8, n_support=n_support)(0)
    support = quadratic(task.support_x, task.support_y)
    query = quadratic(task.query_x, task.query_y)
    norms[name] = []
    for n_steps in counts:
        maml = learner("maml", n_steps=n_steps, task_lr=rate)
        gradient = maml.meta_gradient([task]).grads["anchor.weight"][0]
        phi = torch.zeros(8)
        for _ in range(n_steps):
            phi = phi - rate * support.gradient(phi)
        power = torch.matrix_power(
            torch.eye(8) - rate * support.hessian, n_steps
        )
        assert torch.allclose(gradient, power @ query.gradient(phi))
        norms[name].append(gradient.norm().item())
    if n_support == 16:
        low = torch.linalg.eigvalsh(support.hessian)[0].item()
        end = query.gradient(support.optimum()).norm().item()
        limit = [(1 - rate * low) ** k for k in counts]
assert norms["strongly convex"][-1] < 1e-3 * norms["strongly convex"][0]
assert norms["4 data, 8 unknowns"][-1] > 0.1 * norms["4 data, 8 unknowns"][0]

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(9.4, 3.4))
for (name, series), colour, mark in zip(
    norms.items(), (BLUE, ORANGE), "os", strict=True
):
    axis.plot(counts, series, marker=mark, color=colour, label=name)
axis.plot(
    counts,
    [end * x for x in limit],
    color=BLUE,
    linestyle=":",
    label=r"$(1-\alpha\mu)^K\|\nabla\ell(\phi^*)\|$",
)
axis.set(
    xlabel="inner steps $K$",
    ylabel=r"$\|\nabla_\theta\,\ell(\hat\phi(\theta))\|$",
    yscale="log",
)
axis.legend()
plt.show()

# %% [markdown]
# For least-squares tasks the best start has a closed form, and a learner that descends the MAML
# objective finds it:

# %%
tasks = [episode(index) for index in range(16)]
maml = learner("maml", n_steps=3, task_lr=rate)
best = best_start(tasks, torch.tensor(rate), n_steps=3)
optimiser = torch.optim.LBFGS(maml.parameters(), line_search_fn="strong_wolfe")


def closure():
    optimiser.zero_grad()
    return maml.backward(tasks).value


optimiser.step(closure)
assert (maml.meta()["anchor.weight"].detach()[0] - best).norm() < 1e-4

# %% [markdown]
# | | explicit prior | few steps from a start |
# |---|---|---|
# | inner problem | $\arg\min f_t+R(\cdot;\theta)$ | $K$ steps on $f_t$ from $\theta$ |
# | what $\theta$ is | mean and precision of a prior | a start (and, later, a geometry) |
# | its gradient | implicit function theorem | differentiate through the steps |
# | as $K\to\infty$ | gets exact | forgets $\theta$, unless $f_t$ is flat somewhere |
#
# The two are closer than they look: few steps *are* a prior. [Page 7](07_implicit_prior.py) shows
# which. Before that: what does a gradient step assume about the loss, and can that be learned as
# well? [Next page](03_surrogates.py).
