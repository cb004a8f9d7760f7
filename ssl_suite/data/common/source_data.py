"""SourceData: a data module over a source with an input column and, where a task asks, a target column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.batch import Target
from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule, Request, run_seed
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.dealing import dealt
from ssl_suite.data.common.files import Form
from ssl_suite.data.common.kinds import KINDS, is_empty
from ssl_suite.data.common.source import FolderReader, Layouts, Rows, open_source
from ssl_suite.data.common.targets import SlotTargets, Targets, few, read_targets


class SourceData(DataModule):
    """Base of Images, Text and Speech.

    Args:
        source: see `open_source`; None where every split is given by itself.
        target: column of the target, for tasks; of a task with several slots, one for each (`{action: act, ...}`),
            or left out where they are called as the slots are.
        where: keep only the rows whose column has this value: `{language: en}`.
        labels: number of labelled training rows to use, drawn evenly over the classes by the run's seed; None: all.
        train: a file or folder of its own for this split, instead of what the source has for it.
        validation: likewise.
        test: likewise.
        delimiter: one character between the columns of csv and tsv files; None: a comma in csv, a tab in tsv. Between
            tabs a quote is a character like any other.
        header: whether the first row of csv and tsv files names the columns; without one, they are called 0, 1, 2, ...
            (`column: "5"`), or as listed here.
        apart: a column, as `speaker`, of which no value is to be in two splits: all rows are dealt anew to training,
            validation and test; None: the splits of the source.
        options: of the base class.
    """

    input_column: str
    clean = Clean()
    """How transcripts are normalised."""
    holds_out = True
    """Whether a source without a validation split gives up a tenth of its training rows for one."""

    def __init__(
        self,
        source: str | None,
        target: str | dict[str, str],
        where: dict[str, str] | None,
        labels: int | None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        delimiter: str | None = None,
        header: bool | list[str] = True,
        apart: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        splits = {"train": train, "validation": validation, "test": test}
        self.given = {split: place for split, place in splits.items() if place is not None}
        named = target if isinstance(target, dict) else {"": target}
        if not all(isinstance(column, str) for column in named.values()):
            raise UserError(f"data.target names a column for each slot; it is {target!r}.")
        columns = {f"target.{slot}".rstrip("."): column for slot, column in named.items()}
        for name, value in {"source": source, **columns, **self.given}.items():
            if value is not None and not value.strip():
                raise UserError(f"data.{name} is empty; name one, or leave the option out.")
        if labels is not None:
            within("data.labels", labels, low=1, whole=True)
        if source is None and not self.given:
            raise UserError("data.source is missing; name a file, a folder, samples:NAME or hf:NAME.")
        self.source = source if source is not None else ", ".join(self.given.values())
        self._asked = source
        self.target_column, self.where, self.label_budget = target, where or {}, labels
        self.form, self.apart = Form(delimiter, header), apart
        self._opened: dict[str, Rows] = {}
        self.targets: Targets | SlotTargets | None = None

    def folder_reader(self) -> FolderReader | None:
        """How to list a folder of media files."""
        return None

    def layouts(self) -> Layouts:
        """The official layouts of its corpora, by name."""
        return {}

    def take(self, rows: dict[str, Rows]) -> None:
        """Serves these rows, split by split, instead of what the source has."""
        self._opened = rows

    def read_source(self) -> dict[str, Rows]:
        """Every split of the source."""
        return open_source(
            self._asked,
            self.folder_reader(),
            self.input_column,
            form=self.form,
            given=self.given,
            layouts=self.layouts(),
        )

    def open(self) -> None:
        """Opens the source, once, and holds out a validation split, unless all training rows are to be answered."""
        if not self._opened:
            opened = self.read_source()
            kept = {s: self._readable(self._filter(rows)) for s, rows in opened.items()}
            kept = kept if self.apart is None else dealt(kept, self.apart)
            whole = not self.holds_out or self.predict_split == "train"
            self._opened = kept if whole else hold_out(kept)
            for rows in self._opened.values():
                rows.expect(self.input_column)
        self.rows = dict(self._opened)

    def prepare(self, request: Request) -> None:
        self.open()
        self.targets = None
        kind = request.target or request.watch
        if kind and (answered := self._rows_with_targets(request)):
            columns = self._columns(kind)
            targets = read_targets(answered, columns, kind, request.labels, self.clean, request.stride)
            self.labels, self.unseen = targets.labels, targets.unseen
            targets.warn_of_unseen()
            targets.warn_of_shared()
            if self.label_budget is not None and request.target:  # pretraining needs no labels, so none are few
                self._expect("train")
                self._keep_few(targets.strata("train"))
                answered = self._rows_with_targets(request)
                targets = read_targets(answered, columns, kind, self.labels, self.clean, request.stride)
            self.targets = targets

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return [name for name, kind in KINDS.items() if kind.modalities is None or cls.modality in kind.modalities]

    def _columns(self, kind: str | dict[str, str]) -> str | dict[str, str]:
        """The column of the target, or of each slot.

        Raises:
            UserError: `data.target` does not name what the task has.
        """
        column = self.target_column
        if isinstance(kind, str):
            if isinstance(column, dict):
                raise UserError(f"data.target names slots ({', '.join(column)}), but the task has one target.")
            return column
        if not isinstance(column, dict):
            return {slot: slot for slot in kind}
        if set(column) != set(kind):
            raise UserError(f"The task has the slots {', '.join(kind)}; data.target names {', '.join(column)}.")
        return column

    def _rows_with_targets(self, request: Request) -> dict[str, Rows]:
        """Splits with targets. A test split may lack them; and all may, if a trained task knows the labels."""
        known, columns = request.labels is not None, self._columns(request.target or request.watch or "")
        wanted = [columns] if isinstance(columns, str) else list(columns.values())
        return {
            split: rows
            for split, rows in self.rows.items()
            if all(has_column(rows, name) for name in wanted) or not (known or split.startswith("test"))
        }

    def expect_known(self, split: str) -> None:
        if self.targets is not None and self.has_targets(split):
            self.targets.expect_known(split)

    def has_targets(self, split: str) -> bool:
        return self.targets is not None and split in self.targets

    def _filter(self, rows: Rows) -> Rows:
        for column, wanted in self.where.items():
            if column not in rows.columns:
                near = nearest(column, rows.columns)
                raise UserError(
                    f"{rows.name} has no column {column!r} for data.where; --data.where null takes all rows.{near}"
                )
            names, values = rows.label_names(column), rows.column(column)
            called = [names[v] if names and v is not None and 0 <= v < len(names) else str(v) for v in values]
            keep = [i for i, name in enumerate(called) if name == str(wanted)]
            if not keep:
                there = sorted(set(called))[:10]
                raise UserError(f"{rows.name}: no row has {column} = {wanted}; there is {', '.join(there)}.")
            rows = rows.take(keep)
        return rows

    def _readable(self, rows: Rows) -> Rows:
        """Of text, the rows that hold some, where the user said to skip others; media files show it when they are read.

        Raises:
            UserError: none does.
        """
        if self.modality != "text" or self.on_error != "skip":
            return rows
        rows.expect(self.input_column)
        keep = [i for i, value in enumerate(rows.values(self.input_column)) if isinstance(value, (str, list))]
        if len(keep) == len(rows):
            return rows
        if not keep:
            raise UserError(f"{rows.name}: no row holds a text in {self.input_column!r}.")
        rank_zero_warn(f"{rows.name}: {len(rows) - len(keep)} of {len(rows)} rows hold no text and were left out.")
        return rows.take(keep)

    def _keep_few(self, strata: list[Any]) -> None:
        """Draws the rows that a task learns from, evenly over the classes `strata` of all."""
        assert self.label_budget is not None
        if self.label_budget > len(strata):
            raise UserError(f"labels: {self.label_budget} asked, {self.rows['train'].name} has {len(strata)} rows.")
        self.rows["train"] = self.rows["train"].take(few(strata, self.label_budget, run_seed()))

    @property
    def labels_used(self) -> int:
        """Labelled rows a task learns from."""
        return len(self.targets.values("train")) if self.targets and "train" in self.targets else 0

    @property
    def task_name(self) -> str:
        kind = self.request.target if self.request else None
        columns = self._columns(kind) if kind else self.target_column
        return f"{super().task_name}/{columns if isinstance(columns, str) else '+'.join(columns.values())}"

    def splits(self) -> Sequence[str]:
        return list(self.rows)

    def size(self, split: str) -> int:
        return len(self.rows[split])

    def rows_of(self, split: str) -> str:
        rows = self.rows[split]
        return f"{rows.name}|{len(rows)}|{None if rows.numbers is None else rows.numbers.tolist()}"

    def has_names(self, split: str) -> bool:
        return "id" in self.rows[split].columns

    def ids(self, split: str) -> list[str]:
        """The column `id`, else each row's place in the source."""
        rows = self.rows[split]
        if "id" in rows.columns:
            return [str(v) for v in rows.column("id")]
        return [str(n) for n in (range(len(rows)) if rows.numbers is None else rows.numbers)]

    def target(self, split: str, index: int) -> Target:
        assert self.targets is not None
        return self.targets[split, index]

    def identity(self) -> str:
        if not self._opened:
            self.open()
        return "|".join(f"{split}:{rows.fingerprint}" for split, rows in self._opened.items())

    def fingerprint(self, split: str) -> str:
        return f"{type(self).__name__}|{self.input_column}|{self.rows[split].fingerprint}"


def has_column(rows: Rows, name: str) -> bool:
    """Whether a split has the column and anything in it: hidden answers are left empty, or -1 among classes."""
    if name not in rows.columns:
        return False
    hidden = (lambda v: v == -1) if rows.label_names(name) else is_empty
    return not all(hidden(value) for value in rows.column(name))


def hold_out(splits: dict[str, Rows], share: float = 0.1) -> dict[str, Rows]:
    """Takes every tenth row (by a hash of its number) of `train` for validation where a source has none."""
    if "validation" in splits or "train" not in splits or len(splits["train"]) < 10:
        return splits
    train = splits["train"]
    hashes = (int(hashlib.md5(f"{i}".encode()).hexdigest(), 16) % 1000 for i in range(len(train)))
    chosen = np.fromiter((h < share * 1000 for h in hashes), bool, len(train))
    chosen[-1] |= not chosen.any()
    return {
        **splits,
        "train": train.take(np.flatnonzero(~chosen)),
        "validation": train.take(np.flatnonzero(chosen)),
    }
