"""The graph that autograd has recorded for a value: its nodes and its leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor

LEAF = "AccumulateGrad"


def nodes(value: Any) -> Iterator[Any]:
    """Every node, each once."""
    stack, seen = [getattr(value, "grad_fn", None)], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack += [following for following, _ in node.next_functions]


def structure(value: Any) -> Counter[tuple[str, ...]]:
    """How often each operation occurs with these before it, under the names of plain autograd and
    without what is not on the way to a leaf; copies of leaves count as leaves.
    """
    found = ((_name(node), *(_name(n) for n, _ in node.next_functions)) for node in nodes(value))
    return Counter(names for names in found if names[0] != LEAF)


def _name(node: Any) -> str:
    if node is None:
        return ""
    name = type(node).__name__.replace("Generated", "").replace("ReshapeAlias", "View")
    if name == "CloneBackward0" and _name(node.next_functions[0][0]) == LEAF:
        return LEAF
    return name


def graph_leaves(value: Any) -> list[Tensor]:
    """The tensors that a graph ends in."""
    held = (getattr(node, "variable", None) for node in nodes(value))
    return [variable for variable in held if variable is not None]
