"""The graph that autograd has recorded for a value: its nodes and its leaves."""

from __future__ import annotations

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


def graph_leaves(value: Any) -> list[Tensor]:
    """The tensors that a graph ends in."""
    held = (getattr(node, "variable", None) for node in nodes(value))
    return [variable for variable in held if variable is not None]
