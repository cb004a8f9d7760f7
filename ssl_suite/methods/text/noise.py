"""Noise on one sequence, on the host: pure functions of its ids, of the share that is hit, and of drawn numbers.

`u` are numbers in [0, 1), one a token where nothing else is said: the same numbers, the same noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hidden = NDArray[np.bool_]
Draws = NDArray[np.float64]


def independent(u: Draws, rate: float) -> Hidden:
    """(L,) True with probability `rate`, each token by itself; at least one is, where there is one."""
    hidden = u < rate
    if len(u) and not hidden.any():
        hidden[u.argmin()] = True
    return hidden


def random_spans(cuts: Draws, gaps: Draws, rate: float, mean: float, most: int) -> Hidden:
    """T5's spans (arXiv:1910.10683, section 3.3.4): their number and length in all are fixed, where they lie is not.

    N = round(rate · L) tokens in S = round(N / mean) spans; N, and the L − N others, are cut at random into S parts
    that are not empty, and take turns, what stays first.

    Args:
        cuts: (L,) numbers, for the cuts between spans.
        gaps: (L,), for the cuts between what stays.
        rate: share of hidden tokens.
        mean: tokens a span.
        most: most spans.

    Returns:
        (L,) True where hidden.
    """
    size = len(cuts)
    n = min(max(round(rate * size), 1), max(size - 1, 1))
    spans = min(max(round(n / mean), 1), n, max(size - n, 1), most)
    parts = np.zeros(2 * spans, np.int64)
    parts[::2], parts[1::2] = cut(size - n, spans, gaps), cut(n, spans, cuts)
    return np.repeat(np.arange(2 * spans) % 2 == 1, parts)


def cut(total: int, parts: int, u: Draws) -> Ids:
    """(parts,) lengths, none of them 0 where there are enough, that sum to `total`: every way to cut as likely."""
    if total < parts:
        return np.array([total] + [0] * (parts - 1))
    places = np.sort(u[: total - 1].argsort()[: parts - 1]) + 1
    return np.diff(places, prepend=0, append=total)


def runs(hidden: Hidden) -> tuple[Hidden, Ids]:
    """(L,) where a run of hidden tokens begins, and the number of the run that begins there or began last."""
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    return begins, begins.cumsum() - 1


def replace_runs(ids: Ids, hidden: Hidden, sentinels: Ids) -> Ids:
    """What T5 reads: each hidden run is one sentinel, each another."""
    begins, number = runs(hidden)
    return np.where(begins, sentinels[number], ids)[~hidden | begins]


def hidden_runs(ids: Ids, hidden: Hidden, sentinels: Ids) -> Ids:
    """What T5 says: each hidden run behind its sentinel, and one more sentinel where the sequence ends in the open.

    As T5's code gives it for sequences that begin in the open; of others it leaves the first sentinel out, and so every
    run is behind the sentinel of the one before it.
    """
    begins, number = runs(hidden)
    places = np.flatnonzero(begins)
    said = np.insert(ids[hidden], hidden.cumsum()[places] - 1, sentinels[number[places]])
    return said if hidden[-1] else np.append(said, sentinels[len(places)])


def fewer_runs(hidden: Hidden, most: int) -> Hidden:
    """The first `most` runs of hidden tokens."""
    return hidden & (runs(hidden)[1] < most)


def masked(ids: Ids, hidden: Hidden, mask: int, drawn: Ids, lot: Draws, shares: tuple[float, float]) -> Ids:
    """Hidden tokens become the mask, or another token, or stay.

    Args:
        ids: (L,).
        hidden: (L,).
        mask: id of the mask.
        drawn: (L,) ids to put in the place of others.
        lot: (L,) numbers that decide.
        shares: of masks, and of masks and others together; the rest stays.
    """
    by_mask, by_other = shares
    return np.where(hidden & (lot < by_mask), mask, np.where(hidden & (lot < by_other), drawn, ids))


def fragment(size: int, share: float, side: float, where: float) -> tuple[int, int]:
    """MASS's fragment (arXiv:1905.02450, section 4.1): its first token and the one behind its last.

    It has round(share · size) tokens, and begins with the sequence in 20 % of all cases, ends with it in 20 %, and lies
    anywhere in the others, as in the released code.
    """
    k = max(1, round(share * size))
    left = size - k
    begin = 0 if side < 0.2 else left if side < 0.4 else int(where * (left + 1))
    return begin, begin + k


def infill(ids: Ids, starts: Hidden, lengths: Ids, order: Draws, inserts: Draws, rate: float, mask: int) -> Ids:
    """BART's text infilling (arXiv:1910.13461, section 2.2), of whole words as in the released code.

    Lengths are taken until they sum to ⌈rate · words⌉, the last of them cut to that. A span is replaced by one mask:
    its first piece; one of length 0 puts a mask in. No more masks are put in than tokens were left out, so that a
    sequence does not grow.

    Args:
        ids: (L,).
        starts: (L,) where a word begins.
        lengths: (L or more,) words of each span, Poisson(3).
        order: (L,) numbers; spans begin at the words with the least.
        inserts: (L,) numbers in [0, 1), where masks are put in.
        rate: share of words.
        mask: id of the mask.
    """
    starts = starts.copy()
    starts[:1] = True
    words = np.flatnonzero(starts)
    budget = math.ceil(rate * len(words))
    if budget == 0:
        return ids
    last = int(np.searchsorted(lengths.cumsum(), budget))
    taken = lengths[: last + 1].copy()
    taken[-1] -= max(0, int(taken.sum()) - budget)
    none, spans = int((taken == 0).sum()), taken[taken > 0]
    first = order[words].argsort()[: len(spans)]  # words where a span begins
    ends = np.append(words, len(ids))
    keep, out = np.ones(len(ids), bool), ids.copy()
    for word, length in zip(first, spans, strict=True):
        out[words[word]] = mask
        keep[words[word] + 1 : ends[min(word + length, len(words))]] = False
    out = out[keep]
    none = min(none, len(ids) - len(out))
    return np.insert(out, (inserts[:none] * (len(out) + 1)).astype(np.int64), mask)


def permute_sentences(ids: Ids, ends: Hidden, u: Draws, rate: float) -> Ids:
    """BART's sentence permutation: ⌈rate · n⌉ of the n sentences change places with one another.

    Args:
        ids: (L,).
        ends: (L,) where a sentence ends.
        u: (2 · L,) numbers: which sentences, and in what order.
        rate: share of sentences.
    """
    pieces = np.split(ids, np.flatnonzero(ends[:-1]) + 1)
    n = len(pieces)
    chosen = u[:n].argsort()[: math.ceil(rate * n)]
    order = np.arange(n)
    order[chosen] = chosen[u[len(ids) : len(ids) + len(chosen)].argsort()]
    return np.concatenate([pieces[i] for i in order])


def rotate(ids: Ids, u: float) -> Ids:
    """BART's document rotation: the sequence begins with one of its tokens, drawn evenly."""
    return np.roll(ids, -int(u * len(ids)))
