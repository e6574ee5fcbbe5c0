"""The zoo through every estimator, and many losses: nothing wrong, nothing that crashes, and what
is refused is what the page says.
"""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdtheory.core.types import Episode
from tests.models.user import sweep, zoo_libraries
from tests.models.user.zoo import NEVER, TO_FIRST_ORDER, ZOO, W
from tests.models.user.zoo_libraries import LIBRARIES


def test_the_zoo_is_large_and_mostly_accepted():
    assert len(ZOO) >= 150
    assert set(ZOO).issuperset(NEVER | TO_FIRST_ORDER)
    assert len(NEVER | TO_FIRST_ORDER) < len(ZOO) / 4


PAGE = set(sweep.PAGE.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", ZOO)
def test_a_module_is_right_or_refused(name):
    """And the page says so, word for word."""
    row = sweep.row(name)
    assert sweep.table("", {name: row})[-1] in PAGE
    for way, (found, said) in row.items():
        second = way in ("unrolled", "stepwise", "implicit")
        refused = name in NEVER or (second and name in TO_FIRST_ORDER)
        refused &= (name, way) != ("det at the identity", "implicit")  # its minimiser is another
        kinked = name == "AdaptiveMaxPool2d" and way == "implicit"
        accepted = {"unsolved"} if kinked else {"right", "switched"}
        assert found in ({"refused"} if refused else accepted), (way, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name"), [(one, name) for one in LIBRARIES for name in zoo_libraries.ROWS[one]]
)
def test_a_library_s_model_is_right_or_refused(library, name):
    pytest.importorskip(library, reason=f"{library} is not installed; its rows are recorded")
    for way, (found, said) in sweep.library_row(library, name).items():
        assert found in ("right", "switched", "refused", "unsolved"), (way, said)


@pytest.mark.parametrize("library", LIBRARIES)
def test_rows_of_a_library_that_is_not_installed_stay_as_they_are(library, monkeypatch):
    monkeypatch.setattr(zoo_libraries, "installed", lambda library: False)
    text = sweep.PAGE.read_text(encoding="utf-8")
    kept = sweep.section(library, text)
    assert kept.startswith(f"\n## {library} ") and kept in text
    assert all(f"\n| {name} | " in kept for name in zoo_libraries.ROWS[library])


def test_a_wrong_gradient_is_noticed(monkeypatch):
    """The mutant: a first-order gradient in the exact one's place."""
    monkeypatch.setattr(
        sweep,
        "MetaLearner",
        lambda *a, **k: _learner(*a, **{**k, "estimator": "first_order"}),
    )
    assert sweep.row("Tanh")["unrolled"][0] == "wrong"


_learner = sweep.MetaLearner


def float_targets(n: int, draw: torch.Generator) -> torch.Tensor:
    return torch.rand(n, 3, generator=draw, dtype=torch.float64)


def signs(n: int, draw: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, (n, 3), generator=draw).double() * 2 - 1


def shares(n: int, draw: torch.Generator) -> torch.Tensor:
    return float_targets(n, draw).softmax(1)


def classes(n: int, draw: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 3, (n,), generator=draw)


WEIGHT = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def focal(outputs, targets):
    each = F.cross_entropy(outputs, targets, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def contrastive(outputs, targets):
    near = F.normalize(outputs, dim=1)
    same = (targets[:, None] == targets[None]).double()
    return (((near @ near.T) - same) ** 2).mean()


def prototypes(outputs, targets):
    one_hot = (targets[:, None] == torch.arange(3)).double()
    means = one_hot.T @ outputs / one_hot.sum(0).clamp(min=1)[:, None]
    return F.cross_entropy(-(outputs[:, None] - means).square().sum(-1), targets)


LOSSES = {
    "cross_entropy": (F.cross_entropy, classes),
    "label smoothing": (functools.partial(F.cross_entropy, label_smoothing=0.1), classes),
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHT), classes),
    "cross_entropy, summed": (functools.partial(F.cross_entropy, reduction="sum"), classes),
    "soft targets": (F.cross_entropy, shares),
    "focal": (focal, classes),
    "nll": (lambda o, t: F.nll_loss(o.log_softmax(1), t), classes),
    "multi_margin": (F.multi_margin_loss, classes),
    "multilabel_soft_margin": (lambda o, t: F.multilabel_soft_margin_loss(o, (t + 1) / 2), signs),
    "binary cross-entropy": (
        lambda o, t: F.binary_cross_entropy_with_logits(o, (t + 1) / 2), signs),
    "bce of probabilities": (lambda o, t: F.binary_cross_entropy(o.sigmoid(), (t + 1) / 2), signs),
    "mse": (F.mse_loss, float_targets),
    "MSELoss": (nn.MSELoss(), float_targets),
    "l1": (F.l1_loss, float_targets),
    "smooth l1": (F.smooth_l1_loss, float_targets),
    "huber": (functools.partial(F.huber_loss, delta=0.3), float_targets),
    "log cosh": (lambda o, t: (o - t).cosh().log().mean(), float_targets),
    "quantile": (lambda o, t: torch.maximum(0.9 * (t - o), 0.1 * (o - t)).mean(), float_targets),
    "soft_margin": (F.soft_margin_loss, signs),
    "hinge": (lambda o, t: (1 - o * t).relu().mean(), signs),
    "kl_div": (lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean"), shares),
    "poisson": (F.poisson_nll_loss, float_targets),
    "gaussian": (
        lambda o, t: F.gaussian_nll_loss(o, t, 0.1 + o.square()), float_targets),
    "cosine": (
        lambda o, t: F.cosine_embedding_loss(o, t, torch.ones(len(o))), float_targets),
    "contrastive": (contrastive, classes),
    "prototypes": (prototypes, classes),
    "triplet": (lambda o, t: F.triplet_margin_loss(o, t, -t), float_targets),
    "nuclear norm": (lambda o, t: torch.linalg.matrix_norm(o - t, "nuc"), float_targets),
}  # fmt: skip
REFUSED = {"multi_margin"}
"""No second derivatives in torch."""


def smooth():
    return nn.Sequential(nn.Linear(W, 5), nn.Tanh(), nn.Linear(5, 3))


def kinked():
    return nn.Sequential(nn.Linear(W, 5), nn.LeakyReLU(), nn.Linear(5, 3))


def normed():
    return nn.Sequential(nn.Linear(W, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3))


@pytest.mark.parametrize("make", [smooth, kinked, normed])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, make):
    loss, targets = LOSSES[name]
    draw = torch.Generator().manual_seed(8)
    x, q = (torch.randn(5, W, generator=draw, dtype=torch.float64) for _ in range(2))
    task = Episode(x, targets(5, draw), q, targets(5, draw))

    def built():
        with torch.random.fork_rng():
            torch.manual_seed(9)
            return make().double()

    for way in ("unrolled", "stepwise", "first_order", "adapt"):
        found, said = sweep.verdict(built, task, loss, way)
        second = way in ("unrolled", "stepwise")
        assert found == ("refused" if second and name in REFUSED else "right"), (way, said)
