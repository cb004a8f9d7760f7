"""Prompts: each row of a task as text to go on from, its possible answers, and a few solved rows before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Tokenizer

from ssl_suite.core.check import within
from ssl_suite.core.choices import ChoiceBatch, ChoiceItem, collate_choices
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.random import item_seed, uniform
from ssl_suite.data.common.kinds import spelled
from ssl_suite.data.common.source import FolderReader, Rows
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.common.targets import Targets, few
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.prompts.template import Template, split_spaces
from ssl_suite.data.text.source import encoders_tokenizer
from ssl_suite.encoders.tokenizer import token_id


class Prompts(SourceData):
    """A classification or multiple-choice task as prompts for `InContext` (arXiv:2005.14165, section 2.4).

    Classification: each label is an answer, said in `words`. Multiple choice: a row brings its answers in `choices`.
    The solved rows before each prompt come from the training split, evenly over the classes.

    Args:
        source: as of `Text`.
        template: column names in braces; the place of the target column is the answer's: `{text} It was {label}.`
        target: column of the label; with `choices`, of the right answer: its number from 0, its letter, or itself.
        words: label → what stands for it in the template; default: the label's own name.
        choices: column with a list of answers, or a list of columns with one each.
        shots: solved training rows before each prompt.
        draw: `run`: the same shots before every row, by the run's seed; `row`: others before each.
        separator: between rows.
        max_length: tokens that a prompt with an answer may have. In longer ones shots are left out from the left, then
            the text itself is cut on the left; both are counted and reported.
        where: keep only rows with these values.
        batch_size: rows at a time, each with all its answers.
        num_workers: loader processes.
        files: `train`, `validation`, `test`, `delimiter` and `header` of `SourceData`; `on_error: skip` leaves out rows
            without a text.
    """

    modality = "text"
    target_column: str

    def __init__(
        self,
        source: str,
        template: str,
        target: str = "label",
        words: dict[str, str] | None = None,
        choices: str | list[str] | None = None,
        shots: int = 0,
        draw: Literal["run", "row"] = "run",
        separator: str = "\n\n",
        max_length: int = 512,
        where: dict[str, str] | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        **files: Any,
    ) -> None:
        super().__init__(source, target, where, None, batch_size=batch_size, num_workers=num_workers, **files)
        if words and choices:
            raise UserError("words says the labels of a classification; with choices each row brings its own answers.")
        within("data.shots", shots, low=0, whole=True)
        within("data.max_length", max_length, low=2, whole=True)
        self.template = Template(template, target)
        self.input_column = next(iter(self.template.columns), target)
        self.words, self.choices, self.shots, self.draw = words, choices, shots, draw
        self.separator, self.max_length = separator, max_length
        self._items: dict[str, list[ChoiceItem]] = {}

    def folder_reader(self) -> FolderReader:
        return list_text

    @property
    def labels_used(self) -> int:
        return self.shots

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._items.clear()
        self.tokenizer: Tokenizer = encoders_tokenizer(request, "Prompts")
        for rows in self.rows.values():
            self.template.check(rows)
        self._right: dict[str, list[int]] = {}
        self._answers: dict[str, list[list[str]]] = {}
        (self._read_choices if self.choices else self._read_labels)()
        solved = len(self._right.get("train", []))
        if self.shots > solved:
            raise UserError(f"{self.source}: {self.shots} shots asked, the training split has {solved} rows.")

    def _read_labels(self) -> None:
        """Every row has the same answers: the labels in words."""
        targets = Targets(self.rows, self.target_column, "class")
        self.labels = [*targets.labels, *targets.unseen]  # nothing is trained, so any can be answered
        given = self.words if self.words is not None else {label: label for label in self.labels}
        words = {spelled(label): word for label, word in given.items()}  # YAML reads 0 as a number
        for label in words:
            if label not in map(spelled, self.labels):
                raise UserError(f"words: {self.source} has no label {label!r}.{nearest(label, self.labels)}")
        if missing := [label for label in self.labels if not words.get(spelled(label), "").strip()]:
            raise UserError(f"words: label {missing[0]!r} of {self.source} has no word; give it one.")
        answers = [words[spelled(label)] for label in self.labels]
        for split, rows in self.rows.items():
            self._right[split] = [targets.ids[value] for value in targets.values(split)]
            self._answers[split] = [answers] * len(rows)

    def _read_choices(self) -> None:
        """Each row brings its answers."""
        for split, rows in self.rows.items():
            if isinstance(self.choices, list):
                found = [list(values) for values in zip(*(rows.column(c) for c in self.choices), strict=True)]
            else:
                found = rows.column(str(self.choices))
            for i, answers in enumerate(found):
                if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
                    raise UserError(
                        f"{rows.where(i)}: {self.choices!r} holds {repr(answers)[:60]}, not a list of texts."
                    )
            self._answers[split] = found
            right = enumerate(zip(rows.column(self.target_column), found, strict=True))
            self._right[split] = [number_of(value, answers, rows, i) for i, (value, answers) in right]

    def read(self, split: str, index: int, seed: int) -> ChoiceItem:
        return self._encode(split)[index]

    def lengths(self, split: str) -> Sequence[float]:
        return [max(len(ids) for ids in item.ids) for item in self._encode(split)]

    def collate(self, items: list[ChoiceItem]) -> ChoiceBatch:
        return collate_choices(items, token_id(self.tokenizer, "pad"))

    def shot_rows(self, split: str, index: int) -> list[int]:
        """Training rows that stand before row `index`, in their order; never the row itself."""
        if not self.shots:
            return []
        seed = item_seed(run_seed(), 0, index) if self.draw == "row" else run_seed()
        right = self._right["train"]
        chosen = few(right if self.choices is None else [0] * len(right), self.shots, seed)
        order = uniform(torch.tensor([seed]), len(chosen), stream=8)[0].argsort().tolist()
        return [chosen[i] for i in order if split != "train" or chosen[i] != index]

    def prompt(self, split: str, index: int, answer: str) -> tuple[str, str]:
        """Row `index` in the template: the text before `answer`, and what is scored."""
        return self.template.fill(self.rows[split][index], answer)

    def _encode(self, split: str) -> list[ChoiceItem]:
        """All prompts of a split as ids, once; each with as many of its shots as fit."""
        if split in self._items:
            return self._items[split]
        name, n = self.rows[split].name, self.size(split)
        texts = [[self.prompt(split, i, a) for a in answers] for i, answers in enumerate(self._answers[split])]
        solved: dict[int, str] = {}
        shots: list[list[str]] = []
        same = self.shot_rows(split, -1) if self.draw == "run" and split != "train" else None
        for i in range(n):
            rows = same if same is not None else self.shot_rows(split, i)
            for r in rows:
                if r not in solved:
                    solved[r] = "".join(self.prompt("train", r, self._answers["train"][r][self._right["train"][r]]))
            shots.append([solved[r] for r in rows])
        items: dict[int, ChoiceItem] = {}
        left_out = cut = 0
        for used in range(self.shots, -1, -1):
            waiting = [i for i in range(n) if i not in items and used <= len(shots[i])]
            prefixes = ["".join(s + self.separator for s in shots[i][len(shots[i]) - used :]) for i in waiting]
            pairs = [(prefix + c, a) for i, prefix in zip(waiting, prefixes, strict=True) for c, a in texts[i]]
            encoded = iter(encode_pairs(self.tokenizer, pairs))
            for i in waiting:
                both = [next(encoded) for _ in texts[i]]
                longest = max(len(ids) for ids, _ in both)
                if longest > self.max_length and used:
                    continue
                if longest > self.max_length:
                    both = [self._cut(ids, first, self.rows[split].where(i)) for ids, first in both]
                left_out += len(shots[i]) - used
                cut += longest > self.max_length
                size = [len(a) for _, a in texts[i]]
                ids, first = [ids for ids, _ in both], [first for _, first in both]
                items[i] = ChoiceItem(i, ids, first, size, self._right[split][i], self._answers[split][i])
        if left_out or cut:
            rank_zero_warn(
                f"{name}: to fit {self.max_length} tokens, {left_out} of {sum(map(len, shots))} shots were left out "
                f"and {cut} of {n} texts cut on the left; a larger max_length, if the encoder reads it, keeps them."
            )
        self._items[split] = [items[i] for i in range(n)]
        return self._items[split]

    def _cut(self, ids: list[int], first: int, where: str) -> tuple[list[int], int]:
        """Leaves out what is furthest from the answer, not the start token."""
        over = max(0, len(ids) - self.max_length)
        if first - over < 1:
            raise UserError(
                f"{where}: an answer of {len(ids) - first} tokens does not fit max_length {self.max_length}."
            )
        return ids[:1] + ids[1 + over :], first - over


def encode_pairs(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """Tokenises context and continuation as one text, so that both read as in training, and finds the seam.

    Args:
        tokenizer: of the encoder.
        pairs: (context, continuation); spaces at the seam go to the continuation.

    Returns:
        Ids after the start token, and the position of the first that reaches beyond the context.
    """
    start = token_id(tokenizer, "start")
    seams = [split_spaces(*pair) for pair in pairs]
    encodings = tokenizer.encode_batch([a + b for a, b in seams], add_special_tokens=False)
    made = []
    for (context, _), encoding in zip(seams, encodings, strict=True):
        before = sum(end <= len(context) for _, end in encoding.offsets)
        made.append(([start, *encoding.ids], 1 + before))
    return made


def number_of(value: Any, answers: list[str], rows: Rows, i: int) -> int:
    """Which answer is right: its number from 0, its letter, or its text."""
    text = str(value).strip()
    if text in answers:
        return answers.index(text)
    number = int(text) if text.isdigit() else ord(text) - ord("A") if len(text) == 1 and text.isupper() else -1
    if not 0 <= number < len(answers):
        raise UserError(
            f"{rows.where(i)}: {text!r} is none of the {len(answers)} answers, nor a number or letter of one."
        )
    return number
