"""Where what was computed once is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``MDTHEORY_CACHE``, else ``mdtheory`` below ``XDG_CACHE_HOME``, else ``~/.cache/mdtheory``.

    A relative ``XDG_CACHE_HOME`` counts as none, as the XDG base directory specification has it.
    ``ValueError`` for another folder that is relative, which would be made anew wherever a command
    is started, and where the user has no home folder (an unknown user id in a container).
    """
    try:
        if named := os.environ.get("MDTHEORY_CACHE"):
            return _absolute(Path(named).expanduser(), "MDTHEORY_CACHE", named)
        common = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if common.is_absolute():
            return common / "mdtheory"
        home = Path.home()
        return _absolute(home, "HOME", str(home)) / ".cache" / "mdtheory"
    except RuntimeError as error:
        raise ValueError(
            "there must be a folder to keep what is computed once, got none because "
            f"{' '.join(str(error).split()).rstrip('.').lower()}; name one in MDTHEORY_CACHE"
        ) from error


def _absolute(folder: Path, variable: str, named: str) -> Path:
    if not folder.is_absolute():
        raise ValueError(
            f"{variable} must name a folder by its whole path, got {named!r}; begin it with "
            f"{os.sep if os.name == 'posix' else 'a drive'}"
        )
    return folder
