"""MT-net's mask and metric one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdtheory import Episode, MetaLearner
from mdtheory.core import seeding
from mdtheory.geometry.mtnet import MTNet, straight_through, units
from tests.geometry.cases import conv4, learner_of


def built(model, **options):
    geometry = MTNet(**options)
    wrapped = geometry.wrap(model)
    geometry.build(
        {
            name: value.detach()
            for name, value in wrapped.named_parameters()
            if geometry.adapts(name)
        }
    )
    return geometry


def masks(geometry, seed=0, zeta=None):
    meta = {
        f"zeta.{n}": v.detach() if zeta is None else torch.full_like(v, zeta)
        for n, v in geometry.rule.zeta.named_parameters()
    }
    drawn = {name: value.to(torch.float32) for name, value in geometry.draw(seed).items()}
    return geometry.rule.init(meta, drawn)


def test_masks_are_zero_or_one_with_probability_sigmoid_zeta():
    """4000 draws of 4 x 4 + 3 units: the mean is within 5 standard deviations of sigmoid(0.7);
    false failure < 1e-6.
    """
    geometry = built(conv4())
    values = torch.cat(
        [torch.cat(list(masks(geometry, seed, zeta=0.7).values())) for seed in range(4000)]
    )
    assert set(values.tolist()) == {0.0, 1.0}
    p = torch.sigmoid(torch.tensor(0.7)).item()
    assert abs(values.mean().item() - p) < 5 * (p * (1 - p) / len(values)) ** 0.5


def test_one_mask_per_task_from_its_address_alone():
    geometry, fewer = built(conv4()), built(conv4().classifier)
    first, again, other = masks(geometry, 1), masks(geometry, 1), masks(geometry, 2)
    assert set(first) == {
        f"mask.{layer}" for layer in (*(f"blocks.{i}.conv" for i in range(4)), "classifier")
    }
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert set(masks(fewer)) == {"mask.layer"}


def test_the_mask_is_kept_through_all_steps():
    learner = learner_of("mtnet")
    own = {
        name.removeprefix("geometry.rule."): value
        for name, value in learner.meta().items()
        if ".rule." in name
    }
    rule = learner.geometry.rule
    state = {"z.classifier.bias": torch.zeros(3), **rule.init(own, learner.geometry.draw(3))}
    state["mask.classifier"] = torch.tensor([1.0, 0.0, 0.0])
    moved = state
    for k in range(3):
        how = {"task_lr": 0.5, "k": k, "pull": lambda v: v}
        moved = rule.step(own, moved, {"classifier.bias": torch.ones(3)}, **how)
        assert torch.equal(moved["mask.classifier"], state["mask.classifier"])
        assert torch.equal(moved["z.classifier.bias"], -0.5 * (k + 1) * state["mask.classifier"])


def test_straight_through_has_the_derivative_of_the_sigmoid():
    logit = torch.tensor([-30.0, -1.0, 0.5, 2.0], requires_grad=True)
    value = straight_through(logit)
    assert value.tolist() == [0.0, 0.0, 1.0, 1.0]
    value.sum().backward()
    assert torch.allclose(logit.grad, logit.sigmoid() * (1 - logit.sigmoid()))


def test_mask_at_test_acts_in_evaluation_mode_only():
    for kind, expected in (("expected", 0.5), ("threshold", 1.0)):
        geometry = built(conv4(), mask_at_test=kind)
        assert torch.equal(
            masks(geometry)["mask.blocks.1.conv"], masks(built(conv4()))["mask.blocks.1.conv"]
        )
        geometry.eval()
        assert set(torch.cat(list(masks(geometry).values())).tolist()) == {expected}


def test_literal_option_leaves_the_norms_alone():
    literal, default = built(conv4(), adapt_norms=False), built(conv4())
    names = [name for name, _ in conv4().named_parameters()]
    assert [name for name in names if not literal.adapts(name)] == [
        name for name in names if ".norm." in name
    ]
    assert all(default.adapts(name) for name in names)


def test_only_layers_that_mix_all_inputs_have_a_metric():
    model = nn.Sequential(
        nn.Embedding(7, 4),
        nn.Conv1d(4, 6, 3, groups=2),
        nn.ConvTranspose1d(6, 4, 3),
        nn.Conv1d(4, 5, 3),
        nn.LayerNorm([5, 3]),
    )
    geometry = built(model)
    assert [name for name, _ in geometry.metric.named_parameters()] == ["3"]
    assert set(geometry.rule.owners) == {"3.weight", "3.bias"}


def test_folded_weights_are_the_layer_followed_by_the_metric():
    geometry, layer = built(nn.Conv2d(3, 4, 3)), nn.Conv2d(3, 4, 3)
    metric, x = torch.randn(4, 4), torch.randn(2, 3, 6, 6)
    consumed = geometry.weights({"metric.layer": metric}, dict(layer.named_parameters()))
    expected = nn.functional.conv2d(layer(x), metric[:, :, None, None])
    assert torch.allclose(torch.func.functional_call(layer, consumed, (x,)), expected, atol=1e-5)


def test_of_two_layers_with_one_weight_the_second_s_bias_is_added_after_the_metric():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    geometry, metric, x = built(model), torch.randn(4, 4), torch.randn(2, 4)
    assert set(geometry.rule.owners) == {"0.weight", "0.bias"}
    consumed = geometry.weights({"metric.0": metric}, dict(model.named_parameters()))
    hidden = model[0](x) @ metric.T
    expected = hidden @ model[1].weight.T @ metric.T + model[1].bias
    found = torch.func.functional_call(model, consumed, (x,))
    assert torch.allclose(found, expected, atol=1e-5)


def test_wrong_mask_at_test_is_refused():
    with pytest.raises(ValueError, match="mask_at_test must be one of"):
        MTNet(mask_at_test="mean")


def test_a_layer_may_hold_another():
    """A low-rank update inside of a subclass of ``nn.Linear``; other names stay as they were."""
    anchor = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3), "fc.up.weight": torch.eye(3)}
    owners = units(anchor)
    assert owners == {"fc.weight": "fc.weight", "fc.bias": "fc.weight", "fc.up.weight": "fc.up"}
    geometry = MTNet()
    geometry.build(anchor)
    names = {name for name, _ in geometry.metric.named_parameters()}
    assert names == {"fc.weight", "fc.up"} == set(geometry.draw(0))


def test_tasks_made_by_hand_have_masks_of_their_own():
    """All of them had one mask, so that half of the units never moved in training."""
    learner = MetaLearner(nn.Linear(40, 2), "mtnet", n_steps=1)
    problem, meta = learner.problem(), learner.meta()
    x, y = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2

    def mask(x, y, **seed):
        (task,) = learner.fitted(Episode(x, y, x, y, **seed))
        return problem.start(meta, problem.noise(meta, learner.task(task)))["mask.layer"]

    drawn = [problem.noise(meta, learner.task(Episode(x + k, y, x, y))) for k in range(5)]
    assert len({tuple(one["layer"].flatten().tolist()) for one in drawn}) == 5
    seeds = {learner.task(Episode(x, targets, x, y)).seed for targets in (y, 1 - y, y.flip(0))}
    assert len(seeds) == 2  # 1 - y is y.flip(0); a grid of inputs that all tasks share is no matter
    for same in (x.double(), x.numpy(), x.tolist()):
        assert torch.equal(mask(same, y.to(torch.int32)), mask(x, y))
    assert torch.equal(mask(x, y, seed=3), mask(x + 1, y, seed=3))
    moved = {
        tuple((learner.adapt(x + k, y).network.bias != learner.network.bias).tolist())
        for k in range(20)
    }
    assert len(moved) > 1


def test_a_geometry_without_noise_asks_for_no_address(monkeypatch):
    asked = []
    monkeypatch.setattr(seeding, "address_of", lambda tensors: asked.append(tensors) or 1)
    x, y = torch.rand(6, 4), torch.arange(6) % 2
    for name in ("metasgd", "mtnet"):
        MetaLearner(nn.Linear(4, 2), name, n_steps=1).backward(Episode(x, y, x, y))
        assert bool(asked) == (name == "mtnet")
