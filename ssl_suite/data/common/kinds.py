"""Kinds of target: how a cell of a column becomes what a task learns. A plug-in adds one by its subclass."""

from __future__ import annotations

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.core.encoder import Modality
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.columns import Numbers
from ssl_suite.data.common.source import Rows

MOST = torch.finfo(torch.float32).max
KINDS: dict[str, type[TargetKind]] = {}
"""All kinds by name."""


class TargetKind(ABC):
    """What a column gives: its cells are checked at once, and made tensors when their items are read.

    Tensors of one kind are stacked or padded: whole numbers with `IGNORE`, others with 0.

    Args:
        rows: of a split.
        column: that holds the target.
        clean: how transcripts are normalised.
        stride: samples a state of the encoder, for targets along time that are made for it.

    Attributes:
        name: what a task asks for.
        modalities: of the inputs that have such targets; None: all.
        closed: whether training has every label; in other splits one more is told, and counts as wrong. Otherwise other
            splits may have labels of their own, as the speakers of a verification.
        strangers: whether it is about those that training does not have, so that what it shares with them is told.
        partial: whether what training lacks is left out of a target, of which the rest is learned.
        balanced: whether a few labelled rows are drawn evenly over the values.
        whole: whether the target needs all of a recording.
        along: whether it lies along the time of a recording, and can be cut with it at the states of the encoder.
    """

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[Modality, ...] | None] = None
    closed: ClassVar[bool] = True
    strangers: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    balanced: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    along: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if inspect.isabstract(cls) or not cls.name:
            return
        if (other := KINDS.get(cls.name)) and other.__qualname__ != cls.__qualname__:
            raise UserError(
                f"Two kinds of target are called {cls.name!r}: {other.__module__}.{other.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; give yours another name."
            )
        KINDS[cls.name] = cls

    def __init__(self, rows: Rows, column: str, clean: Clean, stride: int = 1) -> None:
        self.rows, self.column, self.clean, self.stride = rows, column, clean, stride
        self.names = rows.label_names(column)
        self.values = self.read()

    @abstractmethod
    def read(self) -> list[Any]:
        """The value of each row, checked.

        Raises:
            UserError: one is not of this kind; names file and row.
        """

    @abstractmethod
    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        """The target of a row, given the id of each label."""

    def parts(self, value: Any) -> Iterable[str]:
        """The labels in a value; none where values have no labels."""
        return ()

    def occurring(self) -> set[str]:
        """All labels in the values."""
        return {part for value in self.values for part in self.parts(value)}

    def labels(self) -> list[str]:
        """What can be learned of this split, in order."""
        return self.ordered(self.occurring())

    def ordered(self, names: set[str]) -> list[str]:
        """Numbers by size, then other names."""
        return sorted(names, key=lambda v: (len(v), v) if v.isdigit() else (99, v))

    def spell(self, label: str) -> str:
        """One spelling of a label."""
        return spelled(label)

    def cut(self, target: Tensor, start: int, size: int, stride: int) -> Tensor:
        """The target of a part of a recording.

        Args:
            target: of all of it.
            start: first sample, a multiple of `stride`.
            size: in samples.
            stride: samples a state of the encoder.
        """
        return target

    def played(self, target: Tensor, speed: float) -> Tensor:
        """The target of a part that is played at another speed: of 1.1, a tenth faster."""
        return target

    def lasts(self, target: Tensor, size: int, stride: int) -> bool:
        """Whether a target along time is as long as its recording of `size` samples."""
        return True

    def label(self, row: int, value: Any, word: int | None = None) -> str:
        """The name of the label in a row (and of its word `word`)."""
        where = self.rows.where(row) + ("" if word is None else f", word {word + 1}")
        if isinstance(value, (list, tuple, dict)):
            raise UserError(f"{where}: {self.column!r} holds {repr(value)[:60]}, not a label.")
        if is_empty(value):
            raise UserError(f"{where}: {self.column!r} is empty; give it a label or leave the row out.")
        if self.names is None:
            return spelled(value)
        if not 0 <= int(value) < len(self.names):  # -1 is no label, not the last one
            raise UserError(f"{where}: {self.column!r} holds {value}, and the classes are 0 to {len(self.names) - 1}.")
        return spelled(self.names[int(value)])

    def lists(self, wanted: str) -> list[list[Any]]:
        """The values of a column of lists."""
        values = self.rows.column(self.column)
        for i, value in enumerate(values):
            if not isinstance(value, (list, tuple)):
                raise UserError(f"{self.rows.where(i)}: {self.column!r} holds {repr(value)[:60]}, not {wanted}.")
        return values


class Class(TargetKind):
    """() the class of an input."""

    name = "class"
    balanced = True

    def read(self) -> list[str]:
        return [self.label(i, value) for i, value in enumerate(self.rows.column(self.column))]

    def parts(self, value: str) -> Iterable[str]:
        return (value,)

    def labels(self) -> list[str]:
        return self.names or super().labels()

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        return torch.tensor(ids[self.values[row]])


class Name(Class):
    """() what a row is called: of comparisons, whose other splits have names of their own."""

    name = "name"
    closed = False


class Identity(Name):
    """() who or what an input is of: of a verification, whose other splits should have speakers of their own."""

    name = "identity"
    strangers = True


