"""GLUE and CLUE: a table of their tasks, and the data modules that read any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.files import PLAIN, Form, columns_of, read_rows, read_utf8, suffix_of
from ssl_suite.data.common.layout import Names
from ssl_suite.data.common.source import FolderReader, Rows, open_source
from ssl_suite.data.text.text import Text

SPLITS: Names = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}
PAIR, BINARY, NO_LABEL = ("sentence1", "sentence2"), ("0", "1"), (None, "", "-", "-1")
ACCURACY = ("accuracy",)


@dataclass(frozen=True)
class OfficialTask:
    """One task of a benchmark.

    Attributes:
        folder: name of its official folder, and in messages.
        texts: official columns of the first and the second sequence.
        labels: as the official files spell them, numbered as the hub does; empty: the target is a number.
        metrics: the first is the task's own.
        label: official column of the target; the hub's is `label`.
        hub: columns of the texts on the hub, where they differ.
        headless: columns of official files without a header.
        splits: official name, then the hub's.
        sheets: split → file of its predictions on the leaderboard; default: FOLDER.tsv.
        rewrite: the values of `texts` → the sequences, where a row is not simply them.
    """

    folder: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    label: str = "label"
    hub: tuple[str, ...] = ()
    headless: tuple[str, ...] = ()
    splits: Names = field(default_factory=lambda: SPLITS)
    sheets: Mapping[str, str] = field(default_factory=dict)
    rewrite: Callable[..., tuple[str, ...]] | None = None

    @property
    def target(self) -> str:
        return "class" if self.labels else "value"

    @property
    def pair(self) -> bool:
        """Whether a row is two sequences."""
        return len(self.texts) == 2 and self.rewrite is not marked


def marked(text: str, target: Mapping[str, Any]) -> tuple[str]:
    """Winograd: the noun as _noun_, the pronoun as [pronoun], as in CLUE's own baseline."""
    spans = [
        (target["span1_index"], target["span1_text"], "_", "_"),
        (target["span2_index"], target["span2_text"], "[", "]"),
    ]
    for start, words, left, right in sorted(spans, reverse=True):
        text = f"{text[:start]}{left}{words}{right}{text[start + len(words) :]}"
    return (text,)


def keywords(words: list[str], abstract: str) -> tuple[str, str]:
    """CSL: whether all the keywords are of the abstract."""
    return " ".join(words), abstract


