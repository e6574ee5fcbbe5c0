"""Recorded meta-iterations, with a stand-in for the graph: the run of eager ones, and what cannot
be recorded.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mdtheory.core.types import Episode
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.images import ClassImages
from mdtheory.data.splits import Division
from mdtheory.geometry.base import geometries
from mdtheory.meta import captured, checkpoint
from mdtheory.meta.events import read_metrics
from mdtheory.meta.trainer import DivergedError
from tests.meta.fakes import (
    FEATURES,
    N_WAY,
    Stop,
    Switch,
    blobs,
    broken_off,
    last,
    learner,
    logged,
    resumed,
    sgd,
    trainer,
    unbroken,
)
from tests.meta.recorders import Standin, capturable_on_a_cpu


@pytest.fixture(autouse=True)
def optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    capturable_on_a_cpu(monkeypatch)


def adam(values: Any) -> Any:
    return torch.optim.Adam(values, lr=0.01)


def rows(folder: Any) -> list[dict[str, Any]]:
    return read_metrics(folder / "metrics.jsonl")


def same_run(folder: Any, *, tolerance: float = 1e-5, **options: Any) -> Standin:
    """An eager and a recorded run have the same metrics and weights, to rounding."""
    recorder = Standin()
    eager = unbroken(folder / "eager", **_fresh(options))
    ours = unbroken(folder / "ours", **_fresh(options), recorder=recorder)
    assert [row.keys() for row in rows(folder / "eager")] == [
        row.keys() for row in rows(folder / "ours")
    ]
    for one, other in zip(rows(folder / "eager"), rows(folder / "ours"), strict=True):
        for key, value in one.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=tolerance, abs=tolerance, nan_ok=True)
            assert other[key] == value, key
    for name, value in eager["weights"].items():
        assert torch.allclose(ours["weights"][name], value, rtol=tolerance, atol=tolerance), name
    return recorder


def _fresh(options: dict[str, Any]) -> dict[str, Any]:
    """A learner of its own for each run."""
    options = dict(options)
    make = options.pop("make", None)
    return options if make is None else {**options, "own": make()}


CAPTURABLE = [
    slug for slug in geometries.names() if getattr(geometries.get(slug), "capturable", True)
]


class TestTheSameRun:
    @pytest.mark.parametrize("slug", CAPTURABLE)
    def test_for_every_geometry(self, slug: str, tmp_path: Any) -> None:
        recorder = same_run(tmp_path, make=lambda: learner(slug))
        assert recorder.replays == 5  # the first of six makes the optimizer's state

    @pytest.mark.parametrize("batched", [False, True])
    @pytest.mark.parametrize("estimator", ["unrolled", "stepwise", "first_order"])
    def test_for_every_estimator(self, estimator: str, batched: bool, tmp_path: Any) -> None:
        def make() -> Any:
            own = learner(estimator=estimator)
            own.estimator.batched = batched
            return own

        assert same_run(tmp_path, make=make).replays == 5

    def test_in_chunks(self, tmp_path: Any) -> None:
        def make() -> Any:
            own = learner()
            own.estimator.batched, own.estimator.chunk = True, 1
            return own

        assert same_run(tmp_path, make=make).replays == 5

    @pytest.mark.parametrize(
        "scheduler",
        [
            lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=6),
            lambda made: lr_scheduler.MultiStepLR(made, milestones=[2, 4]),
            lambda made: lr_scheduler.ReduceLROnPlateau(made, patience=0, threshold=10.0),
            lambda made: lr_scheduler.OneCycleLR(
                made, max_lr=0.1, total_steps=10, cycle_momentum=False
            ),
        ],
    )
    def test_with_a_scheduler(self, scheduler: Any, tmp_path: Any) -> None:
        def make(values: Any) -> Any:
            made = adam(values)
            return made, scheduler(made)

        recorder = same_run(tmp_path, optimizer=make)
        assert recorder.replays == 5
        assert len({row["meta_lr"] for row in rows(tmp_path / "ours") if "meta_lr" in row}) > 1

    def test_with_clipping(self, tmp_path: Any) -> None:
        assert same_run(tmp_path, clip_value=0.05, clip_norm=0.08).replays == 5

    def test_with_running_statistics(self, tmp_path: Any) -> None:
        def make() -> Any:
            torch.manual_seed(1)
            return learner(network=Switch(), norm="running")

        assert same_run(tmp_path, make=make, optimizer=sgd).replays == 5

    def test_with_another_optimizer(self, tmp_path: Any) -> None:
        assert same_run(tmp_path, optimizer=sgd).replays == 5

    def test_from_images_on_the_device(self, tmp_path: Any) -> None:
        pixels = torch.randint(0, 256, (24, 2, 2, 1), dtype=torch.uint8)
        names = [f"c{k}" for k in range(6) for _ in range(4)]
        division = Division(
            splits={"train": tuple(f"c{k}" for k in range(6)), "validation": (), "test": ()},
            by="test",
        )
        images = ClassImages(
            pixels, class_ids=names, files=[f"{i % 4}" for i in range(24)], division=division
        )
        stream = EpisodeStream(images, split="train", seed=0, n_way=N_WAY, n_shot=1, n_query=2)

        def network() -> nn.Module:
            torch.manual_seed(3)
            return nn.Sequential(nn.Flatten(), nn.Linear(4, N_WAY))

        options = {"stream": stream, "validation": None}
        for slug in ("maml", "mtnet"):
            folder = tmp_path / slug
            folder.mkdir()
            recorder = same_run(
                folder, make=lambda slug=slug: learner(slug, network=network()), **options
            )
            assert recorder.replays == 5


class TestResume:
    @pytest.mark.parametrize("after", [1, 2, 3, 5])
    @pytest.mark.parametrize("slug", ["maml", "mtnet"])
    def test_killed_and_resumed_has_the_same_bits(
        self, slug: str, after: int, tmp_path: Any
    ) -> None:
        whole = unbroken(tmp_path / "whole", own=learner(slug), recorder=Standin())
        broken_off(tmp_path / "broken", after, own=learner(slug), recorder=Standin())
        again = resumed(tmp_path / "broken", own=learner(slug), recorder=Standin())
        assert checkpoint.digest(again) == checkpoint.digest(whole)
        assert rows(tmp_path / "broken") == rows(tmp_path / "whole")

    def test_a_checkpoint_is_an_eager_one(self, tmp_path: Any) -> None:
        """Neither the rate nor the flag of the graph is in it, and an eager run goes on from it."""
        unbroken(tmp_path / "run", recorder=Standin(), iterations=4)
        state = last(tmp_path / "run")["optimizer"]
        assert state["param_groups"][0]["lr"] == 0.01
        assert state["param_groups"][0]["capturable"] is False
        eager = unbroken(tmp_path / "eager", iterations=4)
        assert last(tmp_path / "run")["optimizer"].keys() == eager["optimizer"].keys()

    def test_the_number_of_iterations_between_readings_moves_no_bit(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        often = unbroken(tmp_path / "often", recorder=Standin())
        monkeypatch.setattr(captured, "SECONDS", 1e9)
        seldom = unbroken(tmp_path / "seldom", recorder=Standin())
        assert checkpoint.digest(often) == checkpoint.digest(seldom)


class Setting(Stop):
    """Halves the rate after an iteration, as a listener may between two readings."""

    def __init__(self, after: int, *, in_place: bool):
        super().__init__(after)
        self.in_place = in_place
        self.optimizer: Any = None

    def record(self, row: Any) -> None:
        if row["kind"] == "train" and row["iteration"] == self.after:
            for group in self.optimizer.param_groups:
                if self.in_place:
                    group["lr"] *= 0.5
                else:
                    group["lr"] = 0.5 * float(group["lr"])


class TestBetweenReadings:
    @pytest.mark.parametrize("in_place", [False, True])
    @pytest.mark.parametrize("make", [adam, sgd])
    def test_a_rate_that_a_listener_sets_is_the_rate(
        self, make: Any, in_place: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The graph's own was put back over it."""
        monkeypatch.setattr(captured, "SECONDS", 0.0)  # a reading after every iteration
        found = {}
        for name, recorder in (("eager", None), ("ours", Standin())):
            (tmp_path / name).mkdir()
            listener = Setting(2, in_place=in_place)
            one = logged(tmp_path / name, listener, optimizer=make, recorder=recorder)
            listener.optimizer = one.optimizer
            one.fit()
            found[name] = one
        rates = [[row.get("meta_lr") for row in rows(tmp_path / name)] for name in found]
        assert rates[0] == pytest.approx(rates[1]) and len(set(rates[1]) - {None}) == 2
        saved = [last(tmp_path / name)["optimizer"]["param_groups"][0]["lr"] for name in found]
        assert saved[0] == pytest.approx(saved[1])
        pairs = zip(*(one.learner.state_dict().values() for one in found.values()), strict=True)
        assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in pairs)

    def test_an_iteration_that_was_replayed_is_counted_where_the_next_one_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(captured, "SECONDS", 1e9)  # no reading before it is due

        def stream(index: int) -> Episode:
            if index == 18:
                raise OSError("a broken image")
            return blobs(index)

        options = {"iterations": 12, "checkpoint_every": 12, "validation": None}
        one = trainer(stream=stream, recorder=(recorder := Standin()), **options)
        with pytest.raises(OSError, match="a broken image"):
            one.fit()
        steps = {float(own["step"]) for own in one.optimizer.state.values()}
        assert steps == {one.counters.iteration} == {9} and recorder.replays == 8

    def test_iterations_are_counted_where_a_listener_raises(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(captured, "SECONDS", 1e9)

        class Full(Stop):
            def record(self, row: Any) -> None:
                if row["iteration"] == self.after:
                    raise OSError("no space left")

        options = {"iterations": 12, "checkpoint_every": 12, "validation": None}
        one = trainer(recorder=Standin(), listeners=[Full(4)], **options)
        with pytest.raises(OSError, match="no space left"):
            one.fit()
        steps = {float(own["step"]) for own in one.optimizer.state.values()}
        assert steps == {one.counters.iteration} == {12}


class TestDivergence:
    def test_it_is_named_and_the_last_checkpoint_is_good(self, tmp_path: Any) -> None:
        (tmp_path / "run").mkdir()
        bad = logged(
            tmp_path / "run",
            stream=lambda index: blobs(index, scale=math.inf if index >= 10 else 1.0),
            recorder=Standin(),
            validation=None,
            iterations=12,
        )
        with pytest.raises(DivergedError, match="meta-objective is not finite in meta-iteration 6"):
            bad.fit()
        assert last(tmp_path / "run")["counters"]["iteration"] == 4
        assert [row["iteration"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 5]

    def test_a_parameter_is_named(self, tmp_path: Any) -> None:
        def make(values: Any) -> Any:
            made = adam(values)
            return made, lr_scheduler.LambdaLR(made, lambda k: math.inf if k >= 3 else 1.0)

        (tmp_path / "run").mkdir()
        bad = logged(tmp_path / "run", optimizer=make, recorder=Standin(), validation=None)
        with pytest.raises(DivergedError, match=r"value of anchor\..* in meta-iteration 4"):
            bad.fit()
        assert last(tmp_path / "run")["counters"]["iteration"] == 2


class Reading(nn.Module):
    """A network that looks at a value of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(FEATURES, N_WAY)
        self.register_buffer("one", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x) if float(self.one) > 0 else self.last(-x)


def convex() -> Any:
    torch.manual_seed(2)
    return learner("prior", estimator="implicit", network=nn.Linear(FEATURES, N_WAY))


def reading() -> Any:
    torch.manual_seed(2)
    return learner(network=Reading())


def _scheduled(values: Any) -> Any:
    made = sgd(values)
    return made, lr_scheduler.StepLR(made, step_size=2)


def _hooked_gradient() -> Any:
    own = learner()
    next(iter(own.meta().values())).register_hook(lambda gradient: gradient / 2)
    return own


def _hooked_steps(values: Any) -> Any:
    made = adam(values)
    made.register_step_post_hook(lambda *_: None)
    return made


class TestFallsBackToEager:
    """One sentence, and the run of before."""

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"make": lambda: learner("ecml")}, "geometry ECML"),
            ({"make": convex}, "estimator Implicit"),
            ({"make": reading}, "cannot be recorded"),
            ({"optimizer": _scheduled}, "optimizer SGD"),
            ({"make": _hooked_gradient}, "has a hook on its gradient"),
            ({"optimizer": _hooked_steps}, "has a hook on its steps"),
        ],
        ids=["geometry", "estimator", "network", "optimizer", "own clipping", "steps"],
    )
    def test_with_one_sentence(
        self, options: Any, reason: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="mdtheory.meta.trainer"):
            recorder = same_run(tmp_path, tolerance=0.0, **options)
        said = [r.message for r in caplog.records if r.name == "mdtheory.meta.trainer"]
        assert recorder.replays == 0 and len(said) == 1 and reason in said[0]

    def test_where_tasks_change_their_shape(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def stream(index: int) -> Episode:
            return blobs(index, n_query=6 if index < 8 else 5)

        recorder = same_run(tmp_path, stream=stream)
        assert recorder.replays == 3 and "differ in shape" in caplog.text

    def test_where_a_scheduler_changes_more_than_the_rate(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One cycle's momenta are constants of the graph: one replay has them right."""

        def make(values: Any) -> Any:
            made = adam(values)
            return made, lr_scheduler.OneCycleLR(made, max_lr=0.1, total_steps=10)

        recorder = same_run(tmp_path, optimizer=make)
        assert recorder.replays == 1 and "more than the learning rate" in caplog.text

    def test_where_memory_does_not_suffice_fewer_tasks_are_recorded_at_once(
        self, tmp_path: Any
    ) -> None:
        class Small(Standin):
            tried = 0

            def record(self, body: Any) -> Any:
                self.tried += 1
                if self.tried == 1:
                    raise torch.OutOfMemoryError("no room")
                return super().record(body)

        own, recorder = learner(), Small()
        own.estimator.batched = True
        unbroken(tmp_path / "run", own=own, recorder=recorder)
        assert recorder.tried == 2 and own.estimator.chunk == 1 and recorder.replays == 5


def test_the_standin_refuses_what_a_capture_refuses() -> None:
    recorder = Standin()
    for bad in (
        lambda: torch.ones(2).sum().item(),
        lambda: bool(torch.ones(()) > 0),
        lambda: torch.ones(2)[torch.ones(2, dtype=torch.bool)],
        lambda: torch.tensor(1.0, device="cpu"),
        lambda: torch.zeros(2, device="cpu") + torch.arange(2),
    ):
        with pytest.raises(RuntimeError, match=r"capturing|meta"):
            recorder.record(bad)
