"""``python -m mdtheory`` and ``mdtheory``: the command line."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C outside a command's own work, such as while it is still being
    imported, is one sentence and exit code 130.
    """
    in_command = signal.getsignal(signal.SIGINT)
    if in_command is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)  # an exception could end anywhere inside an import
    from mdtheory.cli import app

    app(prog_name="mdtheory", obj=in_command)


def _leave(signum: int, frame: object) -> None:
    os.write(2, b"mdtheory: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
