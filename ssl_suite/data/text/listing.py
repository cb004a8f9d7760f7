"""What a source of text may hold besides tables: .txt files, and files of tagged words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_documents
from ssl_suite.data.common.source import read_table
from ssl_suite.data.text.conll import READERS

if TYPE_CHECKING:
    from datasets import Dataset


def list_text(folder: Path) -> dict[str, list[Any]] | Dataset:
    """Documents of all .txt files below a folder; a table is read as it is.

    Raises:
        UserError: there is none, one is empty of text, or one is not UTF-8.
    """
    if folder.is_file():
        return READERS[folder.suffix](folder) if folder.suffix in READERS else read_table(folder)
    paths = sorted(folder.rglob("*.txt"))
    if not paths:
        raise UserError(f"{folder} holds no .txt files and no table named after a split.")
    documents = {path: list(read_documents(path)) for path in paths}
    empty = [path for path, found in documents.items() if not found]
    if len(empty) == len(paths):
        raise UserError(f"{folder}: every .txt file is empty.")
    if empty:
        rank_zero_warn(f"{folder}: {len(empty)} of {len(paths)} .txt files are empty, {empty[0]} for one.")
    return {"text": [document for found in documents.values() for document in found]}
