"""Checkpoints: written whole or not at all, read without running anything, one digest for one
state.
"""

from __future__ import annotations

import copy
import errno
import io
import math
import os
import pickle
import random
import resource
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mdtheory.meta import checkpoint
from tests.meta import fakes


def small() -> dict[str, Any]:
    return {
        "weights": {"b": torch.arange(3.0), "a.x": torch.ones(2, 1, dtype=torch.float64)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(2.0)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None}],
        },
        "scheduler": {"last_epoch": 2},
        "random": {"seed": 3},
        "counters": {
            "iteration": 2,
            "validated": -1,
            "best_iteration": -1,
            "best_score": float("-inf"),
        },
        "config": "{}",
        "config_digest": "d",
        "data_digest": "i",
        "threads": 1,
        "torch": "2.13.0",
        "mdtheory": "0.1.0",
    }


def saved(folder: Path, state: dict[str, Any] | None = None) -> Path:
    path = folder / "last.pt"
    checkpoint.save(small() if state is None else state, path)
    return path


def test_round_trip_keeps_every_bit_and_loads_as_weights_only(tmp_path):
    path = saved(tmp_path)
    loaded = checkpoint.load(path)
    assert checkpoint.digest(loaded) == checkpoint.digest(small())
    assert torch.load(path, weights_only=True)["format"] == "mdtheory-checkpoint"
    assert torch.equal(loaded["weights"]["a.x"], torch.ones(2, 1, dtype=torch.float64))
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_state_with_anything_but_data_is_refused(tmp_path):
    state = small() | {"scheduler": {"lambda": print}}
    with pytest.raises(ValueError, match="tensors, numbers and strings only"):
        saved(tmp_path, state)
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_saved_is_loaded(tmp_path):
    """NumPy's numbers as Python's, every type of buffer, an additive mask of infinities."""
    state = small()
    state["optimizer"]["param_groups"][0] |= {"lr": np.float64(0.01), "on": np.bool_(True)}
    state["scheduler"] = {"milestones": list(np.array([1, 5])), "factor": np.float32(0.5)}
    mask = torch.triu(torch.full((3, 3), -math.inf), 1)
    state["weights"] |= {"mask": mask, "turn": torch.polar(torch.ones(2), torch.ones(2))}
    state["weights"] |= {"count": torch.tensor([1, 2], dtype=torch.uint16)}
    loaded = checkpoint.load(saved(tmp_path, state))
    assert loaded["scheduler"] == {"milestones": [1, 5], "factor": 0.5}
    assert {type(one) for one in loaded["scheduler"]["milestones"]} == {int}
    assert loaded["optimizer"]["param_groups"][0]["on"] is True
    for name, value in state["weights"].items():
        assert loaded["weights"][name].dtype == value.dtype
        assert torch.equal(loaded["weights"][name], value)


@pytest.mark.parametrize("broken", [[0.0, math.nan], [1.0, math.inf], [math.inf, -math.inf]])
def test_weights_that_are_no_mask_must_be_finite(tmp_path, broken):
    state = small()
    state["weights"]["b"] = torch.tensor(broken)
    with pytest.raises(ValueError, match="must get finite weights, but 'b'"):
        saved(tmp_path, state)


def test_what_could_not_be_read_is_not_written(tmp_path):
    before = saved(tmp_path).read_bytes()
    for part, value, said in (
        ("weights", {"a._extra_state": {"x": 1}}, "'a._extra_state' is a module's extra state"),
        ("scheduler", {(1, 2): 3}, "has a key of type tuple"),
    ):
        with pytest.raises(ValueError, match=said):
            saved(tmp_path, small() | {part: value})
        assert (tmp_path / "last.pt").read_bytes() == before


def test_digest_is_what_it_says():
    """The definition, spelled out for one state: sha256 over sorted (name, dtype, shape, length)
    and the bytes.
    """
    import hashlib
    import struct

    state = {
        "weights": {"w": torch.tensor([1.0, 2.0])},
        "optimizer": {},
        "scheduler": None,
        "random": {},
        "counters": {"iteration": 7},
    }
    entries = [
        ("weights", "mapping", "1", b""),
        ("weights/w", "torch.float32", "(2,)", struct.pack("<2f", 1.0, 2.0)),
        ("optimizer", "mapping", "0", b""),
        ("scheduler", "NoneType", "()", b"null"),
        ("random", "mapping", "0", b""),
        ("counters", "mapping", "1", b""),
        ("counters/iteration", "int", "()", b"7"),
    ]
    slow = hashlib.sha256()
    for name, kind, shape, data in sorted(entries):
        slow.update("\x1f".join([name, kind, shape, str(len(data)), ""]).encode() + data)
    assert checkpoint.digest(state) == slow.hexdigest()


