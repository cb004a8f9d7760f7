"""What a masked language model masks: tokens, words, spans, n-grams or given phrases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import uniform
from ssl_suite.methods.text.corrupt import choose_positions, choose_spans


@dataclass(frozen=True)
class Mask:
    """What is masked together.

    Args:
        kind: token (BERT); word: all pieces of a word (whole-word masking); span: runs of words of geometric length,
            replaced as one (SpanBERT, arXiv:1907.10529, section 3.1); ngram: n words with p(n) ∝ 1/n (ALBERT,
            arXiv:1909.11942, section 3.1); phrase: words, then phrases, then entities that the data give (ERNIE,
            arXiv:1904.09223, section 3.2).
        p: of the geometric distribution of spans.
        longest: words of the longest span or n-gram; default: 10 and 3, as in the papers.
        stages: of phrase: shares of the training steps spent on words, phrases and entities.
    """

    kind: Literal["token", "word", "span", "ngram", "phrase"] = "token"
    p: float = 0.2
    longest: int | None = None
    stages: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)

    def __post_init__(self) -> None:
        within("mask.p", self.p, above=0, below=1)
        if self.longest is not None:
            within("mask.longest", self.longest, low=1, whole=True)
        if min(self.stages) < 0 or abs(sum(self.stages) - 1) > 1e-3:
            raise UserError(f"mask: stages {list(self.stages)} must be three shares that sum to 1.")

    def choose(
        self, allowed: Tensor, words: Tensor, phrases: Tensor | None, seeds: Tensor, rate: float, progress: float
    ) -> tuple[Tensor, Tensor | None]:
        """Chooses what to predict.

        Args:
            allowed: (B, T) bool.
            words: (B, T) bool, where a word begins.
            phrases: (B, 2, T) bool, where phrases and entities begin; for `phrase`.
            seeds: (B,).
            rate: share of the allowed tokens.
            progress: share of the training steps that are done.

        Returns:
            (B, T) bool, and for `span` the number of each token's span, from 0, whose tokens are replaced as one.
        """
        if self.kind == "token":
            return choose_positions(allowed, seeds, rate), None
        begins = words
        if self.kind == "phrase" and (stage := self.stage(progress)):
            assert phrases is not None, "the data module gives phrases to a method that requests them"
            begins = phrases[:, stage - 1]
        spans = choose_spans(allowed, begins, self.lengths(uniform(seeds, words.shape[1], stream=3)), seeds, rate)
        return spans > 0, (spans - 1).clamp(min=0) if self.kind == "span" else None

    def stage(self, progress: float) -> int:
        """0: words, 1: phrases, 2: entities."""
        return sum(progress >= sum(self.stages[:i]) for i in (1, 2))

    def lengths(self, u: Tensor) -> Tensor:
        """Uniform numbers → words, or phrases, of a span."""
        if self.kind in ("word", "phrase"):
            return torch.ones_like(u, dtype=torch.long)
        return torch.bucketize(u, self.distribution().cumsum(0)[:-1].to(u), right=True) + 1

    def distribution(self) -> Tensor:
        """Probability of each length from 1; the geometric one is cut off and normalised (mean 3.8 words)."""
        n = torch.arange(1.0, (self.longest or {"span": 10}.get(self.kind, 3)) + 1, dtype=torch.float64)
        weight = self.p * (1 - self.p) ** (n - 1) if self.kind == "span" else 1 / n
        return weight / weight.sum()
