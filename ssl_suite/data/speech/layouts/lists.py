"""What the layouts of speech share: cells of audio, where listed files lie, and which are in no list."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError


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
