"""Sentence pairs: proportions, other documents, swaps, lengths, and no sign of the label but the text itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.data.text.corpus.pairs import SentencePairs, fit, sentence_stream, split_sentences
from ssl_suite.data.text.corpus.tokens import TokenFile
from ssl_suite.data.text.text import Text

START, END = 2, 3


def corpus(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, dict[int, tuple[int, int, int]]]:
    """A token file of documents of so many sentences; each token a number of its own → (document, sentence, place)."""
    rng, ids, where, token = np.random.default_rng(seed), [], {}, 10
    for d, sentences in enumerate(sizes):
        place = 0
        for s in range(sentences):
            for _ in range(rng.integers(1, 12)):
                where[token] = (d, s, place)
                ids.append(token)
                token, place = token + 1, place + 1
            ids.append(END)
        ids.append(END)
    return np.array(ids, np.uint32), where


def token_file(tokens: np.ndarray) -> TokenFile:
    return TokenFile(tokens, int((tokens == END).sum()), 0, END)


SIZES = [40, 25, 7, 2, 60, 1, 33]


@pytest.fixture(scope="module", params=["nsp", "sop"])
def pairs(request: pytest.FixtureRequest) -> SentencePairs:
    return SentencePairs(token_file(corpus(SIZES)[0]), START, 40, request.param, "corpus")


def halves(ids: np.ndarray, segments: np.ndarray) -> tuple[list[int], list[int]]:
    """A and B of [CLS] A [SEP] B [SEP], whose shape is checked."""
    first, second = ids[segments == 0].tolist(), ids[segments == 1].tolist()
    assert (first[0], first[-1], second[-1]) == (START, END, END)
    a, b = first[1:-1], second[:-1]
    assert a
    assert b
    assert not {START, END} & {*a, *b}
    return a, b


def test_each_pair_is_what_its_label_says(pairs: SentencePairs) -> None:
    _, where = corpus(SIZES)
    labels, short, n = [], 0, 0
    for epoch in range(60):
        for index in range(len(pairs)):
            ids, segments, label = pairs.make(index, item_seed(0, epoch, index))
            a, b = halves(ids, segments)
            assert len(ids) <= 40
            labels.append(label)
            n, short = n + 1, short + (len(ids) < 40)
            for part in (a, b):
                assert part == list(range(part[0], part[-1] + 1))  # one stretch of one document
                assert len({where[t][0] for t in part}) == 1
            (document_a, *_), (document_b, sentence_b, _) = where[a[0]], where[b[0]]
            begins_b = where.get(b[0] - 1, (-1, -1))[:2] != (document_b, sentence_b)
            assert begins_b
            if pairs.kind == "nsp":
                assert (document_a != document_b) == label
                assert label or b[0] == a[-1] + 1
            else:
                assert document_a == document_b
                assert (b[0] < a[0]) == label
                assert where.get(a[0] - 1, (-1, -1))[:2] != where[a[0]][:2]
    assert abs(np.mean(labels) - 0.5) < 5 * (0.25 / n) ** 0.5


def test_short_pairs_are_a_tenth() -> None:
    tokens, _ = corpus([400, 400])
    pairs = SentencePairs(token_file(tokens), START, 64, "nsp", "corpus")
    lengths = [len(pairs.make(i, item_seed(e, 0, i))[0]) for e in range(40) for i in range(len(pairs))]
    n = len(lengths)
    expected = 0.1 * 60 / 61  # a short one may be drawn at full length
    assert abs(np.mean([length < 64 for length in lengths]) - expected) < 5 * (0.09 / n) ** 0.5
    assert min(lengths) < 12


@pytest.mark.parametrize("length", [16, 40])
@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_nothing_but_the_text_tells_the_label(kind: str, length: int) -> None:
    """No rule on lengths or on where the segments end beats chance on a long corpus of like sentences."""
    tokens, where = corpus([4000] * 3)
    pairs = SentencePairs(token_file(tokens), START, length, kind, "corpus")
    labels, shapes = [], []
    for index in range(len(pairs)):
        ids, segments, label = pairs.make(index, item_seed(1, 0, index))
        a, b = halves(ids, segments)
        ends = [where.get(part[-1] + 1, (-1, -1))[:2] != where[part[-1]][:2] for part in (a, b)]
        labels.append(label)
        half, total = length // 2 - 2, len(a) + len(b)
        shapes.append([len(a) > len(b), len(a) > half, len(b) > half, total > 1.5 * half, *ends, ends[0] > ends[1]])
    noise = 4 * (0.25 / len(labels)) ** 0.5
    for rule in np.array(shapes).T:
        assert abs((rule == np.array(labels)).mean() - 0.5) < noise


def test_pairs_are_redrawn_every_epoch_and_the_same_for_a_seed(pairs: SentencePairs) -> None:
    first, again, later = (
        [pairs.make(i, item_seed(0, e, i))[0].tolist() for i in range(len(pairs))] for e in (0, 0, 1)
    )
    assert first == again
    assert sum(x == y for x, y in zip(first, later, strict=True)) < len(pairs) / 2


def test_chunks_cover_the_corpus() -> None:
    tokens, where = corpus([200, 150, 90])
    pairs = SentencePairs(token_file(tokens), START, 40, "sop", "corpus")
    seen = {t for e in range(40) for i in range(len(pairs)) for t in pairs.make(i, item_seed(0, e, i))[0].tolist()}
    assert len(seen & where.keys()) > 0.95 * len(where)


@pytest.mark.parametrize(("a", "b", "total"), [(5, 5, 20), (50, 5, 20), (5, 50, 20), (50, 50, 21), (9, 9, 2)])
def test_the_longer_segment_is_cut(a: int, b: int, total: int) -> None:
    x, y = fit(a, b, total)
    assert x + y == min(a + b, total)
    assert min(x, y) >= min(a, b, total // 2)


def test_sentences_are_lines_or_end_with_a_stop() -> None:
    assert split_sentences("One. Two\n\n three? four \n") == ["One. Two", "three? four"]
    assert split_sentences("It is 3.5 m. Is it? Yes!  So") == ["It is 3.5 m.", "Is it?", "Yes!", "So"]
    assert list(sentence_stream(["a\nb", "c"])) == ["a", "b", "", "c", ""]


@pytest.mark.parametrize(
    ("sizes", "length", "said"),
    [([1, 1, 1], 40, "two sentences"), ([9], 40, "one document"), ([9, 9], 6, "at least 8")],
)
def test_a_corpus_without_pairs_is_refused(sizes: list[int], length: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        SentencePairs(token_file(corpus(sizes)[0]), START, length, "nsp", "corpus")


def test_text_serves_pairs_with_segments_and_labels(tmp_path: Path) -> None:
    documents = [" ".join(f"Sentence {i} of text {d} is here." for i in range(9)) for d in range(30)]
    (tmp_path / "a.txt").write_text("\n".join(documents))
    data = Text(str(tmp_path / "a.txt"), tokenizer="byte", max_length=96, batch_size=4)
    data.serve(Request(pairs="nsp"))
    batches = list(data.train_dataloader())
    assert len(batches) == data.size("train") // 4
    for batch in batches:
        assert batch.segments is not None
        assert batch.pair is not None
        assert batch.target is None
        assert batch.ids.shape[1] <= 96
        assert (batch.ids[batch.mask] == END).sum() == 8
        assert torch.equal(batch.segments.amax(1), torch.ones(4, dtype=torch.long))
        assert not batch.segments[~batch.mask].any()
    data.serve(Request())
    assert next(iter(data.train_dataloader())).pair is None
