"""Which part of its file each utterance is, and how long: from a table's columns, checked before training."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows
from ssl_suite.data.speech.reading import duration

BEGIN, END = ("start", "offset", "begin", "start_time", "begin_time", "tmin"), ("end", "stop", "end_time", "tmax")
LENGTH, SECONDS = ("duration",), ("seconds",)
"""Columns in seconds, in capitals or not. A `duration` counts from an `offset`; alone it says nothing about where, and
is not read."""
ELSE = re.compile(
    r"(start|begin|offset|end|stop|num|n)_?(s|sec|seconds?|ms|milliseconds?|samples?|frames?)", re.IGNORECASE
)
"""What other tools call such a column, in a unit of their own."""
READERS = 16
"""Files whose headers are read at once."""
SLACK = 0.05
"""Seconds by which a segment may end after its file, for numbers that were rounded."""


@dataclass(frozen=True)
class Utterance:
    """From `start` to `end` seconds of its file; `end` is infinite where the file's is meant.

    Attributes:
        start: first second.
        end: last second.
        seconds: how long it is; 0 where its file cannot be read, which is reported when it is.
        claimed: the column `seconds` is where that comes from: to be compared with the file when it is read.
    """

    start: float
    end: float
    seconds: float
    claimed: bool = False


def utterances(rows: Rows, media: str) -> list[Utterance]:
    """One for each row.

    Columns `start` and `end` (or `offset` and `duration`) name a part of the file; an empty cell is its beginning or
    end. `seconds` is the utterance's length, and saves opening every file.

    Args:
        rows: of a split.
        media: column of the audio.

    Raises:
        UserError: a number is none, or names a part that its file does not have; names the row.
    """
    begin, end = _first(rows, BEGIN), _first(rows, END)
    if begin is end is None and (other := next((c for c in rows.columns if ELSE.fullmatch(c)), None)):
        raise UserError(
            f"{rows.name}: column {other!r} seems to say which part of a file a row is; name it start and end (or "
            "offset and duration), in seconds, or something else if it does not."
        )
    length = _first(rows, LENGTH) if begin and end is None else None
    seconds = _first(rows, SECONDS)
    places: list[tuple[float, float, float | None]] = []
    for i in range(len(rows)):
        start = _cell(rows, i, begin, low=0) or 0.0
        stop = _cell(rows, i, end, above=0) or start + (_cell(rows, i, length, above=0) or math.inf)
        places.append((start, stop, _cell(rows, i, seconds, above=0)))
    unknown = [i for i, (start, stop, claim) in enumerate(places) if claim is None or start or stop < math.inf]
    lasts = _durations(rows, media, unknown)
    found: list[Utterance] = []
    for i, (start, stop, claim) in enumerate(places):
        if start == 0 and stop == math.inf:
            found.append(Utterance(start, stop, claim or lasts[i], claimed=claim is not None))
        else:
            found.append(Utterance(start, stop, _segment(rows, i, start, stop, claim, lasts[i])))
    _tell_broken(rows, [i for i in unknown if not lasts[i]])
    _tell_overlaps(rows, media, found)
    return found


def _durations(rows: Rows, media: str, chosen: list[int]) -> dict[int, float]:
    """Seconds of the files of these rows, by row; each is opened once, several at a time, for disks are slow."""
    known: dict[int, float] = {}
    files: dict[str, list[int]] = {}
    for i in chosen:
        value = rows[i][media]
        if (path := path_of(value)) is None:
            known[i] = duration(value)
        else:
            files.setdefault(path, []).append(i)  # several segments may share a file
    with ThreadPoolExecutor(READERS) as pool:
        lasts = pool.map(lambda path: duration({"bytes": None, "path": path}), files)
        for numbers, seconds in zip(files.values(), lasts, strict=True):
            known |= dict.fromkeys(numbers, seconds)
    return known


def _tell_broken(rows: Rows, broken: list[int]) -> None:
    """Says how many recordings cannot be read, long before they would be."""
    if broken:
        some = f"{len(broken)} of {len(rows)} recordings cannot be read"
        rank_zero_warn(f"{rows.name}: {some}; the first is of {rows.where(broken[0]).rpartition(', ')[2]}.")


def cut(rows: Rows, media: str, most: float) -> Rows:
    """The same rows with several for each that is longer than `most` seconds: equal parts, one after the other.

    Args:
        rows: of a split.
        media: column of the audio.
        most: seconds a part.
    """
    found = utterances(rows, media)
    counts = [max(1, math.ceil(u.seconds / most - 1e-9)) for u in found]
    if max(counts) == 1:
        return rows
    parts = [(i, part, n) for i, n in enumerate(counts) for part in range(n)]
    taken = rows.take([i for i, _, _ in parts])
    old = [name for name in (_first(rows, choices) for choices in (BEGIN, END, LENGTH, SECONDS)) if name]
    begins = [found[i].start + found[i].seconds * part / n for i, part, n in parts]
    ends = [
        None if part + 1 == n and found[i].end == math.inf else found[i].start + found[i].seconds * (part + 1) / n
        for i, part, n in parts
    ]
    table = taken.table.remove_columns(old).add_column("start", begins).add_column("end", ends)
    return Rows(table, taken.name, f"{taken.fingerprint}|{most}", taken.numbers, taken.parts)


def _tell_overlaps(rows: Rows, media: str, found: list[Utterance]) -> None:
    """Says how many rows are parts of a file that another row has too."""
    parts = [(path_of(rows[i][media]), u.start, u.end, i) for i, u in enumerate(found) if u.start or u.end < math.inf]
    until: dict[str | None, float] = {}
    overlaps = []
    for path, start, end, i in sorted(parts, key=lambda part: (part[0] or "", *part[1:])):
        if path is not None and start < until.get(path, 0.0) - SLACK:
            overlaps.append(i)
        until[path] = max(until.get(path, 0.0), end)
    if overlaps:
        first = rows.where(min(overlaps)).rpartition(", ")[2]
        rank_zero_warn(f"{rows.name}: {len(overlaps)} segments overlap another of their file; the first is {first}.")


def _segment(rows: Rows, i: int, start: float, stop: float, claim: float | None, whole: float) -> float:
    """Seconds of a part of a file that lasts `whole` seconds (0 where that cannot be read)."""
    if stop <= start:
        raise UserError(f"{rows.where(i)}: the segment ends at {stop:g} s, but starts at {start:g} s.")
    if not whole:
        return 0.0
    if start >= whole or whole + SLACK < stop < math.inf:
        raise UserError(f"{rows.where(i)}: the segment {_named(start, stop)} s is not in its file of {whole:.2f} s.")
    lasts = min(stop, whole) - start
    if claim is not None and not agree(claim, lasts):
        raise UserError(f"{rows.where(i)}: 'seconds' is {claim:g}, but the segment lasts {lasts:.2f} s.")
    return lasts


def path_of(value: Any) -> str | None:
    """Of the file where a row's audio lies; None for bytes in the table, and for what is no audio."""
    return value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None


def agree(claimed: float, seconds: float) -> bool:
    """Whether a length that a table gives is that of the audio, however it was rounded."""
    return abs(claimed - seconds) <= max(0.5, 0.02 * seconds)


def names(rows: Rows, ids: list[str], found: list[Utterance]) -> list[str]:
    """Ids, with the part of the file where several rows have one."""
    if len(set(ids)) == len(ids) or (_first(rows, BEGIN) or _first(rows, END)) is None:
        return ids
    return [f"{name}:{_named(u.start, u.end)}" for name, u in zip(ids, found, strict=True)]


def _first(rows: Rows, choices: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in rows.columns}
    return next((lower[name] for name in choices if name in lower), None)


def _named(start: float, end: float) -> str:
    return f"{start:g}-{end:g}" if end < math.inf else f"{start:g}-"


def _cell(rows: Rows, i: int, column: str | None, low: float | None = None, above: float | None = None) -> float | None:
    """A cell in seconds; None where it is empty, or there is no such column."""
    value: Any = rows.column(column)[i] if column else None
    if value is None or value == "":
        return None
    with suppress(TypeError, ValueError):
        value = float(value)
    within(f"{rows.where(i)}: {column!r}", value, low=low, above=above)
    return float(value)
