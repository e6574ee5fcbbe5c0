r"""C10, second file: counts and limits as they are printed.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import sympy as sp
import torch

from mdtheory.inner.estimators import estimators
from proofs_check import formula
from proofs_check.claim import Formula
from proofs_check.claims.c10_complexity import claim
from proofs_check.run import Run
from proofs_check.tools import cost
from proofs_check.tools.models import problem_of, vector


@claim.check("exact", part="work")
def stated_work(run: Run, *, stated: Formula) -> None:
    """Evaluations of the task loss counted at K = 3 and 5, unrolled and stepwise."""
    for k in (3, 5):
        run.stands(stated, {stated.left: cost.loss_calls(estimators.get("unrolled")(), k), "K": k})
        twice = cost.loss_calls(estimators.get("stepwise")(), k)
        run.close(twice, float(formula.value(stated.terms["stepwise"], {"K": k})), tolerance=0.0,
                  what="stepwise")  # fmt: skip


@claim.check("exact", part="memory")
def stated_checkpoints(run: Run, *, stated: Formula) -> None:
    """K/s states at the segments' ends and s inside one: the least over all s, K = 4, 9, 25."""
    for k in (4, 9, 25):
        found = min(sp.Rational(k, s) + s for s in range(1, k + 1))
        run.stands(stated, {stated.left: found, "K": k})


@claim.check("exact", part="recursion")
def stated_recursion(run: Run, *, stated: Formula) -> None:
    """One step of the library on x^4/4 against the printed product, at two points and rates."""
    for start, alpha in ((0.5, 0.3), (1.2, 0.1)):
        problem, meta, task = problem_of(
            lambda v: (v**4).sum() / 4, vector(start), task_lr=alpha, n_steps=1,
            query=lambda v: torch.sin(v).sum(),
        )  # fmt: skip
        found = estimators.get("unrolled")()(problem, meta, [task]).grads["anchor.phi"]
        after = torch.cos(vector(start - alpha * start**3))
        at = {stated.left: float(found), r"\alpha": alpha, "H_k": 3 * start**2}
        run.stands(stated, {**at, r"\lambda_{k+1}": float(after)}, slack=1e-12)


@claim.check("symbolic", part="accuracy")
def stated_accuracy(run: Run, *, stated: Formula) -> None:
    """(1 - 1/kappa)^K = eps solved for K, over the printed number, tends to one."""
    kappa, eps = sp.symbols(r"\kappa \varepsilon", positive=True)
    ratio = sp.limit(stated.right * sp.log(1 - 1 / kappa) / sp.log(eps), kappa, sp.oo)
    run.zero(sp.simplify(sp.expand_log(ratio, force=True)) - 1, "the ratio of the two")
