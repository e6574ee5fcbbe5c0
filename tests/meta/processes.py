"""Several processes of one run on this machine, forked from a server that has torch imported
already.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from mdtheory.meta.distributed import Processes, process_group

PATIENCE = 300  # seconds until a test gives its processes up
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "mdtheory.meta.trainer"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What ``torchrun`` tells its processes; messages stay on the loopback interface where it has
    its usual name.
    """
    said = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    loopback = (
        {"GLOO_SOCKET_IFNAME": "lo"} if "lo" in (name for _, name in socket.if_nameindex()) else {}
    )
    return {name: str(value) for name, value in said.items()} | loopback


def _live(
    job: Callable[..., Any],
    args: tuple[Any, ...],
    variables: dict[str, str],
    seconds: float,
    answer: Any,
) -> None:
    torch.set_num_threads(1)
    os.environ.update(variables)
    try:
        with process_group(torch.device("cpu"), timeout=timedelta(seconds=seconds)) as processes:
            found = job(processes, *args)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    answer.send_bytes(
        pickle.dumps(found)
    )  # not send, which would share tensors with a process that is about to end


def run(size: int, job: Callable[..., Any], *args: Any, timeout: float = 60.0) -> list[Any]:
    """``job(processes, *args)`` in ``size`` processes: what each returned, "<error>: <message>", or
    minus its deadly signal.
    """
    port, started = free_port(), []
    for rank in range(size):
        mine, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(
            target=_live,
            args=(job, args, environment(rank, size, port), timeout, theirs),
            daemon=True,
        )
        process.start()
        theirs.close()
        started.append((process, mine))
    answers = []
    for process, mine in started:
        try:
            answers.append(pickle.loads(mine.recv_bytes()) if mine.poll(PATIENCE) else "no answer")
        except EOFError:
            process.join()
            answers.append(process.exitcode)
    for process, _ in started:
        process.kill()
        process.join()
    return answers


class Scripted(Processes):
    """Processes of a given number that are not there."""

    def __init__(self, size: int, rank: int = 0):
        self.size, self.rank = size, rank
