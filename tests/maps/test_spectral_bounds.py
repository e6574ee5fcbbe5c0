"""The smooth bounds: never below the truth, close to it, and differentiable where norms are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad

from mdtheory.core.seeding import generator
from mdtheory.maps.iaf.certified import contraction
from mdtheory.maps.spectral_bounds import POWER, gram, largest, log_top, semi_orthogonal, within

pytestmark = pytest.mark.usefixtures("float64")


def matrices():
    """Ties, rank one, zeros, tiny, huge, wide and tall."""
    draw = generator("bounds")
    yield from (torch.eye(n) for n in (1, 3, 8, 64))
    yield torch.ones(5, 1) @ torch.ones(1, 7)
    yield from (scale * torch.randn(8, 20, generator=draw) for scale in (1e-6, 1.0, 1e6))
    yield torch.randn(30, 4, generator=draw)
    yield semi_orthogonal(8, 64, draw)


@pytest.mark.parametrize("low", [0.1, 0.9, 9.0])
@pytest.mark.parametrize("high", [0.1, 2.5])
def test_within(low, high):
    a = torch.linspace(-200, 200, 4001)
    value = within(a, low=low, high=high)
    assert value.min() >= -low * (1 + 1e-15) and value.max() <= high * (1 + 1e-15)
    assert (value.diff() >= -1e-14).all() and value[0] < -0.999 * low and value[-1] > 0.999 * high
    assert within(torch.zeros(()), low=low, high=high) == 0
    assert abs(float(grad(lambda x: within(x, low=low, high=high))(torch.zeros(()))) - 1) < 1e-14


def test_log_top_is_an_upper_bound_within_its_factor():
    for matrix in matrices():
        truth = float(torch.linalg.matrix_norm(matrix, ord=2)) ** 2
        ratio = float(log_top(gram(matrix)).exp()) / truth
        assert 1 - 1e-12 <= ratio <= min(matrix.shape) ** (1 / POWER) * (1 + 1e-12)


def test_log_top_in_single_precision_and_at_zero():
    for matrix in matrices():
        truth = float(torch.linalg.matrix_norm(matrix, ord=2)) ** 2
        single = float(log_top(gram(matrix.float())).exp())
        assert 1 - 1e-5 <= single / truth <= min(matrix.shape) ** (1 / POWER) * (1 + 1e-5)
    zero = torch.zeros(4, 4)
    assert log_top(zero).exp() < 1e-15
    assert torch.isfinite(grad(lambda m: log_top(gram(m)).exp())(zero)).all()
    assert torch.isfinite(grad(lambda m: log_top(gram(m)).exp())(zero.float())).all()


def test_log_top_is_differentiable_where_singular_values_tie():
    direction = torch.randn(6, 6, generator=generator("tie"))

    def along(h):
        return log_top(gram(torch.eye(6) + h * direction))

    assert (
        abs(float(grad(along)(torch.zeros(()))) - float(along(1e-6) - along(-1e-6)) / 2e-6) < 1e-8
    )

    def norm(h):
        return torch.linalg.matrix_norm(torch.eye(6) + h * direction, ord=2)

    one_sided = [float((norm(h) - norm(0.0)) / h) for h in (1e-6, -1e-6)]
    assert abs(one_sided[0] - one_sided[1]) > 0.1  # the norm itself has a kink there


def test_largest():
    for values in (
        torch.tensor([3.0, 1.0, 2.0]),
        torch.ones(4),
        torch.tensor([0.0, 1e-3]),
        torch.tensor([7.0]),
    ):
        ratio = float(largest(values) / values.max())
        assert 1 - 1e-12 <= ratio <= len(values) ** (1 / POWER) * (1 + 1e-12)
    assert largest(torch.zeros(3)) < 1e-15
    assert torch.isfinite(grad(largest)(torch.zeros(3))).all()
    assert torch.isfinite(grad(largest)(torch.zeros(3).float())).all()


def test_contraction_is_below_one_and_keeps_the_signal():
    for matrix in matrices():
        values = torch.linalg.svdvals(contraction(matrix))
        assert values.max() <= 1
    values = torch.linalg.svdvals(contraction(0.1 * semi_orthogonal(8, 64, generator("keep"))))
    assert values.min() > 0.95
    for zero in (torch.zeros(3, 5), torch.zeros(3, 5).float()):
        assert torch.isfinite(grad(lambda m: contraction(m).sum())(zero)).all()


def test_contraction_exceeds_one_without_its_bound():
    """Negative control: the lifting steps alone do not contract."""
    matrix = 3.0 * torch.eye(4)
    for _ in range(2):
        matrix = 1.5 * matrix - 0.5 * matrix @ matrix.T @ matrix
    assert torch.linalg.matrix_norm(matrix, ord=2) > 100


def test_semi_orthogonal():
    for rows, columns in ((3, 7), (7, 3), (4, 4), (1, 5), (1, 1)):
        matrix = semi_orthogonal(rows, columns, generator("qr"))
        small = gram(matrix)
        assert matrix.shape == (rows, columns) and matrix.is_contiguous()
        assert torch.allclose(small, torch.eye(min(rows, columns)), atol=1e-13)
        assert math.isclose(float(torch.linalg.matrix_norm(matrix, ord=2)), 1.0, rel_tol=1e-12)


def test_bounds_of_many_are_the_bounds_of_each():
    squares = (
        torch.rand(3, 4, 5, generator=generator("many"))
        * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    )
    together = largest(squares)
    assert together.shape == (3, 4)
    assert torch.allclose(
        together, torch.stack([torch.stack([largest(row) for row in block]) for block in squares])
    )
    grams = torch.stack([gram(torch.randn(4, 6, generator=generator("many", i))) for i in range(3)])
    assert torch.allclose(log_top(grams), torch.stack([log_top(one) for one in grams]))
