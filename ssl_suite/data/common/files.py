"""Reading files of rows (csv, tsv, json, jsonl) and of plain text; bad ones are named by file, row and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a csv, tsv, jsonl or json file; values of csv and tsv are text, and tsv knows no quotes (as GLUE's).

    Args:
        path: of the file.
        columns: names of the columns of a csv or tsv file that has no header.
    """
    text = read_utf8(path)
    if path.suffix in (".csv", ".tsv"):
        return _read_separated(path, text, columns)
    if path.suffix == ".json" and text.lstrip().startswith("["):
        rows = json.loads(text)
        places = [f"entry {i}" for i in range(1, len(rows) + 1)]
    else:
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        places, rows = [f"line {i}" for i, _ in lines], []
        for place, (_, line) in zip(places, lines, strict=True):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path}, {place} is not JSON ({error}); mend or remove it.") from None
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise UserError(f"{path}, {place} is not a JSON object with named columns.")
    return rows


def _read_separated(path: Path, text: str, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    """Raises UserError at a csv row that does not have the header's columns: a quote may have swallowed others.

    In a tsv a quote is a character like any other; rows of another width, which official files have, are counted.
    """
    csv.field_size_limit(2**31 - 1)
    file, rows, odd = io.StringIO(text, newline=""), [], []
    if tabs := path.suffix == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    line = 1
    try:
        names = columns or next(reader, [])
        line = reader.line_num + 1  # where the next row begins
        for values in reader:
            if values:
                rows.append(dict(zip_longest(names, values[: len(names)])))
                if len(values) != len(names):
                    odd.append(f"row {len(rows)} (line {line}) has {len(values)} columns, the header {len(names)}")
                    if not tabs:
                        raise UserError(f"{path}, {odd[0]}; look for a quote or comma too many or too few.")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row {len(rows) + 1} (line {line}): a quote is not closed ({error}).") from None
    if odd:
        rank_zero_warn(f"{path}: {len(odd)} of {len(rows)} rows are of another width than the header; {odd[0]}.")
    return rows


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows → column → values, None where a row has none."""
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row if k)}


def read_utf8(path: Path) -> str:
    """Reads a text file, or names the line and byte that are not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data[: error.start].count(b"\n") + 1, error.start) from None


def read_documents(path: Path) -> Iterator[str]:
    """Documents of a text file, one at a time: separated by empty lines where there are any, else one a line."""
    apart = _holds_gap(path)
    document: list[str] = []
    for line in _utf8_lines(path):
        if line.strip():
            document.append(line)
        if document and not (apart and line.strip()):
            yield "\n".join(document).strip()
            document.clear()
    if document:
        yield "\n".join(document).strip()


def _holds_gap(path: Path) -> bool:
    """Whether empty lines stand between others."""
    begun = gap = False
    for line in _utf8_lines(path):
        empty = not line.strip()
        if gap and not empty:
            return True
        begun, gap = begun or not empty, begun and empty
    return False


def _utf8_lines(path: Path) -> Iterator[str]:
    """Lines without their ends; raises UserError at the first that is not UTF-8."""
    byte = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, byte + error.start) from None
            byte += len(line)


def _not_utf8(path: Path, line: int, byte: int) -> UserError:
    return UserError(f"{path}, line {line} is not UTF-8 (byte {byte}); save the file as UTF-8.")
