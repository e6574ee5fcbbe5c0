"""A cell whose iterations and evaluation are recorded, with a stand-in for the graph: killed on the
way and called again, it leaves the record of one that never was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.records import COMPARED
from experiments.run import carry_out
from mdtheory.meta import captured
from mdtheory.meta.trainer import MetaTrainer
from tests.experiments import tiny
from tests.meta.recorders import Standin, capturable_on_a_cpu


class Killed(BaseException):
    """Ends the process, as far as the code can tell."""


@pytest.mark.slow
def test_killed_and_called_again_it_leaves_the_same_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    capturable_on_a_cpu(monkeypatch)
    recorders: list[Standin] = []

    def recorder_for(device: Any) -> Standin:
        recorders.append(Standin())
        return recorders[-1]

    monkeypatch.setattr(captured, "recorder_for", recorder_for)
    monkeypatch.setattr(tiny, "SMALLER", [*tiny.SMALLER, "checkpoint_every=1"])
    tiny.shrink(monkeypatch)
    whole, broken = (tiny.tiny(tmp_path / name, "maml") for name in ("whole", "broken"))
    assert carry_out(whole)
    assert sum(one.replays for one in recorders) == 3  # of four, after an eager one

    tell = MetaTrainer._tell

    def until(self: MetaTrainer, kind: str, numbers: Any) -> None:
        tell(self, kind, numbers)
        if kind == "train" and self.counters.iteration == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MetaTrainer, "_tell", until)
        with pytest.raises(Killed):
            carry_out(broken)
    assert not broken.record.is_dir()
    assert carry_out(broken)
    for name in COMPARED:
        assert (broken.record / name).read_bytes() == (whole.record / name).read_bytes(), name
