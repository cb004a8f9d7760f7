"""Two columns from a TSV: senses and sentences, or texts and their translations."""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_utf8


def read_pairs(path: str) -> list[tuple[str, str]]:
    """The pairs of a TSV without a header; empty lines and lines that begin with # are passed over.

    Raises:
        UserError: the file is not there, a line has not two columns with text, or there is none.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}; name a TSV with two columns.")
    pairs = []
    for number, line in enumerate(read_utf8(Path(path)).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise UserError(f"{path}, line {number} has {len(fields)} columns, not two with text; mend it.")
        pairs.append((fields[0], fields[1]))
    if not pairs:
        raise UserError(f"{path} holds no pair.")
    return pairs
