"""Writing: whole or not at all, never over another kind of thing, and by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from ssl_suite.core.errors import UserError

PATIENCE = 10.0
"""Seconds to wait for a folder: a loader process outlives its killed run, whose lock it shares, by some five."""


def check_target(path: Path, ours: Callable[[Path], bool] | None = None) -> None:
    """Raises UserError where something that must not be replaced has the name of an output.

    Args:
        path: of a file to write, or of a folder where `ours` is given.
        ours: whether a folder that is not empty was written by this suite and holds nothing else.
    """
    if path.is_dir():
        if ours is None:
            raise UserError(f"{path} is a folder; name a file to write.")
        if any(path.iterdir()) and not ours(path):
            raise UserError(f"{path} holds other files, which are not removed; choose another folder.")
    elif path.exists() and (ours is not None or not path.is_file()):
        raise UserError(f"{path} exists and is no {'folder' if ours else 'ordinary file'}; choose another name.")


@contextmanager
def replacing(path: Path, ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` that takes its name only if the block succeeds; links are followed.

    Args:
        path: of a file, or of a folder where `ours` is given.
        ours: see `check_target`.

    Raises:
        UserError: another kind of thing is there, the disk is full or it cannot be written; nothing stays behind.
    """
    check_target(path, ours)
    target, mark = path.resolve(), uuid.uuid4().hex[:8]
    new, old = (target.with_name(f".{target.name}.{mark}.{state}") for state in ("new", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield new
        _settle(new)
        check_target(path, ours)
        if target.is_dir():
            target.rename(old)
        try:
            new.replace(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        _sync(target.parent)
    except OSError as error:
        at = target if error.filename is None else Path(os.fsdecode(error.filename))
        here = at in (new, old, target, *target.parents) or new in at.parents
        if error.errno is None or not here:  # of what was read to be written
            raise
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(f"Could not write {path}: {why}. Nothing was left half-written.") from error
    finally:
        for leftover in (new, old):
            _remove(leftover)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sweep(folder: Path) -> None:
    """Removes what killed writes left in a folder nobody else writes to; a folder that was moved aside comes back."""
    for leftover in sorted(folder.glob(".*"), reverse=True):  # .old before .new
        found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.(new|old)", leftover.name)
        if found and found[2] == "old" and not (folder / found[1]).exists():
            leftover.rename(folder / found[1])
        elif found:
            _remove(leftover)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; of the processes of one run, the first holds it for all.

    Raises:
        UserError: another process holds it.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise UserError(
            f"Another process is writing to {folder}; wait until it is done or choose another --out."
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        if made:
            with suppress(OSError):  # something was written
                folder.rmdir()


class Lock:
    """A lock of one process among many, on a file; the system takes it back from a process that is killed.

    Args:
        path: of the file, made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, wait: bool = True, shared: bool = False) -> bool:
        """Whether the lock is ours now; it always is where we `wait`. Several processes may share one."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(self._descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            raise UserError(
                f"{self.path} could not be locked: {error.strerror}. Keep such files on another disk: "
                "SSL_SUITE_CACHE=FOLDER."
            ) from error
        return True

    def release(self) -> None:
        """Gives it back; twice is once. A process forked meanwhile holds it no longer either."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _settle(path: Path) -> None:
    """Lets others read what the umask lets them read, and waits until all of it is on the disk."""
    os.umask(mask := os.umask(0o022))
    for part in [*path.rglob("*"), path]:
        mode = part.stat().st_mode
        if part.is_file() and (lacking := 0o666 & ~mask & ~mode):  # some libraries write for the owner alone
            part.chmod(mode | lacking)
        _sync(part)


def _sync(path: Path) -> None:
    if path.is_dir():
        with suppress(OSError):  # some systems do not let folders be opened
            _fsync(path)
    else:
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
