"""Denoise: what an encoder–decoder reads and says, by the objectives of T5, BART and MASS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from ssl_suite.core.check import one_of, within
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import draw, uniform
from ssl_suite.core.seq2seq import Ids, SequencePair
from ssl_suite.encoders.tokenizer import special_ids, token_id, word_starts
from ssl_suite.methods.text import noise

Objective = Literal[
    "random_spans", "replace_spans", "drop_tokens", "prefix_lm", "bert", "deshuffle", "mass_style", "mass", "bart"
]
BartNoise = Literal["mask", "delete", "infill", "permute", "rotate"]
SENTINELS = [f"<extra_id_{i}>" for i in range(100)]
"""T5's, the first of them with the highest id."""
POISSON = 3.0
"""Mean words of a span of BART's infilling (arXiv:1910.13461, section 2.2)."""
ENDS = (".", "!", "?")
"""Tokens that end a sentence, beside the end of a document."""


@dataclass(frozen=True)
class Denoise:
    """How a sequence is corrupted, and what is to be said of it.

    Args:
        objective: of T5 (arXiv:1910.10683, table 3): random_spans: spans of a mean length become a sentinel each, and
            are said; replace_spans: likewise, of tokens drawn each by itself; drop_tokens: those are left out;
            prefix_lm: a text goes on; bert: the whole text from one with masks (90 %) and other words (10 %);
            mass_style: the same with masks alone; deshuffle: the whole text from its words in another order.
            mass (arXiv:1905.02450): a fragment that is masked as in BERT; bart (arXiv:1910.13461): the whole text from
            one with `noises`.
        rate: share of tokens that are hit; default 0.15, of mass 0.5, of bart 0.3 (of its words, if infilled).
        span: mean tokens of a random span.
        noises: of bart, one after the other: mask or delete tokens, infill spans, permute sentences, rotate. Sentences
            change places first in the released code, as spans may swallow where they end.
        sentences: share of the sentences that are permuted.
    """

    objective: Objective = "random_spans"
    rate: float | None = None
    span: float = 3.0
    noises: tuple[BartNoise, ...] = ("permute", "infill")
    sentences: float = 1.0

    def __post_init__(self) -> None:
        one_of("corruption.objective", self.objective, get_args(Objective))
        if self.rate is not None:
            within("corruption.rate", self.rate, above=0, below=1)
        within("corruption.span", self.span, low=1)
        within("corruption.sentences", self.sentences, low=0, high=1)
        for name in self.noises:
            one_of("corruption.noises", name, get_args(BartNoise))
        if not self.noises:
            raise UserError("corruption.noises is empty; name at least one of mask, delete, infill, permute, rotate.")

    @property
    def share(self) -> float:
        """The rate, or the paper's."""
        return self.rate if self.rate is not None else {"mass": 0.5, "bart": 0.3}.get(self.objective, 0.15)

    @property
    def tokens(self) -> Sequence[str]:
        return SENTINELS[::-1] if self.objective in ("random_spans", "replace_spans", "bert", "mass_style") else ()

    def bind(self, tokenizer: Any) -> Denoiser:
        return Denoiser(self, tokenizer)


