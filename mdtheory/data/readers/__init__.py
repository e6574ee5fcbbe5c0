"""Readers: one file per form in which images circulate.

A reader is a function ``find(path) -> Found | None`` registered under its slug. It looks at file
names only and returns None where the folder is not of its form; it raises ``ValueError`` where the
folder is, but cannot be read.
"""

from mdtheory.core.registry import Registry

readers: Registry = Registry("reader", "mdtheory.data.readers")
"""Every known form, by slug."""

__all__ = ["readers"]
