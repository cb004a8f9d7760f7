"""Questions cut into windows: [CLS] question [SEP] a piece of the context [SEP], offsets kept."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.questions.question_files import Gold
from ssl_suite.encoders.tokenizer import token_id

ATTACHED = {"Mn", "Mc", "Me", "Cf"}
"""Unicode categories of marks and joiners, which are part of what stands before them."""


class Window(NamedTuple):
    """Tokens `begin` to `end` (exclusive) of the context of a question."""

    question: int
    begin: int
    end: int


@dataclass
class SpecialTokens:
    """The special tokens a tokenizer puts before, between and after two sequences, and each sequence's segment."""

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialTokens:
        pair = tokenizer.encode("a", "a")
        sides = pair.sequence_ids
        if sides[0] is not None:  # GPT's adds none
            start, end = token_id(tokenizer, "start"), token_id(tokenizer, "end")
            return cls([start], [end], [end], (0, 0))
        first, second = sides.index(0), sides.index(1)
        gap = len(sides[:second]) - sides[:second][::-1].index(0)
        last = len(sides) - sides[::-1].index(1)
        ids, kinds = pair.ids, pair.type_ids
        return cls(ids[:first], ids[gap:second], ids[last:], (kinds[first], kinds[second]))

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


class QuestionWindows:
    """The windows of one split's questions.

    As BERT's `run_squad.py` (arXiv:1810.04805): a question is cut at `max_question`, a context longer than what is left
    of `max_length` is read through windows that start `stride` tokens apart, and each answer is the target of the
    windows that hold all of it; of the others it is position 0. (Hugging Face's example means the overlap by it.)

    Args:
        questions: texts.
        contexts: a text for each question; equal ones are tokenised once.
        answers: where each question's answer is in its context; None for no answer.
        labelled: whether the answers are known at all.
        tokenizer: its pieces are the positions; its special tokens surround the two sequences.
        max_length: tokens a window.
        stride: tokens from the start of a window to the next one's.
        max_question: tokens of the question that are kept.
    """

    def __init__(
        self,
        questions: list[str],
        contexts: list[str],
        answers: list[Gold | None],
        labelled: bool,
        tokenizer: Tokenizer,
        max_length: int,
        stride: int,
        max_question: int,
    ) -> None:
        self.special, self.answers, self.labelled = SpecialTokens.of(tokenizer), answers, labelled
        room = max_length - self.special.size - max_question
        if room < 1:
            raise UserError(
                f"max_length {max_length} leaves no room for a context after questions of {max_question} tokens; "
                "raise it or lower max_question_length."
            )
        asked = tokenizer.encode_batch(questions, add_special_tokens=False)
        self.questions = [np.asarray(e.ids[:max_question], np.int32) for e in asked]
        self.cut = sum(len(e) > max_question for e in asked)
        number = {text: i for i, text in enumerate(dict.fromkeys(contexts))}
        self.context_of = [number[text] for text in contexts]
        self.texts = list(number)
        encodings = tokenizer.encode_batch(self.texts, add_special_tokens=False)
        self.contexts = [np.asarray(e.ids, np.int32) for e in encodings]
        self.offsets = [spans(e, text) for e, text in zip(encodings, self.texts, strict=True)]
        self.windows: list[Window] = []
        for q, tokens in enumerate(self.questions):
            room, n = max_length - self.special.size - len(tokens), len(self.contexts[self.context_of[q]])
            begin = 0
            self.windows.append(Window(q, 0, min(room, n)))
            while begin + room < n:
                begin += min(stride, room)
                self.windows.append(Window(q, begin, min(begin + room, n)))

    def __len__(self) -> int:
        return len(self.windows)

    def first(self, window: int) -> int:
        """Position of a window's first context token."""
        t = self.special
        return len(t.before) + len(self.questions[self.windows[window].question]) + len(t.between)

    def length(self, window: int) -> int:
        w = self.windows[window]
        return self.first(window) + w.end - w.begin + len(self.special.after)

    def tokens(self, window: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids and segments (T,)."""
        w, t, first = self.windows[window], self.special, self.first(window)
        context = self.contexts[self.context_of[w.question]][w.begin : w.end]
        ids = np.concatenate([t.before, self.questions[w.question], t.between, context, t.after]).astype(np.int64)
        segments = np.full(len(ids), t.segments[0])
        segments[first:] = t.segments[1]
        return ids, segments

    def target(self, window: int) -> Tensor:
        """(5,): start, end, first, last and window, as `tasks.spans.SpanTarget` says."""
        w, first = self.windows[window], self.first(window)
        start, end = self.place(window) or (0, 0)
        if not self.labelled:
            start = end = IGNORE
        return torch.tensor([start, end, first, first + w.end - w.begin - 1, window])

    def place(self, window: int) -> tuple[int, int] | None:
        """Positions of the answer's first and last token, if the window holds all of it."""
        w = self.windows[window]
        gold = self.answers[w.question]
        if gold is None:
            return None
        starts, ends = self.offsets[self.context_of[w.question]]
        start = bisect_right(ends, gold.start)  # the first token that ends after the answer's start
        end = bisect_left(starts, gold.start + len(gold.text)) - 1  # the last that starts before its end
        if not w.begin <= start <= end < w.end:
            return None
        shift = self.first(window) - w.begin
        return start + shift, end + shift

    def read(self, window: int, start: int, end: int) -> str:
        """The context's own text from one position of a window to another, without outer spaces."""
        w = self.windows[window]
        shift, context = w.begin - self.first(window), self.context_of[w.question]
        starts, ends = self.offsets[context]
        return self.texts[context][starts[start + shift] : ends[end + shift]].strip()


def spans(encoding: Encoding, text: str) -> tuple[list[int], list[int]]:
    """Start and end of each token in its text, ascending; tokens of a byte-level tokenizer leave their space out.

    What a normalizer leaves out behind a letter, its vowel signs, tones and accents above all, belongs to its token.
    """
    starts: list[int] = []
    ends: list[int] = []
    following = [start for start, _ in encoding.offsets[1:]] + [len(text)]
    for (start, end), after in zip(encoding.offsets, following, strict=True):
        while end < after and unicodedata.category(text[end]) in ATTACHED:
            end += 1
        while start < end - 1 and text[start].isspace():
            start += 1
        starts.append(max(start, starts[-1] if starts else 0))
        ends.append(max(end, ends[-1] if ends else 0))
    return starts, ends
