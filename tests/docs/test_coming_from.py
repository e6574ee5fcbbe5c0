"""The pages for who comes from another library: every block of ours runs; theirs run where the
library is installed, and give the same meta-gradient.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec

import pytest
import torch

from experiments.benchmarks.implementations.learn2learn_peer import maml_class
from tests.docs.pages import DOCS, blocks

OTHERS = ("higher", "learn2learn")
PAGES = [*OTHERS, "torchmeta"]


def programs(other: str) -> tuple[list[str], list[str]]:
    """The blocks of a page in their order: ours, and all of them."""
    every = blocks(DOCS / f"from-{other}.md", "python")
    return [block for block in every if not block.startswith(f"# {other}")], every


def run(parts: list[str], other: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for part in parts:
        exec(compile(part, f"from-{other}.md", "exec"), names)
    return names


@pytest.mark.parametrize("other", PAGES)
def test_our_blocks_run(other, capsys):
    ours, every = programs(other)
    assert len(ours) < len(every)
    value = run(ours, other)["result"].value
    assert capsys.readouterr().out.splitlines()[-1] == str(value) and value.isfinite()


@pytest.mark.parametrize("other", OTHERS)
def test_both_give_the_same_gradient(other):
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    if other == "learn2learn":
        maml = maml_class()
        sys.modules["learn2learn.algorithms"].MAML = maml
    _, every = programs(other)
    names = run(every, other)
    assert len(names["theirs"]) == 4
    wrong = {name: 1.001 * value for name, value in names["theirs"].items()}
    with pytest.raises(AssertionError):
        exec(every[-1], {"torch": torch, "theirs": wrong, "result": names["result"]})


def test_the_page_on_higher_says_how_it_computes_first_order_and_that_in_tests_nothing_is_tracked():
    page = (DOCS / "from-higher.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"`(steps\.step\(.*)` \| `estimator=\"first_order\"`", page)
    (tests,) = re.findall(r"`(track_higher_grads=False)`", page)
    if find_spec("higher") is None:
        pytest.skip("higher is not installed")
    start, loop, ours, _ = programs("higher")[1]
    words = "steps.step(cross_entropy(fast(task.support_x), task.support_y))"
    step = row.replace("loss,", words.removeprefix("steps.step(")[:-1] + ",")
    assert loop.count(words) == 1 and ours.count("task_lr=0.1") == 1
    first = ours.replace("task_lr=0.1", 'task_lr=0.1, estimator="first_order"')
    names = run([start, loop.replace(words, step), first], "higher")
    for name, value in names["theirs"].items():
        torch.testing.assert_close(names["result"].grads[f"anchor.{name}"], value)
    untracked = loop.replace("copy_initial", f"{tests}, copy_initial")
    assert set(run([start, untracked], "higher")["theirs"].values()) == {None}
