r"""C31, third file: the printed numbers, each from the same object as its text.

The model stands in the first file, with the statement.
"""

from __future__ import annotations

import torch
from torch import nn

from proofs_check import formula
from proofs_check.claim import Formula
from proofs_check.claims.c31_table import (
    between,
    claim,
    fewest_queries,
    ours,
    queries,
    resnet,
    rivals,
    spread,
    z_score,
)
from proofs_check.run import Run
from proofs_check.tools import poster


@claim.check("exact", part="scores", rests_on="the published figures")
def stated_scores(run: Run, *, stated: Formula) -> None:
    """The three scores from the printed rows, to the printed digits."""
    first = z_score(ours(1), dict(rivals(1))["MetaCurvature"])
    run.stands(stated, {stated.left: first}, slack=0.005)
    for name, row in (("warpgrad", "WarpGrad"), ("metacurvature", "MetaCurvature")):
        found = z_score(ours(5), dict(rivals(5))[row])
        run.close(found, float(stated.terms[name]), tolerance=0.005, what=f"z against {row}")


@claim.check("exact", part="tasks", rests_on="the published figures")
def stated_tasks(run: Run, *, stated: Formula) -> None:
    """v of both columns under both numbers of tasks, to the printed digits."""
    found = {
        (name, n_shot): between(
            ours(n_shot).mean, queries(n_shot), spread(ours(n_shot), int(stated.terms[name]))
        )
        for name in ("printed", "official")
        for n_shot in (1, 5)
    }
    run.stands(stated, {stated.left: found["printed", 1]}, slack=5.1e-5)
    for name, case in (
        ("five", ("printed", 5)),
        ("one_official", ("official", 1)),
        ("five_official", ("official", 5)),
    ):
        run.close(
            float(found[case]), float(stated.terms[name]), tolerance=5.1e-5, what=f"v, {name}"
        )


@claim.check("exact", part="protocols", rests_on="the published figures")
def stated_protocols(run: Run, *, stated: Formula) -> None:
    """The fewest queries of every row with an interval decide as it says, in both columns."""
    for n_shot in (1, 5):
        for name, value in rivals(n_shot):
            many = name in ("WarpGrad", "MetaCurvature", "ECML")
            at = {"n": fewest_queries(value, poster.N_TASKS), "S": n_shot}
            run.decides(stated, at, many)


@claim.check("exact", part="resnet")
def stated_parameters(run: Run, *, stated: Formula) -> None:
    """The backbone counted layer by layer, and its head."""
    with torch.device("meta"):
        body = sum(p.numel() for layer in resnet((3, 4, 6, 3)) for p in layer.parameters())
        head = sum(p.numel() for p in nn.Linear(2048, 1000).parameters())
    run.stands(stated, {stated.left: body})
    run.close(body + head, float(formula.value(stated.terms["whole"], {})), tolerance=0.0,
              what="with its head")  # fmt: skip
