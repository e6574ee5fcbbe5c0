# %% [markdown]
# # Certificates: proofs for given weights
#
# [Page 5](05_blockiaf.py) ended badly for BlockIAF: on all of $\R^d$ it is neither monotone nor
# Lipschitz. A solver, though, visits a bounded set, and its network has definite weights. For those
# one can still ask: *how* monotone, *how* Lipschitz, here? Sampling points cannot answer that,
# since the worst point may lie between them. This page gets answers that are theorems about the
# floating-point numbers of one network.
#
# Claims of the ledger: theorems {claim}`T4`, {claim}`T5`; {claim}`C26`, {claim}`C27`; repair
# {claim}`RC`.

# %% tags=["hide-input"]
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import torch
from flint import arb, ctx

from mdtheory.figures.plots import COLOURS, STYLE
from proofs_check.tools.iaf import mlp, shifted_mlp
from proofs_check.tools.interval_recheck import RejectedError, recheck
from proofs_check.tools.intervals import (
    Box,
    Enclosure,
    UndecidedError,
    certify,
    library_jacobian,
)
from proofs_check.tools.local_lipschitz import constants

plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, *_ = COLOURS
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## From the weights: quick and crude
#
# Let the conditioners change by at most $\ell_{ij}$ per unit of block $j$; for a network that is a
# product of spectral norms of its weights and largest slopes of its units. On a box with $|z_c|\le
# R_i$ in block $i$, scales at most $\bar s_i$ and $|\sigma'|\le\sigma_i'$, theorem T4 says
#
# $$\mathrm{Lip}(g)\le\norm M_2,\qquad M_{ii}=\bar s_i,
# \qquad M_{ij}=R_i\,\sigma_i'\,\ell^\alpha_{ij}+\ell^\mu_{ij}\quad(j<i).$$
#
# The radius in it cannot be avoided; that is the price of $z_i\odot s_i(z_{<i})$. But the norms of
# all layers are multiplied as if one input were the worst case of every layer at once.
#
# ## From intervals: slow and sharp
#
# *Ball arithmetic* ({cite}`johansson2017arb`) computes with a midpoint of 30 digits and a radius
# that is guaranteed to contain every rounding error, and just as well a whole interval of inputs.
# Feed it a box instead of a point, and it returns balls that contain the Jacobian at *every* point
# of the box:

# %%
network = mlp([[0], [1]], seed=5, size=0.5, hidden=3, code=1).map
box = Box((-0.1, 0.2), (0.1, 0.4))
with ctx.workdps(30):
    balls = Enclosure(network).jacobian(box)
entry = balls[1, 0]
middle, radius = float(entry.mid()), float(entry.rad())
print(f"dg_2/dz_1 on the box: {middle:.4f} +- {radius:.4f}")
rng = np.random.default_rng(0)
for _ in range(200):
    z = rng.uniform(box.low, box.high)
    sampled = library_jacobian(network, tuple(z))
    assert all(
        balls[i, j].overlaps(arb(sampled[i, j], 1e-14))
        for i in range(2)
        for j in range(2)
    )

# %% [markdown]
# On a large box the balls are too wide to be of use: interval arithmetic forgets that the same
# $z_1$ stands in two places. So the box is cut in half, and the halves again, the worst first,
# until the answer is known to the tolerance that was asked for. What comes out is a
# **certificate**: a list of boxes that cover the set, a bound that holds on each of them, and a
# witness, a point at which the bound is nearly attained. The truth lies between the two.

