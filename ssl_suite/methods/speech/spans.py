"""Spans: which frames of a recording a student does not see, drawn for each from its seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.core.random import uniform
from ssl_suite.core.term import Term


@dataclass(frozen=True)
class Spans:
    """Spans of equal length that may overlap (wav2vec 2.0, arXiv:2006.11477, section 3.1 and appendix A).

    A recording of T real frames gets n = ⌊rate · T / length + U⌋ spans, U uniform in [0, 1), or `least`. They begin at
    frames drawn without replacement from [0, T − length), as in the authors' code: its last frame is seen. Where fewer
    than n + 1 frames are that far from the end, the first n + 1 are drawn from, and spans end with the recording.

    Args:
        rate: frames in all spans, were there no overlap, over frames; 0.65 hides 49 % of a long recording.
        length: of a span, in frames.
        least: spans a recording.
        even: show random frames again until no recording of a batch hides more than another.
    """

    rate: float = 0.65
    length: int = 10
    least: int = 2
    even: bool = False

    def __post_init__(self) -> None:
        within("spans.rate", self.rate, above=0, high=1)
        within("spans.length", self.length, low=1, whole=True)
        within("spans.least", self.least, low=0, whole=True)

    def draw(self, mask: Tensor, seeds: Tensor, stream: int = 500) -> Tensor:
        """Draws what is hidden; waits for no device.

        Args:
            mask: (B, T) True = a real frame; they come first.
            seeds: (B,) of the recordings.
            stream: first of three, of random numbers.

        Returns:
            (B, T) True = hidden, never in the padding.
        """
        size = mask.shape[1]
        frames = mask.sum(1, keepdim=True)  # (B, 1)
        wanted = self.rate * frames.double() / self.length + uniform(seeds, 1, stream)
        number = wanted.long().clamp(min=self.least)
        room = torch.maximum(frames - self.length, number + 1).minimum(frames)
        scores = uniform(seeds, size, stream + 1).masked_fill(torch.arange(size, device=mask.device) >= room, -1.0)
        most = min(size, max(self.least, int(self.rate * size / self.length) + 1))
        first = scores.topk(most).indices  # (B, most)
        drawn = torch.arange(most, device=mask.device) < number.minimum(room)
        marks = torch.zeros_like(scores).scatter(1, first, drawn.float())
        hidden = F.max_pool1d(F.pad(marks, (self.length - 1, 0)), self.length, 1) > 0
        return self._evened(hidden & mask, seeds, stream + 2) if self.even else hidden & mask

    def _evened(self, hidden: Tensor, seeds: Tensor, stream: int) -> Tensor:
        """As many True in each row as in that with the fewest, of those there were."""
        scores = uniform(seeds, hidden.shape[1], stream).masked_fill(~hidden, -1.0)
        rank = scores.argsort(1, descending=True).argsort(1)
        return hidden & (rank < hidden.sum(1).min())


def frame_terms(losses: Tensor, hidden: Tensor, known: Tensor, seen: float) -> dict[str, Term]:
    """The loss at hidden frames and, with weight `seen`, at the others (HuBERT, arXiv:2106.07447, equation 3).

    Args:
        losses: of each frame.
        hidden: of the same shape, True = the student does not see it.
        known: the same, True = there is something to be predicted.
        seen: 0 leaves the others out.
    """
    parts = {"hidden": (hidden & known, 1.0)} | ({"seen": (~hidden & known, seen)} if seen else {})
    return {name: Term((losses * part).sum(), part.sum(), scale) for name, (part, scale) in parts.items()}


def frame_counts(hidden: Tensor, known: Tensor, seen: float) -> dict[str, Tensor]:
    """What `frame_terms` counts."""
    return {"hidden": (hidden & known).sum()} | ({"seen": (~hidden & known).sum()} if seen else {})
