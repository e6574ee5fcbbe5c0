"""Conjugate gradients against a direct solver and against the best point of a Krylov space."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mdtheory.core.cg import conjugate_gradients


def system(n: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(n, n, generator=rng, dtype=torch.float64)
    return root @ root.T + torch.eye(n), torch.randn(n, generator=rng, dtype=torch.float64)


def test_it_solves_what_a_direct_solver_solves():
    matrix, b = system()
    found = conjugate_gradients(matrix.mv, b, steps=50, tolerance=1e-12)
    assert torch.allclose(found.x, torch.linalg.solve(matrix, b), rtol=1e-9)
    assert found.residual <= 1e-12 and found.curvature is None


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_k_steps_reach_the_best_point_of_the_krylov_space(steps):
    """argmin 1/2 x^T A x - b^T x over span(b, A b, ..., A^{k-1} b), by its normal equations."""
    matrix, b = system()
    powers = torch.stack([torch.linalg.matrix_power(matrix, k) @ b for k in range(steps)], dim=1)
    basis = torch.linalg.qr(powers)[0]
    best = basis @ torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ b)
    found = conjugate_gradients(matrix.mv, b, steps=steps, tolerance=0.0)
    assert torch.allclose(found.x, best, rtol=1e-8)
    true = float((matrix @ found.x - b).norm() / b.norm())
    assert found.residual == pytest.approx(true, rel=1e-8)


def test_it_stops_where_the_tolerance_is_reached():
    matrix, b = system()
    products = []
    found = conjugate_gradients(
        lambda v: products.append(v) or matrix @ v, b, steps=50, tolerance=0.1
    )
    assert found.residual <= 0.1 and 0 < len(products) < 7
    sooner = conjugate_gradients(matrix.mv, b, steps=len(products) - 1, tolerance=0.0)
    assert sooner.residual > 0.1


def test_a_direction_that_curves_down_ends_the_work_and_is_told():
    matrix = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0], dtype=torch.float64)
    found = conjugate_gradients(matrix.mv, b, steps=5, tolerance=1e-9)
    assert found.curvature == -1.0 and torch.equal(found.x, 0 * b)


def test_nothing_to_solve_is_solved_by_zero():
    found = conjugate_gradients(lambda v: v, torch.zeros(3), steps=5, tolerance=1e-9)
    assert torch.equal(found.x, torch.zeros(3)) and found.residual == 0


def test_a_right_hand_side_with_a_graph_gives_no_warning():
    torch.set_warn_always(True)  # torch says it once a process otherwise
    try:
        b = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        found = conjugate_gradients(lambda v: 2 * v, b, steps=5, tolerance=1e-12)
    finally:
        torch.set_warn_always(False)
    (slope,) = torch.autograd.grad(found.x.sum(), b)
    assert slope == pytest.approx([0.5, 0.5])
