"""What Span needs of its data: targets inside longer inputs, and the questions that are asked.

A question is read through one or more windows, each an item of its own; the answers of its windows are joined to one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class SpanTarget(NamedTuple):
    """The columns of a (B, 5) target of kind `span`, each (B,).

    Attributes:
        start: position of the answer's first token; 0, the place of "no answer", where the window does not hold it.
        end: position of its last token; 0 likewise.
        first: position where an answer may begin at the earliest.
        last: position where an answer may end at the latest.
        window: number of the window in its split.
    """

    start: Tensor
    end: Tensor
    first: Tensor
    last: Tensor
    window: Tensor


class Asked(Protocol):
    """The questions of a split, as the data give them.

    Attributes:
        ids: of each question.
        answers: every text that counts as right for each question, none where it has no answer; None for a split
            without answers.
        question: window → number of its question.
        read: (window, start, end) → the text between two positions of a window.
    """

    @property
    def ids(self) -> list[str]: ...

    @property
    def answers(self) -> list[list[str]] | None: ...

    @property
    def question(self) -> list[int]: ...

    @property
    def read(self) -> Callable[[int, int, int], str]: ...


@runtime_checkable
class Asking(Protocol):
    """Data that asks questions."""

    def asked(self, split: str) -> Asked: ...
