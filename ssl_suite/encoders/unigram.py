"""Unigram's pieces and their probabilities, learned from word counts as SentencePiece does, each sum in a fixed order.

Kudo 2018 (arXiv:1804.10959, section 3.2); the rules and constants are those of SentencePiece's `unigram_model_trainer`:
a large seed vocabulary of frequent substrings, then turns of expectation maximisation and of dropping the quarter of
the pieces whose loss costs least, until the size is reached. All words are searched side by side in NumPy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

LONGEST = 16
"""Characters of the longest piece."""
SEEDS = 1_000_000
SHRINK = 0.75
TURNS = 2
"""Of expectation maximisation between two prunings."""
RARE = 0.5
"""Expected occurrences below which a piece is dropped."""
LONG = 4_000
"""Characters of a word; a longer one, a document without spaces, is learned from in parts."""
READ = 2_000_000
"""Characters of different words that are learned from, the most frequent words first."""

NUL = "\0"
"""Stands between words, and in none."""

Floats = NDArray[np.float64]
Ints = NDArray[Any]


@dataclass
class Lattice:
    """All ways to cut many texts into pieces, side by side.

    The texts stand one behind the other with a free place after each, so that a place is also the node before its
    character. They are in order of falling length: those with a character number k are the first ones.

    Attributes:
        pieces: (LONGEST, N) piece that begins at a place, by its length less one; −1 for none.
        begins: (W,) first place of each text.
        lengths: (W,) characters of each text.
    """

    pieces: Ints
    begins: Ints
    lengths: Ints

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def active(self, k: int) -> int:
        """How many texts have k characters or more."""
        return int(np.searchsorted(-self.lengths, -k, "right"))

    def ending(self, ends: Ints, k: int) -> tuple[Ints, Ints]:
        """(L, W) places where pieces begin that end at `ends`, k characters into their texts, and these pieces."""
        sizes = np.arange(1, min(k, LONGEST) + 1)[:, None]
        starts = ends - sizes
        return starts, self.pieces[sizes - 1, starts]

    def forward(self, scores: Floats) -> Floats:
        """(N,) log Σ over all ways to reach each node; `scores` has −∞ behind the last piece, for −1."""
        alpha = np.zeros(self.pieces.shape[1])
        for k in range(1, self.longest + 1):
            ends = self.begins[: self.active(k)] + k
            starts, piece = self.ending(ends, k)
            alpha[ends] = log_sum(alpha[starts] + scores[piece])
        return alpha

    def backward(self, scores: Floats) -> Floats:
        """(N,) log Σ over all ways from each node to the end of its text."""
        beta = np.zeros(self.pieces.shape[1])
        for k in range(1, self.longest + 1):
            n = self.active(k)
            starts = self.begins[:n] + self.lengths[:n] - k
            sizes = np.arange(1, min(k, LONGEST) + 1)[:, None]
            beta[starts] = log_sum(beta[starts + sizes] + scores[self.pieces[sizes - 1, starts]])
        return beta

    def expected(self, scores: Floats, counts: Floats) -> Floats:
        """(V,) how often each piece occurs, where text w stands `counts[w]` times and is cut in all ways."""
        alpha, beta = self.forward(scores), self.backward(scores)
        text = np.repeat(np.arange(len(self.lengths)), self.lengths + 1)
        total = alpha[self.begins + self.lengths][text]
        found = np.zeros(len(scores) - 1)
        for size, row in enumerate(self.pieces, 1):
            at = np.flatnonzero(row >= 0)
            share = np.exp(alpha[at] + scores[row[at]] + beta[at + size] - total[at])
            found += np.bincount(row[at], share * counts[text[at]], len(found))
        return found

    def best(self, scores: Floats) -> tuple[Floats, Ints]:
        """(W,) score of the best way to cut each text; (N,) length of its last piece up to each node."""
        alpha, last = np.zeros(self.pieces.shape[1]), np.zeros(self.pieces.shape[1], np.int64)
        for k in range(1, self.longest + 1):
            ends = self.begins[: self.active(k)] + k
            starts, piece = self.ending(ends, k)
            reached = alpha[starts] + scores[piece]
            last[ends] = reached.argmax(0) + 1
            alpha[ends] = reached.max(0)
        return alpha[self.begins + self.lengths], last

    def walk(self, last: Ints) -> list[tuple[Ints, Ints]]:
        """The best pieces from the last to the first: at each step, texts that go on and the piece of each."""
        steps, text, ends = [], np.arange(len(self.lengths)), self.begins + self.lengths
        while len(text):
            size = last[ends]
            ends = ends - size
            steps.append((text, self.pieces[size - 1, ends]))
            on = ends > self.begins[text]
            text, ends = text[on], ends[on]
        return steps


def log_sum(x: Floats) -> Floats:
    """(L, W) → (W,) log Σ exp."""
    highest = x.max(0)
    return highest + np.log(np.exp(x - highest).sum(0))


def learn_pieces(counts: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """Learns `size` pieces, every character of the words among them, and their log-probabilities, the highest first.

    Args:
        counts: word → how often it occurs.
        size: of the vocabulary; rare characters are left out where it has no place for all.
    """
    if not (words := chosen_words(counts, size)):
        return []
    lattice, names, scores, weights = seeds(words)
    wanted = int(1.1 * size)
    while True:
        for _ in range(TURNS):
            found = lattice.expected(scores, weights)
            single = np.array([len(name) == 1 for name in names])
            keep = single | (found >= RARE)
            found = np.maximum(found, RARE)[keep]
            lattice, names = kept(lattice, names, keep)
            scores = normalised(found)
        if len(names) <= wanted:
            break
        keep = prune(lattice, names, scores, weights, max(wanted, int(SHRINK * len(names))))
        lattice, names = kept(lattice, names, keep)
        scores = np.append(scores[:-1][keep], -np.inf)
    last = prune(lattice, names, scores, weights, size)
    pieces = [(name, float(score)) for name, score, k in zip(names, scores, last, strict=False) if k]
    return sorted(pieces, key=lambda piece: (-piece[1], piece[0]))


def normalised(found: Floats) -> Floats:
    """(V + 1,) log-probabilities by the digamma function, which favours frequent pieces; −∞ behind the last."""
    expected = torch.from_numpy(np.append(found, found.sum()))
    digamma = np.round(torch.digamma(expected).numpy(), 9)
    return np.append(digamma[:-1] - digamma[-1], -np.inf)


def kept(lattice: Lattice, names: list[str], keep: NDArray[np.bool_]) -> tuple[Lattice, list[str]]:
    """The pieces that are kept, numbered anew."""
    new = np.append(np.where(keep, keep.cumsum() - 1, -1), -1).astype(np.int32)
    left = [name for name, k in zip(names, keep, strict=True) if k]
    return Lattice(new[lattice.pieces], lattice.begins, lattice.lengths), left


def prune(lattice: Lattice, names: list[str], scores: Floats, weights: Floats, size: int) -> NDArray[np.bool_]:
    """Which pieces stay: all characters, and those whose removal would cost most likelihood, `size` in all."""
    _, last = lattice.best(scores)
    frequency = np.zeros(len(names))
    for text, piece in lattice.walk(last):
        frequency += np.bincount(piece, weights[text], len(names))
    own, number = of_pieces(lattice, names)
    other, last = own.best(scores)  # the best way to say a piece by others
    parts, rest = np.zeros(len(number)), np.zeros(len(number))
    f = frequency[number]
    for text, piece in own.walk(last):
        parts[text] += 1
        rest[text] += np.log(np.maximum(frequency[piece] + f[text], 1e-300))
    total = frequency.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        after = rest - parts * np.log(total + f * (parts - 1))
        loss = f / weights.sum() * (np.log(f) - np.log(total) - after)
    useless = (f == 0) | (other >= scores[number])
    loss = np.where(useless, -np.inf, np.round(loss, 12))
    keep = np.array([len(name) == 1 for name in names])
    room = max(0, size - int(keep.sum()))
    ranked = sorted(np.flatnonzero(~useless).tolist(), key=lambda i: (-loss[i], names[number[i]]))
    keep[number[ranked[:room]]] = True
    return keep


def of_pieces(lattice: Lattice, names: list[str]) -> tuple[Lattice, Ints]:
    """The lattice of the pieces of two characters or more as texts, without the way that takes each whole."""
    place = np.zeros(len(names), np.int64)
    for row in lattice.pieces[1:]:
        at = np.flatnonzero(row >= 0)
        place[row[at]] = at
    sizes = np.array([len(name) for name in names])
    number = np.argsort(-sizes, kind="stable")
    number = number[sizes[number] > 1]
    lengths = sizes[number]
    begins = np.cumsum(lengths + 1) - lengths - 1
    offset = np.arange(int((lengths + 1).sum())) - np.repeat(begins, lengths + 1)
    left = np.repeat(lengths, lengths + 1) - offset  # characters from a place to the end of its text
    source = np.minimum(np.repeat(place[number], lengths + 1) + offset, lattice.pieces.shape[1] - 1)
    fits = np.arange(1, LONGEST + 1)[:, None] <= left
    pieces = np.where(fits, lattice.pieces[:, source], -1)
    pieces[lengths - 1, begins] = -1
    return Lattice(pieces, begins, lengths), number


def seeds(words: Mapping[str, int]) -> tuple[Lattice, list[str], Floats, Floats]:
    """Every character, and the substrings of most characters in all: at least two words have them, and not always
    with the same character behind.

    Args:
        words: how often each occurs, in order of falling length.

    Returns:
        the lattice of the words, names and scores of the pieces, and how often each word occurs.
    """
    lengths = np.array([len(word) for word in words])
    weights = np.array(list(words.values()), np.float64)
    text = NUL.join(words) + NUL
    begins = np.cumsum(lengths + 1) - lengths - 1
    left = np.repeat(lengths, lengths + 1) - (np.arange(len(text)) - np.repeat(begins, lengths + 1))
    code = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)[1].astype(np.int64)
    places, rank = np.flatnonzero(left > 0), code[left > 0]
    found: list[tuple[Ints, Ints, Ints, Ints]] = []  # of each length: places, rank at each, first place, count
    for length in range(1, LONGEST + 1):
        _, first, rank, count = np.unique(rank, return_index=True, return_inverse=True, return_counts=True)
        found.append((places, rank, places[first], count))
        on = (count[rank] > 1) & (left[places] > length)
        places, rank = places[on], rank[on] * (code.max() + 1) + code[places[on] + length]
    names: list[str] = []
    values: list[float] = []
    level: list[Ints] = []  # piece of each rank of each length, −1 for none
    often = np.repeat(weights, lengths + 1)
    for length, (places, rank, first, count) in enumerate(found, 1):
        value: NDArray[Any] = count * float(length)
        stays = count > 1
        if length == 1:
            value = np.bincount(rank, often[places], len(first))
            stays = np.ones(len(first), bool)
        if 1 < length < LONGEST:  # where one longer substring has as many, it says all of this one
            _, _, later_first, later_count = found[length]
            before = rank[np.searchsorted(places, later_first)]
            stays[before[later_count == count[before]]] = False
        level.append(np.where(stays, np.cumsum(stays) - 1 + len(names), -1))
        names += [text[p : p + length] for p in first[stays].tolist()]
        values += value[stays].tolist()
    pieces = np.full((LONGEST, len(text)), -1, np.int32)
    for length, (places, rank, _, _) in enumerate(found, 1):
        pieces[length - 1, places] = level[length - 1][rank]
    lattice = Lattice(pieces, begins, lengths)
    if len(names) > SEEDS:
        order = sorted(range(len(names)), key=lambda i: (len(names[i]) > 1, -values[i], names[i]))[:SEEDS]
        keep = np.zeros(len(names), bool)
        keep[order] = True
        lattice, names = kept(lattice, names, keep)
        values = np.asarray(values)[keep].tolist()
    return lattice, names, np.append(np.log(np.asarray(values) / sum(values)), -np.inf), weights


def chosen_words(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """The most frequent words, `READ` characters in all, in order of falling length; cut where characters are rare."""
    often: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            often[character] += count
    often.pop(NUL, None)
    known = set(sorted(often, key=lambda c: (-often[c], c))[:size])
    apart = re.compile(f"[{re.escape(''.join(sorted({NUL, *often} - known)))}]+")
    parts: Counter[str] = Counter()
    for word, count in counts.items():
        for part in apart.split(word):
            for begin in range(0, len(part), LONG):
                parts[part[begin : begin + LONG]] += count
    ranked = sorted(parts, key=lambda w: (-parts[w], w))
    read = np.cumsum([len(word) for word in ranked])
    chosen = ranked[: max(1, int(np.searchsorted(read, READ, "right")))]
    return {word: parts[word] for word in sorted(chosen, key=lambda w: (-len(w), w))}
