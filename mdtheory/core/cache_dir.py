"""Where what was computed once is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``MDTHEORY_CACHE``, else ``mdtheory`` below ``XDG_CACHE_HOME``, else
    ``~/.cache/mdtheory``.
    """
    if named := os.environ.get("MDTHEORY_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdtheory"
