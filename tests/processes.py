"""Functions run in processes of their own that talk to each other; tests import it as `processes`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch


def run_processes(worker: Callable[..., None], world: int, *arguments: Any, seconds: float = 90) -> None:
    """Calls `worker(rank, port, *arguments)` in each of `world` processes; fails the test where one hangs."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = torch.multiprocessing.spawn(worker, (port, *arguments), world, join=False)
    deadline = time.monotonic() + seconds
    while not context.join(timeout=5):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail(f"{world} processes did not come to an end")


def leave() -> None:
    """Ends this process once all have come so far; gloo's own end has crashed one of four (torch 2.14)."""
    torch.distributed.barrier()
    os._exit(0)
