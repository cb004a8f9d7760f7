"""What lies in a folder: links are followed, hidden files and what systems leave behind are passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ssl_suite.core.errors import UserError

LEFT_BEHIND = (
    "__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir",
)  # fmt: skip
"""Of archives, file managers and disks; `._x`, `.DS_Store` and `.ipynb_checkpoints` are hidden by their name."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data."""
    return name.startswith(".") or name in LEFT_BEHIND


def visible(folder: Path) -> list[Path]:
    """The files and folders in a folder, sorted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise unreadable(folder, error) from None


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, those of linked folders too; no pipes, sockets or devices.

    Raises:
        UserError: a folder cannot be read, a link leads nowhere or to a folder it lies in.
    """
    return map(Path, _walk(str(folder), frozenset()))


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Args: `above` are the device and number of every folder this one lies in."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if not is_hidden(e.name)), key=lambda e: e.name)
        kinds = [(e.path, e.is_dir(), e.is_file(), e.is_symlink()) for e in entries]
    except OSError as error:
        raise unreadable(Path(folder), error) from None
    if (me := (status.st_dev, status.st_ino)) in above:
        raise UserError(f"{folder} is a link to a folder that it lies in; remove it.")
    for path, is_folder, is_file, is_link in kinds:
        if is_folder:
            yield from _walk(path, above | {me})
        elif is_file:
            yield path
        elif is_link and not os.path.exists(path):
            raise UserError(f"{path} is a link to something that is not there; mend or remove it.")


def unreadable(path: Path, error: OSError) -> UserError:
    """Says that a file or folder cannot be read, and why."""
    return UserError(f"{path} cannot be read ({error.strerror or error}); change its permissions or move it away.")


def printable(path: str | Path) -> str:
    """A path for a message, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
