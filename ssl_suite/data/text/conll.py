"""Tagged words in the field's two file formats: CoNLL-U, and a word a line with its labels (CoNLL-2003, BIO)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_utf8

UNIVERSAL = {"upos": 3, "xpos": 4, "feats": 5, "lemma": 2, "deprel": 7}
"""Column of CoNLL-U (universaldependencies.org/format.html), counted from 0."""
HEAD = 6

Line = tuple[int, str]


def read_conllu(path: Path) -> dict[str, list[Any]]:
    """Sentences of a CoNLL-U file as lists of words, in `tokens`, and of their labels, in the columns of `UNIVERSAL`;
    `depth` is how many arcs a word is below the root of its tree, `_` where the heads do not lead there.

    The lines of a multiword token (`3-4 don't`) and of an empty node (`3.1`) are passed over: only syntactic words have
    labels. `id` holds the sentence's `sent_id`, or its number.

    Raises:
        UserError: a line does not have ten columns, or there is no sentence; names the line.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("tokens", *UNIVERSAL, "depth", "id")}
    for block in _blocks(path):
        comments = [text for _, text in block if text.startswith("#")]
        words = [_fields(path, line, "\t", 10, word=1) for line in block if not line[1].startswith("#")]
        words = [word for word in words if word[0].isdigit()]
        if not words:
            continue
        names = [c.partition("=")[2].strip() for c in comments if c.lstrip("# ").startswith("sent_id")]
        columns["tokens"].append([word[1] for word in words])
        columns["id"].append(names[0] if names else str(len(columns["id"]) + 1))
        for name, place in UNIVERSAL.items():
            columns[name].append([word[place] for word in words])
        columns["depth"].append(_depths({word[0]: word[HEAD] for word in words}))
    return _filled(path, columns)


def read_conll(path: Path) -> dict[str, list[Any]]:
    """Sentences of a file with a word a line, its labels behind it, between tabs or blanks, and empty lines between.

    The last label is the column `tags`; those between are `column2`, `column3`, ... (of CoNLL-2003: part of speech and
    chunk). Lines that begin with -DOCSTART- are passed over. Labels are kept as they are: IOB1, IOB2 or IOBES.

    Raises:
        UserError: a line has another number of columns than the first, or only one; names the line.
    """
    columns: dict[str, list[Any]] = {}
    separator, width = None, 0
    for block in _blocks(path):
        lines = [line for line in block if not line[1].startswith("-DOCSTART-")]
        if not lines:
            continue
        if not columns:
            separator = "\t" if "\t" in lines[0][1] else None
            width = max(2, len(lines[0][1].split(separator)))
            columns = {name: [] for name in ("tokens", *(f"column{i}" for i in range(2, width)), "tags")}
        words = [_fields(path, line, separator, width) for line in lines]
        for name, values in zip(columns, zip(*words, strict=True), strict=True):
            columns[name].append(list(values))
    return _filled(path, columns)


READERS = {".conllu": read_conllu, ".conll": read_conll, ".bio": read_conll, ".iob": read_conll, ".iob2": read_conll}
"""File suffix → reader."""


def _depths(heads: Mapping[str, str]) -> list[str]:
    """How far each word is from the root, whose head is 0."""
    found = []
    for word in heads:
        depth, above = 0, heads[word]
        while above in heads and depth < len(heads):
            depth, above = depth + 1, heads[above]
        found.append(str(depth) if above == "0" else "_")
    return found


def _blocks(path: Path) -> Iterator[list[Line]]:
    """Runs of numbered lines between empty ones."""
    block: list[Line] = []
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if line.strip():
            block.append((number, line.rstrip("\r")))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _fields(path: Path, line: Line, separator: str | None, width: int, word: int = 0) -> list[str]:
    """The columns of a line, of which number `word` must not be empty."""
    fields = line[1].split(separator)
    if len(fields) == width and not fields[word].strip():
        raise UserError(f"{path}, line {line[0]} has an empty word: {line[1][:40]!r}; mend it.")
    if len(fields) != width:
        raise UserError(f"{path}, line {line[0]} has {len(fields)} columns, not {width}: {line[1][:40]!r}; mend it.")
    return fields


def _filled(path: Path, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if not columns or not columns["tokens"]:
        raise UserError(f"{path} holds no sentence.")
    return columns
