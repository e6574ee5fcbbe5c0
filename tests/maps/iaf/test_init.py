"""How the maps start: as the identity, with the published counts; the published start mostly dead,
the live one not at all.
"""

from __future__ import annotations

import math

import pytest
import torch

from mdtheory.core.seeding import generator
from mdtheory.maps.iaf.base import LEAKY_SLOPES, smooth_leaky
from mdtheory.maps.iaf.kronecker_init import kron_linear
from tests.maps.iaf.cases import (
    PARTITIONS,
    conv4_anchor,
    distance,
    kronecker,
    mlp,
    perturbed,
    random_point,
    small_anchor,
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("init", ["live", "published"])
def test_parameter_counts_on_conv4(init):
    """The official map on Conv4-64, to the unit, and its parts."""
    anchor = conv4_anchor(dtype=torch.float32)
    built = kronecker(anchor, init=init)
    parts = {name: count(child) for name, child in built.named_children()}
    assert sum(value.numel() for value in anchor.values()) == 121_093
    assert parts == {"encoders": 66_117, "decoders": 3_285_937, "linears": 91_641, "affine": 3_840}
    assert count(built) == 3_447_535
    tensors = {name: value.numel() for name, value in built.own().items()}

    def below(prefix):
        return sum(size for name, size in tensors.items() if name.startswith(prefix))

    assert (
        below("encoders.features.0.conv.weight.") == 2_907
        and below("encoders.features.2.conv.weight.") == 10_094
    )
    assert (
        below("encoders.features.1.norm.bias.") == 2_744
        and below("decoders.features.1.norm.bias.") == 4_912
    )
    assert below("decoders.features.2.conv.weight.") == 87_890
    assert (
        below("decoders.classifier.weight.") == 2_978_023
        and below("decoders.classifier.bias.") == 36
    )
    assert [below(f"linears.block{i}.") for i in (2, 3, 4, 5)] == [2_904, 10_648, 18_392, 59_697]


FORMS = {
    "live": lambda anchor, p: kronecker(anchor, partition=p),
    "live, bounded": lambda anchor, p: kronecker(anchor, partition=p, scale="bounded"),
    "published": lambda anchor, p: kronecker(anchor, partition=p, init="published"),
    "mlp": lambda anchor, p: mlp(anchor, partition=p),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_identity_at_the_start(partition, form):
    anchor = small_anchor()
    built, z = FORMS[form](anchor, partition), random_point(anchor, "z", scale=3.0)
    assert all(torch.equal(built(z)[name], z[name]) for name in z)
    assert list(built(z)) == list(z) and all(built(z)[name].shape == z[name].shape for name in z)
    assert distance(perturbed(built)(z), z) > 0.01  # the same check fails away from the start


@pytest.mark.parametrize("form", FORMS)
def test_start_is_decided_by_the_seed(form):
    torch.manual_seed(1)
    first, state = FORMS[form](small_anchor(), 2), torch.get_rng_state()
    again = FORMS[form](small_anchor(), 2)
    other = (mlp if form == "mlp" else kronecker)(small_anchor(), partition=2, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, again.own()[name]) for name, value in first.own().items())
    assert any(
        not torch.equal(value, other.own()[name])
        for name, value in first.own().items()
        if other.own()[name].numel() > 1
    )


def test_precisions_start_from_the_same_numbers():
    double, single = kronecker(small_anchor()), kronecker(small_anchor(torch.float32))
    assert all(
        value.dtype == torch.float32 and torch.equal(double.own()[n].float(), value)
        for n, value in single.own().items()
    )


@pytest.mark.parametrize("form", ["live", "mlp"])
def test_long_inverse_on_conv4(form):
    anchor = conv4_anchor(channels=32)
    built = perturbed(kronecker(anchor) if form == "live" else mlp(anchor), scale=0.2)
    z = random_point(anchor, "z", scale=0.1)
    phi = built(z)
    assert distance(phi, z) > 0.01
    assert distance(built.inverse(built.own(), phi), z) < 1e-10


def test_smooth_leaky_is_never_dead():
    x = (
        torch.cat([-torch.logspace(-6, 6, 60), torch.zeros(1), torch.logspace(-6, 6, 60)])
        .double()
        .requires_grad_()
    )
    (slope,) = torch.autograd.grad(smooth_leaky(x).sum(), x)
    assert slope.min() >= LEAKY_SLOPES[0] and slope.max() <= LEAKY_SLOPES[1]
    assert (
        slope.min() < LEAKY_SLOPES[0] + 1e-9 and slope.max() > LEAKY_SLOPES[1] - 1e-9
    )  # and no further than they need be
    assert smooth_leaky(torch.zeros(1)) == 0.5
    dead = torch.relu(x)  # the same check on the published unit
    assert torch.autograd.grad(dead.sum(), x)[0].min() == 0


def entries_with_gradient(built, z, draw):
    """Which parameter entries have a gradient, of one random smooth function of g(z)."""
    target = {name: torch.randn(value.shape, generator=draw).to(value) for name, value in z.items()}
    phi = built(z)
    loss = sum(((phi[name] - target[name]) ** 2).sum() for name in z)
    grads = torch.autograd.grad(loss, list(built.parameters()), allow_unused=False)
    return {
        name: gradient != 0
        for (name, _), gradient in zip(built.named_parameters(), grads, strict=True)
    }


def fill_live_values(built, draw):
    """Random values everywhere but in heads of two or more factors, which start at zero: as late in
    training as one likes.

    All of them positive, so that every ReLU unit is on where z is: what has no gradient then never
    has one.
    """
    own = built.own()
    with torch.no_grad():
        for name, parameter in own.items():
            layer, _, last = name.rpartition(".factors.")
            if last and layer.endswith(("log_scale", "shift")) and f"{layer}.factors.1" in own:
                continue
            noise = torch.randn(parameter.shape, generator=draw).to(parameter)
            parameter.copy_(noise.abs() / (parameter.shape[-1] if parameter.ndim == 2 else 1))


def test_dead_share_of_the_published_start():
    """Exactly 3,004,509 decoder and 82,632 linear parameters of 3,447,535 never train, and no
    others.
    """
    anchor = conv4_anchor(dtype=torch.float32)
    built, draw = kronecker(anchor, init="published"), generator("blockiaf", "dead")
    alive = {
        name: torch.zeros(value.shape, dtype=torch.bool) for name, value in built.named_parameters()
    }
    for i in range(2):
        fill_live_values(built, draw)
        z = {
            name: value.abs() for name, value in random_point(anchor, "dead", i, scale=0.1).items()
        }
        for name, seen in entries_with_gradient(built, z, draw).items():
            alive[name] |= seen
    dead = {
        part: sum(int((~seen).sum()) for n, seen in alive.items() if n.startswith(part))
        for part in ("enc", "dec", "lin", "aff")
    }
    assert dead == {"enc": 0, "dec": 3_004_509, "lin": 82_632, "aff": 0}
    assert abs(sum(dead.values()) / count(built) - 0.8955) < 1e-4
    assert {name for name, seen in alive.items() if not seen.any()} == set(built.never_trained())


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_inert_names_are_exactly_the_dead_tensors(partition):
    anchor = small_anchor()
    built, draw = (
        kronecker(anchor, partition=partition, init="published"),
        generator("blockiaf", "inert"),
    )
    fill_live_values(built, draw)
    z = {name: value.abs() for name, value in anchor.items()}
    alive = {name for name, seen in entries_with_gradient(built, z, draw).items() if seen.any()}
    assert set(built.own()) - alive == set(built.never_trained())


def test_published_heads_stay_at_zero_under_training():
    anchor = small_anchor()
    built = kronecker(anchor, partition=2, init="published")
    start = {name: value.detach().clone() for name, value in built.own().items()}
    optimizer = torch.optim.SGD(built.parameters(), lr=0.05, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        sum(
            ((value - 0.5) ** 2).sum() for value in built(random_point(anchor, step)).values()
        ).backward()
        optimizer.step()
    moved = {name for name, value in built.own().items() if not torch.equal(value, start[name])}
    assert moved and not moved & set(built.never_trained())


def second_step_alive(built, anchor, lr):
    """Entries with a gradient after one gradient step on the map and the anchor, from the very
    start.
    """
    draw = generator("blockiaf", "second")
    z = {name: value.clone().requires_grad_() for name, value in anchor.items()}
    phi, target = (
        built(z),
        {name: torch.randn(value.shape, generator=draw).to(value) for name, value in z.items()},
    )
    leaves = [*built.parameters(), *z.values()]
    grads = torch.autograd.grad(sum(((phi[n] - target[n]) ** 2).mean() for n in z), leaves)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, grads, strict=True):
            leaf -= lr * gradient
    return entries_with_gradient(built, {name: value.detach() for name, value in z.items()}, draw)


def test_live_start_has_no_dead_entry_by_the_second_step():
    """Every single entry of all 3,447,535, norm biases that start at zero included."""
    anchor = conv4_anchor()
    built = kronecker(anchor)
    alive = second_step_alive(built, anchor, lr=0.1)
    assert sum(int(seen.sum()) for seen in alive.values()) == 3_447_535
    assert built.never_trained() == ()
    published = second_step_alive(kronecker(anchor, init="published"), anchor, lr=0.1)
    assert (
        sum(int(seen.sum()) for seen in published.values()) < 400_000
    )  # the same check fails there


def test_mlp_form_has_no_dead_entry_by_the_second_step():
    anchor = small_anchor()
    alive = second_step_alive(mlp(anchor, partition=2), anchor, lr=0.1)
    assert all(seen.all() for seen in alive.values())


def test_only_the_linear_layers_are_zero_at_the_live_start():
    built = kronecker(small_anchor())
    zero = {name for name, value in built.own().items() if not value.any()}
    biases = {
        name for name in built.own() if name.startswith("encoders.") and name.endswith(".bias")
    }
    assert zero - biases == {
        name for name in built.own() if name.startswith(("linears.", "affine."))
    }


def test_live_start_moves_all_but_the_encoders_at_once():
    """At the first meta-step already: zero heads would leave all of the decoders behind."""
    anchor, draw = conv4_anchor(channels=16), generator("blockiaf", "first")
    built = kronecker(anchor)
    alive = entries_with_gradient(built, random_point(anchor, "first"), draw)
    assert {name.split(".")[0] for name, seen in alive.items() if not seen.any()} == {"encoders"}
    assert all(
        seen.all() for name, seen in alive.items() if name.startswith(("linears.", "affine."))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_live_start_is_exactly_the_identity_at_full_size(dtype):
    """Signs times powers of two cancel without rounding, in any order of summation and after a
    change of precision.
    """
    built = kronecker(conv4_anchor(dtype=torch.float32)).to(dtype)
    z = random_point(conv4_anchor(dtype=dtype), "full")
    assert all(torch.equal(value, z[name]) for name, value in built(z).items())
    assert all(torch.equal(value, z[name]) for name, value in built.inverse(built.own(), z).items())


def test_live_factors_keep_the_size_of_signals():
    """Three mode products keep a random tensor's size; the published factors lose 3^(-1/2) each."""
    sizes, x = (
        {},
        torch.randn(1, 64, 64, 9, generator=generator("blockiaf", "signal"), dtype=torch.float64),
    )
    for init in ("live", "published"):
        built = kronecker(
            {"w": torch.zeros(64, 64, 3, 3), "v": torch.zeros(2)}, partition=1, init=init
        ).double()
        factors = [built.own()[f"encoders.w.0.factors.{j}"][None] for j in range(3)]
        sizes[init] = float(kron_linear(x, factors, torch.zeros(1, 32, 32, 4)).detach().std())
    assert 0.7 < sizes["live"] < 1.4
    assert math.isclose(sizes["published"] / sizes["live"], 3**-1.5, rel_tol=0.2)


def test_unknown_start_and_sizes_are_refused():
    with pytest.raises(ValueError, match="init must be 'live' or 'published', got 'dead'"):
        kronecker(small_anchor(), init="dead")
    with pytest.raises(ValueError, match="hidden and code must be at least 1, got 0 and 3"):
        mlp(small_anchor(), hidden=0)
