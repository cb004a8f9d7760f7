"""What T5, BART and MASS read and say, by hand on T5's own sentence (arXiv:1910.10683, table 3), and in the mean."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ssl_suite.core.errors import UserError
from ssl_suite.core.seq2seq import SequencePair
from ssl_suite.methods.text import noise
from ssl_suite.methods.text.denoise import SENTINELS, Denoise, Denoiser, Objective, poisson

SENTENCE = "Thank you for inviting me to your party last week ."
WORDS = [*SENTENCE.split(), "apple", "and", "we", "came", "!"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
X, Y, Z = "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A word is a token."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([*SPECIAL, *SENTINELS[::-1]])
    return tokenizer


def ids(tokenizer: Tokenizer, text: str) -> Any:
    return np.array(tokenizer.encode(text).ids)


def text(tokenizer: Tokenizer, tokens: Any) -> str:
    return " ".join(tokenizer.id_to_token(int(i)) for i in tokens)


def hidden(*words: str) -> Any:
    return np.isin(SENTENCE.split(), words)


def test_the_first_sentinel_has_the_highest_id(tokenizer: Tokenizer) -> None:
    own = [tokenizer.token_to_id(name) for name in SENTINELS]
    assert own == sorted(own, reverse=True)
    assert own[0] == tokenizer.get_vocab_size() - 1


def test_prefix_lm(tokenizer: Tokenizer) -> None:
    seed = next(s for s in range(99) if len(Denoise("prefix_lm").bind(tokenizer)(np.arange(11), s).inputs) == 5)
    pair = Denoise("prefix_lm").bind(tokenizer)(ids(tokenizer, SENTENCE), seed)
    assert text(tokenizer, pair.inputs) == "Thank you for inviting [SEP]"
    assert text(tokenizer, pair.targets) == "me to your party last week . [SEP]"


def test_bert_style_and_mass_style(tokenizer: Tokenizer) -> None:
    whole, apple = ids(tokenizer, SENTENCE), np.full(11, tokenizer.token_to_id("apple"))
    lot = np.where(hidden("last"), 0.95, 0.5)
    read = noise.masked(whole, hidden("for", "inviting", "last"), 4, apple, lot, (0.9, 1.0))
    assert text(tokenizer, read) == "Thank you [MASK] [MASK] me to your party apple week ."
    read = noise.masked(whole, hidden("for", "inviting", "last"), 4, apple, lot, (1.0, 1.0))
    assert text(tokenizer, read) == "Thank you [MASK] [MASK] me to your party [MASK] week ."


def test_replace_spans_and_drop_tokens(tokenizer: Tokenizer) -> None:
    whole, gone = ids(tokenizer, SENTENCE), hidden("for", "inviting", "last")
    sentinels = ids(tokenizer, " ".join(SENTINELS))
    assert text(tokenizer, noise.replace_runs(whole, gone, sentinels)) == f"Thank you {X} me to your party {Y} week ."
    assert text(tokenizer, noise.hidden_runs(whole, gone, sentinels)) == f"{X} for inviting {Y} last {Z}"
    assert text(tokenizer, whole[~gone]) == "Thank you me to your party week ."
    assert text(tokenizer, whole[gone]) == "for inviting last"


def test_random_spans(tokenizer: Tokenizer) -> None:
    whole, sentinels = ids(tokenizer, SENTENCE), ids(tokenizer, " ".join(SENTINELS))
    gone = hidden("for", "inviting", "me", "your", "party", "last")
    assert text(tokenizer, noise.replace_runs(whole, gone, sentinels)) == f"Thank you {X} to {Y} week ."
    said = noise.hidden_runs(whole, gone, sentinels)
    assert text(tokenizer, said) == f"{X} for inviting me {Y} your party last {Z}"


def test_a_sentence_that_begins_and_ends_hidden_has_every_run_behind_its_own_sentinel(tokenizer: Tokenizer) -> None:
    whole, sentinels = ids(tokenizer, SENTENCE), ids(tokenizer, " ".join(SENTINELS))
    gone = hidden("Thank", "week", ".")
    assert (
        text(tokenizer, noise.replace_runs(whole, gone, sentinels)) == f"{X} you for inviting me to your party last {Y}"
    )
    assert text(tokenizer, noise.hidden_runs(whole, gone, sentinels)) == f"{X} Thank {Y} week ."


def test_deshuffling(tokenizer: Tokenizer) -> None:
    pair = Denoise("deshuffle").bind(tokenizer)(ids(tokenizer, SENTENCE), 3)
    assert text(tokenizer, pair.targets) == f"{SENTENCE} [SEP]"
    assert sorted(text(tokenizer, pair.inputs[:-1]).split()) == sorted(SENTENCE.split())
    assert text(tokenizer, pair.inputs) != f"{SENTENCE} [SEP]"


def test_mass_says_the_fragment_where_it_stood(tokenizer: Tokenizer) -> None:
    assert noise.fragment(8, 0.5, 0.5, 0.5) == (2, 6)
    assert noise.fragment(8, 0.5, 0.1, 0.5) == (0, 4)
    assert noise.fragment(8, 0.5, 0.3, 0.5) == (4, 8)
    assert noise.fragment(5, 0.5, 0.5, 0.0) == (0, 2)  # half to even
    pair = Denoise("mass").bind(tokenizer)(ids(tokenizer, SENTENCE), 4)
    assert pair.place is not None
    n = len(pair.targets)
    assert n == round(11 / 2)
    words = SENTENCE.split()
    assert text(tokenizer, pair.targets).split() == words[pair.place : pair.place + n]
    kept = text(tokenizer, pair.inputs).split()
    assert kept[: pair.place] == words[: pair.place]
    assert kept[pair.place + n : -1] == words[pair.place + n :]


def test_infilling_puts_one_mask_for_a_span_and_one_for_none(tokenizer: Tokenizer) -> None:
    whole = ids(tokenizer, SENTENCE)
    order = np.ones(11)
    order[[2, 8]] = 0.1, 0.2  # spans begin at "for" and at "last"
    starts = np.ones(11, bool)
    lengths = np.array([2, 0, 4, 9, 9])
    read = noise.infill(whole, starts, lengths, order, np.zeros(11), 0.5, 4)
    assert text(tokenizer, read) == "[MASK] Thank you [MASK] me to your party [MASK]"  # 6 words: 2, none, then 4
    starts[3] = starts[9] = False  # "inviting" and "week" belong to the words before them
    read = noise.infill(whole, starts, np.array([1, 1, 1]), order, np.zeros(11), 0.2, 4)
    assert text(tokenizer, read) == "Thank you [MASK] me to your party [MASK] ."


def test_sentences_are_permuted_and_documents_rotated(tokenizer: Tokenizer) -> None:
    whole = ids(tokenizer, f"{SENTENCE} we came !")
    ends = np.isin(whole, ids(tokenizer, ". !"))
    u = np.zeros(2 * len(whole))
    u[: len(whole)] = np.arange(len(whole))
    u[len(whole)] = 1.0
    assert text(tokenizer, noise.permute_sentences(whole, ends, u, 1.0)) == f"we came ! {SENTENCE}"
    assert text(tokenizer, noise.permute_sentences(whole, ends, u, 0.5)) == f"{SENTENCE} we came !"
    assert text(tokenizer, noise.rotate(whole, 11.5 / 14)) == f"we came ! {SENTENCE}"


def test_t5s_published_lengths() -> None:
    """568 tokens, 15 % in spans of 3 on average: 512 are read and 114 are said, each with an end (section 3.1.4)."""
    rng = np.random.default_rng(0)
    gone = noise.random_spans(rng.random(568), rng.random(568), 0.15, 3.0, 99)
    assert gone.sum() == 85
    assert noise.runs(gone)[0].sum() == 28
    assert not gone[0]
    assert gone[-1]
    sentinels = np.arange(1000, 900, -1)
    assert len(noise.replace_runs(np.arange(568), gone, sentinels)) + 1 == 512
    assert len(noise.hidden_runs(np.arange(568), gone, sentinels)) + 1 == 114


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.25, 0.5])
@pytest.mark.parametrize("mean", [2, 3, 5, 10])
def test_rate_and_length_of_spans_are_those_asked_for(rate: float, mean: int) -> None:
    rng = np.random.default_rng(1)
    drawn = [noise.random_spans(rng.random(200), rng.random(200), rate, mean, 99) for _ in range(50)]
    assert {int(gone.sum()) for gone in drawn} == {round(200 * rate)}
    spans = {int(noise.runs(gone)[0].sum()) for gone in drawn}
    assert spans == {round(round(200 * rate) / mean)}
    assert len({gone.tobytes() for gone in drawn}) > 40


def test_every_cut_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    found = Counter(tuple(noise.cut(5, 3, rng.random(9)).tolist()) for _ in range(6000))
    assert set(found) == {(1, 1, 3), (1, 2, 2), (1, 3, 1), (2, 1, 2), (2, 2, 1), (3, 1, 1)}
    assert min(found.values()) > 850


def test_lengths_are_poisson() -> None:
    drawn = poisson(np.random.default_rng(0).random(20000), 3.0)
    for k in range(6):
        assert (drawn == k).mean() == pytest.approx(math.exp(-3) * 3**k / math.factorial(k), abs=0.01)


def undone(pair: SequencePair, sentinels: list[int]) -> list[int]:
    """The text that T5's inputs and targets are of: each sentinel gives way to what is said behind it."""
    said: dict[int, list[int]] = {}
    at = -1
    for i in pair.targets[:-1].tolist():
        at = i if i in sentinels else at
        said.setdefault(at, []).extend([] if i in sentinels else [i])
    return [j for i in pair.inputs[:-1].tolist() for j in (said[i] if i in sentinels else [i])]


