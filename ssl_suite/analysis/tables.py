"""Two columns from a TSV: senses and sentences, or texts and their translations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_utf8


def read_pairs(path: str, columns: Sequence[str] = ("a text", "its translation")) -> list[tuple[str, str]]:
    """The pairs of a TSV; empty lines, and a first line of # and a remark without a tab, are passed over.

    Args:
        path: of the file.
        columns: what the two hold, for what is said of a line that lacks one.

    Raises:
        UserError: the file is not there, a line has not two columns with text, or there is none.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}; name a TSV with two columns.")
    pairs = []
    for number, line in enumerate(read_utf8(Path(path)).split("\n"), 1):
        heading = number == 1 and line.startswith("#") and "\t" not in line
        if heading or not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2:
            found = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
            raise UserError(f"{path}, line {number} has {found}, but must have {' and '.join(columns)}, a tab between.")
        if "" in fields:
            empty = fields.index("")
            raise UserError(f"{path}: column {empty + 1} of line {number} is empty; write {columns[empty]} there.")
        pairs.append((fields[0], fields[1]))
    if not pairs:
        raise UserError(f"{path} holds no pair.")
    return pairs
