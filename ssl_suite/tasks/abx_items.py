"""Items of ABX: the pieces of recordings that a file names, and the cells in which they are compared."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePath
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.reading import a_file

TIMES = ("file", "onset", "offset")
Mode = Literal["within", "across"]
T = TypeVar("T", int, str)


@dataclass(frozen=True)
class Cut:
    """A piece of a recording.

    Attributes:
        onset: second.
        offset: second.
        columns: what the file says of it.
    """

    onset: float
    offset: float
    columns: dict[str, str]

    def states(self, rate: float) -> slice:
        """The states whose middles lie in it, of `rate` a second (ABXpy; libri-light leaves out the last of them)."""
        first, last = (round(time * rate - 0.5, 6) for time in (self.onset, self.offset))
        return slice(max(0, math.ceil(first)), max(0, math.floor(last) + 1))


@dataclass(frozen=True)
class Cuts:
    """An item file.

    Attributes:
        path: of the file.
        lines: recording → its first line in the file.
        cuts: recording → its pieces.
    """

    path: Path
    lines: dict[str, int]
    cuts: dict[str, list[Cut]]

    def of(self, name: str) -> list[Cut]:
        """Those of a recording, which the file names as the data do or without folder and ending."""
        return self.cuts.get(name) or self.cuts.get(PurePath(name).stem, [])

    def expect(self, names: Sequence[str], where: str) -> None:
        """Raises UserError where the file names a recording that is not among these."""
        there = {*names, *(PurePath(name).stem for name in names)}
        for name, line in self.lines.items():
            if name not in there:
                raise UserError(f"{self.path}, line {line}: there is no recording {name!r} in {where}.")


def read_cuts(path: str, columns: Sequence[str]) -> Cuts:
    """Reads an item file: a line of names, then one a piece, between blanks; a `#` before a name does not matter.

    Args:
        path: of the file.
        columns: that are needed, beside `file`, `onset` and `offset`.

    Raises:
        UserError: one is not there, a line has another number of values, or times that are none; names the line.
    """
    place = a_file(Path(path))
    names, *rows = (line.split() for line in place.read_text(encoding="utf-8").splitlines() or [""])
    names = [name.removeprefix("#") for name in names]
    for name in (*TIMES, *columns):
        if name not in names:
            raise UserError(f"{path} has no column {name!r} in its first line.{nearest(name, names)}")
    found = Cuts(place, {}, {})
    for line, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise UserError(f"{path}, line {line} has {len(row)} values, and the first line {len(names)} names.")
        values = dict(zip(names, row, strict=True))
        onset, offset = (_seconds(f"{path}, line {line}: {name}", values[name]) for name in TIMES[1:])
        if offset <= onset:
            raise UserError(f"{path}, line {line}: the piece ends at {offset:g} s, but starts at {onset:g} s.")
        found.lines.setdefault(values["file"], line)
        found.cuts.setdefault(values["file"], []).append(Cut(onset, offset, values))
    return found


def _seconds(what: str, text: str) -> float:
    try:
        value: float | str = float(text)
    except ValueError:
        value = text
    within(what, value, low=0)
    return float(value)


class Label(NamedTuple):
    """What is known of a piece: its kind, its context, and its speaker ("" where none is asked for)."""

    of: str
    by: tuple[str, ...]
    across: str


@dataclass(frozen=True)
class Cell:
    """Pieces, by their numbers, each A of which is compared with each B for each X.

    Attributes:
        a: of one kind.
        b: of another.
        x: of the kind of A; the same pieces as `a`, or those of another speaker.
        pair: both kinds.
        across: the speaker of A and B.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    x: NDArray[np.int64]
    pair: tuple[str, str]
    across: str


def cells(labels: Sequence[Label], mode: Mode, most: int | None, others: int | None, seed: int) -> Iterator[Cell]:
    """The cells of pieces with these labels, those of one context one after the other.

    Args:
        labels: of every piece.
        mode: X is `within` the speaker of A and B, or `across`.
        most: pieces of one label that are kept; None: all.
        others: speakers X is taken from, for each A and B; None: all.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    pieces: dict[tuple[str, ...], dict[tuple[str, str], list[int]]] = {}  # context → kind and speaker → numbers
    for number, label in enumerate(labels):
        pieces.setdefault(label.by, {}).setdefault((label.across, label.of), []).append(number)
    for context in pieces.values():
        kept = {key: np.array(_few(numbers, most, draw)) for key, numbers in context.items()}
        speakers: dict[str, list[str]] = {}  # speaker → kinds
        of_kind: dict[str, list[str]] = {}  # kind → speakers
        for speaker, kind in kept:
            speakers.setdefault(speaker, []).append(kind)
            of_kind.setdefault(kind, []).append(speaker)
        for speaker, kinds in speakers.items():
            for pair in permutations(kinds, 2):
                a, b = (kept[speaker, kind] for kind in pair)
                if mode == "across":
                    for other in _few([s for s in of_kind[pair[0]] if s != speaker], others, draw):
                        yield Cell(a, b, kept[other, pair[0]], pair, speaker)
                elif len(a) > 1:
                    yield Cell(a, b, a, pair, speaker)


def _few(values: list[T], most: int | None, draw: random.Random) -> list[T]:
    return values if most is None or len(values) <= most else sorted(draw.sample(values, most))
