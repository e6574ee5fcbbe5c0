"""The networks: names, counts, first values, and equality with the same networks written with
torch's own layers.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mdtheory.models import models, statistics_over_first
from mdtheory.models.user import prepare, probe
from tests.models.references import (
    conv4_outputs,
    directional_error,
    error,
    live,
    looped,
    meta_loss,
    regression_tasks,
    resnet12_outputs,
    trainable,
    vmapped,
)

SMALL = {
    "conv4": ({"in_channels": 1, "image_size": 16, "n_way": 3, "channels": 2}, (1, 16, 16)),
    "resnet12": ({"in_channels": 2, "image_size": 9, "n_way": 3, "widths": (3, 4)}, (2, 9, 9)),
    "linear": ({"in_features": 6, "n_way": 3}, (6,)),
    "mlp": ({"in_features": 6, "n_way": 3, "hidden": (4, 5), "activation": "softplus"}, (2, 3)),
    "vit": (
        {
            "in_channels": 1,
            "image_size": 6,
            "n_way": 3,
            "patch": 3,
            "width": 4,
            "depth": 1,
            "heads": 2,
        },
        (1, 6, 6),
    ),
}


def small(name: str, **options) -> nn.Module:
    return models.get(name)(**{**SMALL[name][0], **options})


def count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def test_every_registered_network_is_tested_here():
    assert models.names() == sorted(SMALL)


@pytest.mark.parametrize("name", SMALL)
class TestEveryNetwork:
    def test_shapes(self, name):
        x = torch.rand(4, *SMALL[name][1])
        assert small(name)(x).shape == (4, 3)
        assert small(name, n_way=7)(x).shape == (4, 7)

    def test_first_values_come_from_the_seed_alone(self, name):
        before = torch.get_rng_state()
        first = small(name, seed=5)
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)
        again, other = small(name, seed=5).state_dict(), small(name, seed=6).state_dict()
        assert all(torch.equal(value, again[key]) for key, value in first.state_dict().items())
        assert not torch.equal(first.state_dict()["classifier.weight"], other["classifier.weight"])

    def test_probe_accepts_it(self, name):
        model, x = prepare(small(name), norm="support"), torch.rand(4, *SMALL[name][1])
        assert probe(model, x).outputs[0] == 3  # items that are judged
        model.register_forward_hook(lambda module, args, output: output + torch.rand(()))
        with pytest.raises(ValueError, match="draws from the global random generator"):
            probe(model, x)

    def test_meta_gradient_batched_is_looped_is_finite_differences(self, name):
        model = prepare(live(small(name)), norm="transductive")
        tasks = regression_tasks(model, SMALL[name][1])
        params, function = trainable(model), meta_loss(model)
        loop = looped(function, params, tasks)
        assert error(vmapped(function, params, tasks), loop) < 1e-10
        assert directional_error(function, params, tasks, loop) < 1e-5
        wrong = looped(meta_loss(model, first_order=True), params, tasks)
        assert directional_error(function, params, tasks, wrong) > 1e-3


class TestConv4:
    @pytest.mark.parametrize(
        ("options", "numbers"),
        [
            ({}, 121_093),
            ({"channels": 128}, 463_365),
            (
                {"channels": 32, "image_size": 28, "in_channels": 1},
                9 * 32 + 3 * 9 * 32 * 32 + 4 * 3 * 32 + 5 * 33,
            ),
        ],
    )
    def test_counts(self, options, numbers):
        assert count(models.get("conv4")(**options)) == numbers

    def test_names_and_order(self):
        names = [
            f"blocks.{i}.{part}.{kind}"
            for i in range(4)
            for part in ("conv", "norm")
            for kind in ("weight", "bias")
        ]
        named = dict(small("conv4").named_parameters())
        assert list(named) == [*names, "classifier.weight", "classifier.bias"]
        assert len(named) == 18

    @pytest.mark.parametrize("image_size", [16, 28, 33])
    def test_equals_the_official_order_in_value_and_gradient(self, image_size):
        model = live(small("conv4", image_size=image_size, channels=4))
        x, weights = (
            torch.randn(s, dtype=torch.float64) for s in ((5, 1, image_size, image_size), (5, 3))
        )
        params = dict(model.named_parameters())
        ours, official = model(x), conv4_outputs(params, x)
        torch.testing.assert_close(ours, official, rtol=1e-10, atol=1e-10)
        grads = [
            torch.autograd.grad((y * weights).sum(), list(params.values()))
            for y in (ours, official)
        ]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

    def test_first_values_are_those_of_torch(self):
        model = models.get("conv4")(channels=8, seed=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            layers = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(4)] + [
                nn.Linear(8 * 25, 5)
            ]
        for ours, layer in zip(
            [*(block.conv for block in model.blocks), model.classifier], layers, strict=True
        ):
            assert torch.equal(ours.weight, layer.weight) and torch.equal(ours.bias, layer.bias)
        assert all(
            torch.equal(block.norm.weight, torch.ones(8)) and not block.norm.bias.any()
            for block in model.blocks
        )

    def test_convolution_biases_cancel(self):
        model = live(small("conv4"))
        model(torch.randn(5, 1, 16, 16, dtype=torch.float64)).square().sum().backward()
        assert max(float(block.conv.bias.grad.abs().max()) for block in model.blocks) < 1e-10
        assert min(float(block.conv.weight.grad.abs().max()) for block in model.blocks) > 1e-3

    @pytest.mark.parametrize(
        ("policy", "independent"), [("support", True), ("transductive", False), ("running", False)]
    )
    def test_a_query_sees_other_queries_only_where_the_policy_says_so(self, policy, independent):
        model = prepare(live(small("conv4")), norm=policy)
        support, query, other = (torch.rand(n, 1, 16, 16, dtype=torch.float64) for n in (4, 3, 3))
        other[0] = query[0]

        def first_query(queries):
            with statistics_over_first(4):
                return model(torch.cat([support, queries]))[4]

        assert (
            torch.allclose(first_query(query), first_query(other), rtol=1e-12, atol=1e-12)
            == independent
        )
        model.eval()
        evaluated = torch.allclose(first_query(query), first_query(other), rtol=1e-12, atol=1e-12)
        assert evaluated == (policy != "transductive")

    def test_support_outputs_are_those_of_the_support_alone(self):
        model = prepare(live(small("conv4")), norm="support")
        support, query = (torch.rand(n, 1, 16, 16, dtype=torch.float64) for n in (4, 3))
        with statistics_over_first(4):
            together = model(torch.cat([support, query]))
        torch.testing.assert_close(together[:4], model(support), rtol=1e-10, atol=1e-10)
        assert not torch.allclose(together[4:], model(query))


class TestResNet12:
    def test_count_is_the_published_one(self):
        model = models.get("resnet12")()
        assert count(model.stages) == 12_424_320
        assert count(model) == 12_424_320 + 5 * 641

    def test_equals_the_usual_order(self):
        model = live(small("resnet12"))
        x = torch.randn(4, 2, 9, 9, dtype=torch.float64)
        expected = resnet12_outputs(dict(model.named_parameters()), x, 2)
        torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)

    def test_convolutions_start_kaiming_normal(self):
        weight = small("resnet12", widths=(64,)).stages[0].conv2.weight.detach()
        expected = (2 / (1 + 0.1**2) / (64 * 9)) ** 0.5
        assert abs(float(weight.std()) / expected - 1) < 0.02


class TestMLP:
    def test_is_torchs_sequence(self):
        model = live(small("mlp", activation="tanh"))
        assert list(dict(model.named_parameters()))[-2:] == ["classifier.weight", "classifier.bias"]
        x = torch.randn(4, 2, 3, dtype=torch.float64)
        expected = nn.Sequential(nn.Flatten(), *model.layers, model.classifier)
        assert [type(layer) for layer in model.layers] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh]
        assert torch.equal(model(x), expected(x))

    def test_linear_is_one_matrix(self):
        model = small("linear")
        x = torch.randn(4, 6)
        torch.testing.assert_close(model(x), x @ model.classifier.weight.T + model.classifier.bias)
        assert list(dict(model.named_parameters())) == ["classifier.weight", "classifier.bias"]


class TestVisionTransformer:
    def test_attention_is_torchs(self):
        attention = live(small("vit")).blocks[0].attention
        torchs = nn.MultiheadAttention(4, 2, batch_first=True).double()
        weights = zip(torchs.parameters(), attention.parameters(), strict=True)
        with torch.no_grad():
            for theirs, ours in weights:
                theirs.copy_(ours)
        x = torch.randn(3, 5, 4, dtype=torch.float64)
        torch.testing.assert_close(attention(x), torchs(x, x, x)[0], rtol=1e-12, atol=1e-12)

    def test_positions_matter(self):
        model = live(small("vit"))
        x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
        assert not torch.allclose(model(x), model(x.flip(-1)))

    def test_only_the_head_or_the_norms_can_adapt(self):
        model = live(small("vit"))
        x, names = (
            torch.randn(2, 1, 6, 6, dtype=torch.float64),
            [name for name, _ in model.named_parameters()],
        )
        norms = {
            name: torch.zeros_like(model.get_parameter(name)) for name in names if "norm" in name
        }
        assert len(norms) == 6
        assert not torch.allclose(functional_call(model, norms, (x,)), model(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv4", {"image_size": 15}, "image_size must be at least 16, got 15"),
        ("conv4", {"channels": 0}, "channels must be at least 1, got 0"),
        ("conv4", {"n_way": 0}, "n_way must be at least 1, got 0"),
        ("resnet12", {"image_size": 3}, "image_size must be at least 4, got 3"),
        ("resnet12", {"widths": ()}, "widths must name at least one stage"),
        ("resnet12", {"widths": (4, 0)}, "widths must be at least 1, got 0"),
        (
            "mlp",
            {"activation": "thanh"},
            "activation must be one of the registered names, got 'thanh'; did you mean 'tanh'",
        ),
        ("mlp", {"hidden": (4, 0)}, "hidden must be at least 1, got 0"),
        ("vit", {"depth": 10**7}, "depth must be at most 1000 blocks"),
        ("linear", {"in_features": 0}, "in_features must be at least 1, got 0"),
        ("vit", {"patch": 4}, "patch must divide image_size, got 4 and 6"),
        ("vit", {"heads": 3}, "heads must divide width, got 3 and 4"),
        ("vit", {"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        small(name, **options)


@pytest.mark.parametrize("name", ["conv4", "resnet12", "vit"])
def test_images_of_another_size_are_refused(name):
    with pytest.raises(
        ValueError, match=r"images must have shape \(N, .*\), got \(2, 1, 20, 20\); resize them"
    ):
        small(name)(torch.rand(2, 1, 20, 20))