class Transcript(Name):
    """() which words are said, normalised."""

    name = "transcript"
    whole = True

    def read(self) -> list[str]:
        return transcripts(self)

    def labels(self) -> list[str]:
        return sorted(set(self.values))

    def spell(self, label: str) -> str:
        return label


class Value(TargetKind):
    """() a number."""

    name = "value"

    def read(self) -> list[float]:
        if self.names:
            some = ", ".join(self.names[:3])
            raise UserError(
                f"{self.rows.name}: {self.column!r} holds classes ({some}, ...), whose numbers measure nothing; "
                "take the task Classify, or name a column of numbers with --data.target."
            )
        return [self._number(i, value) for i, value in enumerate(self.rows.column(self.column))]

    def _number(self, row: int, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not abs(number) <= MOST:
            raise UserError(f"{self.rows.where(row)}: {self.column!r} holds {value!r}, not a number.")
        return number

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        return torch.tensor(self.values[row])


class Sequence(TargetKind):
    """(L) labels in a row."""

    def parts(self, value: Any) -> Iterable[str]:
        return value

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        return torch.tensor([ids[part] for part in self.values[row]], dtype=torch.long)


class Tags(Sequence):
    """(L) a tag for each word."""

    name = "tags"
    modalities = ("text",)

    def read(self) -> list[list[str]]:
        values = self.lists("a list of tags")
        return [[self.label(i, tag, word) for word, tag in enumerate(value)] for i, value in enumerate(values)]

    def labels(self) -> list[str]:
        return self.names or super().labels()


class Names(Sequence):
    """(L) names in no order, or none: of the utterances that a query is in."""

    name = "names"
    closed = False

    def read(self) -> list[list[str]]:
        values = self.lists("a list of names")
        return [[self.label(i, name) for name in value] for i, value in enumerate(values)]


class Characters(Sequence):
    """(L) the characters of a transcript, normalised."""

    name = "characters"
    partial = True
    whole = True

    def read(self) -> list[str]:
        return transcripts(self)

    def spell(self, label: str) -> str:
        return label

    def ordered(self, names: set[str]) -> list[str]:
        """By code."""
        return sorted(names, key=lambda v: (len(v), v) if v.isdigit() else (0, v))


class Frames(Sequence):
    """(L) a whole number from 0 for each state of the encoder: units, phones, an alignment."""

    name = "frames"
    modalities = ("speech",)
    along = True

    def read(self) -> Numbers | list[NDArray[np.int64]]:  # type: ignore[override]
        if isinstance(column := self.rows.beside.get(self.column), Numbers):
            return column
        wanted = "a list of whole numbers from 0, one for each state of the encoder"
        values = self.lists(f"{wanted} (`ssl-suite prepare units` makes some, --data.units names them)")
        for i, value in enumerate(values):
            if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value):
                raise UserError(f"{self.rows.where(i)}: {self.column!r} holds {repr(value)[:60]}, not {wanted}.")
        return [np.array(value, np.int64) for value in values]

    def parts(self, value: NDArray[np.int64]) -> Iterable[str]:
        """Each once."""
        return (str(v) for v in np.unique(value).tolist())

    def occurring(self) -> set[str]:
        return set(self.labels()) if isinstance(self.values, Numbers) else super().occurring()

    def labels(self) -> list[str]:
        """The id of a frame is its number, whichever numbers occur."""
        if isinstance(self.values, Numbers):
            return [str(i) for i in range(self.values.classes)]
        return [str(i) for i in range(1 + max((int(v.max()) for v in self.values if len(v)), default=-1))]

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        found, back = np.unique(self.values[row], return_inverse=True)
        return torch.tensor([ids[str(v)] for v in found.tolist()], dtype=torch.long)[torch.from_numpy(back)]

    def lasts(self, target: Tensor, size: int, stride: int) -> bool:
        """Front ends differ by a state or two at the end."""
        return abs(len(target) - size / stride) <= 2

    def cut(self, target: Tensor, start: int, size: int, stride: int) -> Tensor:
        """Those that begin in the part."""
        return target[start // stride :][: math.ceil(size / stride)]

    def played(self, target: Tensor, speed: float) -> Tensor:
        """For each state that which was in its middle."""
        middles = torch.arange(math.ceil(len(target) / speed)) + 0.5
        return target[(middles * speed).long().clamp(max=len(target) - 1)]


def transcripts(kind: TargetKind) -> list[str]:
    """The column of a kind as transcripts, normalised.

    Raises:
        UserError: one is empty, or becomes so; names the row.
    """
    found = []
    for row, value in enumerate(kind.rows.column(kind.column)):
        if is_empty(value):
            raise UserError(f"{kind.rows.where(row)}: {kind.column!r} is empty; give each row a transcript.")
        if not (text := kind.clean(str(value))):
            raise UserError(
                f"{kind.rows.where(row)}: nothing is left of the transcript {str(value)[:40]!r}; mend it, or keep more "
                "of its characters with --data.clean.keep."
            )
        found.append(text)
    return found


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: no value, no number, or nothing but white space."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def spelled(value: Any) -> str:
    """One spelling of a label: `1`, `1.0` and ` 1` are the same one."""
    text = str(value).strip()
    whole = re.fullmatch(r"([+-]?\d+)\.0*", text)
    return whole[1] if whole else text
