"""Unigram's learner against all ways to cut small words, one by one, and the tokenizer that reads its pieces."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from ssl_suite.encoders.unigram import chosen_words, kept, learn_pieces, of_pieces, seeds

DRAW = random.Random(0)
STEMS = ["".join(DRAW.choices("abcd", k=DRAW.randint(1, 5))) for _ in range(12)]
COUNTS = {"▁" + DRAW.choice(STEMS) + DRAW.choice(STEMS): DRAW.randint(1, 9) for _ in range(40)}


def cuts(word: str, score: dict[str, float]) -> Iterator[tuple[list[str], float]]:
    """Every way to cut a word into pieces, and the log-probability of each."""
    if not word:
        yield [], 0.0
    for i in range(1, len(word) + 1):
        if word[:i] in score:
            for rest, value in cuts(word[i:], score):
                yield [word[:i], *rest], score[word[:i]] + value


def test_sums_and_bests_are_those_over_all_ways_to_cut() -> None:
    lattice, names, scores, weights = seeds(chosen_words(COUNTS, 100))
    score = dict(zip(names, scores.tolist(), strict=False))
    words = sorted(COUNTS, key=lambda w: (-len(w), w))
    assert weights.tolist() == [COUNTS[w] for w in words]
    expected, bests = dict.fromkeys(names, 0.0), []
    for word in words:
        ways = list(cuts(word, score))
        total = sum(math.exp(value) for _, value in ways)
        for pieces, value in ways:
            for piece in pieces:
                expected[piece] += COUNTS[word] * math.exp(value) / total
        bests.append(max(value for _, value in ways))
    np.testing.assert_allclose(lattice.expected(scores, weights), list(expected.values()), rtol=1e-9)
    best, last = lattice.best(scores)
    np.testing.assert_allclose(best, bests)
    walked: list[list[str]] = [[] for _ in words]
    for text, piece in lattice.walk(last):
        for w, p in zip(text.tolist(), piece.tolist(), strict=True):
            walked[w].insert(0, names[p])
    assert ["".join(pieces) for pieces in walked] == words
    np.testing.assert_allclose([sum(score[p] for p in pieces) for pieces in walked], bests)


def test_seeds_are_the_characters_and_what_two_words_share() -> None:
    _, names, _, _ = seeds(chosen_words({"abcx": 3, "abcy": 1, "bcz": 2}, 100))
    assert sorted(names) == sorted(["a", "b", "c", "x", "y", "z", "abc", "bc"])  # "ab" goes on with "c" always


def test_a_piece_is_said_by_others_without_itself() -> None:
    lattice, names, scores, _ = seeds(chosen_words(COUNTS, 100))
    own, number = of_pieces(lattice, names)
    found, _ = own.best(scores)
    score = dict(zip(names, scores.tolist(), strict=False))
    for value, i in zip(found, number.tolist(), strict=True):
        assert value == pytest.approx(max(v for pieces, v in cuts(names[i], score) if len(pieces) > 1))


def test_pieces_that_go_leave_the_others_in_place() -> None:
    lattice, names, scores, weights = seeds(chosen_words(COUNTS, 100))
    keep = np.array([len(name) != 3 for name in names])
    less, left = kept(lattice, names, keep)
    assert left == [name for name in names if len(name) != 3]
    expected = less.expected(np.append(scores[:-1][keep], -np.inf), weights)
    assert sum(n * len(name) for n, name in zip(expected, left, strict=True)) == pytest.approx(
        sum(len(word) * n for word, n in COUNTS.items())
    )


@pytest.mark.parametrize("size", [5, 12, 30])
def test_learned_pieces_can_say_every_word(size: int) -> None:
    pieces = learn_pieces(COUNTS, size)
    names = [name for name, _ in pieces]
    assert set("▁abcd") <= set(names)
    assert len(names) == len(set(names)) <= size
    assert sum(math.exp(score) for _, score in pieces) <= 1
    assert pieces == sorted(pieces, key=lambda piece: (-piece[1], piece[0]))
    assert pieces == learn_pieces(dict(reversed(COUNTS.items())), size)
    tokenizer = Tokenizer(models.Unigram([("?", -99.0), *pieces], 0, False))
    for word in COUNTS:
        assert "".join(tokenizer.encode(word).tokens) == word


def test_more_pieces_say_words_better() -> None:
    def cost(size: int) -> float:
        score = dict(learn_pieces(COUNTS, size))
        return sum(n * -max(value for _, value in cuts(word, score)) for word, n in COUNTS.items())

    assert cost(5) > cost(12) > cost(30)


def test_rare_characters_go_where_there_is_no_room() -> None:
    assert {name for name, _ in learn_pieces({"ab": 5, "ac": 3, "ad": 1}, 3)} == {"a", "b", "c"}


def test_a_long_word_is_learned_from_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_suite.encoders.unigram.LONG", 50)
    text = "".join(DRAW.choices(["ab", "cde", "\0"], k=400))
    pieces = dict(learn_pieces({text: 1}, 7))
    assert set(pieces) == {*"abcde", "ab", "cde"}
    assert learn_pieces({}, 7) == learn_pieces({"\0": 1}, 7) == []
