"""Beam: the likeliest text of all alignments by CTC, and by a language model of its words (arXiv:1408.2873)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.tasks.ngram import END, NGram, read_arpa

BLANK = 0
"""Output 0 is the blank; label i is output i + 1."""


@dataclass(frozen=True)
class Beam:
    """How the answer is searched.

    Args:
        width: texts that are followed; 1 takes the best output of each state instead.
        lm: n-gram model of words (of labels where none is a space), an ARPA file.
        weight: of its log probability beside that of the states.
        bonus: added for each word.
        least: outputs less probable than this are not tried.
    """

    width: int = 1
    lm: str | None = None
    weight: float = 2.0
    bonus: float = -1.0
    least: float = 1e-4

    def __post_init__(self) -> None:
        within("task.beam.width", self.width, low=1, whole=True)
        within("task.beam.weight", self.weight, low=0)
        within("task.beam.bonus", self.bonus)
        within("task.beam.least", self.least, low=0, below=1)
        if self.lm is not None and self.width == 1:
            raise UserError("task.beam.lm needs texts to choose from: task.beam.width of 2 or more, such as 50.")


class Search:
    """Beam search over the prefixes of texts.

    Args:
        beam: how.
        labels: characters, or phones.
    """

    def __init__(self, beam: Beam, labels: Sequence[str]) -> None:
        self.beam, self.labels = beam, labels
        self.space = labels.index(" ") if " " in labels else None
        self.model: NGram | None = None
        if beam.lm is not None:
            self.model = read_arpa(Path(beam.lm))
            letters = set(labels)
            spelled = (w in letters if self.space is None else letters.issuperset(w) for w in self.model.words)
            if not any(spelled):
                some = ", ".join(sorted(w for w in self.model.words if not w.startswith("<"))[:3])
                why = "are they in capitals?" if self.space is not None else "no text has a space: it must hold labels."
                raise UserError(f"{beam.lm}: none of its words ({some}, ...) is of the labels; {why}")

    def __call__(self, probabilities: Any) -> list[int]:
        """(T, 1 + labels) NumPy probabilities of each state → label numbers of the best text."""
        beams = {
            Prefix(self): (1.0, 0.0)
        }  # probability, to a common factor, of alignments that end with a blank or not
        for state in probabilities:
            tried = [(int(i), float(state[i])) for i in (state >= self.beam.least).nonzero()[0] if i != BLANK]
            blank = float(state[BLANK])
            found: dict[Prefix, list[float]] = {}
            for prefix, (ended, going) in beams.items():
                both = found.setdefault(prefix, [0.0, 0.0])
                both[0] += (ended + going) * blank
                if prefix.label is not None:
                    both[1] += going * float(state[prefix.label + 1])
                for output, probability in tried:
                    gain = (ended if output - 1 == prefix.label else ended + going) * probability
                    if gain > 0:
                        found.setdefault(prefix.then(output - 1), [0.0, 0.0])[1] += gain
            best = heapq.nlargest(self.beam.width, found.items(), key=lambda one: _log(sum(one[1])) + one[0].score)
            most = max(sum(both) for _, both in best) or 1.0
            beams = {prefix: (ended / most, going / most) for prefix, (ended, going) in best}
        return max(beams, key=lambda prefix: _log(sum(beams[prefix])) + prefix.finished).spelled()


class Prefix:
    """A beginning of a text, in the tree of all that were tried.

    Attributes:
        label: its last.
        score: of its whole words by the language model.
    """

    __slots__ = ("_before", "_children", "_history", "_search", "_word", "label", "score")

    def __init__(self, search: Search, before: Prefix | None = None, label: int | None = None) -> None:
        self._search, self._before, self.label = search, before, label
        self._children: dict[int, Prefix] = {}
        self._word, self.score = "", 0.0
        self._history = search.model.start if search.model else ()
        if before is None or label is None:
            return
        self._word, self._history, self.score = before._word, before._history, before.score
        if label == search.space:
            self._close()
        else:
            self._word += search.labels[label]
            if search.space is None:
                self._close()

    def then(self, label: int) -> Prefix:
        """The one with a label more."""
        if label not in self._children:
            self._children[label] = Prefix(self._search, self, label)
        return self._children[label]

    def _close(self) -> None:
        """The word that was begun is whole."""
        if self._word and self._search.model:
            gained, self._history = self._search.model.score(self._history, self._word)
            self.score += self._search.beam.weight * gained + self._search.beam.bonus
        self._word = ""

    @property
    def finished(self) -> float:
        """The score if nothing follows."""
        model = self._search.model
        if model is None:
            return 0.0
        last = Prefix(self._search, self, self._search.space) if self._word else self
        return last.score + self._search.beam.weight * model.score(last._history, END)[0]

    def spelled(self) -> list[int]:
        """Its labels."""
        labels: list[int] = []
        prefix: Prefix | None = self
        while prefix is not None and prefix.label is not None:
            labels.append(prefix.label)
            prefix = prefix._before
        return labels[::-1]


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
