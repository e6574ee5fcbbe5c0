"""MetaProxNet against its definition, coordinate by coordinate; what makes a function a prox."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mdtheory.core import tree
from mdtheory.geometry.metaproxnet import (
    PIECES,
    RANGE,
    MetaProxNet,
    UnrolledProx,
    piecewise_linear,
)
from mdtheory.meta import MetaLearner
from mdtheory.models import models

KNOTS = np.linspace(-RANGE, RANGE, PIECES + 1)


def test_the_function_is_linear_interpolation_and_straight_on_beyond():
    values = np.array([-3.0, -1.0, -1.5, 0.2, 0.1, 4.0])
    inside = np.linspace(-2, 2, 41)
    found = piecewise_linear(torch.tensor(values).expand(41, 6), torch.tensor(inside))
    assert np.allclose(found, np.interp(inside, KNOTS, values))
    slope = (values[-1] - values[-2]) / (KNOTS[1] - KNOTS[0])
    beyond = piecewise_linear(torch.tensor(values), torch.tensor(3.0, dtype=torch.float64))
    assert float(beyond) == pytest.approx(values[-1] + slope)


def test_three_steps_are_the_definition_s():
    """The published recursion, written out for one vector and a quadratic loss."""
    rule, z = UnrolledProx(steps=2), torch.tensor([0.1, -0.15], dtype=torch.float64)
    rule.build({"w": z})
    draw = torch.Generator().manual_seed(0)
    meta = {
        name: value.detach() + 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in rule.named_parameters()
    }
    state = {"z.w": z, **rule.init(meta, {})}
    v, phi = np.zeros(2), z.numpy().copy()
    for k in range(3):
        grad = 3 * torch.tensor(phi)
        state = rule.step(meta, state, {"w": grad}, task_lr=0.1, k=k, pull=lambda c: c)
        points = meta[f"points.{min(k, 1)}.w"].numpy()
        moved = v - 3 * phi
        v = np.array([np.interp(x, KNOTS, own) for x, own in zip(moved, points, strict=True)])
        assert np.all(np.abs(moved) <= RANGE)
        phi = z.numpy() + 0.1 * v
        assert np.allclose(state["z.w"], phi) and np.allclose(state["path.w"], v)


def test_a_soft_threshold_is_a_prox_and_a_fold_is_none():
    """The prox of |x| has slopes 0 and 1; a decreasing piece, no prox of anything, is below 0."""
    rule = UnrolledProx(steps=1)
    rule.build({"w": torch.zeros(2, dtype=torch.float64)})
    soft = np.sign(KNOTS) * np.maximum(np.abs(KNOTS) - 0.4, 0)
    fold = np.array([-2.0, -1.2, -0.4, -0.8, 1.2, 2.0])
    slopes = rule.slopes({"points.0.w": torch.tensor(np.stack([soft, fold]))})["0.w"]
    assert slopes.shape == (2, PIECES)
    assert slopes[0].min() >= -1e-12 and slopes[0].max() <= 1 + 1e-12
    assert slopes[1].min() < -0.1


def test_sizes_on_conv4_64():
    learner = MetaLearner(models.get("conv4")(), MetaProxNet(steps=5))
    own = tree.sub(learner.meta(), "geometry.")
    assert sum(value.numel() for value in own.values()) == 30 * 121_093
    with pytest.raises(ValueError, match="steps must be at least 1"):
        MetaProxNet(steps=0)
    with pytest.raises(ValueError, match="at most 1000, got 10000000"):
        MetaProxNet(steps=10**7)


def test_a_coordinate_that_is_no_number_stays_none_and_raises_nothing() -> None:
    values = piecewise_linear(torch.linspace(-4, 4, 6).expand(2, 6), torch.tensor([math.nan, 3.0]))
    assert values[0].isnan() and values[1] == 6
