"""Any tracker: ``mdtheory train --plugin tracker.py``. This one writes CSV."""

from __future__ import annotations

from mdtheory.meta import listeners


@listeners.register("csv")
class Csv:
    """A line for every event: kind, iteration, loss, accuracy."""

    def __init__(self, folder, config):
        self.path = folder / "metrics.csv"

    def start(self, *, done, validated, total):
        self.file = self.path.open("a")

    def record(self, row):
        names = ("kind", "iteration", "loss", "accuracy")
        line = ",".join(str(row[name]) for name in names)
        self.file.write(line + "\n")

    def close(self):
        self.file.close()
