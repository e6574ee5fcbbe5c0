"""``python -m mdtheory`` is the command line."""

from __future__ import annotations

from mdtheory.cli import app

if __name__ == "__main__":
    app(prog_name="mdtheory")
