"""``python -m proofs_check [IDS] [--json] [--check] [--jobs N]``."""

from __future__ import annotations

import typer

from proofs_check.report import main

if __name__ == "__main__":
    typer.run(main)
