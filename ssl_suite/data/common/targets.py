"""Targets: from a column of labels, numbers, tags or text to tensors, checked before training."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.random import uniform
from ssl_suite.core.task import TargetKind
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.source import Rows

KINDS = ("class", "value", "tags", "characters", "frames")
"""Kinds of target a column can give; frames are whole numbers from 0, one for each state of the encoder."""

NAMED = 5
"""Labels that a message names."""


class Targets:
    """Encodes one column of every split.

    A label of another split that training does not have keeps an id of its own, behind those that can be learned: it is
    scored, as wrong whatever is answered.

    Args:
        splits: the rows.
        column: which column holds the target.
        kind: one of `KINDS`, as the task asks.
        labels: those a task already knows; None takes them from the training split.
        clean: how transcripts are normalised.

    Attributes:
        labels: what can be answered: label i has the id i.
        unseen: what occurs, but not in training: label k has the id len(labels) + k.
    """

    def __init__(
        self,
        splits: dict[str, Rows],
        column: str,
        kind: TargetKind,
        labels: list[str] | None = None,
        clean: Clean = Clean(),
    ) -> None:
        self.kind, self.column, self.clean, self.splits = kind, column, clean, splits
        self.values: dict[str, list[Any]] = {s: self._values(rows) for s, rows in splits.items()}
        self.labels: list[str] = []
        self.unseen: list[str] = []
        if kind != "value":
            self.labels = labels if labels is not None else self._labels()
            known = {self._spell(name) for name in self.labels}
            self.unseen = ordered({part for s in splits for part in self._parts(s)} - known, kind)
        index = {self._spell(name): i for i, name in enumerate([*self.labels, *self.unseen])}
        self.encoded = {s: self._encode(splits[s], values, index) for s, values in self.values.items()}

    def __getitem__(self, place: tuple[str, int]) -> Tensor:
        split, row = place
        return self.encoded[split][row]

    def _spell(self, name: str) -> str:
        return name if self.kind == "characters" else spelled(name)

    def expect_known(self, split: str) -> None:
        """Raises UserError at the first row of a split whose label cannot be learned."""
        if self.kind != "characters" and (i := self._first_unseen(split)) is not None:
            name = self.unseen[int(self.encoded[split][i].max()) - len(self.labels)]
            where = self.splits[split].where(i)
            raise UserError(f"{where}: the task does not know the label {name!r}.{nearest(name, self.labels)}")

    def warn_of_unseen(self) -> None:
        """Says how often each split has which labels that training lacks.

        Raises:
            UserError: a split has no label at all that can be answered: it is another task's.
        """
        what, unseen = {"class": "labels"}.get(self.kind, self.kind), set(self.unseen)
        for split, rows in self.splits.items():
            if (first := self._first_unseen(split)) is None:
                continue
            count = Counter(part for part in self._parts(split) if part in unseen)
            if count.total() == sum(1 for _ in self._parts(split)):
                some = ", ".join(map(repr, self.labels[:NAMED]))
                raise UserError(
                    f"{rows.where(first)}: label {next(iter(count))!r} never occurs in training, nor does any other of "
                    f"this split; the task knows {some}{', ...' * (len(self.labels) > NAMED)}. Give its own data."
                )
            named = [f"{name!r} {n}" for name, n in count.most_common(NAMED)] + ["..."] * (len(count) > NAMED)
            rank_zero_warn(
                f"{rows.name}: {count.total()} of {sum(1 for _ in self._parts(split))} {what} never occur in training "
                f"({', '.join(named)}; first in {rows.where(first).rpartition(', ')[2]}), so no answer can be right "
                "there: they count as wrong."
            )

    def _first_unseen(self, split: str) -> int | None:
        """The first row with a label that training does not have."""
        encoded = self.encoded[split] if self.unseen else []
        return next((i for i, ids in enumerate(encoded) if (ids >= len(self.labels)).any()), None)

    def _parts(self, split: str) -> Any:
        """Every label of a split: of each row, each word or each character."""
        values = self.values[split]
        return values if self.kind == "class" else (part for value in values for part in value)

    def _values(self, rows: Rows) -> list[Any]:
        """The column with class numbers turned into their names."""
        if self.kind == "span":
            raise UserError("Spans are answers to questions: read them with --data Questions.")
        if self.kind not in KINDS:
            raise UserError(f"A column gives no target of the kind {self.kind!r}; it can give: {', '.join(KINDS)}.")
        names, values = rows.label_names(self.column), rows.column(self.column)
        if self.kind == "tags":
            for i, value in enumerate(values):
                if not isinstance(value, (list, tuple)):
                    raise UserError(f"{rows.where(i)}: {self.column!r} holds {repr(value)[:60]}, not a list of tags.")
            return [[self._name(rows, i, tag, names, t) for t, tag in enumerate(v)] for i, v in enumerate(values)]
        if self.kind == "frames":
            return [self._frames(rows, i, value) for i, value in enumerate(values)]
        if self.kind == "class":
            return [self._name(rows, i, value, names) for i, value in enumerate(values)]
        if self.kind == "characters":
            return [self._transcript(rows, i, value) for i, value in enumerate(values)]
        if names:
            some = ", ".join(names[:3])
            raise UserError(
                f"{rows.name}: {self.column!r} holds classes ({some}, ...), whose numbers measure nothing; "
                "take the task Classify, or name a column of numbers with --data.target."
            )
        return values

    def _name(self, rows: Rows, i: int, value: Any, names: list[str] | None, word: int | None = None) -> str:
        """The name of the label in row `i` (and of its word `word`)."""
        where = rows.where(i) + ("" if word is None else f", word {word + 1}")
        if isinstance(value, (list, tuple, dict)):
            raise UserError(f"{where}: {self.column!r} holds {repr(value)[:60]}, not a label.")
        if is_empty(value):
            raise UserError(f"{where}: {self.column!r} is empty; give it a label or leave the row out.")
        if names is None:
            return spelled(value)
        if not 0 <= int(value) < len(names):  # -1 is no label, not the last one
            raise UserError(f"{where}: {self.column!r} holds {value}, and the classes are 0 to {len(names) - 1}.")
        return spelled(names[int(value)])

    def _frames(self, rows: Rows, i: int, value: Any) -> list[str]:
        """The numbers of a row, spelled."""
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, int) and v >= 0 for v in value):
            wrong = f"{self.column!r} holds {repr(value)[:60]}, not a list of whole numbers from 0"
            raise UserError(f"{rows.where(i)}: {wrong}, one for each state of the encoder.")
        return [str(v) for v in value]

    def _transcript(self, rows: Rows, i: int, value: Any) -> str:
        if is_empty(value):
            raise UserError(f"{rows.where(i)}: {self.column!r} is empty; give each row a transcript.")
        if not (text := self.clean(str(value))):
            raise UserError(
                f"{rows.where(i)}: nothing is left of the transcript {str(value)[:40]!r}; mend it, or keep more of its "
                "characters with --data.clean.keep."
            )
        return text

    def _labels(self) -> list[str]:
        train = "train" if "train" in self.splits else next(iter(self.splits))
        names = self.splits[train].label_names(self.column)
        if names and self.kind in ("class", "tags"):
            return names
        if self.kind == "frames":  # the id of a frame is its number, whichever numbers occur
            return [str(i) for i in range(1 + max(map(int, self._parts(train)), default=-1))]
        return ordered(set(self._parts(train)), self.kind)

    def _encode(self, rows: Rows, values: list[Any], index: dict[str, int]) -> list[Tensor]:
        if self.kind == "value":
            return [torch.tensor(self._number(rows, i, value)) for i, value in enumerate(values)]
        if self.kind == "class":
            return [torch.tensor(index[value]) for value in values]
        return [torch.tensor([index[part] for part in value], dtype=torch.long) for value in values]

    def _number(self, rows: Rows, i: int, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{rows.where(i)}: {self.column!r} holds {value!r}, not a number.")
        return number


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


def ordered(names: set[str], kind: TargetKind) -> list[str]:
    """Labels in their order: characters by code, numbers by size and before other names."""
    return sorted(names, key=lambda v: (len(v), v) if v.isdigit() else (0, v) if kind == "characters" else (99, v))


def few(labels: list[Any], budget: int, seed: int) -> list[int]:
    """Draws `budget` rows, as evenly over the classes as they allow.

    Args:
        labels: a class for each row (or anything hashable).
        budget: rows to keep.
        seed: of the draw.
    """
    draw = uniform(torch.tensor([seed]), len(labels), stream=7)[0].argsort().tolist()
    by_label: dict[Any, list[int]] = {}
    for i in draw:
        by_label.setdefault(labels[i], []).append(i)
    queues = list(by_label.values())
    chosen: list[int] = []
    while len(chosen) < min(budget, len(labels)):
        for queue in queues:
            if queue and len(chosen) < budget:
                chosen.append(queue.pop())
    return sorted(chosen)
