"""The learner as people meet it: subsets, steps, refusals, an ordinary adapted module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdtheory.core import tree
from mdtheory.core.types import Episode
from mdtheory.inner.solver import solve
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.contract.cases import MODELS, distance, episodes_of, largest, learner_of


def test_adapt_patterns_split_anchor_and_shared():
    learner = MetaLearner(MODELS["user"][0](), adapt=["head.*"])
    names = learner.meta()
    assert {name for name in names if name.startswith("anchor.")} == {
        "anchor.head.weight",
        "anchor.head.bias",
    }
    assert "shared.layer.weight" in names
    assert not any("frozen" in name for name in names)


def test_only_the_chosen_part_moves_in_a_task_but_all_of_it_is_meta_learned():
    learner, episode = learner_of("maml", "mlp", adapt="classifier.*"), episodes_of("mlp", 1)[0]
    before = {name: value.clone() for name, value in learner.network.named_parameters()}
    adapted = dict(learner.adapt(episode.support_x, episode.support_y).network.named_parameters())
    moved = {name for name, value in adapted.items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert (
        largest(
            {
                n: g
                for n, g in learner.meta_gradient([episode]).grads.items()
                if n.startswith("shared.")
            }
        )
        > 1e-4
    )


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(
        ValueError,
        match=r"adapt must match trainable parameters, got 'heads\.\*', which matches none",
    ):
        MetaLearner(MODELS["user"][0](), adapt=["heads.*"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": -1}, "n_steps must be a whole number >= 0"),
        ({"eval_steps": -2}, "eval_steps must be a whole number >= 0"),
        ({"task_lr": 0.0}, "task_lr must be a number > 0 and finite"),
        ({"task_lr": float("nan")}, "task_lr must be a number > 0 and finite"),
        ({"geometry": "mamel"}, "did you mean 'maml'"),
        ({"estimator": "unroled"}, "did you mean 'unrolled'"),
        ({"norm": "transductiv"}, "did you mean 'transductive'"),
    ],
)
def test_wrong_arguments_are_one_sentence(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        MetaLearner(nn.Linear(3, 2), **options)
    assert "\n" not in str(caught.value)


def test_the_users_model_is_never_changed():
    model = MODELS["user"][0]().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    learner = MetaLearner(model, "metamida", n_steps=2)
    learner.backward(episodes_of("user"))
    torch.optim.SGD(learner.parameters(), lr=0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == kinds


def test_backward_adds_into_grad_for_any_optimizer():
    learner, episodes = learner_of("metasgd", "mlp"), episodes_of("mlp")
    once = learner.backward(episodes).grads
    learner.backward(episodes)
    grads = {name: value.grad for name, value in learner.meta().items()}
    assert distance(grads, tree.tree_map(lambda g: 2 * g, once)) < 1e-14


def test_training_and_evaluation_may_take_different_numbers_of_steps():
    learner, episode = learner_of("maml", "mlp", n_steps=1, eval_steps=4), episodes_of("mlp", 1)[0]
    problem, meta = learner.problem(n_steps=4), tree.detach(learner.meta())
    state = solve(problem, meta, learner.task(episode))
    adapted = dict(learner.adapt(episode.support_x, episode.support_y).network.named_parameters())
    assert all(
        torch.equal(adapted[name.removeprefix("z.")], value) for name, value in state.items()
    )
    assert len(learner.trace(episode).support_loss) == 5


def test_inner_loss_scale_multiplies_the_task_rate_of_plain_gradient_descent():
    episodes = episodes_of("mlp", 1)
    scaled, faster = (
        learner_of("maml", "mlp", **options)
        for options in ({"inner_loss_scale": 5.0}, {"task_lr": 0.5})
    )
    assert (
        distance(scaled.meta_gradient(episodes).grads, faster.meta_gradient(episodes).grads) < 1e-12
    )


def test_support_statistics_make_a_prediction_independent_of_the_other_queries():
    predictions = {}
    for norm in ("support", "transductive"):
        learner = MetaLearner(MODELS["conv4"][0]().double(), norm=norm, n_steps=1)
        episode = episodes_of("conv4", 1)[0]
        adapted = learner.adapt(episode.support_x, episode.support_y)
        predictions[norm] = adapted(episode.query_x)[:2], adapted(episode.query_x[:2])
    assert torch.allclose(*predictions["support"], rtol=1e-10)
    assert not torch.allclose(*predictions["transductive"], rtol=1e-3)


def test_running_statistics_move_in_backward_in_training_mode_alone():
    learner, episodes = (
        MetaLearner(MODELS["conv4"][0]().double(), norm="running", n_steps=1),
        episodes_of("conv4"),
    )
    norm = learner.network.blocks[0].norm
    before = norm.running_mean.clone()
    learner.meta_gradient(episodes)
    learner.eval().backward(episodes)
    assert torch.equal(norm.running_mean, before)
    learner.train().backward(episodes)
    moved = norm.running_mean.clone()
    assert not torch.equal(moved, before)
    norm.running_mean.copy_(before)
    learner.update_statistics(episodes)
    assert torch.equal(norm.running_mean, moved)


def test_a_network_without_second_derivatives_is_refused_at_the_first_use():
    class Rounded(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(())

    labels = torch.tensor([0, 1])
    learner = MetaLearner(Rounded(3, 2))
    with pytest.raises(ValueError, match="draws from the global random generator"):
        learner.meta_gradient([Episode(torch.zeros(2, 3), labels, torch.zeros(2, 3), labels)])


@pytest.mark.parametrize("n_labels", [0, 3])
def test_unlabelled_support_is_refused(n_labels):
    with pytest.raises(ValueError, match="support_x and support_y must hold the same number"):
        MetaLearner(nn.Linear(3, 2)).adapt(
            torch.zeros(2, 3), torch.zeros(n_labels, dtype=torch.int64)
        )


def test_forward_is_adapt_and_predict():
    learner, episode = learner_of("maml", "mlp"), episodes_of("mlp", 1)[0]
    joint = learner(episode.support_x, episode.support_y, episode.query_x)
    assert torch.equal(joint, learner.adapt(episode.support_x, episode.support_y)(episode.query_x))


def test_every_model_of_the_registry_meta_learns():
    sizes = {"conv4": 16, "resnet12": 16, "vit": 16}
    labels = torch.tensor([0, 1, 0, 1])
    for name in models.names():
        size = sizes.get(name, 4)
        options = (
            {"in_features": 3 * size * size}
            if name in ("linear", "mlp")
            else {"in_channels": 3, "image_size": size}
        )
        if name == "vit":
            options["patch"] = 4
        if name == "resnet12":
            options["widths"] = (4, 6)
        network = models.get(name)(n_way=2, **options).double()
        x = torch.rand(
            4, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        result = MetaLearner(network, n_steps=1).meta_gradient(
            [Episode(x, labels, x.flip(0), labels)]
        )
        assert torch.isfinite(result.value)
        assert largest(result.grads) > 0
