"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest

import pytest

from tests.house.test_docstrings import library

EXAMPLES = [
    one
    for module in library()
    for one in doctest.DocTestFinder(exclude_empty=True).find(module)
    if one.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_example(example):
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        example, out=said.append
    )
    assert result.attempted > 0 and result.failed == 0, "".join(said)


def test_a_planted_wrong_example_fails():
    planted = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "planted", None, 0)
    assert doctest.DocTestRunner().run(planted, out=lambda _: None).failed == 1


def test_step_rules_and_low_rank_updates_have_examples():
    names = {one.name for one in EXAMPLES}
    assert {
        "mdtheory.geometry.rules.PullbackStep",
        "mdtheory.models.user.lora.with_low_rank",
    } <= names
