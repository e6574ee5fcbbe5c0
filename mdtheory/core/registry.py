"""One registry for everything that a new file can add: found by folder, entry point, or ``--plugin
FILE``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from mdtheory.core.foreign import foreign
from mdtheory.core.limit import plugin_limit

T = TypeVar("T")
Factory = TypeVar("Factory", bound=Callable[..., Any])

PLUGIN_PREFIX = "mdtheory_plugin_"
"""How the names of modules begin that come from outside the package."""


def unknown(kind: str, name: str, known: list[str]) -> ValueError:
    """The one sentence for a name that does not exist, with the nearest one that does."""
    spelled = {re.sub(r"[^a-z0-9]", "", one.lower()): one for one in known}
    same = spelled.get(re.sub(r"[^a-z0-9]", "", str(name).lower()))
    near = [same] if same else difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return ValueError(f"{kind} must be one of the registered names, got {name!r}; {hint}")


class Registry(Generic[T]):
    """Factories of T by slug. Importing every module of ``package`` is what fills it, on first use.

    >>> colours: Registry[str] = Registry("colour", "mdtheory.core")
    >>> @colours.register("red")
    ... def red(*, shade: int = 0) -> str:
    ...     return f"red {shade}"
    >>> colours.names(), colours.build("red", shade=3)
    (['red'], 'red 3')
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._factories: dict[str, Callable[..., T]] = {}
        self._discovered = False

    def register(self, slug: str) -> Callable[[Factory], Factory]:
        """Decorate a class or function; a slug is taken once."""

        def add(factory: Factory) -> Factory:
            if slug in self._factories and self._factories[slug] is not factory:
                raise ValueError(f"{self.kind} {slug!r} is registered twice; choose another slug")
            self._factories[slug] = factory
            return factory

        return add

    def names(self) -> list[str]:
        """The slugs of everything registered, in alphabetical order."""
        self._discover()
        return sorted(self._factories)

    def get(self, slug: str) -> Callable[..., T]:
        """The factory of a slug; ``ValueError`` with the nearest known name otherwise."""
        self._discover()
        if slug not in self._factories:
            raise unknown(self.kind, slug, list(self._factories))
        return self._factories[slug]

    def build(self, slug: str, /, *args: Any, **options: Any) -> T:
        """The object that ``get(slug)(*args, **options)`` makes; ``ValueError`` for an unknown
        slug.
        """
        return self.get(slug)(*args, **options)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, self.package + "."):
            importlib.import_module(module.name)
        for entry in entry_points(group=self.package):
            try:
                with plugin_limit(), foreign(entry.value):
                    entry.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                said = " ".join(str(error).split())
                raise ValueError(
                    f"an installed package must be importable, but the {self.kind} {entry.name!r} "
                    f"({entry.value}) ends with {type(error).__name__}: {said}; mend or remove it"
                ) from error


def load_plugin(path: str | Path) -> None:
    """Import a file from outside the package, so that what it registers can be used by name."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"--plugin must name a Python file, got {str(path)!r}; give the path of a file that "
            "exists"
        )
    spec = importlib.util.spec_from_file_location(PLUGIN_PREFIX + path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(
            f"--plugin must name a Python file, got {str(path)!r}; its name must end in .py"
        )
    with foreign(str(path)):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
