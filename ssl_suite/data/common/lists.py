"""What official layouts share: rows of each split, lists of lines, and one sentence for what is not there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

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
