"""Questions: extractive question answering, as SQuAD asks it, read through windows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Tokenizer

from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.layout import split_of
from ssl_suite.data.common.source import FolderReader, Rows, open_source
from ssl_suite.data.common.targets import few
from ssl_suite.data.text.items import TextItem
from ssl_suite.data.text.questions.cloze import cloze
from ssl_suite.data.text.questions.question_files import Gold, golds, locate, read_questions
from ssl_suite.data.text.questions.windows import QuestionWindows
from ssl_suite.data.text.source import TextSource
from ssl_suite.encoders.tokenizer import Kind

ANSWER, NO_ANSWER = "answer", "no answer"


@dataclass(frozen=True)
class Asked:
    """The questions of a split, as the task Span reads them: see `tasks.spans.Asked`."""

    ids: list[str]
    answers: list[list[str]] | None
    question: list[int]
    read: Callable[[int, int, int], str]


class Questions(TextSource):
    """Questions about texts: a folder of SQuAD's JSON files (1.1 or 2.0), one such file, a table, or `hf:squad`.

    Other files of that layout (XQuAD, DRCD, CMRC 2018) are read alike; tables have the columns id, question, context
    and answers ({"text": [...], "answer_start": [...]}). `cloze:SOURCE` makes synthetic questions of the column `text`
    of another source. An item is a window; Chinese needs a tokenizer that cuts it into characters (BERT's, or `char`).

    An answer that its context has elsewhere than said is moved to the nearest place and counted. One that its context
    has nowhere is an error, or with `on_error: skip` counted, left out of training and kept for scoring.

    Args:
        source: where the questions are.
        where: keep only rows with these values.
        labels: number of training questions to use.
        tokenizer: a tokenizer.json, an encoder folder, or the kind to train on the training contexts: wordpiece, bpe,
            unigram, char or byte. An encoder that brings its own decides.
        vocab_size: of a tokenizer to train.
        cased: whether a tokenizer to train keeps capitals and accents; None: all kinds but wordpiece do.
        max_length: tokens a window.
        stride: tokens from the start of a window to the next one's (BERT's doc_stride).
        max_question_length: tokens of a question that are kept.
        batch_size: windows a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        on_error: raise at an answer its context does not have, or skip it.
        train: a file or folder of its own for this split, instead of what the source has for it.
        validation: likewise.
        test: likewise.
    """

    def __init__(
        self,
        source: str,
        where: dict[str, str] | None = None,
        labels: int | None = None,
        tokenizer: Kind | str = "wordpiece",
        vocab_size: int = 8192,
        cased: bool | None = None,
        max_length: int = 384,
        stride: int = 128,
        max_question_length: int = 64,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
    ) -> None:
        super().__init__(
            source,
            "context",
            tokenizer,
            vocab_size,
            cased,
            max_length,
            target="answers",
            where=where,
            labels=labels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train=train,
            validation=validation,
            test=test,
        )
        within("data.stride", stride, low=1, whole=True)
        within("data.max_question_length", max_question_length, low=1, whole=True)
        self.stride, self.max_question_length, self.on_error = stride, max_question_length, on_error
        self._golds: dict[str, list[list[Gold] | None]] = {}
        self._windows: dict[str, QuestionWindows] = {}

    def folder_reader(self) -> FolderReader:
        return read_questions

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return ("span",)

    def prepare(self, request: Request) -> None:
        if request.target is None:
            raise UserError("Questions are for the task Span; to pretrain, read the text with Text.")
        self.longest = min(self.max_length, request.longest or self.max_length)
        self._windows.clear()
        self.open()
        training = request.labels is None
        self.rows = hold_out_contexts(self._opened) if training else dict(self._opened)
        self._golds = {split: self._locate(rows) for split, rows in self.rows.items()}
        if training:
            self._choose_training()
        self.labels = request.labels if request.labels is not None else self._kinds()
        self.take_tokenizer(request)

    def open(self) -> None:
        if not self._opened:
            self._opened = {split: self._filter(rows) for split, rows in self._open().items()}
            for rows in self._opened.values():
                self._expect_questions(rows)

    def _open(self) -> dict[str, Rows]:
        if not self.source.startswith("cloze:"):
            path = Path(self.source).expanduser()
            opened = self.read_source()
            if path.is_file() and "train" not in self.given and (split := split_of(path)):
                rows = opened.pop("train")
                opened.setdefault(split, rows)
            return opened
        from datasets import Dataset

        made = {}
        for split, rows in open_source(self.source.removeprefix("cloze:")).items():
            names = rows.column("id") if "id" in rows.columns else range(len(rows))
            columns = cloze(rows.column("text"), [str(n) for n in names])
            digest = hashlib.sha256(f"cloze|{rows.fingerprint}".encode()).hexdigest()[:16]
            made[split] = Rows(Dataset.from_dict(columns), f"cloze:{rows.name}", digest)
        return made

    @staticmethod
    def _expect_questions(rows: Rows) -> None:
        """Raises UserError at the first row without a question and a context, and at an id that occurs twice."""
        if len(rows) == 0:
            raise UserError(f"{rows.name} holds no questions.")
        for column in ("question", "context"):
            for i, value in enumerate(rows.column(column)):
                if not isinstance(value, str) or not value.strip():
                    raise UserError(f"{rows.where(i)}: {column!r} holds {repr(value)[:60]}, not a text.")
        seen: dict[str, int] = {}
        for i, name in enumerate(rows.column("id") if "id" in rows.columns else ()):
            if seen.setdefault(name, i) != i:
                raise UserError(
                    f"{rows.where(i)}: id {name!r} is also that of {rows.where(seen[name])}; ids must differ."
                )

    def _locate(self, rows: Rows) -> list[list[Gold] | None]:
        """The answers of each row, those first that its context has; what was wrong is counted and reported."""
        found: list[list[Gold] | None] = []
        moved, missing = 0, []
        for i, context in enumerate(rows.column("context")):
            given = golds(rows, i)
            places = [locate(context, gold) for gold in given or []]
            kept = [gold for gold in places if gold is not None]
            if given and not kept:
                missing.append(i)
            moved += bool(kept and kept[0] not in (given or []))
            absent = [g for g, place in zip(given or [], places, strict=True) if place is None]
            found.append(None if given is None else kept + [Gold(g.text, -1) for g in absent])
        if missing and self.on_error == "raise":
            i = missing[0]
            name, given = self._names(rows)[i], golds(rows, i) or []
            raise UserError(
                f"{rows.where(i)}, id {name}: the answer {given[0].text[:60]!r} is not in its context; mend the file, "
                f"or leave such questions ({len(missing)} here) out of training with --data.on_error skip."
            )
        if moved or missing:
            rank_zero_warn(
                f"{rows.name}: {moved} of {len(rows)} answers were not where the file says and were found elsewhere; "
                f"{len(missing)} are not in their context."
            )
        return found

    def _choose_training(self) -> None:
        """Keeps the training questions whose answer is known and can be found, and of those as many as are wanted."""
        if "train" not in self.rows:
            return
        known = [i for i, given in enumerate(self._golds["train"]) if given is not None]
        if len(known) < len(self.rows["train"]):
            unknown = next(i for i, given in enumerate(self._golds["train"]) if given is None)
            raise UserError(f"{self.rows['train'].where(unknown)} has no answers; training needs them.")
        keep = [i for i in known if all(g.start >= 0 for g in (self._golds["train"][i] or [])[:1])]
        if self.label_budget is not None:
            if self.label_budget > len(keep):
                raise UserError(f"labels: {self.label_budget} asked, {self.rows['train'].name} has {len(keep)} rows.")
            keep = [keep[i] for i in few([0] * len(keep), self.label_budget, run_seed())]
        if len(keep) < len(known):
            self.rows["train"] = self.rows["train"].take(keep)
            self._golds["train"] = [self._golds["train"][i] for i in keep]

    def _kinds(self) -> list[str]:
        """What a question can have: an answer, and in SQuAD 2.0 none."""
        train = self._golds.get("train") or next(iter(self._golds.values()))
        return [ANSWER, NO_ANSWER] if any(given == [] for given in train) else [ANSWER]

    def windows(self, split: str) -> QuestionWindows:
        """The windows of a split, made once."""
        if split not in self._windows:
            rows, given = self.rows[split], self._golds[split]
            assert isinstance(self.tokenizer, Tokenizer)
            answers = [g[0] if g and g[0].start >= 0 else None for g in given]
            self._windows[split] = QuestionWindows(
                rows.column("question"),
                rows.column("context"),
                answers,
                all(g is not None for g in given),
                self.tokenizer,
                self.longest,
                self.stride,
                self.max_question_length,
            )
            if cut := self._windows[split].cut:
                rank_zero_warn(f"{rows.name}: {cut} questions are longer than {self.max_question_length} tokens: cut.")
        return self._windows[split]

    def asked(self, split: str) -> Asked:
        windows, given = self.windows(split), self._golds[split]
        known = all(g is not None for g in given)
        return Asked(
            self._names(self.rows[split]),
            [[g.text for g in answers or []] for answers in given] if known else None,
            [w.question for w in windows.windows],
            windows.read,
        )

    @staticmethod
    def _names(rows: Rows) -> list[str]:
        return [str(v) for v in (rows.column("id") if "id" in rows.columns else range(len(rows)))]

    @property
    def predicted(self) -> list[str]:
        """The one that was named, else test, else validation (official files hide the test split), else train."""
        named = self.predict_split or next((s for s in ("test", "validation", "train") if self.has(s)), "test")
        self._expect(named)
        return [named]

    def has_targets(self, split: str) -> bool:
        return all(given is not None for given in self._golds[split])

    def size(self, split: str) -> int:
        return len(self.windows(split))

    def ids(self, split: str) -> list[str]:
        names = self._names(self.rows[split])
        return [names[w.question] for w in self.windows(split).windows]

    def read(self, split: str, index: int, seed: int) -> TextItem:
        windows = self.windows(split)
        return TextItem(index, seed, *windows.tokens(index), windows.target(index))

    def target(self, split: str, index: int) -> torch.Tensor:
        return self.windows(split).target(index)

    def lengths(self, split: str) -> Sequence[float]:
        windows = self.windows(split)
        return [windows.length(i) for i in range(len(windows))]

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}|{self.stride}|{self.max_question_length}"


def hold_out_contexts(splits: dict[str, Rows], share: float = 0.1) -> dict[str, Rows]:
    """Takes a tenth of the contexts of `train` (by a hash of their text) for validation where a source has none."""
    if "validation" in splits or "train" not in splits or len(splits["train"]) < 10:
        return dict(splits)
    train = splits["train"]
    hashes = [int(hashlib.md5(c.encode()).hexdigest(), 16) % 1000 for c in train.column("context")]
    held = [i for i, h in enumerate(hashes) if h < share * 1000] or [
        i for i, h in enumerate(hashes) if h == max(hashes)
    ]
    kept = sorted(set(range(len(train))) - set(held))
    if not kept:
        raise UserError(f"{train.name} asks about one context only; give a validation split beside it.")
    return {**splits, "train": train.take(kept), "validation": train.take(held)}
