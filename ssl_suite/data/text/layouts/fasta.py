"""FASTA: records of a line that begins with > and of the lines below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import lines


def records(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Where each record begins, its title without >, and its lines.

    Raises:
        UserError: what comes first is no title, or a record has no lines.
    """
    where, title, below = "", "", list[str]()
    for place, line in lines(path):
        if line.startswith(">"):
            if where:
                yield where, title, _some(below, where)
            where, title, below = place, line[1:].strip(), []
        elif not where:
            raise UserError(f"{place}: a FASTA file begins with a line >NAME, not {line[:40]!r}.")
        else:
            below.append(line)
    if where:
        yield where, title, _some(below, where)


def _some(below: list[str], where: str) -> list[str]:
    if not below:
        raise UserError(f"{where}: no sequence follows; the file is damaged.")
    return below