def test_digest_ignores_order_and_everything_that_is_not_state():
    other = small()
    other["weights"] = dict(reversed(other["weights"].items()))
    other |= {
        "threads": 9,
        "torch": "9",
        "mdtheory": "9",
        "config": '{"data": {"path": "/elsewhere"}}',
    }
    assert checkpoint.digest(other) == checkpoint.digest(small())


def _set(state: dict[str, Any], *where: Any) -> None:
    *path, last, value = where
    for key in path:
        state = state[key]
    state[last] = value


@pytest.mark.parametrize(
    "change",
    [
        ("weights", "b", torch.tensor([0.0, 1.0, 2.0000002])),
        ("weights", "b", torch.tensor([-0.0, 1.0, 2.0])),
        ("weights", "b", torch.arange(3.0).double()),
        ("weights", "b", torch.arange(3.0)[None]),
        ("weights", "c", torch.arange(3.0)),
        ("optimizer", "state", 0, "step", torch.tensor(3.0)),
        ("optimizer", "param_groups", 0, "lr", 0.1 + 1e-17 + 2e-17),
        ("scheduler", "last_epoch", 3),
        ("random", "seed", 4),
        ("counters", "iteration", 3),
        ("counters", "best_score", 0.5),
    ],
)
def test_digest_sees_every_change(change):
    state = copy.deepcopy(small())
    _set(state, *change)
    assert checkpoint.digest(state) != checkpoint.digest(small())


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"No space left on device; what stood there before is intact"
    ):
        saved(tmp_path, small() | {"threads": 2})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_real_limit_of_the_system_keeps_the_old_checkpoint(tmp_path):
    path = saved(tmp_path)
    before = path.read_bytes()
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))
    try:
        with pytest.raises(ValueError, match="must be written"):
            saved(tmp_path, small() | {"weights": {"big": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("where", ["missing/last.pt", "file/last.pt"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="must be written"):
        checkpoint.save(small(), tmp_path / where)


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".last.pt.123.part").write_bytes(b"half")
    saved(tmp_path)
    checkpoint.remove_leftovers(tmp_path, ["last.pt"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


class Bomb:
    """A pickle that wants code to be run."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("disguise", ["whole", "inside", "legacy", "bare"])
def test_a_hostile_checkpoint_runs_nothing(tmp_path, disguise):
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    bomb = Bomb(canary)
    if disguise == "whole":
        torch.save(bomb, path)
    elif disguise == "inside":
        torch.save(
            {"format": checkpoint.FORMAT, "version": 1, **small(), "optimizer": {"state": bomb}},
            path,
        )
    elif disguise == "legacy":
        torch.save({"optimizer": bomb}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(ValueError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_bomb_is_live(tmp_path):
    """Negative control: an unguarded load does run it."""
    torch.save(Bomb(tmp_path / "canary"), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "canary").exists()


def test_every_truncation_is_refused(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    for length in {0, 1, 3, 4, 30, *random.Random(0).sample(range(len(whole)), 40), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"last\.pt must be a checkpoint"):
            checkpoint.load(path)


def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    path = saved(tmp_path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            assert checkpoint.digest(checkpoint.load(path)) == checkpoint.digest(small())
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40


def _torch_file(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _compressed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1_000_000)
    return buffer.getvalue()


def _state(**changes: Any) -> dict[str, Any]:
    return {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, **small(), **changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint\n",
        b"PK\x03\x04",
        _compressed(),
        _torch_file({"state_dict": torch.ones(2)}),
        _torch_file([1, 2]),
        _torch_file(torch.ones(2)),
        _torch_file(_state(version=2)),
        _torch_file({key: value for key, value in _state().items() if key != "optimizer"}),
        _torch_file(_state(weights=[1])),
        _torch_file(_state(weights={"a": 1})),
        _torch_file(_state(weights={3: torch.ones(1)})),
        _torch_file(
            _state(
                counters={"iteration": 1.5, "validated": 0, "best_iteration": 0, "best_score": 0.0}
            )
        ),
        _torch_file(_state(counters={})),
        _torch_file(
            _state(
                counters={"iteration": 1, "validated": 0, "best_iteration": 0, "best_score": "high"}
            )
        ),
        _torch_file(_state(config=None)),
        _torch_file(_state(threads="two")),
    ],
)
def test_other_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "odd.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path} must")
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_one_sentence(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ValueError, match="got no file there"):
            checkpoint.load(path)


def test_export_is_the_weights_with_their_story(tmp_path):
    state, path = small(), tmp_path / "w.safetensors"
    checkpoint.export_safetensors(state, path)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(state["weights"])
        assert all(
            torch.equal(file.get_tensor(name), value) for name, value in state["weights"].items()
        )
        assert file.metadata()["digest"] == checkpoint.digest(state)
        assert file.metadata()["iteration"] == "2"


def test_the_same_state_is_exported_as_the_same_bytes(tmp_path):
    path, found = tmp_path / "w.safetensors", set()
    for _ in range(20):
        checkpoint.export_safetensors(small(), path)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_a_trainers_state_is_plain(tmp_path):
    one = fakes.trainer(tmp_path)
    one.fit()
    assert checkpoint.digest(checkpoint.load(tmp_path / "last.pt")) == checkpoint.digest(
        one.state()
    )


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a weight": lambda state: next(iter(state["weights"].values())).view(-1)[0].add_(1e-3),
    "an entry of the optimizer": lambda state: state["optimizer"].update(extra=1),
    "a counter": lambda state: state["counters"].update(extra=1),
    "the random state": lambda state: state["random"].clear(),
    "the configuration": lambda state: state.update(config=state["config"] + " "),
    "the digest of the images": lambda state: state.update(data_digest="0"),
    "the digest of the pixels": lambda state: state.update(pixels_digest="0"),
    "the digest of the splits": lambda state: state.update(split_digest="0"),
    "the threads": lambda state: state.update(threads=7),
    "the numerical path": lambda state: state.update(numerics={"kernels": "others"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_after_it_was_written_is_refused(tmp_path, change):
    """By any tool that writes sound torch files; without its seal it would be believed."""
    path = saved(tmp_path)
    state = torch.load(path, weights_only=True)
    CHANGES[change](state)
    torch.save(state, path)
    with pytest.raises(ValueError, match="something was changed since"):
        checkpoint.load(path)
    torch.save({key: value for key, value in state.items() if key != "seal"}, path)
    checkpoint.load(path)  # of an older release
    checkpoint.save(state, path)
    checkpoint.load(path)


@pytest.mark.parametrize("name", ["pixels_digest", "split_digest"])
def test_the_seal_of_a_release_without_a_digest_holds(tmp_path, name):
    path = saved(tmp_path)
    state = torch.load(path, weights_only=True)
    parts = checkpoint.KINDS.keys() - {"seal", "pixels_digest", "split_digest"}
    assert state["seal"] == checkpoint._sha256(checkpoint.LATER | state, parts)
    assert checkpoint.load(path)[name] == ""
    checkpoint.save(small() | {name: "p"}, path)
    state = torch.load(path, weights_only=True)
    del state[name]
    torch.save(state, path)
    with pytest.raises(ValueError, match="something was changed since"):
        checkpoint.load(path)


def test_a_text_that_is_none_is_refused(tmp_path):
    path = tmp_path / "odd.pt"
    for change in ({"torch": "\udc80"}, {"random": {"\udc80": 1}}):
        path.write_bytes(_torch_file(checkpoint.plain(_state(**change))))
        with pytest.raises(ValueError, match=r"is no text|key that is no text"):
            checkpoint.load(path)


def test_one_flipped_bit_of_exported_weights_is_refused(tmp_path):
    """The format itself has no checksum."""
    path = tmp_path / "w.safetensors"
    checkpoint.export_safetensors(small(), path)
    assert checkpoint.load_safetensors(path)["weights"]
    whole = path.read_bytes()
    start = 8 + struct.unpack_from("<Q", whole)[0]
    for place in range(start, len(whole), max(1, (len(whole) - start) // 20)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"something was changed since|finite weights"):
            checkpoint.load_safetensors(path)
