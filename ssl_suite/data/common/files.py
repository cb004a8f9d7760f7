"""Reading files of rows (csv, tsv, json, jsonl) and of plain text, packed (.gz) or not; bad ones are named by file,
row and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.walk import unreadable

PIECE = 1 << 20
"""Characters of a json list that are read at once."""
SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Form:
    """How csv and tsv files are written.

    Attributes:
        delimiter: one character between columns; None: a comma in csv, a tab in tsv. Between tabs there are no quotes.
        header: whether the first row names the columns; without, they are called 0, 1, 2, ... or as listed here.
    """

    delimiter: str | None = None
    header: bool | Sequence[str] = True

    def __post_init__(self) -> None:
        """Raises UserError for a delimiter that is none."""
        if self.delimiter == r"\t":  # as it comes from a shell
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise UserError(f"delimiter must be one character (, ; | or \\t), not {self.delimiter!r}.")


PLAIN = Form()


def read_rows(path: Path, form: Form = PLAIN) -> list[dict[str, Any]]:
    """All rows of a file, see `each_row`."""
    return list(each_row(path, form))


def each_row(path: Path, form: Form = PLAIN) -> Iterator[dict[str, Any]]:
    """Rows of a csv, tsv, jsonl or json file, one at a time in memory.

    Values of csv and tsv are text, and tsv knows no quotes (as GLUE's). A json file is a list, or as jsonl is.

    Args:
        path: of the file.
        form: of a csv or tsv file.

    Raises:
        UserError: a row is broken; names its line, or its place in the list.
    """
    suffix = suffix_of(path)
    if suffix in (".csv", ".tsv"):
        yield from _separated(path, form)
        return
    is_list = suffix == ".json" and _first_character(path) == "["
    for place, row in _json_list(path) if is_list else _json_lines(path):
        if not isinstance(row, dict):
            raise UserError(f"{path}, {place} is not a JSON object with named columns.")
        yield row


def _separated(path: Path, form: Form) -> Iterator[dict[str, Any]]:
    """Raises UserError at a csv row that does not have the header's columns: a quote may have swallowed others.

    Between tabs a quote is a character like any other; rows of another width, which official files have, are counted.
    """
    csv.field_size_limit(2**31 - 1)
    mark = form.delimiter or ("\t" if suffix_of(path) == ".tsv" else ",")
    if tabs := mark == "\t":
        reader = csv.reader(_pieces(path), delimiter=mark, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(_pieces(path), delimiter=mark, strict=True)
    number, odd, first_odd, line = 0, 0, "", 1
    try:
        rows: Iterator[list[str]] = reader
        if form.header is True:
            names = next(reader, [])
        elif form.header:
            names = list(form.header)
        else:
            first = next((row for row in reader if row), [])
            rows, names = chain([first], reader), [str(i) for i in range(len(first))]
        if twice := next((name for name, times in Counter(names).items() if name and times > 1), None):
            hint = "give each a name of its own, or, where the first row is no header, set --data.header false"
            raise UserError(f"{path} has two columns {twice!r}; {hint}.")
        line = reader.line_num + 1 if form.header is True else 1  # where the next row begins
        for values in rows:
            if values:
                number += 1
                if len(values) != len(names):
                    odd += 1
                    where = f"row {number} (line {line}) has {len(values)} columns, the header {len(names)}"
                    first_odd = first_odd or where
                    if not tabs:
                        hint = f"look for a quote or {mark!r} too many or too few, or set --data.delimiter"
                        raise UserError(f"{path}, {where}; {hint}.")
                yield dict(zip_longest(names, values[: len(names)]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1} (line {line}): a quote is not closed ({error}).") from None
    if odd:
        rank_zero_warn(f"{path}: {odd} of {number} rows are of another width than the header; {first_odd}.")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The objects of a file with one a line, and the place of each."""
    for number, line in enumerate(_utf8_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}); mend or remove it.") from None
            yield f"line {number}", row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError where a name is given twice, of which json would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _json_list(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a file that is one list, and the place of each."""
    scan, pieces = json.JSONDecoder(object_pairs_hook=_once).raw_decode, _pieces(path, PIECE)
    text, at, number = "", 0, 0

    def more() -> bool:
        nonlocal text, at
        piece = "".join(islice(pieces, 1 + (len(text) - at) // PIECE))  # as much again, for a long entry
        if piece:
            text, at = text[at:] + piece, 0
        return bool(piece)

    def skip() -> str:
        """The next character that is no white space; nothing at the end of the file."""
        nonlocal at
        while True:
            at = SPACE.match(text, at).end()  # type: ignore[union-attr]
            if at < len(text) or not more():
                return text[at : at + 1]

    skip()  # to the bracket
    at += 1
    while skip() != "]" or number:
        number += 1
        while True:
            try:
                entry, end = scan(text, at)
                if end < len(text) or not more():  # a number may go on
                    break
            except json.JSONDecodeError as error:
                cut_off = error.pos > len(text) - 16 or error.msg.startswith("Unterminated")
                if not cut_off or not more():
                    raise UserError(f"{path}, entry {number} is not JSON ({error.msg}); mend or remove it.") from None
            except (ValueError, RecursionError) as error:  # a number or a nest without end
                raise UserError(f"{path}, entry {number} is not JSON ({error}); mend or remove it.") from None
        at = end
        yield f"entry {number}", entry
        if (mark := skip()) == "]":
            break
        if mark != ",":
            raise UserError(f"{path}: neither a comma nor the list's end follows entry {number}; mend it.")
        at += 1
    at += 1
    if skip():
        raise UserError(f"{path}: something follows the end of the list; mend it.")


def suffix_of(path: Path) -> str:
    """The suffix of a file in lower case; of a packed one (`train.csv.gz`), that of what it holds."""
    return (Path(path.stem) if path.suffix == ".gz" else path).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, packed or not, to read bytes.

    Raises:
        UserError: it cannot be read, or is packed and cut short or damaged.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}); fetch or pack it again.") from None
    except OSError as error:
        raise unreadable(path, error) from None


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows → column → values, None where a row has none."""
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row if k)}


def read_utf8(path: Path) -> str:
    """Reads a text file, or names the line and byte that are not UTF-8."""
    with opened(path) as file:
        data = file.read()
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
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, byte + error.start) from None
            byte += len(line)


def _first_character(path: Path) -> str:
    """The first that is no white space; nothing where there is none."""
    return next((found[0] for piece in _pieces(path, PIECE) if (found := piece.lstrip())), "")


def _pieces(path: Path, size: int | None = None) -> Iterator[str]:
    """The text of a file as it is, a line or `size` characters at a time; raises UserError where it is not UTF-8."""
    try:
        with opened(path) as data, io.TextIOWrapper(data, "utf-8-sig", newline="") as file:
            yield from iter(partial(file.read, size), "") if size else file
    except UnicodeDecodeError:
        for _ in _utf8_lines(path):  # names the line
            pass
        raise


def _not_utf8(path: Path, line: int, byte: int) -> UserError:
    return UserError(f"{path}, line {line} is not UTF-8 (byte {byte}); save the file as UTF-8.")
