"""Kaldi's data folders: wav.scp, and segments, text and utt2spk where they are there; nothing in them is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.layout import ALIASES
from ssl_suite.data.common.lists import Splits, lines, options
from ssl_suite.data.speech.layouts.lists import audio, located

Table = dict[str, tuple[str, str]]
"""What a line begins with → the rest of it, and where that is."""


def kaldi(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `start`, `end`, and `text` and `speaker` where they are known.

    Args:
        folder: with wav.scp, which is then the training split; or with such a folder a split: train, dev and test.
        part: empty.
    """
    options(part, (), "kaldi")
    if (folder / "wav.scp").is_file():
        return {"train": _rows(folder)}
    places = {split: [folder / name for name in names] for split, names in ALIASES.items()}
    found = {split: next((p for p in choices if (p / "wav.scp").is_file()), None) for split, choices in places.items()}
    if not any(found.values()):
        raise UserError(f"{folder} has neither a wav.scp nor folders train, dev or test that have one.")
    return {split: _rows(place) for split, place in found.items() if place}


def _rows(folder: Path) -> list[dict[str, Any]]:
    recordings = {name: _recording(rest, folder, where) for name, (rest, where) in _table(folder / "wav.scp").items()}
    columns = {name: _table(folder / file) for name, file in (("text", "text"), ("speaker", "utt2spk"))}
    parts = _segments(folder, recordings) or {name: (name, None, None) for name in recordings}
    for table in columns.values():
        for name, (_, where) in table.items():
            if name not in parts:
                raise UserError(f"{where}: there is no utterance {name!r} in wav.scp or segments.")
    rows = []
    for name, (recording, start, end) in parts.items():
        row: dict[str, Any] = {"id": name, "audio": recordings[recording], "start": start, "end": end}
        for column, table in columns.items():
            if table:
                row[column] = table[name][0] if name in table else None
        rows.append(row)
    return rows


def _recording(rest: str, folder: Path, where: str) -> dict[str, Any]:
    if "|" in rest:
        raise UserError(f"{where}: {rest[:60]!r} is a pipe, which is never run; write what it prints to files first.")
    return audio(located(rest, folder), where)


def _segments(folder: Path, recordings: dict[str, Any]) -> dict[str, tuple[str, float | None, float | None]]:
    parts: dict[str, tuple[str, float | None, float | None]] = {}
    for name, (rest, where) in _table(folder / "segments").items():
        try:
            recording, first, last = rest.split()
            start, end = float(first), float(last)
        except ValueError:
            raise UserError(f"{where}: {rest[:60]!r} is not a recording, its start and its end in seconds.") from None
        if recording not in recordings:
            raise UserError(f"{where}: there is no recording {recording!r} in wav.scp.")
        if not start >= 0 or not (end > start or end == -1):
            raise UserError(f"{where}: a segment from {start:g} s to {end:g} s is none.")
        parts[name] = recording, start, None if end == -1 else end  # -1 is the end of the recording
    return parts


def _table(path: Path) -> Table:
    """The lines of a file by their first word; none where there is no such file."""
    table: Table = {}
    for where, line in lines(path) if path.is_file() else ():
        name, *rest = line.split(maxsplit=1)
        if name in table:
            raise UserError(f"{where}: {name!r} is there twice, the first in {table[name][1]}.")
        table[name] = "".join(rest), where
    return table
