# %% [markdown]
# # BlockIAF: what is true of it, and what is not
#
# Mirror descent needs the inverse mirror $\nabla h^*$: a map that is the gradient of a convex
# function, hence monotone. The poster ({cite}`zhang2024metamida`) proposes a network in its place,
# *BlockIAF*, and says in a lemma: "for any partition, $g$ is increasing and Lipschitz continuous".
# This page tests the sentence, finds what can be saved, and shows what goes wrong where it cannot.
#
# Claims of the ledger: {claim}`C24b`, {claim}`C25`, {claim}`C26`, {claim}`C27`, {claim}`C28`,
# {claim}`C29`; theorems {claim}`T1`, {claim}`T2`, {claim}`T3`, {claim}`T5`, {claim}`T7`.

# %% tags=["hide-input"]
import itertools

import matplotlib.pyplot as plt
import torch

from mdtheory import descend
from mdtheory.core.seeding import generator
from mdtheory.figures.plots import COLOURS, STYLE
from mdtheory.geometry import Geometry
from mdtheory.geometry.metasgd import MetaSGD
from mdtheory.maps import DualMap
from mdtheory.maps.iaf.mlp import MLPIAF
from proofs_check.tools.models import dual, point, vector

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The construction
#
# Split the $d$ coordinates into blocks $z_1,\dots,z_B$. Block $i$ is scaled and shifted, and *how
# much* is decided by networks that look only at earlier blocks:
#
# $$g_i(z) = s_i(z_{<i})\odot z_i + \mu_i(z_{<i}),\qquad s_i>0,\qquad s_1,\mu_1\text{ constant}.$$
#
# Our specimen has 12 coordinates in 3 blocks, scales between 0 and 2, and random weights. Its
# Jacobian is drawn below: a diagonal of scales, zeros above, anything below.


# %%
def specimen(seed=0, *, blocks=3, size=4):
    d = blocks * size
    partition = [list(range(i, i + size)) for i in range(0, d, size)]
    map = MLPIAF(partition, hidden=16)
    map.build({"phi": torch.zeros(d)})
    random = generator("specimen", seed)
    for parameter in map.requires_grad_(False).parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=random)
    return map


def jacobian(map, z):
    return torch.func.jacfwd(lambda z: point(map, z))(z)


iaf = specimen()
z = torch.randn(12, generator=generator("z"))
J = jacobian(iaf, z)

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
pictures = {
    "$J_g$ (log scale)": J.abs().clamp(min=1e-3).log10(),
    r"asymmetry $|J-J^\top|$": (J - J.T).abs().clamp(min=1e-3).log10(),
}
for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
    axis.imshow(picture, cmap="Blues", vmin=-3, vmax=1.2)
    axis.set(
        title=name,
        xticks=[3.5, 7.5],
        yticks=[3.5, 7.5],
        xticklabels=[],
        yticklabels=[],
    )
axes[2].plot(
    torch.linalg.eigvalsh((J + J.T) / 2),
    "o",
    color=ORANGE,
    label=r"$\frac{1}{2}(J+J^\top)$",
)
axes[2].plot(
    torch.diagonal(J).sort().values,
    "s",
    color=BLUE,
    markersize=4,
    label="$J$ itself (its diagonal)",
)
axes[2].axhline(0, color="black", linewidth=0.8)
axes[2].set(title="eigenvalues, sorted", xlabel="index")
axes[2].legend(fontsize=8)
plt.show()

# %% [markdown]
# ## What is true (T1)
#
# Whatever the networks compute:
#
# - $g$ is a bijection of $\R^d$. To invert it, solve for $z_1$, then for $z_2$ with $z_1$ known,
#   and so on;
# - $\log|\det J_g|=\sum\log s_i$, the sum of the logarithms on the diagonal;
# - at the first block in which $z$ and $z'$ differ, coordinates keep their order; and all principal
#   minors of $J_g$ are positive.

# %%
phi = point(iaf, z)
assert torch.allclose(dual(iaf, phi), z)
log_det = iaf.log_abs_det(iaf.own(), {"phi": z})
assert torch.allclose(log_det, torch.linalg.slogdet(J).logabsdet)