MATCHED: Names = {
    "train": ("train",),
    "validation": ("dev_matched", "validation_matched"),
    "validation_mismatched": ("dev_mismatched", "validation_mismatched"),
    "test": ("test_matched",),
    "test_mismatched": ("test_mismatched",),
}
NLI = ("entailment", "neutral", "contradiction")
GLUE_TASKS = {
    "cola": OfficialTask(
        "CoLA", ("sentence",), BINARY, ("matthews", "accuracy"), headless=("source", "label", "mark", "sentence")
    ),
    "sst2": OfficialTask("SST-2", ("sentence",), BINARY, ACCURACY),
    "mrpc": OfficialTask("MRPC", ("#1 String", "#2 String"), BINARY, ("f1", "accuracy"), label="Quality", hub=PAIR),
    "qqp": OfficialTask("QQP", ("question1", "question2"), BINARY, ("f1", "accuracy"), label="is_duplicate"),
    "stsb": OfficialTask("STS-B", PAIR, (), ("pearson", "spearman"), label="score"),
    "mnli": OfficialTask(
        "MNLI",
        PAIR,
        NLI,
        ACCURACY,
        label="gold_label",
        hub=("premise", "hypothesis"),
        splits=MATCHED,
        sheets={"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    ),
    "qnli": OfficialTask("QNLI", ("question", "sentence"), ("entailment", "not_entailment"), ACCURACY),
    "rte": OfficialTask("RTE", PAIR, ("entailment", "not_entailment"), ACCURACY),
    "wnli": OfficialTask("WNLI", PAIR, BINARY, ACCURACY),
    "ax": OfficialTask(
        "AX",
        PAIR,
        NLI,
        ("matthews", "accuracy"),
        hub=("premise", "hypothesis"),
        splits={"test": ("AX", "diagnostic", "test")},
    ),
}
"""The nine tasks (Wang et al. 2019, arXiv:1804.07461) and AX, the diagnostic that a model of MNLI answers."""

CHINESE_NLI = ("neutral", "entailment", "contradiction")
NEWS = tuple(str(n) for n in (100, 101, 102, 103, 104, 106, 107, 108, 109, 110, 112, 113, 114, 115, 116))
CLUE_TASKS = {
    "tnews": OfficialTask("tnews", ("sentence",), NEWS, ACCURACY, sheets={"test": "tnews11_predict.json"}),
    "afqmc": OfficialTask("afqmc", PAIR, BINARY, ACCURACY, sheets={"test": "afqmc_predict.json"}),
    "ocnli": OfficialTask(
        "ocnli",
        PAIR,
        CHINESE_NLI,
        ACCURACY,
        splits={**SPLITS, "train": ("train.50k", "train")},
        sheets={"test": "ocnli_50k_predict.json"},
    ),
    "cmnli": OfficialTask("cmnli", PAIR, CHINESE_NLI, ACCURACY, sheets={"test": "cmnli_predict.json"}),
    "cluewsc2020": OfficialTask(
        "cluewsc2020",
        ("text", "target"),
        ("true", "false"),
        ACCURACY,
        sheets={"test": "cluewsc11_predict.json"},
        rewrite=marked,
    ),
    "csl": OfficialTask(
        "csl", ("keyword", "abst"), BINARY, ACCURACY, sheets={"test": "csl_predict.json"}, rewrite=keywords
    ),
}
"""The classification tasks (Xu et al. 2020, arXiv:2004.05986); CMRC 2018 is extractive and read as questions."""


class GLUE(Text):
    """A task of GLUE: texts, labels and metrics follow from its name.

    Args:
        task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli; or ax, which a run on mnli answers by `predict`.
        source: GLUE's official folder (with CoLA/train.tsv, ...), the task's own, a folder of parquet, or
            `hf:nyu-mll/glue`.
        dev_is_test: score the official dev split as the test split, and select models on a tenth of the training rows:
            the official test labels are hidden, so this is how a figure is had that nothing was selected on.
        labels: number of labelled training rows to use.
        tokenizer: see `Text`.
        vocab_size: of a tokenizer to train.
        cased: see `Text`.
        max_length: tokens at most a row.
        batch_size: sequences a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        train: a file or folder of its own for this split, instead of what the source has for it.
        validation: likewise.
        test: likewise.
    """

    table: ClassVar[Mapping[str, OfficialTask]] = GLUE_TASKS

    def __init__(
        self,
        task: str,
        source: str,
        dev_is_test: bool = False,
        labels: int | None = None,
        tokenizer: str = "wordpiece",
        vocab_size: int = 8192,
        cased: bool | None = None,
        max_length: int = 128,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
    ) -> None:
        self.task, self.entry, self.dev_is_test = task, self.official(task), dev_is_test
        super().__init__(
            source,
            pair="pair" if self.entry.pair else None,
            labels=labels,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            cased=cased,
            max_length=max_length,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train=train,
            validation=validation,
            test=test,
        )

    @classmethod
    def official(cls, task: str) -> OfficialTask:
        if task not in cls.table:
            raise UserError(f"{cls.__name__} has no task {task!r}.{nearest(task, cls.table)}")
        return cls.table[task]

    @classmethod
    def proposed_task(cls, settings: Mapping[str, Any]) -> tuple[str, list[str]]:
        entry = cls.official(str(settings.get("task")))
        return entry.target, list(entry.metrics)

    @property
    def source_name(self) -> str:
        return f"{self.entry.folder} in {self.source}"

    def prepare(self, request: Request) -> None:
        if request.target not in (None, self.entry.target):
            right = "Classify" if self.entry.labels else "Regress"
            raise UserError(f"{self.entry.folder} is a task for {right}; name that, or leave --model.task out.")
        super().prepare(request)

    def folder_reader(self) -> FolderReader:
        return partial(read_official, self.entry)

    def read_source(self) -> dict[str, Rows]:
        opened = open_source(self._place(), self.folder_reader(), names=self.entry.splits, given=self.given)
        splits = {split: tidy(self.entry, rows, split) for split, rows in opened.items()}
        if not self.dev_is_test:
            return splits
        scored = {s.replace("validation", "test"): rows for s, rows in splits.items() if s.startswith("validation")}
        return {"train": splits["train"], **scored} if "train" in splits else scored

    def _place(self) -> str:
        if self.source.startswith("hf:"):
            return f"{self.source}/{self.task}" if self.source.count("/") == 1 else self.source
        places = [Path(self.source).expanduser() / n for n in (self.entry.folder, self.task, f"{self.task}_public")]
        return str(next((place for place in places if place.is_dir()), self.source))

    def submission(self, split: str, answers: list[Any]) -> tuple[str, str] | None:
        """GLUE's tables: `index` and `prediction`, scores of STS-B within 0 to 5."""
        if self.dev_is_test or not split.startswith("test"):
            return None
        said = answers if self.entry.labels else [f"{min(max(a, 0.0), 5.0):.3f}" for a in answers]
        lines = [f"{i}\t{answer}\n" for i, answer in zip(self.ids(split), said, strict=True)]
        return self.entry.sheets.get(split, f"{self.entry.folder}.tsv"), "index\tprediction\n" + "".join(lines)


class CLUE(GLUE):
    """A task of CLUE, GLUE's Chinese counterpart: JSON lines in the official folders, parquet, or `hf:clue/clue`.

    Args:
        task: tnews, afqmc, ocnli, cmnli, cluewsc2020 or csl.
        source: the folder of all tasks (afqmc/ or afqmc_public/ in it), the task's own, or `hf:clue/clue`.
        options: those of GLUE.
    """

    table = CLUE_TASKS

    def submission(self, split: str, answers: list[Any]) -> tuple[str, str] | None:
        """CLUE's JSON lines: `id` and `label`."""
        if self.dev_is_test or split not in self.entry.sheets:
            return None
        ids = [int(i) if i.isdigit() else i for i in self.ids(split)]
        rows = [{"id": i, "label": answer} for i, answer in zip(ids, answers, strict=True)]
        return self.entry.sheets[split], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_official(entry: OfficialTask, path: Path, form: Form = PLAIN) -> dict[str, list[Any]]:
    """Reads a file of the official folder; CoLA's have no header but for the test split."""
    if path.is_dir():
        files = ", ".join(name for names in entry.splits.values() for name in names[:1])
        raise UserError(f"{path} has no files of {entry.folder} ({files}; .tsv, .json, .jsonl or .parquet).")
    first = read_utf8(path).partition("\n")[0].rstrip("\r").split("\t")
    headless = bool(entry.headless) and suffix_of(path) == ".tsv" and not set(entry.texts) <= set(first)
    return columns_of(read_rows(path, Form(header=entry.headless) if headless else form))


def tidy(entry: OfficialTask, rows: Rows, split: str) -> Rows:
    """The columns `text`, `pair`, `label` and `id` of a split, whatever they are called.

    Official files have a few rows without a field (QQP) or a label (`-` in the NLI tasks): they are counted and left
    out, but for a test split without labels, where each row wants an answer.

    Raises:
        UserError: the columns are not there, or more than a tenth of the rows are like that: it is another file.
    """
    from datasets import ClassLabel, Dataset, Features, Value

    if len(rows) == 0:
        raise UserError(f"{rows.name} is empty.")
    texts = next((t for t in (entry.texts, entry.hub) if t and set(t) <= set(rows.columns)), None)
    if texts is None:
        wanted = " and ".join(map(repr, entry.texts))
        raise UserError(f"{rows.name} is no file of {entry.folder}: it has no columns {wanted}.")
    raw = next((rows.column(c) for c in (entry.label, "label") if c in rows.columns), None)
    labels = [None] * len(rows) if raw is None else [label_of(entry, value) for value in raw]
    unlabelled = split.startswith("test") and all(label is None for label in labels)
    places = ["text", "pair"][: 1 + entry.pair]
    named = next((rows.column(c) for c in ("index", "id", "idx") if c in rows.columns), range(len(rows)))
    kept, bad, tidied = [], [], []
    for i, fields in enumerate(zip(*(rows.column(c) for c in texts), strict=True)):
        if None in fields or (labels[i] is None and not unlabelled):
            bad.append(i)
            if not unlabelled:
                continue
        words = entry.rewrite(*fields) if entry.rewrite and None not in fields else [f or "" for f in fields]
        kept.append(i)
        tidied.append(dict(zip(places, words, strict=False)))
    if bad:
        _report(entry, rows, bad, "are answered as they are" if unlabelled else "are left out")
    features = {name: Value("string") for name in (*places, "id")}
    columns: dict[str, list[Any]] = columns_of(tidied) | {"id": [str(named[i]) for i in kept]}
    if not unlabelled:
        features["label"] = ClassLabel(names=list(entry.labels)) if entry.labels else Value("float32")
        columns["label"] = [labels[i] for i in kept]
    table = Dataset.from_dict(columns, Features(features))
    return Rows(table, rows.name, f"{rows.fingerprint}|{entry.folder}", kept if bad else None)


def label_of(entry: OfficialTask, value: Any) -> int | float | None:
    """The label's number, or the score; None where it is none of the task's. Files hold names, the hub numbers."""
    text = str(value)
    if value in NO_LABEL and entry.labels:
        return None
    if text in entry.labels:
        return entry.labels.index(text)
    if entry.labels:
        return int(text) if text.isdigit() and int(text) < len(entry.labels) else None
    try:
        score = float(text)
    except ValueError:
        return None
    return score if 0 <= score <= 5 else None


def _report(entry: OfficialTask, rows: Rows, bad: list[int], fate: str) -> None:
    known = f" ({', '.join(entry.labels[:5])})" if entry.labels else ""
    what = f"{len(bad)} of {len(rows)} rows lack a text or a label of {entry.folder}{known}"
    if len(bad) > 0.1 * len(rows):
        raise UserError(f"{rows.where(bad[0])} and others: {what}; is this the right file?")
    rank_zero_warn(f"{rows.name}: {what} and {fate}; the first is row {bad[0] + 1}.")