class Denoiser:
    """A `Denoise` for one tokenizer: (L,) ids without start and end → a `SequencePair`.

    Args:
        how: the objective and its options.
        tokenizer: with a mask (mass, bart) or T5's sentinels.
    """

    def __init__(self, how: Denoise, tokenizer: Any) -> None:
        self.how = how
        self.end = np.array([token_id(tokenizer, "end")])
        self.ordinary = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), special_ids(tokenizer))
        if how.tokens:
            self.sentinels = np.array([tokenizer.token_to_id(name) for name in SENTINELS])
            self.mask = int(self.sentinels[0])
        elif how.objective in ("mass", "bart"):
            self.mask = token_id(tokenizer, "mask")
        if how.objective == "bart":
            self.start = np.array([token_id(tokenizer, "start")])
            self.words = np.array(word_starts(tokenizer))
            closing = [tokenizer.token_to_id(name) for name in ENDS]
            self.closing = np.array([*self.end, *(i for i in closing if i is not None)])

    def __call__(self, ids: Ids, seed: int) -> SequencePair:
        ids = np.asarray(ids, np.int64)
        if self.how.objective == "bart":
            read = ids if len(ids) < 2 else self.noisy(ids, seed)
            return SequencePair(self._framed(read), self._framed(ids))
        if self.how.objective == "mass":
            return self.fragment(ids, seed)
        read, said = self.t5(ids, seed)
        return SequencePair(np.append(read, self.end), np.append(said, self.end))

    def _framed(self, ids: Ids) -> Ids:
        return np.concatenate([self.start, ids, self.end])

    def t5(self, ids: Ids, seed: int) -> tuple[Ids, Ids]:
        """What is read and what is said, both without the end token."""
        how, u = self.how, numbers(seed, len(ids), 1)
        if how.objective == "prefix_lm":
            at = min(1 + int(draw(seed, 0, 1) * (len(ids) - 1)), len(ids))
            return ids[:at], ids[at:]
        if how.objective == "deshuffle":
            return ids[u.argsort()], ids
        if how.objective == "random_spans":
            most = len(self.sentinels) - 1
            hidden = noise.random_spans(u, numbers(seed, len(ids), 2), how.share, how.span, most)
            return noise.replace_runs(ids, hidden, self.sentinels), noise.hidden_runs(ids, hidden, self.sentinels)
        hidden = noise.independent(u, how.share)
        if how.objective == "drop_tokens":
            return ids[~hidden], ids[hidden]
        if how.objective == "replace_spans":
            hidden = noise.fewer_runs(hidden, len(self.sentinels) - 1)
            return noise.replace_runs(ids, hidden, self.sentinels), noise.hidden_runs(ids, hidden, self.sentinels)
        shares = (0.9, 1.0) if how.objective == "bert" else (1.0, 1.0)
        return noise.masked(
            ids, hidden, self.mask, self._others(seed, len(ids)), numbers(seed, len(ids), 3), shares
        ), ids

    def fragment(self, ids: Ids, seed: int) -> SequencePair:
        """MASS: the decoder says the fragment, at the places where it stood."""
        begin, end = noise.fragment(len(ids), self.how.share, draw(seed, 0, 1), draw(seed, 1, 1))
        place = np.arange(len(ids))
        hidden, lot = (place >= begin) & (place < end), numbers(seed, len(ids), 3)
        read = noise.masked(ids, hidden, self.mask, self._others(seed, len(ids)), lot, (0.8, 0.9))
        return SequencePair(np.append(read, self.end), ids[begin:end], begin)

    def noisy(self, ids: Ids, seed: int) -> Ids:
        """BART's noises, one after the other, each by numbers of its own."""
        for place, name in enumerate(self.how.noises):
            n, first = len(ids), 16 * place  # of its streams
            u = numbers(seed, n, first + 1)
            if name == "mask":
                ids = np.where(noise.independent(u, self.how.share), self.mask, ids)
            elif name == "delete":
                ids = ids[~noise.independent(u, self.how.share)]
            elif name == "infill":
                lengths = poisson(numbers(seed, 4 * n + 16, first + 4), POISSON)
                order, inserts = numbers(seed, n, first + 5), numbers(seed, n, first + 6)
                ids = noise.infill(ids, self.words[ids], lengths, order, inserts, self.how.share, self.mask)
            elif name == "permute":
                ids = noise.permute_sentences(
                    ids, np.isin(ids, self.closing), numbers(seed, 2 * n, first + 7), self.how.sentences
                )
            else:
                ids = noise.rotate(ids, draw(seed, 0, first + 8))
        return ids

    def _others(self, seed: int, n: int) -> Ids:
        """(n,) ordinary ids, drawn evenly."""
        return self.ordinary[(numbers(seed, n, 9) * len(self.ordinary)).astype(np.int64)]


def numbers(seed: int, n: int, stream: int) -> noise.Draws:
    """(n,) uniform numbers in [0, 1) of an item's seed."""
    return uniform(torch.tensor([seed]), n, stream)[0].double().numpy()


def poisson(u: noise.Draws, mean: float) -> Ids:
    """Uniform numbers → Poisson-distributed ones, by the inverse of their distribution function."""
    weights = np.concatenate([[1.0], np.cumprod(mean / np.arange(1, 40))])
    return np.searchsorted(np.exp(-mean) * weights.cumsum(), u, "right")