# %%
radii = (0.25, 0.5, 1.0, 2.0, 4.0)
rows = []
for R in radii:
    box = Box.cube(R, 2)
    low = certify(network, box, "monotone", tolerance=0.02)
    high = certify(network, box, "lipschitz", tolerance=0.02)
    crude = constants(network, box).lipschitz()
    assert low.bound <= low.attained <= low.bound + 0.02
    assert high.bound - 0.02 <= high.attained <= high.bound <= crude
    rows.append((low.bound, high.bound, crude, len(low.leaves), low.width))
    print(
        f"|z| <= {R:4}: {low.bound:6.3f} <= lambda_min, ||J|| <= "
        f"{high.bound:.3f}, T4: {crude:6.3f}   ({len(low.leaves)} boxes)"
    )

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.4, 3.8), layout="constrained"
)
lows, highs, crudes, *_ = zip(*rows, strict=True)
left.plot(radii, crudes, "o:", color=PINK, label="T4, from the norms")
left.plot(radii, highs, "o-", color=ORANGE, label=r"certified $\|J\|$")
left.plot(radii, lows, "s-", color=BLUE, label=r"certified $\lambda_{\min}$")
left.axhline(0, color="black", linewidth=0.8)
left.set(xscale="log", xlabel=r"radius $R$ of the box", title="bounds")
left.set_xticks(radii, [f"{R:g}" for R in radii])
left.minorticks_off()
left.legend(fontsize=8)
shown = certify(network, Box.cube(2.0, 2), "monotone", threshold=-0.3)
side = np.linspace(-2, 2, 61)
values = [
    [
        np.linalg.eigvalsh(
            library_jacobian(network, (a, b))
            + library_jacobian(network, (a, b)).T
        )[0]
        / 2
        for a in side
    ]
    for b in side
]
mesh = right.pcolormesh(side, side, values, cmap="RdBu", vmin=-1, vmax=1)
for leaf in shown.leaves:
    right.add_patch(
        plt.Rectangle(
            leaf.low,
            *(np.array(leaf.high) - leaf.low),
            fill=False,
            linewidth=0.6,
        )
    )
right.plot(*shown.witness, "k*", markersize=10)
right.set(
    xlabel="$z_1$",
    ylabel="$z_2$",
    title=r"$\lambda_{\min}\geq-0.3$: the boxes",
)
right.grid(False)
figure.colorbar(mesh, ax=right, label=r"$\lambda_{\min}$ of sym $J$")
plt.show()

# %% [markdown]
# Left: this network is certainly monotone on the box of radius $\frac12$, and certainly not on that
# of radius 2. The product of norms is about three times too large. Right: the boxes of one
# certificate, over the true values on a grid; boxes are small where the answer is close. The star
# is the witness.
#
# ## A second opinion
#
# A certificate is only as good as the program that made it. It is therefore checked by another one,
# which shares no code with the first: plain floating-point intervals rounded outwards instead of
# balls, derivatives by its own rules, and its own proof that the boxes cover the set. It does not
# believe anything that it is told.

# %%
certificate = certify(network, Box.cube(0.5, 2), "monotone", tolerance=0.02)
print(recheck(network, certificate), "boxes looked at: confirmed")

forged = dataclasses.replace(certificate, bound=certificate.bound + 0.2)
holes = dataclasses.replace(certificate, leaves=certificate.leaves[1:])
for lie in (forged, holes):
    try:
        recheck(network, lie)
    except RejectedError as reason:
        print("rejected:", reason)
    else:
        raise AssertionError("a lie was believed")

# %% [markdown]
# ## When it does not know
#
# For $g=(z_1,\ z_2+2z_1)$ the symmetric part of $J$ is singular: the map is monotone, but only
# just, and no interval of positive width can tell. Then the routine refuses, and says how far it
# got:

# %%
edge = shifted_mlp(2.0, 1.0).map  # the same map, written as a network
found = certify(
    edge, Box.cube(1.0, 2), "monotone", threshold=0.0, max_boxes=40
)
try:
    found.decide()
except UndecidedError:
    print(f"undecided: between {found.bound:.3f} and {found.attained:.3f}")
    print(f"{len(found.leaves)} boxes, the narrowest {found.width} wide")
else:
    raise AssertionError("it cannot know")

# %% [markdown]
# ## What a certificate is good for
#
# With a certified modulus $m>0$ and Lipschitz constant $M$ on a box, theorem T6 of [page
# 6](06_repairs.py) applies to every step that stays inside: descent for $\alpha<2m/(LM^2)$. Where
# the modulus is negative, rates per block (RC) restore it, at a price that the certified entries of
# $J$ also tell. And where no bounded box contains the iterates, neither helps: there one needs a
# map that is monotone by construction.
#
# The cost is the catch. The boxes have as many sides as there are parameters, and halving each of
# them once already takes $2^d$ boxes. Two or three coordinates are easy, a convolutional network is
# out of reach; for that, [](../trained_maps.md) samples, and says so. [Next](12_table.py): what the
# poster's own table can tell.
