"""What MaskedLM masks: words, spans, n-grams, given phrases; each budget, length and fate is as the papers say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tiny import text_batch, tiny_text_encoder
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.encoders.tokenizer import train_tokenizer, word_starts
from ssl_suite.methods.text.corrupt import choose_spans, replace_tokens
from ssl_suite.methods.text.mask import Mask
from ssl_suite.methods.text.masked_lm import MaskedLM

SPECIAL, MASK, VOCAB = torch.tensor([0, 1, 2, 3, 4]), 4, 261
KINDS = ["token", "word", "span", "ngram", "phrase"]


def seeds(n: int, epoch: int = 0) -> Tensor:
    return torch.tensor([item_seed(0, epoch, i) for i in range(n)])


def rows(n: int, t: int, one_in: float = 0.6) -> tuple[Tensor, Tensor]:
    """Random rows: what is allowed (a few specials inside, padding of a random length), and where words begin."""
    generator = torch.Generator().manual_seed(1)
    length = torch.randint(0, t + 1, (n, 1), generator=generator)
    allowed = (torch.rand(n, t, generator=generator) > 0.05) & (torch.arange(t) < length)
    return allowed, torch.rand(n, t, generator=generator) < one_in


def units_of(allowed: Tensor, begins: Tensor) -> list[list[list[int]]]:
    """Places of each unit of each row, by hand."""
    found: list[list[list[int]]] = []
    for a, b in zip(allowed.tolist(), begins.tolist(), strict=True):
        units: list[list[int]] = []
        for i, (ok, begin) in enumerate(zip(a, b, strict=True)):
            if ok and (begin or i == 0 or not a[i - 1]):
                units.append([i])
            elif ok:
                units[-1].append(i)
        found.append(units)
    return found


@pytest.mark.parametrize("longest", [1, 3, 10])
def test_spans_are_whole_contiguous_units_within_the_budget(longest: int) -> None:
    allowed, begins = rows(300, 50)
    lengths = torch.randint(1, longest + 1, allowed.shape, generator=torch.Generator().manual_seed(2))
    spans = choose_spans(allowed, begins, lengths, seeds(300), 0.3)
    assert not spans[~allowed].any()
    exact = 0
    for units, span, lengths_of in zip(units_of(allowed, begins), spans.tolist(), lengths.tolist(), strict=True):
        n = sum(map(len, units))
        budget = max(round(0.3 * n), min(map(len, units), default=0))
        taken = sum(s > 0 for s in span)
        assert taken <= budget
        untaken = [u for u in units if span[u[0]] == 0]
        assert all(len({span[i] for i in u}) == 1 for u in units)  # whole
        assert not untaken or min(map(len, untaken)) > budget - taken  # nothing that is left fits
        exact += taken == budget
        for k in range(1, max(span, default=0) + 1):
            places = [i for i, s in enumerate(span) if s == k]
            assert places == list(range(places[0], places[-1] + 1))  # one run
            inside = [u for u in units if u[0] in places]
            assert inside[0][0] == places[0]  # from a unit's beginning
            assert len(inside) <= lengths_of[places[0]]
    assert exact > 250


def test_units_are_drawn_evenly() -> None:
    n = 8000
    allowed = torch.ones(n, 20, dtype=torch.bool)
    begins = (torch.arange(20) % 2 == 0).expand(n, -1)
    spans = choose_spans(allowed, begins, torch.ones(n, 20, dtype=torch.long), seeds(n), 0.3)
    taken = (spans > 0)[:, ::2]
    assert (taken.sum(1) == 3).all()
    assert chisquare(taken.sum(0)).pvalue > 1e-4


@pytest.mark.parametrize(("mask", "mean"), [(Mask("span"), 3.797), (Mask("ngram"), 18 / 11), (Mask("word"), 1.0)])
def test_lengths_follow_their_distribution(mask: Mask, mean: float) -> None:
    n, t = 20000, 30
    allowed = torch.ones(n, t, dtype=torch.bool)
    chosen, _ = mask.choose(allowed, allowed, None, seeds(n), 0.5, 0.0)
    assert (chosen.sum(1) == 15).all()
    lengths = mask.lengths(torch.rand(n, generator=torch.Generator().manual_seed(0)))
    assert abs(float(lengths.double().mean()) - mean) < 0.06
    if mask.kind == "word":
        return
    p = mask.distribution()
    assert chisquare(lengths.bincount()[1:], p * n).pvalue > 1e-4
    drawn = mask.lengths(torch.tensor([[0.0], [float(p[0]) - 1e-6], [float(p[0]) + 1e-6], [1 - 2**-24]]))
    assert drawn.flatten().tolist() == [1, 1, 2, len(p)]
    fresh = choose_spans(allowed, allowed, mask.lengths(torch.rand(n, t)), seeds(n), 0.5)  # the first, never hindered
    first = fresh == 1
    start = first.int().argmax(1)
    whole = first.sum(1)[start < t - 10]
    assert chisquare(whole.bincount(minlength=len(p) + 1)[1:], p * len(whole)).pvalue > 1e-4


def test_published_distributions() -> None:
    torch.testing.assert_close(Mask("ngram").distribution(), torch.tensor([6 / 11, 3 / 11, 2 / 11]).double())
    span = Mask("span").distribution()
    assert len(span) == 10
    torch.testing.assert_close(span[1:] / span[:-1], torch.full((9,), 0.8).double())


def test_a_span_shares_its_lot_and_the_shares_are_eighty_ten_ten() -> None:
    n, t = 4000, 60
    ids = torch.randint(5, VOCAB, (n, t))
    allowed = torch.ones(n, t, dtype=torch.bool)
    chosen, fate = Mask("span").choose(allowed, allowed, None, seeds(n), 0.15, 0.0)
    assert fate is not None
    corrupted = replace_tokens(ids, chosen, seeds(n), SPECIAL, MASK, VOCAB, fate)
    kind = torch.where(corrupted == MASK, 0, torch.where(corrupted == ids, 1, 2))
    key = torch.arange(n)[:, None] * t + fate
    spans, masked = key[chosen], kind[chosen] == 0
    shares = torch.zeros(n * t).scatter_add(0, spans, masked.float()) / torch.zeros(n * t).scatter_add(
        0, spans, torch.ones(len(spans))
    )
    shares = shares[shares.isfinite()]
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    size = len(shares)
    assert abs(float(shares.mean()) - 0.8) < 5 * (0.16 / size) ** 0.5
    random = (kind[chosen] == 2).float().mean()
    assert abs(float(random) - 0.1 * 255 / 256) < 0.01
    assert torch.equal(corrupted[~chosen], ids[~chosen])


def test_other_kinds_draw_each_token_its_own_lot() -> None:
    allowed = torch.ones(4, 30, dtype=torch.bool)
    for kind in ("token", "word", "ngram"):
        assert Mask(kind).choose(allowed, allowed, None, seeds(4), 0.5, 0.0)[1] is None


def test_stages_go_from_words_to_phrases_to_entities() -> None:
    mask = Mask("phrase", stages=(0.5, 0.3, 0.2))
    assert [mask.stage(p) for p in (0.0, 0.49, 0.51, 0.79, 0.81, 1.0)] == [0, 0, 1, 1, 2, 2]
    n, t = 200, 24
    allowed, words = torch.ones(n, t, dtype=torch.bool), torch.ones(n, t, dtype=torch.bool)
    places = torch.arange(t)
    units = torch.stack([places % 2 == 0, places % 3 == 0]).expand(n, -1, -1)
    for progress, size in ((0.0, 1), (0.6, 2), (0.9, 3)):
        chosen, _ = mask.choose(allowed, words, units, seeds(n), 0.25, progress)
        assert (chosen.sum(1) == 6).all()
        assert (chosen.view(n, -1, size).float().mean(-1) % 1 == 0).all()
        if size > 1:
            others, _ = mask.choose(allowed, words, units, seeds(n), 0.25, 0.0)
            assert (others.view(n, -1, size).float().mean(-1) % 1 != 0).any()


# Through MaskedLM --------------------------------------------------------------------------------------------------


def model(kind: str, **options: Any) -> MaskedLM:
    made = MaskedLM(tiny_text_encoder(dropout=0.0), mask=Mask(kind), **options)  # type: ignore[arg-type]
    made.special, made.mask_id, made.vocab_size = SPECIAL, MASK, VOCAB
    made.word_starts = torch.arange(270) % 3 != 0
    made.progress = 0.5
    return made


def batch_of(lengths: list[int], epoch: int = 0) -> Any:
    batch = text_batch(lengths, seeds=seeds(len(lengths), epoch).tolist())
    batch.ids[:, 0], batch.ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 2, 3
    units = torch.rand(len(lengths), 2, batch.ids.shape[1], generator=torch.Generator().manual_seed(0)) < 0.4
    return replace(batch, phrases=units)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_padding_are_neither_masked_nor_drawn(kind: str) -> None:
    batch = batch_of([40, 22, 5, 2] * 50)
    corrupted, chosen = model(kind, rate=0.4).corrupt(batch)
    assert not (chosen & (~batch.mask | (batch.ids < 5))).any()
    assert torch.equal(corrupted[~chosen], batch.ids[~chosen])
    new = corrupted[chosen]
    assert ((new == MASK) | ((new >= 5) & (new < VOCAB))).all()
    assert chosen[::4].any(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_redrawn_every_epoch_and_blind_to_order_mates_and_padding(kind: str) -> None:
    masked, batch = model(kind), batch_of([54] * 10)

    def chosen(which: list[int], epoch: int, pad: int = 0) -> Tensor:
        assert batch.phrases is not None
        part = replace(
            batch, ids=F.pad(batch.ids[which], (0, pad)), mask=F.pad(batch.mask[which], (0, pad)),
            phrases=F.pad(batch.phrases[which], (0, pad)), seed=seeds(10, epoch)[which],
        )  # fmt: skip
        return torch.stack(masked.corrupt(part))[:, :, :54]

    first = chosen(list(range(10)), 0)
    assert torch.equal(chosen([7, 2], 0, pad=9), first[:, [7, 2]])
    later = chosen(list(range(10)), 1)
    assert sum(torch.equal(first[1, i], later[1, i]) for i in range(10)) <= 1


def test_the_rate_moves_with_the_run_and_validation_keeps_its_own() -> None:
    masked, batch = model("word", rate=0.5, final_rate=0.1, val_rate=0.2), batch_of([62] * 8)
    masked.word_starts[:] = True
    shares = []
    for masked.progress in (0.0, 0.5, 1.0):
        shares.append(int(masked.corrupt(batch)[1][0].sum()))
    assert shares == [30, 18, 6]
    masked.eval()
    chosen = masked.corrupt(batch)[1]
    assert (chosen.sum(1) == 12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_mask_gives_a_loss_of_zero(kind: str) -> None:
    masked = model(kind)
    out = masked.step(batch_of([2, 2]))
    assert out.total() == 0
    out.total().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in masked.parameters())


def test_bad_masks_are_refused() -> None:
    with pytest.raises(UserError, match="stages"):
        Mask("phrase", stages=(0.5, 0.5, 0.5))
    with pytest.raises(UserError, match="longest"):
        Mask("span", longest=0)


# Words of a tokenizer ------------------------------------------------------------------------------------------------

TEXT = "unbelievable houses, and unbelievable horses: it's (really) hard"


MARKED = ["unbelievable", "houses", ",", "and", "unbelievable", "horses", ":", "it", "'s", "(really", ")", "hard"]
SPLIT = [*MARKED[:8], "'", "s", "(", "really", ")", "hard"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("wordpiece", SPLIT), ("bpe", MARKED), ("byte", MARKED), ("char", MARKED), ("unigram", MARKED)],
)
def test_words_begin_where_the_tokenizer_says(kind: Any, words: list[str]) -> None:
    tokenizer: Tokenizer = train_tokenizer([TEXT] * 3 + ["un able horse hard read"], kind, 60)
    encoding = tokenizer.encode(TEXT, add_special_tokens=False)
    starts = word_starts(tokenizer)
    assert len(starts) == tokenizer.get_vocab_size()
    assert len(encoding.ids) > len(words)
    found: list[str] = []
    for i, (begin, end) in enumerate(encoding.offsets):
        piece = TEXT[begin:end].strip()
        if starts[encoding.ids[i]] or not found:
            found.append(piece)
        else:
            found[-1] += piece
    assert [w for w in found if w] == words


# The second objective ------------------------------------------------------------------------------------------------


def test_pairs_add_the_loss_of_the_first_position() -> None:
    masked = MaskedLM(tiny_text_encoder(dropout=0.0, segments=2), pairs="nsp")
    masked.special, masked.mask_id, masked.vocab_size = SPECIAL, MASK, VOCAB
    batch = replace(batch_of([30, 12, 7]), pair=torch.tensor([0, 1, 1]))
    batch = replace(batch, segments=(torch.arange(30) > 5).long().expand(3, -1))
    out = masked.step(batch)
    corrupted, chosen = masked.corrupt(batch)
    states = masked.encoder(replace(batch, ids=corrupted)).states[-1]
    tokens = F.cross_entropy(masked.head(states[chosen]), batch.ids[chosen])
    pair = F.cross_entropy(masked.pair_head(states[:, 0]), batch.pair)
    torch.testing.assert_close(out.terms["token_loss"].mean, tokens)
    torch.testing.assert_close(out.terms["pair_loss"].mean, pair)
    torch.testing.assert_close(out.total(), tokens + pair)
    assert out.terms["pair_loss"].count == 3
    assert masked.likelihood == "token_loss"


def test_pair_head_equals_transformers_pooler_and_classifier() -> None:
    bert = pytest.importorskip("transformers.models.bert.modeling_bert")
    from transformers import BertConfig

    config = BertConfig(hidden_size=16)
    pooler, classifier = bert.BertPooler(config), bert.BertOnlyNSPHead(config)
    head = MaskedLM(tiny_text_encoder(segments=2), pairs="sop").pair_head
    pooler.dense.load_state_dict(head.dense.state_dict())
    classifier.seq_relationship.load_state_dict(head.out.state_dict())
    x = torch.randn(5, 3, 16)
    torch.testing.assert_close(head(x[:, 0]), classifier(pooler(x)))


def test_pairs_without_segments_are_refused() -> None:
    with pytest.raises(UserError, match="segments: 2"):
        MaskedLM(tiny_text_encoder(), pairs="nsp")
