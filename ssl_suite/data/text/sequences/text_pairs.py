"""TextPairs: a text in and a text out a row, behind a prefix that names the task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Tokenizer

from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.seq2seq import Seq2SeqItem, SequencePair
from ssl_suite.data.common.kinds import is_empty, spelled
from ssl_suite.data.common.source import Rows
from ssl_suite.data.common.source_data import has_column
from ssl_suite.data.common.targets import few
from ssl_suite.data.text.source import TextSource
from ssl_suite.data.text.values import expect_texts
from ssl_suite.encoders.tokenizer import Kind, token_id


class TextPairs(TextSource):
    """Rows for `TextToText`, every task as a text that follows from a text (T5, arXiv:1910.10683, section 2.4).

    Classes are said by their names, numbers by their digits. Rows are read from the files that `Text` reads.

    Args:
        source: as of `Text`.
        column: of what is read.
        target: column of what is to be said.
        prefix: what stands before each input: `translate English to German: `.
        where: keep only rows with these values.
        labels: number of training rows to use, drawn evenly over what is said where there are few different ones.
        tokenizer: a tokenizer.json, an encoder folder, or the kind to train; an encoder that brings its own decides.
        vocab_size: of a tokenizer to train.
        cased: whether a tokenizer to train keeps capitals and accents; None: all kinds but wordpiece do.
        max_length: tokens an input; longer ones are cut.
        target_length: tokens a target; longer ones are cut for training, and never right.
        batch_size: rows a step and rank.
        eval_batch_size: for validation and test.
        num_workers: loader processes.
        files: `train`, `validation`, `test`, `delimiter` and `header` of `SourceData`; `on_error: skip` leaves out rows
            without a text.
    """

    target_column: str

    def __init__(
        self,
        source: str,
        column: str = "text",
        target: str = "target",
        prefix: str = "",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        tokenizer: Kind | str = "wordpiece",
        vocab_size: int = 8192,
        cased: bool | None = None,
        max_length: int = 256,
        target_length: int = 64,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        **files: Any,
    ) -> None:
        sizes: dict[str, Any] = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        options = {"target": target, "where": where, "labels": labels, "num_workers": num_workers, **sizes, **files}
        super().__init__(source, column, tokenizer, vocab_size, cased, max_length, **options)
        within("data.target_length", target_length, low=2, whole=True)
        self.prefix, self.target_length = prefix, target_length
        self.items: dict[str, list[Seq2SeqItem]] = {}

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        said = {split: self._said(split) for split in self.splits()}
        for rows in self.rows.values():
            expect_texts(rows, self.input_column)
        if self.label_budget is not None:
            said["train"] = self._few(said.get("train"))
        tokenizer = self.take_tokenizer(request)
        self.longest = min(self.max_length, request.longest or self.max_length)
        self.longest_target = min(self.target_length, request.longest or self.target_length)
        self.items = {split: self._encode(self.rows[split], said[split], tokenizer) for split in self.splits()}

    def _said(self, split: str) -> list[str] | None:
        """What is to be said in each row of a split; None where a test split does not tell."""
        rows, column = self.rows[split], self.target_column
        if not has_column(rows, column):
            if split.startswith("test"):
                return None
            rows.expect(column)
        names, values = rows.label_names(column), rows.column(column)
        for i, value in enumerate(values):
            if is_empty(value) or not isinstance(value, str | int | float):
                raise UserError(f"{rows.where(i)}: {column!r} holds {repr(value)[:60]}, which is nothing to say.")
        return [names[value] if names else spelled(value) for value in values]

    @property
    def columns_read(self) -> str:
        return f"{self.input_column}+{self.target_column}+{self.prefix}"

    def texts(self, split: str) -> Iterator[str]:
        """What is read and what is said."""
        yield self.prefix
        yield from super().texts(split)
        yield from self._said(split) or []

    def _few(self, said: list[str] | None) -> list[str]:
        self._expect("train")
        assert said is not None
        assert self.label_budget is not None
        if self.label_budget > len(said):
            raise UserError(f"labels: {self.label_budget} asked, {self.rows['train'].name} has {len(said)} rows.")
        alike = len(set(said)) <= self.label_budget // 2
        kept = few(said if alike else [0] * len(said), self.label_budget, run_seed())
        self.rows["train"] = self.rows["train"].take(kept)
        return [said[i] for i in kept]

    def _encode(self, rows: Rows, said: list[str] | None, tokenizer: Tokenizer) -> list[Seq2SeqItem]:
        inputs = [f"{self.prefix}{text}" for text in rows.column(self.input_column)]
        texts = said if said is not None else [""] * len(inputs)
        read, cut = encoded(tokenizer, inputs, self.longest)
        targets, cut_targets = encoded(tokenizer, texts, self.longest_target)
        if cut or cut_targets:
            rank_zero_warn(
                f"{rows.name}: of {len(inputs)} rows {cut} inputs are longer than {self.longest} tokens and "
                f"{cut_targets} targets longer than {self.longest_target}; they were cut."
            )
        if said is not None and (lost := [text for text in sorted(set(said)) if not sayable(tokenizer, text)]):
            rank_zero_warn(
                f"{rows.name}: the tokenizer cannot say {len(lost)} of {len(set(said))} different targets as they "
                f"stand, {lost[0][:40]!r} for one; those are never an exact match. One that is cased, or of bytes, can."
            )
        pairs = zip(read, targets, texts, strict=True)
        return [Seq2SeqItem(i, 0, [SequencePair(a, b)], text) for i, (a, b, text) in enumerate(pairs)]

    @property
    def labels_used(self) -> int:
        return self.size("train") if self.has("train") else 0

    def has_targets(self, split: str) -> bool:
        return has_column(self.rows[split], self.target_column)

    @property
    def task_name(self) -> str:
        return f"{self.source_name.removeprefix('samples:')}/{self.target_column}"

    def read(self, split: str, index: int, seed: int) -> Seq2SeqItem:
        return self.items[split][index]

    def lengths(self, split: str) -> Sequence[float]:
        return [len(item.pairs[0].inputs) + len(item.pairs[0].targets) for item in self.items[split]]

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}|{self.prefix}|{self.target_column}|{self.target_length}"


def encoded(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> tuple[list[np.ndarray], int]:
    """Ids of each text, cut to `longest` with the end token last, and how many were cut."""
    end = token_id(tokenizer, "end")
    rows = [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(list(texts))]
    rows = [row if len(row) and row[-1] == end else np.append(row, end) for row in rows]
    cut = [row if len(row) <= longest else np.append(row[: longest - 1], end) for row in rows]
    return cut, sum(len(row) > longest for row in rows)


def sayable(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the ids of a text give it back, but for spaces."""
    back = tokenizer.decode(tokenizer.encode(text).ids)
    return "".join(back.split()) == "".join(text.split())
