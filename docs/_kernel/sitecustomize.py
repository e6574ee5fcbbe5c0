"""Read by every notebook's kernel as it starts: notices about the building machine are no part of a
page.
"""

from __future__ import annotations

import logging

logging.getLogger("mdtheory").addHandler(
    logging.NullHandler()
)  # else Python writes them to stderr, which fails the build
