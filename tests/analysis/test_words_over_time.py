"""Words, probes and masked words of language models: against one sentence at a time, and counts by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import tiny_text_encoder

from ssl_suite.analysis.embryology import Learnt, learnt_at, probe_layers
from ssl_suite.analysis.masked_words import masked_words
from ssl_suite.analysis.words import Reader, Sentences, read_sentences
from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.methods.text.masked_lm import MaskedLM

WORDS = [["the", "cat", "sat"], ["cats", "sit", "on", "the", "mat", "of", "the", "cat"], ["on", "on"]]


@pytest.fixture
def reader() -> Reader:
    """Random weights, and a vocabulary so small that words fall into pieces."""
    encoder = tiny_text_encoder(dropout=0.0)
    encoder.tokenizer = train_tokenizer([" ".join(row) for row in WORDS], "wordpiece", 30)
    return Reader(encoder)


def alone(ids: list[int]) -> TextBatch:
    row = torch.tensor([ids])
    return TextBatch(torch.tensor([0]), torch.tensor([0]), None, row, torch.ones_like(row, dtype=torch.bool))


def test_a_word_is_the_mean_of_its_pieces_whatever_it_is_padded_with(reader: Reader) -> None:
    states = reader.words(WORDS)
    assert [tuple(s.shape) for s in states] == [(13, 16)] * 3
    expected: list[list[torch.Tensor]] = [[] for _ in states]
    for sentence in WORDS:
        pieces = [reader.tokenizer.encode(word, add_special_tokens=False).ids for word in sentence]
        ids = [
            reader.tokenizer.token_to_id("[CLS]"),
            *(t for ids in pieces for t in ids),
            reader.tokenizer.token_to_id("[SEP]"),
        ]
        encoded = reader.encoder(alone(ids))
        ends = np.cumsum([1, *map(len, pieces)])
        for k, state in enumerate(encoded.states):
            expected[k] += [state[0, a:b].mean(0) for a, b in pairwise(ends)]
    assert max(len(reader.tokenizer.encode(w, add_special_tokens=False).ids) for s in WORDS for w in s) > 1
    for state, rows in zip(states, expected, strict=True):
        torch.testing.assert_close(state, torch.stack(rows), rtol=1e-4, atol=1e-5)
    means = reader.sentences(WORDS)[-1]
    torch.testing.assert_close(means[1], states[-1][3:11].mean(0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_masked_words_are_counted_as_one_by_one(reader: Reader) -> None:
    torch.manual_seed(1)
    method = MaskedLM(reader.encoder).eval()  # type: ignore[arg-type]
    pieces = [reader.tokenizer.encode(word, add_special_tokens=False).ids for row in WORDS for word in row]
    method.head.bias[next(ids for ids in pieces if len(ids) == 1)] += 5.0  # so that some are right
    tags = [[word[0] for word in row] for row in WORDS]
    found = {(r["measure"], r["label"]): r for r in masked_words(method, reader, Sentences(WORDS, tags), 100)}
    mask = reader.tokenizer.token_to_id("[MASK]")
    for measure, hides in (("prediction", True), ("reconstruction", False)):
        right = {}
        for i, row in enumerate(WORDS):
            encoding = reader.tokenizer.encode(row, is_pretokenized=True)
            for w, _ in enumerate(row):
                at = [t for t, owner in enumerate(encoding.word_ids) if owner == w]
                shown = [mask if hides and t in at else token for t, token in enumerate(encoding.ids)]
                guess = method.head(reader.encoder(alone(shown)).states[-1][0]).argmax(1)
                right[i, w] = all(int(guess[t]) == encoding.ids[t] for t in at)
        assert found[measure, "all"]["value"] == pytest.approx(np.mean(list(right.values())))
        own = [r for (i, w), r in right.items() if WORDS[i][w][0] == "t"]
        assert found[measure, "t"] == {"measure": measure, "label": "t", "value": np.mean(own), "words": 3}
    assert found["prediction", "all"]["value"] > 0


def test_a_probe_reads_off_what_is_there_and_nothing_else(reader: Reader) -> None:
    sentences = read_sentences("samples:brown", "tokens", "tags", "test", 60)
    same = [list(row) for row in sentences.labels]  # the tag itself as the word
    tagged = Sentences(same, sentences.labels)
    reader.encoder.tokenizer = None
    encoder = tiny_text_encoder(dropout=0.0)
    encoder.tokenizer = train_tokenizer([" ".join(row) for row in same], "wordpiece", 60)
    found = [r for r in probe_layers(Reader(encoder), tagged, tagged) if r["label"] == "all"]
    assert [r["layer"] for r in found] == [0, 1, 2]
    assert found[0]["value"] > 0.95
    shuffled = [list(np.random.default_rng(0).permutation(row)) for row in sentences.labels]
    chance = [r for r in probe_layers(Reader(encoder), tagged, Sentences(same, shuffled)) if r["label"] == "all"]
    assert chance[0]["value"] < 0.5


def test_learnt_is_for_good_and_more_than_noise() -> None:
    assert learnt_at({0: 0.1, 1: 0.8, 10: 0.2, 100: 0.6, 1000: 0.9}) == 100
    assert learnt_at({0: 0.5, 1: 0.51}) is None
    assert learnt_at({0: 0.5, 1: 0.4, 10: 0.45}) is None
    assert learnt_at({1000: 1.0, 0: 0.0, 10: 0.7}) == 10  # whatever their order


def test_over_runs_it_is_the_geometric_mean_with_the_interval_of_scipy() -> None:
    steps = [10, 100, 1000]
    thing = Learnt("x", [{0: 0.1, step // 2: 0.1, step: 0.7 + step / 1e4, 2000: 0.9} for step in steps])
    assert thing.step == pytest.approx(100)
    low, high = stats.t.interval(0.95, 2, loc=2, scale=1 / np.sqrt(3))
    assert thing.said == f"100 [{10**low:,.0f}, {10**high:,.0f}]"
    assert (thing.at(0), thing.at(-1)) == ("0.100 ± 0.000", "0.900 ± 0.000")
    never = {0: 0.5, 1: 0.5}
    assert Learnt("x", [never, {0: 0.1, 5: 0.5}]).said == "in 1 of 2 runs"
    assert Learnt("x", [never, {0: 0.1, 5: 0.5}]).step is None
    assert (Learnt("x", [never]).said, Learnt("x", [{0: 0.1, 5: 0.5}]).said) == ("–", "5")


def test_words_without_a_label_are_neither_learnt_nor_scored(reader: Reader) -> None:
    labels = [["_", "a", "v"], ["a", "v", "_", "_", "p", "_", "_", "a"], ["_", "_"]]
    found = list(probe_layers(reader, Sentences(WORDS, labels), Sentences(WORDS, labels), ignore="_"))
    assert {r["label"] for r in found} == {"all", "a", "v", "p"}
    with_all = probe_layers(reader, Sentences(WORDS, labels), Sentences(WORDS, labels))
    assert "_" in {r["label"] for r in with_all}


def test_sentences_are_read_evenly_with_names_for_labels() -> None:
    some = read_sentences("samples:brown", "tokens", "tags", "test", 50)
    assert len(some.words) == 50
    assert some.tagged
    assert "NOUN" in {tag for row in some.labels for tag in row}
    texts = read_sentences("samples:sentences", "text", "label", "test", 5)
    assert not texts.tagged
    assert isinstance(texts.words[0], list)
    with pytest.raises(UserError, match="has no tset split"):
        read_sentences("samples:dna", "text", None, "tset", 5)
