"""The texts of a column, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows


def texts_of(rows: Rows, column: str, start: int = 0, words: bool = False) -> Iterator[Any]:
    """Values of a column from row `start` on; raises UserError at the first that is no text (or list of words)."""
    kind, wanted = (list, "a list of words") if words else (str, "a text")
    for i, value in enumerate(rows.values(column, start), start):
        if not isinstance(value, kind):
            raise UserError(f"{rows.where(i)}: {column!r} holds {repr(value)[:60]}, not {wanted}.")
        yield value


def expect_texts(rows: Rows, column: str, words: bool = False) -> None:
    """Raises UserError at the first value of a column that is no text (or list of words)."""
    for _ in texts_of(rows, column, words=words):
        pass