small = jacobian(specimen(size=2), z[:6])
for n in range(1, 7):
    for rows in itertools.combinations(range(6), n):
        assert torch.linalg.det(small[list(rows)][:, list(rows)]) > 0

# %% [markdown]
# ## What is false (T2)
#
# For mirror descent, "increasing" must mean *monotone*: $\langle g(z')-g(z),\,z'-z\rangle\ge0$ for
# all $z,z'$. That is *not* implied by the positive diagonal; the picture on the right above already
# shows negative eigenvalues of the symmetric part. Even a map without any shift fails:
#
# $$g(z)=\bigl(\tfrac12z_1,\; z_2\,\mathrm{sigmoid}(z_1)\bigr).$$
#
# For $z_2>0$, when $z_1$ grows, the second component of $g$ grows too, and the more the larger
# $z_2$ is. For large $z_2$ that outweighs a step *down* in $z_2$ itself: the point moves up while
# $z_2$ moves down. Exactly: with $p=\mathrm{sigmoid}(z_1)$, the symmetric part of the Jacobian is
# non-negative iff $z_2^2\,p(1-p)^2\le2$, and the narrowest place, $z_1=-\log2$, gives
#
# > $g$ is monotone on the strip $|z_2|\le R$ if and only if $R\le3\sqrt{3/2}=3.674\dots$


# %%
def gated(z):
    return torch.stack([z[0] / 2, z[1] * torch.sigmoid(z[0])])


def lowest(z):  # smallest eigenvalue of the symmetric part
    J = torch.func.jacfwd(gated)(z)
    return torch.linalg.eigvalsh((J + J.T) / 2)[0]


R, narrow = 3 * 1.5**0.5, -torch.log(torch.tensor(2.0))
assert abs(lowest(torch.stack([narrow, torch.tensor(R)]))) < 1e-12
assert lowest(torch.stack([narrow, torch.tensor(1.01 * R)])) < 0
assert lowest(torch.stack([narrow, torch.tensor(0.99 * R)])) > 0

# %% [markdown]
# It is no accident of this example. Take *any* BlockIAF in which some scale is not constant,
# $s_c(a')\ne s_c(a)$ for two settings $a,a'$ of the earlier blocks. Compare $z=(a,\,t\,e_c,\,0)$
# with $z'=(a',\,(t+\tau)e_c,\,0)$. Only two groups of coordinates contribute:
#
# $$\langle g(z')-g(z),z'-z\rangle = C + \tau\,t\,\bigl(s_c(a')-s_c(a)\bigr),$$
#
# with $C$ independent of $t$. For $\tau\ne0$ a straight line in $t$ takes every value, also $-1$
# and $-10^6$. Likewise $g_c(z')-g_c(z)$ for $\tau=0$ is a straight line in $t$, while the distance
# $\norm{z'-z}=\norm{a'-a}$ is *fixed*: $g$ is not Lipschitz either. No bound on the scales helps.

# %%
a = torch.randn(8, generator=generator("a"))
other = a + 0.5 * torch.randn(8, generator=generator("b"))


def scales_at(earlier):
    return torch.diagonal(jacobian(iaf, torch.cat([earlier, torch.zeros(4)])))


delta = (scales_at(other) - scales_at(a))[8:]
c = 8 + delta.abs().argmax().item()  # a coordinate whose scale moves
tau = 1.0


def pair(t, tau):
    z, moved = torch.zeros(12), torch.zeros(12)
    z[:8], moved[:8] = a, other
    z[c], moved[c] = t, t + tau
    return z, moved


def product(z, moved):
    return (point(iaf, moved) - point(iaf, z)) @ (moved - z)


def slope(z, moved):
    return (point(iaf, moved) - point(iaf, z)).norm() / (moved - z).norm()


ts = torch.linspace(-400, 400, 41)
products = torch.stack([product(*pair(t, tau)) for t in ts])
slopes = torch.stack([slope(*pair(t, 0.0)) for t in ts])
steps = products.diff()
assert torch.allclose(steps, steps[0].expand(40))  # a straight line
assert products.min() < -10  # not monotone
assert slope(*pair(1e6, 0.0)) > 1e4  # not Lipschitz

