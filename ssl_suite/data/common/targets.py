"""Targets: from a column of labels, numbers, tags or text to tensors, checked before training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.random import uniform
from ssl_suite.core.task import TargetKind
from ssl_suite.data.common.source import Rows


class Targets:
    """Encodes one column of every split.

    Args:
        splits: the rows.
        column: which column holds the target.
        kind: class, value, tags or characters, as the task asks.
        labels: those a task already knows; None takes them from the training split.
        normalize: transcripts: lower case, letters, digits, apostrophes and single spaces only.
    """

    def __init__(
        self, splits: dict[str, Rows], column: str, kind: TargetKind, labels: list[str] | None, normalize: bool = True
    ) -> None:
        self.kind, self.column, self.normalize = kind, column, normalize
        self.values: dict[str, list[Any]] = {s: self._values(rows) for s, rows in splits.items()}
        if kind == "value":
            self.labels = []
        else:
            self.labels = labels if labels is not None else self._labels(splits)
        index = {name: i for i, name in enumerate(self.labels)}
        self.encoded = {s: self._encode(splits[s], values, index) for s, values in self.values.items()}

    def __getitem__(self, place: tuple[str, int]) -> Tensor:
        split, row = place
        return self.encoded[split][row]

    def _values(self, rows: Rows) -> list[Any]:
        """The column with class numbers turned into their names."""
        if self.kind == "span":
            raise UserError("Spans are answers to questions: read them with --data Questions.")
        names, values = rows.label_names(self.column), rows.column(self.column)
        if self.kind == "tags":
            for i, value in enumerate(values):
                if not isinstance(value, (list, tuple)):
                    raise UserError(f"{rows.where(i)}: {self.column!r} holds {repr(value)[:60]}, not a list of tags.")
            return [[names[t] if names else str(t) for t in row] for row in values]
        if self.kind == "class":
            for i, value in enumerate(values):
                if value is None or isinstance(value, (list, dict)):
                    raise UserError(f"{rows.where(i)}: {self.column!r} holds {value!r}, not a label.")
            return [names[v] if names else str(v) for v in values]
        if self.kind == "characters":
            for i, value in enumerate(values):
                if value is None:
                    raise UserError(f"{rows.where(i)}: {self.column!r} is empty; give each row a transcript.")
            return [clean(str(v)) if self.normalize else str(v) for v in values]
        return values

    def _labels(self, splits: dict[str, Rows]) -> list[str]:
        train = "train" if "train" in splits else next(iter(splits))
        names = splits[train].label_names(self.column)
        if names and self.kind in ("class", "tags"):
            return names
        values = self.values[train]
        found = set(values) if self.kind == "class" else {part for value in values for part in value}
        return sorted(
            found, key=lambda v: (len(v), v) if v.isdigit() else (0, v) if self.kind == "characters" else (99, v)
        )

    def _encode(self, rows: Rows, values: list[Any], index: dict[str, int]) -> list[Tensor]:
        encoded = []
        for i, value in enumerate(values):
            if self.kind == "value":
                encoded.append(torch.tensor(self._number(rows, i, value)))
                continue
            parts = [value] if self.kind == "class" else value
            unseen = [p for p in parts if p not in index]
            if unseen and self.kind != "characters":
                raise UserError(
                    f"{rows.where(i)}: label {unseen[0]!r} never occurs in training.{nearest(unseen[0], index)}"
                )
            ids = [index[p] for p in parts if p in index]  # characters never seen in training cannot be said
            encoded.append(torch.tensor(ids[0] if self.kind == "class" else ids))
        return encoded

    def _number(self, rows: Rows, i: int, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{rows.where(i)}: {self.column!r} holds {value!r}, not a number.")
        return number


def clean(text: str) -> str:
    """Transcript normalisation: lower case, letters, digits and apostrophes, single spaces."""
    kept = "".join(c if c.isalnum() or c in "'’" else " " for c in text.lower())
    return " ".join(kept.replace("’", "'").split())


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
