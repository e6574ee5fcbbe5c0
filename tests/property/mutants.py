"""A property that nothing can break says nothing: this demands that a mutant breaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st


def assert_rejects(check: Callable[[Any], None], examples: st.SearchStrategy[Any]) -> None:
    """Fail unless one of the examples of the ``ci`` profile breaks the property."""

    @settings(
        settings.get_profile("ci"),
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def search(example: Any) -> None:
        check(example)

    with pytest.raises(AssertionError):
        search()
