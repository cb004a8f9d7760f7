"""What a source of text may hold besides tables: .txt files, and files of tagged words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.arrow import Row
from ssl_suite.data.common.files import PLAIN, Form, each_row, suffix_of
from ssl_suite.data.common.source import each_text
from ssl_suite.data.common.walk import files_below
from ssl_suite.data.text.conll import READERS


def list_text(place: Path, form: Form = PLAIN) -> dict[str, list[Any]] | Iterator[Row]:
    """Documents of all .txt files below a folder, one after the other; the rows of a table as they are."""
    if place.is_file():
        reader = READERS.get(suffix_of(place))
        return reader(place) if reader else each_row(place, form)
    return _documents(place)


def _documents(folder: Path) -> Iterator[Row]:
    """Raises UserError where there is no .txt file, all are empty of text, or one is not UTF-8."""
    paths = sorted(path for path in files_below(folder) if suffix_of(path) == ".txt")
    if not paths:
        raise UserError(f"{folder} holds no .txt files and no table named after a split.")
    empty = []
    for path in paths:
        some = False
        for row in each_text(path):
            some = True
            yield row
        if not some:
            empty.append(path)
    if len(empty) == len(paths):
        raise UserError(f"{folder}: every .txt file is empty.")
    if empty:
        rank_zero_warn(f"{folder}: {len(empty)} of {len(paths)} .txt files are empty, {empty[0]} for one.")
