"""Data sources: one file per set of images that a configuration can name.

A source is a subclass of :class:`DataSource`, registered under the name that ``data.source`` takes;
the arguments of its constructor are ``data.options``. Importing one is cheap: whatever is heavy is
imported in :meth:`DataSource.open`.
"""

from mdtheory.data.sources.base import DataSource, data_sources, open_source, source_class

__all__ = ["DataSource", "data_sources", "open_source", "source_class"]