# two independent random points see hardly anything of this
random = generator("undirected")
blind = [product(*torch.randn(2, 12, generator=random)) for _ in range(300)]
print(
    f"random pairs with a negative product: {sum(b < 0 for b in blind)} of 300"
)

# %% tags=["hide-input"]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 3))
xs, ys = torch.linspace(-5, 5, 200), torch.linspace(-8, 8, 200)
p = torch.sigmoid(xs)
width = (2 / (p * (1 - p) ** 2)).sqrt()
left.fill_between(
    xs,
    -width.clamp(max=8),
    width.clamp(max=8),
    color=GREEN,
    alpha=0.25,
    label=r"$J+J^\top\succeq0$",
)
left.axhspan(-R, R, color=BLUE, alpha=0.2, label=r"$|z_2|\leq3.67$")
left.plot([narrow, narrow], [-R, R], "ko", markersize=4)
left.set(
    title="the gated example", xlabel="$z_1$", ylabel="$z_2$", ylim=(-8, 8)
)
left.legend(fontsize=8, loc="lower right")
middle.plot(ts, products, color=ORANGE)
middle.axhline(0, color="black", linewidth=0.8)
middle.set(title=r"$\langle g(z')-g(z),z'-z\rangle$", xlabel="$t$")
right.plot(ts, slopes, color=ORANGE)
right.set(title=r"$\|g(z')-g(z)\|\,/\,\|z'-z\|$", xlabel="$t$", ylim=(0, None))
plt.show()

# %% [markdown]
# Left, the exact region of the example; middle and right, the specimen along the directed pairs.
# The count is worth a thought: two random points hardly ever show the fault, so a test that draws a
# few of them reports the lemma as "confirmed".
#
# ## And if it were monotone?
#
# Suppose the lemma held for some $g$: increasing *and* Lipschitz. Would it be an inverse mirror
# map? In one dimension, yes. From two on, no: the quarter turn $g(z)=(-z_2,z_1)$ has $\langle
# g(z')-g(z),z'-z\rangle=0$ always and keeps all lengths. But if $g$ is the gradient of a convex
# $h^*$, then $\langle g(z_i),z_{i+1}-z_i\rangle\le h^*(z_{i+1})-h^*(z_i)$, and around any closed
# polygon the right-hand sides add up to zero:
#
# $$\sum_i\langle g(z_i),\,z_{i+1}-z_i\rangle\le0 .$$
#
# Around an equilateral triangle the quarter turn gets $\frac32\sqrt3>0$. (A map with this property
# around *all* polygons is called cyclically monotone; of the continuous maps those, and only those,
# are gradients of convex functions.)

# %%
turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
angles = torch.arange(3) * 2 * torch.pi / 3
corners = torch.stack([angles.cos(), angles.sin()], 1)
sides = corners.roll(-1, 0) - corners
assert abs(((corners @ turn.T) * sides).sum() - 1.5 * 3**0.5) < 1e-12
assert (turn + turn.T == 0).all()  # monotone, with equality
mirrored = torch.tensor([[2.0, 1.0], [1.0, 1.0]])  # a true mirror map
assert ((corners @ mirrored.T) * sides).sum() < 0

# %% [markdown]
# ## When is it a mirror map? (T3)
#
# A continuously differentiable $g$ is a gradient only if its Jacobian is symmetric. A matrix that
# is both symmetric and block-triangular is block-diagonal; so no block may depend on another one.
# (The theorem asks of scales and shifts only that they are continuous, and so holds for ReLU
# networks, too.)
#
# > BlockIAF is the gradient of a potential if and only if all scales and shifts are **constant**.
# > The dual iteration is then $\phi^k=\phi^{k-1}-\alpha\,\mathrm{diag}(s)\,\nabla f(\phi^{k-1})$,
# > which is exactly **Meta-SGD**.

# %%
constant = specimen(seed=1)
for block in (2, 3):  # decoders that ignore their input
    constant.get_parameter(f"decoders.{block}.1.weight").zero_()
