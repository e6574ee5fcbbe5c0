"""Where what was computed once is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``MDTHEORY_CACHE``, else ``mdtheory`` below ``XDG_CACHE_HOME``, else ``~/.cache/mdtheory``.

    ``ValueError`` where the user has no home folder (an unknown user id in a container).
    """
    try:
        if named := os.environ.get("MDTHEORY_CACHE"):
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdtheory"
    except RuntimeError as error:
        raise ValueError(
            "there must be a folder to keep what is computed once, got none because "
            f"{' '.join(str(error).split()).rstrip('.').lower()}; name one in MDTHEORY_CACHE"
        ) from error
