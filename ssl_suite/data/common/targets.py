"""Targets: columns of every split as what tasks learn, with the labels that training has; checked before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.errors import BadItem, UserError, nearest
from ssl_suite.core.random import uniform
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.kinds import KINDS, TargetKind
from ssl_suite.data.common.source import Rows

NAMED = 5
"""Labels that a message names."""


class Targets:
    """One column of every split.

    A label of another split that training does not have keeps an id of its own, behind those that can be learned: it is
    scored, as wrong whatever is answered.

    Args:
        splits: the rows.
        column: which column holds the target.
        kind: name of what it holds, see `kinds`.
        labels: those a task already knows; None takes them from the training split.
        clean: how transcripts are normalised.
        stride: samples a state of the encoder.

    Attributes:
        labels: what can be answered: label i has the id i.
        unseen: what occurs, but not in training: label k has the id len(labels) + k.
    """

    def __init__(
        self,
        splits: Mapping[str, Rows],
        column: str,
        kind: str,
        labels: list[str] | None = None,
        clean: Clean = Clean(),
        stride: int = 1,
    ) -> None:
        self.kind = KINDS[kind]
        self.columns: dict[str, TargetKind] = {s: self.kind(rows, column, clean, stride) for s, rows in splits.items()}
        first = self.columns.get("train") or next(iter(self.columns.values()))
        self.labels: list[str] = first.labels() if labels is None else labels
        known = {first.spell(name) for name in self.labels}
        self.unseen: list[str] = first.ordered(set().union(*(c.occurring() for c in self.columns.values())) - known)
        self.ids = {first.spell(name): i for i, name in enumerate([*self.labels, *self.unseen])}

    def __contains__(self, split: str) -> bool:
        return split in self.columns

    def __getitem__(self, place: tuple[str, int]) -> Tensor:
        split, row = place
        return self.columns[split].tensor(row, self.ids)

    def values(self, split: str) -> list[Any]:
        """What each row holds, as its kind reads it."""
        return self.columns[split].values if split in self.columns else []

    def strata(self, split: str) -> list[Hashable]:
        """For each row, over what a few labelled ones are drawn evenly."""
        values = self.values(split)
        return values if self.kind.balanced else [0] * len(values)

    def part(self, split: str, row: int, whole: int, start: int, size: int, stride: int, speed: float = 1.0) -> Any:
        """The target of a part of a recording.

        Args:
            split: of the row.
            row: number of the recording.
            whole: samples it has.
            start: the first of the part.
            size: of the part, in samples.
            stride: samples a state of the encoder.
            speed: at which the part is played.

        Raises:
            BadItem: a target along time is of another length than the recording.
        """
        column, target = self.columns[split], self[split, row]
        if not column.lasts(target, whole, stride):
            lasts = f"has {len(target):,}, but the audio {whole:,} samples, at {stride} a state"
            raise BadItem(f"{column.rows.where(row)}: {column.column!r} {lasts}; mend one of them.")
        part = column.cut(target, start, size, stride)
        return part if speed == 1 else column.played(part, speed)

    def expect_known(self, split: str) -> None:
        """Raises UserError at the first row of a split whose label cannot be learned."""
        if not self.kind.partial and (found := self._first_unseen(split)):
            where, label = found
            raise UserError(f"{where}: the task does not know the label {label!r}.{nearest(label, self.labels)}")

    def warn_of_unseen(self) -> None:
        """Says how often each split has which labels that training lacks.

        Raises:
            UserError: a split has no label at all that can be answered: it is another task's.
        """
        what, unseen = {"class": "labels"}.get(self.kind.name, self.kind.name), set(self.unseen)
        for split, column in self.columns.items():
            if not self.kind.closed or (found := self._first_unseen(split)) is None:
                continue
            where, label = found
            total = sum(1 for _ in self._parts(split))
            count = Counter(part for part in self._parts(split) if part in unseen)
            if count.total() == total:
                some = ", ".join(map(repr, self.labels[:NAMED]))
                raise UserError(
                    f"{where}: label {label!r} never occurs in training, nor does any other of "
                    f"this split; the task knows {some}{', ...' * (len(self.labels) > NAMED)}. Give its own data."
                )
            named = [f"{name!r} {n}" for name, n in count.most_common(NAMED)] + ["..."] * (len(count) > NAMED)
            rank_zero_warn(
                f"{column.rows.name}: {count.total()} of {total} {what} never occur in training "
                f"({', '.join(named)}; first in {where.rpartition(', ')[2]}), so no answer can be right "
                "there: they count as wrong."
            )

    def warn_of_shared(self) -> None:
        """Says where a task about new identities meets those of training, or has no pairs of both kinds."""
        if not self.kind.strangers or "train" not in self.columns:
            return
        known = set(self._parts("train"))
        for split, column in self.columns.items():
            found = Counter(self._parts(split))
            if split != "train" and found and (len(found) == 1 or found.total() == len(found)):
                lack = "two different ones" if len(found) == 1 else "one and the same"
                rank_zero_warn(
                    f"{column.rows.name}: no pair is of {lack} by {column.column!r}, so there is no error rate."
                )
            if split != "train" and (shared := column.ordered(known & found.keys())):
                some = ", ".join(map(repr, shared[:NAMED])) + ", ..." * (len(shared) > NAMED)
                rank_zero_warn(
                    f"{column.rows.name}: {len(shared)} of {len(found)} in {column.column!r} are in training too "
                    f"({some}), so what is measured there is not how strangers are told apart."
                )

    def _first_unseen(self, split: str) -> tuple[str, str] | None:
        """The first row with a label that training does not have, and that label."""
        column, unseen = self.columns[split], set(self.unseen)
        for i, value in enumerate(column.values if unseen else ()):
            if found := next((part for part in column.parts(value) if part in unseen), None):
                return column.rows.where(i), found
        return None

    def _parts(self, split: str) -> Iterator[str]:
        """Every label of a split: of each row, each word or each character."""
        column = self.columns[split]
        return (part for value in column.values for part in column.parts(value))


class SlotTargets:
    """Several columns side by side, one for each slot of a task; as `Targets`, with a dict for each single thing.

    Args:
        splits: the rows.
        columns: slot → which column holds it.
        kinds: slot → name of what it holds.
        labels: those a task already knows.
        clean: how transcripts are normalised.
        stride: samples a state of the encoder.
    """

    def __init__(
        self,
        splits: Mapping[str, Rows],
        columns: Mapping[str, str],
        kinds: Mapping[str, str],
        labels: Mapping[str, list[str]] | None = None,
        clean: Clean = Clean(),
        stride: int = 1,
    ) -> None:
        known = labels or {}
        self.slots = {
            slot: Targets(splits, columns[slot], kind, known.get(slot), clean, stride) for slot, kind in kinds.items()
        }
        self.labels = {slot: targets.labels for slot, targets in self.slots.items()}
        self.unseen = {slot: targets.unseen for slot, targets in self.slots.items()}

    def __contains__(self, split: str) -> bool:
        return all(split in targets for targets in self.slots.values())

    def __getitem__(self, place: tuple[str, int]) -> dict[str, Tensor]:
        return {slot: targets[place] for slot, targets in self.slots.items()}

    def values(self, split: str) -> list[Any]:
        return list(zip(*(targets.values(split) for targets in self.slots.values()), strict=True))

    def strata(self, split: str) -> list[Hashable]:
        return list(zip(*(targets.strata(split) for targets in self.slots.values()), strict=True))

    def part(
        self, split: str, row: int, whole: int, start: int, size: int, stride: int, speed: float = 1.0
    ) -> dict[str, Tensor]:
        part = (split, row, whole, start, size, stride, speed)
        return {slot: column.part(*part) for slot, column in self.slots.items()}

    def expect_known(self, split: str) -> None:
        for targets in self.slots.values():
            targets.expect_known(split)

    def warn_of_unseen(self) -> None:
        for targets in self.slots.values():
            targets.warn_of_unseen()

    def warn_of_shared(self) -> None:
        for targets in self.slots.values():
            targets.warn_of_shared()


def read_targets(
    splits: Mapping[str, Rows],
    column: str | Mapping[str, str],
    kind: str | Mapping[str, str],
    labels: Any = None,
    clean: Clean = Clean(),
    stride: int = 1,
) -> Targets | SlotTargets:
    """The targets a task asks for, of one column or of one for each of its slots."""
    if isinstance(kind, str):
        assert isinstance(column, str)
        return Targets(splits, column, kind, labels, clean, stride)
    return SlotTargets(splits, column if not isinstance(column, str) else {}, kind, labels, clean, stride)


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
