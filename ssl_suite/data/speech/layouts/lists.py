"""What the layouts share: lists of files, rows of audio, and one sentence for what is not there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.files import read_utf8

Splits = dict[str, list[dict[str, Any]]]
"""The rows of each split."""


def require(path: Path, corpus: str) -> Path:
    """The file or folder, which the corpus has.

    Raises:
        UserError: it is not there.
    """
    if not path.exists():
        raise UserError(f"{path} is not there, so this is no folder of {corpus}, or not all of it.")
    return path


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where a line is, and the line; empty ones are passed over."""
    for number, line in enumerate(read_utf8(path).split("\n"), 1):  # `splitlines` breaks within a transcript too
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def audio(path: Path, where: str) -> dict[str, Any]:
    """A cell of a column of audio.

    Args:
        path: of the file.
        where: what names it.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{where}: there is no file {path}.")
    return {"bytes": None, "path": str(path)}


def located(path: str, folder: Path) -> Path:
    """A path in a list: relative to the list's folder, or else to where the program was started."""
    return folder / path if (folder / path).is_file() else Path(path)


def stems(folder: Path, suffixes: Collection[str] = (".wav", ".flac", ".mp3", ".opus", ".ogg")) -> dict[str, Path]:
    """The audio below a folder by name without suffix, sorted."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes)
    return {path.stem: path for path in found}


def tell_unlisted(found: Collection[str], listed: Collection[str], folder: Path) -> None:
    """Says how many recordings of a folder no list names, which are left out."""
    if unlisted := sorted(set(found) - set(listed)):
        some = f"{len(unlisted)} of {len(found)} recordings are in no list and were left out"
        rank_zero_warn(f"{folder}: {some}; the first is {unlisted[0]}.")


def options(part: str, known: Collection[str], layout: str) -> set[str]:
    """The words of what stands between a layout's name and its folder.

    Raises:
        UserError: one is none of those that the layout knows.
    """
    words = {word for word in part.replace("+", "/").split("/") if word}
    for word in sorted(words):
        if word not in known:
            raise UserError(f"The layout {layout} has no part {word!r}.{nearest(word, known)}")
    return words
