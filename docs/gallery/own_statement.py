# %% [markdown]
# # Referee a statement of your own
#
# "Gradient descent with a step of at most $2/L$ never increases a quadratic, and converges." Half
# of that is wrong. The referee takes a statement as a file: as printed, as it should read, and
# checks, each with *mutants* on which it must fail. (This page needs a checkout of the project: the
# referee is not in the package.)

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from mdtheory import descend
from proofs_check import engine

statement = Path(tempfile.mkdtemp()) / "x1_step.py"
statement.write_text(
    r'''r"""X1: how long a step may be.

*Proof.* On f = L x^2 / 2 a step is x <- (1 - a L) x,
and |1 - a L| < 1 iff 0 < a L < 2.
"""
from fractions import Fraction
import sympy as sp
from proofs_check.claim import Claim, Statement, Verdict

claim = Claim(
    id="X1", title="The longest step",
    source="a talk", paper="zhang2024metamida",
    printed=Statement(then=r"x_k\\to0\\text{ for }0<\\alpha\\le2/L"),
    amended=Statement(
        then=r"x_k\\to0\\iff0<\\alpha<2/L",
        parts={"factor": r"|1-\\alpha L|<1\\iff0<\\alpha<2/L"},
    ),
    expected=Verdict("FALSE", "PROVED"),
)

def after(share, k):
    return abs(1 - share) ** k

@claim.check("counterexample", about="printed")
def at_the_end(run, *, share=Fraction(2)):
    """alpha = 2/L is allowed; the iterates jump from x to -x for ever."""
    run.that(share <= 2, "the step is allowed")
    run.that(after(share, 1000) == 1, "x is as far away as at the start")

at_the_end.mutant("a shorter step", share=Fraction(19, 10))

@claim.check("symbolic", part="factor")
def sign(run, *, end=2):
    """With s = a L: 1 - (1 - s)^2 = s (2 - s), positive iff 0 < s < 2."""
    s = sp.Symbol("s", real=True)
    run.zero(sp.expand(1 - (1 - s) ** 2 - s * (end - s)), "the difference")

sign.mutant("up to 3/L", end=3)
'''.replace("\\\\", "\\")
)
(name,) = engine.plug_in([statement])
row = engine.run_all([name])[name]
print(row.id, row.status, row.verdict.as_printed, row.verdict.amended)
for check in row.result.checks:
    dead = sum(mutant.killed for mutant in check.mutants)
    print(f"  {check.name}: {dead} of {len(check.mutants)} mutants killed")
assert row.status == "OK"
assert (row.verdict.as_printed, row.verdict.amended) == ("FALSE", "PROVED")

# %% [markdown]
# The identity holds for all $\alpha L$, so the amended part is PROVED. Had the check tried ten
# numbers instead, the referee would not have said so: samples prove nothing about all cases.
#
# What the counterexample looks like, by the library's own solver:

# %%
figure, axis = plt.subplots(figsize=(6.4, 3.2))
for share, style in ((1.9, "-"), (2.0, "--"), (2.02, ":")):
    path = descend(
        lambda x: 0.5 * x**2, torch.tensor(1.0), n_steps=40, task_lr=share
    )
    axis.plot(path.abs(), style, label=rf"$\alpha = {share:g}/L$")
axis.set(yscale="log", xlabel="step", ylabel="distance to the minimum")
axis.legend()
figure.tight_layout()
plt.show()
assert path.abs()[-1] > 1
