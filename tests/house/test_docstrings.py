"""Every public name of the library says what it is; what returns a tensor says its shape."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

import mdtheory

Member = tuple[
    str, Any, str | None
]  # dotted name, object, docstring (own, or of the base method that it overrides)


def library() -> list[ModuleType]:
    """Every module of the package, imported."""
    names = [module.name for module in pkgutil.walk_packages(mdtheory.__path__, "mdtheory.")]
    return [
        mdtheory,
        *(importlib.import_module(name) for name in names if not name.endswith("__main__")),
    ]


def public(name: str) -> bool:
    return not name.startswith("_")


def documented(owner: type, name: str) -> str | None:
    """The docstring of a method, or of the method of the library that it overrides."""
    ours = [
        base
        for base in owner.__mro__
        if base is owner or base.__module__.split(".")[0] == owner.__module__.split(".")[0]
    ]
    return next(
        (text for base in ours if name in vars(base) and (text := plain(vars(base)[name]).__doc__)),
        None,
    )


def plain(member: Any) -> Any:
    """The function behind a static method, class method or property."""
    if isinstance(member, property):
        return member.fget
    return getattr(member, "__func__", member)


def members(module: ModuleType) -> Iterator[Member]:
    """The public functions, classes and methods that a module defines itself."""
    for name, value in vars(module).items():
        if not public(name) or getattr(value, "__module__", None) != module.__name__:
            continue
        where = f"{module.__name__}.{name}"
        if inspect.isfunction(value):
            yield where, value, value.__doc__
        elif inspect.isclass(value):
            # a dataclass without one gets its signature from Python as docstring
            yield (
                where,
                value,
                None
                if (value.__doc__ or "").startswith(f"{name}(")
                else vars(value).get("__doc__"),
            )
            for inner, member in vars(value).items():
                if public(inner) and inspect.isfunction(plain(member)):
                    yield f"{where}.{inner}", plain(member), documented(value, inner)


def undocumented(module: ModuleType) -> list[str]:
    return [where for where, _, text in members(module) if not (text or "").strip()]


def shapeless(module: ModuleType) -> list[str]:
    """What is annotated to return one tensor, and whose docstring names no shape."""
    found = []
    for where, value, text in members(module):
        returns = getattr(value, "__annotations__", {}).get("return")
        if returns in ("Tensor", "torch.Tensor", torch.Tensor) and not re.search(
            r"shapes?\b", text or ""
        ):
            found.append(where)
    return found


def test_every_module_has_a_docstring():
    modules = library()
    assert len(modules) > 20
    assert [module.__name__ for module in modules if not (module.__doc__ or "").strip()] == []


def test_every_public_name_is_documented():
    assert [name for module in library() for name in undocumented(module)] == []


def test_every_function_to_a_tensor_names_its_shape():
    assert [name for module in library() for name in shapeless(module)] == []


@pytest.fixture
def planted(monkeypatch):
    """Make a module from its source."""

    def make(source: str) -> ModuleType:
        module = ModuleType("mdtheory_planted")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look
        exec(compile(source, "planted", "exec"), vars(module))
        return module

    return make


def test_a_planted_name_without_docstring_is_found(planted):
    module = planted(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "def bare(): pass\n"
        "def _private(): pass\n"
        "class Base:\n    'Said.'\n    def told(self): 'Said.'\n    def silent(self): pass\n    "
        "def "
        "__init__(self): pass\n"
        "class Child(Base):\n    'Said.'\n    def told(self): pass\n    @property\n    def "
        "quiet(self): pass\n"
        "@dataclass\nclass Row:\n    x: int\n"
    )
    names = ["bare", "Base.silent", "Child.quiet", "Row"]
    assert undocumented(module) == [f"mdtheory_planted.{name}" for name in names]


def test_a_docstring_from_outside_the_library_does_not_count(planted):
    module = planted(
        "import torch\nclass Net(torch.nn.Module):\n    'Said.'\n    def forward(self, x): return "
        "x\n"
    )
    assert undocumented(module) == ["mdtheory_planted.Net.forward"]


def test_a_planted_tensor_without_shape_is_found(planted):
    module = planted(
        "from __future__ import annotations\n"
        "def bare() -> Tensor: 'Said.'\n"
        "def told() -> Tensor: 'Said. shape: (B, N)'\n"
        "def other() -> float: 'Said.'\n"
    )
    assert shapeless(module) == ["mdtheory_planted.bare"]