@pytest.mark.parametrize("objective", ["random_spans", "replace_spans"])
def test_what_is_read_and_said_is_the_whole_text(objective: Objective, tokenizer: Tokenizer) -> None:
    rng, corrupt = np.random.default_rng(0), Denoise(objective, 0.4, 2).bind(tokenizer)
    sentinels = [tokenizer.token_to_id(name) for name in SENTINELS]
    for seed in range(60):
        whole = rng.integers(5, 20, int(rng.integers(1, 400)))
        pair = corrupt(whole, seed)
        assert undone(pair, sentinels) == whole.tolist()
        assert pair.inputs[-1] == pair.targets[-1] == 3


ALL = [Denoise(o) for o in ("random_spans", "replace_spans", "drop_tokens", "prefix_lm", "bert", "deshuffle")]
ALL += [Denoise("mass_style"), Denoise("mass")]
ALL += [Denoise("bart", noises=(n,)) for n in ("mask", "delete", "infill", "permute", "rotate")] + [Denoise("bart")]


@pytest.mark.parametrize("how", ALL, ids=lambda h: f"{h.objective} {h.noises[0]}")
def test_a_seed_gives_one_pair_another_another_and_any_length_will_do(how: Denoise, tokenizer: Tokenizer) -> None:
    corrupt = how.bind(tokenizer)
    assert isinstance(corrupt, Denoiser)
    whole = np.random.default_rng(0).integers(5, 20, 60)
    same, again, other = corrupt(whole, 5), corrupt(whole, 5), corrupt(whole, 6)
    assert same.inputs.tolist() == again.inputs.tolist()
    assert same.targets.tolist() == again.targets.tolist()
    assert same.inputs.tolist() != other.inputs.tolist()
    for n in (1, 2, 3, 5):
        pair = corrupt(whole[:n], 5)
        assert len(pair.targets) >= 1
        assert len(pair.inputs) <= n + 2
    if how.objective in ("bert", "mass_style", "deshuffle", "bart"):
        framed = [2, *whole, 3] if how.objective == "bart" else [*whole, 3]
        assert same.targets.tolist() == framed


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(UserError, match=r"corruption\.rate"):
        Denoise(rate=1.0)
    with pytest.raises(UserError, match=r"corruption\.objective"):
        Denoise("spans")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="name at least one"):
        Denoise("bart", noises=())


def test_each_noise_draws_its_own_numbers(tokenizer: Tokenizer) -> None:
    corrupt = Denoise("bart", 0.3, noises=("mask", "delete")).bind(tokenizer)
    read = np.concatenate([corrupt(np.full(200, 9), seed).inputs[1:-1] for seed in range(20)])
    assert len(read) == pytest.approx(0.7 * 4000, rel=0.03)
    assert (read == corrupt.mask).mean() == pytest.approx(0.3, abs=0.03)  # a third of what is left, not none
    for noises in (("delete", "mask"), ("delete", "delete"), ("delete", "permute", "rotate", "infill")):
        corrupt = Denoise("bart", 0.9, noises=noises).bind(tokenizer)  # type: ignore[arg-type]
        assert all(corrupt(np.array([9, 10]), seed).inputs[0] == 2 for seed in range(50))  # nothing may be left


def test_sentences_are_permuted_before_spans_hide_where_they_end(tokenizer: Tokenizer) -> None:
    assert Denoise("bart").noises == ("permute", "infill")
