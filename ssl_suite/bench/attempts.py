"""Runs that may fail without stopping the others: one after another, or several at a time in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_suite.core.errors import Interrupted, UserError
from ssl_suite.core.files import write_text

LIGHTNING = ("pytorch_lightning", "lightning_fabric")

Run = Callable[[], Any]


def attempt(run: Run, folder: Path) -> str:
    """Runs something; returns why it failed, or "". A fault that is not the user's leaves its traceback in `folder`."""
    try:
        with quiet():
            run()
    except Interrupted:
        raise
    except (UserError, OSError) as error:
        return str(error)
    except Exception as error:  # one run's trouble is not the others'
        write_text(folder / "error.txt", traceback.format_exc())
        return f"{type(error).__name__}: {error} (see {folder / 'error.txt'})"
    return ""


def attempts(runs: Sequence[tuple[Run, Path]], jobs: int = 1) -> Iterator[tuple[int, str]]:
    """Attempts each run; gives its place among them, and why it failed or "", as they end.

    Args:
        runs: each with the folder for its traceback; where `jobs` > 1, of functions that pickle by name.
        jobs: runs at a time. More than one share out the threads that one would have.

    Raises:
        UserError: the system has ended a process, as it does where memory is short.
    """
    if jobs == 1:
        yield from ((place, attempt(run, folder)) for place, (run, folder) in enumerate(runs))
        return
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        places = {pool.submit(_attempt, run, folder): place for place, (run, folder) in enumerate(runs)}
        try:
            for ended in as_completed(places):
                yield places[ended], ended.result()
        except BrokenProcessPool:
            raise UserError("The system ended one of the runs, for want of memory perhaps; lower --jobs.") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's notes about each of many short runs off the terminal."""
    levels = {name: logging.getLogger(name).level for name in LIGHTNING}
    for name in LIGHTNING:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_running, _ending = threading.Lock(), threading.Event()
"""Of a process: a run is under way; it is the last."""


def _begin(threads: int) -> None:
    """A process that ends with the benchmark, its run's state saved."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_benchmark, daemon=True).start()


def _attempt(run: Run, folder: Path) -> str:
    with _running:
        error = attempt(run, folder)
        if _ending.is_set():
            os._exit(128 + signal.SIGTERM)
        return error


def _end_with_the_benchmark() -> None:
    if (benchmark := multiprocessing.parent_process()) is None:
        return
    benchmark.join()
    _ending.set()
    if _running.locked():
        os.kill(os.getpid(), signal.SIGTERM)  # which a run that trains heeds, and one that only tests does not
    with _running:
        os._exit(128 + signal.SIGTERM)