scales = torch.diagonal(jacobian(constant, z))
assert torch.equal(jacobian(constant, z), torch.diag(scales))


def f(phi):
    return torch.logsumexp(phi, 0) + (phi - 1).square().sum() / 8


metasgd = MetaSGD()
metasgd.build({"phi": z})
metasgd.requires_grad_(False).get_parameter("rule.scale.phi").copy_(
    scales.log()
)
how = {"task_lr": 0.3, "n_steps": 20}
one = descend(f, z, **how, geometry=Geometry(map=constant))
two = descend(f, point(constant, z), **how, geometry=metasgd)
assert torch.allclose(one, two, atol=1e-12)

# with live conditioners it is something else
three = descend(
    f, dual(iaf, point(constant, z)), **how, geometry=Geometry(map=iaf)
)
assert (three[-1] - two[-1]).norm() > 0.1

# %% [markdown]
# So BlockIAF is a mirror map exactly when it is no more than a method in the poster's own table.
# What it gains beyond that cannot be credited to an exact Bregman geometry. What then is its step?
# To first order, $\phi^+\approx\phi-\alpha J_g(z)\nabla f(\phi)$: gradient descent with a
# *non-symmetric* preconditioner that changes from place to place.
#
# ## How it can fail (T7)
#
# A non-symmetric preconditioner can turn a gradient so far that the step goes uphill. Two
# coordinates, constant scales $\frac12$, and the shift $\mu_2=4z_1$ are enough:
#
# $$g(z)=\begin{pmatrix}\tfrac12&0\\4&\tfrac12\end{pmatrix}z,\qquad
# f(\phi)=\tfrac12\,\phi^\top\!\begin{pmatrix}1&-\tfrac12\\-\tfrac12&1\end{pmatrix}\phi .$$
#
# Here $\phi^k=(I-\alpha JA)\phi^{k-1}$ with $\mathrm{spec}(JA)=\{-\frac14,-\frac34\}$: every
# component grows, by the factors $1+\frac\alpha4$ and $1+\frac{3\alpha}4$, **for every step size**
# $\alpha>0$. Gradient descent on the same loss converges for all $\alpha<\frac43$.


# %%
class Coupled(DualMap):
    """phi_1 = z_1 / 2, phi_2 = z_2 / 2 + 4 z_1: two blocks of one number."""

    matrix = torch.tensor([[0.5, 0.0], [4.0, 0.5]])

    def point(self, meta, z):
        return {"phi": self.matrix @ z["phi"]}

    def inverse(self, meta, phi):
        return {"phi": torch.linalg.solve(self.matrix, phi["phi"])}


A = torch.tensor([[1.0, -0.5], [-0.5, 1.0]])
spectrum = torch.linalg.eigvals(Coupled.matrix @ A).real.sort().values
assert torch.allclose(spectrum, vector(-0.75, -0.25))

start = torch.linalg.solve(Coupled.matrix, vector(1.0, 1.5))
for alpha in (0.001, 0.03, 1.0):
    how = {
        "task_lr": alpha,
        "n_steps": 30,
        "geometry": Geometry(map=Coupled()),
    }
    points = descend(lambda phi: phi @ A @ phi / 2, start, **how)
    for left, growth in ((vector(-5, 1), 1 / 4), (vector(-3, 1), 3 / 4)):
        component = points @ left  # along a left eigenvector of JA
        exact = component[0] * (1 + alpha * growth) ** torch.arange(31)
        assert torch.allclose(component, exact, rtol=1e-9)

# %% [markdown]
# More generally, at any point where $v^\top J_gv<0$ for some $v$ there is a strongly convex
# quadratic from whose minimum the dual iteration runs away, at every rate; and by T2 every BlockIAF
# with a live scale has such points. That does not say that it *will* happen on a given task. It
# says that no theorem protects the method.
#
# What training makes of a BlockIAF in practice is an empirical question: [](../trained_maps.md)
# measures it, and the [results](../generated/results/index.md) ask it of longer runs.
# [Next](06_repairs.py): three ways to get a theorem back.
