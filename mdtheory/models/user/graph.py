"""The graph that autograd has recorded for a value: its nodes and its leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor


def nodes(value: Any) -> Iterator[Any]:
    """Every node, each once."""
    stack, seen = [getattr(value, "grad_fn", None)], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack += [following for following, _ in node.next_functions]


def kinds(value: Any) -> Counter[str]:
    """How often each operation occurs, under the names that plain autograd gives them."""
    return Counter(
        type(node).__name__.replace("Generated", "").replace("ReshapeAlias", "View")
        for node in nodes(value)
    )


def graph_leaves(value: Any) -> list[Tensor]:
    """The tensors that a graph ends in."""
    held = (getattr(node, "variable", None) for node in nodes(value))
    return [variable for variable in held if variable is not None]
