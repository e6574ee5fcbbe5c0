"""The folder of a run, opened once: new, or where its last checkpoint left it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdtheory.config import RunConfig
from mdtheory.core.progress import say
from mdtheory.data.episodes import Source
from mdtheory.meta import checkpoint
from mdtheory.meta.distributed import SINGLE_PROCESS, Processes
from mdtheory.meta.events import Listener
from mdtheory.meta.trainer import MetaTrainer
from mdtheory.run.build import build_trainer


class RunFolder:
    """The folder ``path``, from whose ``last.pt`` a run goes on if there is one.

    Rank 0 alone reads and writes in it, and tells the others what it read. ``ValueError`` for a
    ``last.pt`` without ``resume``, or one that is no sound checkpoint.
    """

    def __init__(
        self, path: str | Path, *, resume: bool = False, processes: Processes = SINGLE_PROCESS
    ):
        self.path = Path(path)
        self.processes = processes
        self.state: dict[str, Any] | None = processes.broadcast_object(
            processes.all_or_none(lambda: self._read(resume=resume) if self._mine else None)
        )

    @property
    def _mine(self) -> bool:
        return self.processes.rank == 0

    def _read(self, *, resume: bool) -> dict[str, Any] | None:
        last = self.path / "last.pt"
        if last.exists() and not resume:
            raise ValueError(
                f"--out must be a folder without a run, got {self.path} with a last.pt; pass "
                "--resume or choose another"
            )
        return checkpoint.load(last) if last.exists() else None

    def trainer(
        self,
        config: RunConfig,
        source: Source,
        *,
        listeners: Sequence[Listener] = (),
        any_threads: bool = False,
    ) -> MetaTrainer:
        """The trainer of a configuration, at the checkpoint's iteration; ``listeners`` hear rank 0.

        The folder is made, without what killed processes left in it; a new one gets
        ``config.toml``.
        ``ValueError`` if the checkpoint is not this run's: see :meth:`MetaTrainer.resume`.
        """
        trainer = build_trainer(
            config,
            source,
            out=self.path,
            listeners=listeners if self._mine else (),
            processes=self.processes,
        )
        if self.state is not None:
            trainer.resume(self.state, any_threads=any_threads)
        if self._mine:
            self._prepare(config)
            if self.state is not None and self.state["torch"] != trainer.state()["torch"]:
                say(
                    f"note: the checkpoint is from torch {self.state['torch']}; the bits may "
                    "differ from an unbroken run's"
                )
        return trainer

    def _prepare(self, config: RunConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_leftovers(self.path)
        if self.state is None:
            checkpoint.write_atomically(self.path / "config.toml", config.to_toml().encode())
