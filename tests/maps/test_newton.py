"""The numeric inverse: right to 1e-10, with implicit derivatives of first and second order, and
honest failures.
"""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jacrev, vmap

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.maps.base import maps
from mdtheory.maps.newton import Budget, _Inverse, conjugate_point, invert
from tests.maps.mirror_cases import apart, build, dual_point

D = 5


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(
        *shape, generator=generator("numeric", seed, *shape), dtype=torch.float64
    )


def ridge(x, weight, bias):
    """The gradient of 0.15 ||x||^2 + sum softplus(W x + b): strongly convex, curvature in [0.3, 0.3
    + ||W||^2 / 4].
    """
    return 0.3 * x + weight.T @ torch.sigmoid(weight @ x + bias)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_inverts_to_ten_digits(scale):
    weight, bias, y = random(8, D), random(8), random(D, seed=1, scale=scale)
    x = invert(ridge, y, weight, bias)
    assert (ridge(x, weight, bias) - y).norm() < 1e-10 * (1 + y.norm())
    start = random(D, seed=2, scale=scale)
    back = invert(ridge, ridge(start, weight, bias), weight, bias)
    assert (back - start).abs().max() < 1e-9 * (1 + scale)


def test_large_and_badly_conditioned():
    diagonal = torch.logspace(-2, 2, 400, dtype=torch.float64)
    y = random(400)
    x = invert(lambda x, d: d * x + torch.tanh(x), y, diagonal)
    assert (diagonal * x + torch.tanh(x) - y).norm() < 1e-10 * (1 + y.norm())


def test_steep_growth_needs_and_gets_damping():
    y = random(D, scale=1e6)
    assert torch.allclose(invert(torch.sinh, y), torch.asinh(y), rtol=1e-10)


def leaves():
    return [t.requires_grad_() for t in (random(3, seed=3), random(2, 3, scale=0.7), random(2))]


def test_implicit_derivatives_of_both_orders():
    assert torch.autograd.gradcheck(lambda *args: invert(ridge, *args), leaves())
    assert torch.autograd.gradgradcheck(lambda *args: invert(ridge, *args), leaves())


def test_gradient_check_rejects_a_flipped_sign(monkeypatch):
    """Negative control: dx/dparameters = +J^{-1} dF/dparameters."""
    right = _Inverse.backward

    def wrong(ctx, *grads):
        nothing, budget, w, *pulled = right(ctx, *grads)
        return (nothing, budget, w, *(-p for p in pulled))

    monkeypatch.setattr(_Inverse, "backward", staticmethod(wrong))
    assert not torch.autograd.gradcheck(
        lambda *args: invert(ridge, *args), leaves(), raise_exception=False
    )


def test_jacobian_is_the_inverse_matrix():
    y, weight, bias = (leaf.detach() for leaf in leaves())
    x = invert(ridge, y, weight, bias)
    inverse = jacrev(lambda y: invert(ridge, y, weight, bias))(y)
    forward = jacrev(lambda x: ridge(x, weight, bias))(x)
    assert torch.allclose(inverse @ forward, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_vmap_is_the_loop_with_derivatives():
    _, weight, bias = (leaf.detach() for leaf in leaves())
    tasks, slopes = random(3, 3, seed=4), random(3, 2, 3, seed=5)

    def value(y, weight):
        return invert(ridge, y, weight, bias).pow(3).sum()

    for dims, weights in ((None, weight), (0, slopes)):
        batched = vmap(grad(value, argnums=(0, 1)), in_dims=(0, dims))(tasks, weights)
        for i, y in enumerate(tasks):
            single = grad(value, argnums=(0, 1))(y, weights if dims is None else weights[i])
            assert all(
                torch.allclose(b[i], s, rtol=1e-9, atol=1e-12)
                for b, s in zip(batched, single, strict=True)
            )


def test_single_precision_reaches_what_rounding_allows():
    weight, bias, y = random(8, D).float(), random(8).float(), random(D, seed=1).float()
    x = invert(ridge, y, weight, bias)
    assert x.dtype == torch.float32
    assert (ridge(x, weight, bias) - y).norm() < 2e-5 * (1 + y.norm())


@pytest.mark.parametrize(
    "case",
    [("identity", {}), ("quadratic", {"matrix": 2.5}), ("hypentropy", {"beta": 0.1})],
    ids=str,
)
def test_conjugate_point_agrees_with_closed_forms(case):
    made, z = build(case), dual_point(case[0], "numeric")
    phi = made.point({}, z)
    assert apart(conjugate_point(made.point, {}, phi), z) < 1e-9
    through = grad(lambda p: tree.dot(conjugate_point(made.point, {}, p), phi))(phi)
    closed = grad(lambda p: tree.dot(made.inverse({}, p), phi))(phi)
    assert apart(through, closed) < 1e-8


def test_conjugate_point_is_differentiable_in_the_parameters():
    """h(phi) from h*, and dh/dmeta = -dh*/dmeta at z: the envelope theorem."""
    meta = {"weight": random(3, 4, scale=0.7), "bias": random(3)}
    phi = {"a": random(2), "b": random(2, seed=1)}

    def conjugate(meta, z):
        x = tree.flatten(z)
        return 0.15 * x @ x + torch.nn.functional.softplus(meta["weight"] @ x + meta["bias"]).sum()

    def potential(meta, phi):
        z = conjugate_point(lambda meta, z: grad(conjugate, argnums=1)(meta, z), meta, phi)
        return tree.dot(phi, z) - conjugate(meta, z)

    z = conjugate_point(lambda meta, z: grad(conjugate, argnums=1)(meta, z), meta, phi)
    assert apart(grad(potential, argnums=1)(meta, phi), z) < 1e-8
    slopes = grad(potential)(meta, phi)
    assert apart(slopes, {n: -v for n, v in grad(conjugate)(meta, z).items()}) < 1e-8


@pytest.mark.parametrize(
    "operator,y",
    [
        (torch.sigmoid, torch.full((D,), 3.0, dtype=torch.float64)),  # outside the range
        (lambda x: -x, torch.ones(D, dtype=torch.float64)),  # not monotone
        (lambda x: x * float("nan"), torch.ones(D, dtype=torch.float64)),
        (
            lambda x: torch.stack([x[1], -x[0], *x[2:]]),
            torch.ones(D, dtype=torch.float64),
        ),  # a rotation: no gradient
    ],
)
def test_no_solution_is_an_error(operator, y):
    with pytest.raises(
        RuntimeError, match=r"the gradient map could not be inverted: residual .* strongly convex"
    ):
        invert(operator, y)


def test_budget_is_respected():
    y = random(D, scale=1e6)
    with pytest.raises(RuntimeError, match="could not be inverted"):
        invert(torch.sinh, y, budget=Budget(newton_steps=2))
    assert (invert(torch.sinh, y, budget=Budget(tol=1e-3)) - torch.asinh(y)).abs().max() < 1e-2


def test_barrier_is_refused_rather_than_inverted_wrongly():
    made = maps.get("barrier")()
    with pytest.raises(ValueError, match="must be negative"):
        conjugate_point(made.point, {}, {"x": torch.ones(2, dtype=torch.float64)})
