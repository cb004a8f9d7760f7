"""Alignment and language shift: against loops over the definitions, on articles of the Declaration of Human Rights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_text_encoder
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor

from ssl_suite.analysis.alignment import (
    aligned,
    alignment,
    expect_tokens,
    mean_reciprocal_rank,
    read_sides,
    reciprocal_ranks,
    word_vectors,
)
from ssl_suite.analysis.language_shift import (
    _said,
    distances,
    language_shift,
    nearest_mean,
    predicted,
    shifted,
    tokens_of,
)
from ssl_suite.analysis.tables import read_pairs
from ssl_suite.analysis.words import Reader
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.methods.text.masked_lm import MaskedLM

UDHR = str(Path(__file__).with_name("udhr.tsv"))


@pytest.fixture(scope="module")
def reader() -> Reader:
    sides = read_sides(UDHR)
    encoder = tiny_text_encoder(vocab_size=600, max_length=200, dropout=0.0)
    encoder.tokenizer = train_tokenizer([" ".join(text) for side in sides for text in side], "wordpiece", 600)
    return Reader(encoder)


def rank_by_sorting(query: Tensor, keys: Tensor, own: int) -> int:
    cosine = [float(query @ key / query.norm() / key.norm()) for key in keys]
    return sorted(range(len(keys)), key=lambda i: -cosine[i]).index(own) + 1


def test_reciprocal_ranks_are_those_of_a_sort() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(9, 4), torch.randn(9, 4)
    expected = [1 / rank_by_sorting(query, keys, i) for i, query in enumerate(queries)]
    assert reciprocal_ranks(queries, keys).tolist() == pytest.approx(expected)
    both = (np.mean(expected) + np.mean([1 / rank_by_sorting(k, queries, i) for i, k in enumerate(keys)])) / 2
    assert mean_reciprocal_rank(queries, keys) == pytest.approx(both)
    assert reciprocal_ranks(queries, 3 * queries).tolist() == pytest.approx([1.0] * 9)
    assert reciprocal_ranks(queries, torch.ones(9, 4)).tolist() == pytest.approx(
        [1 / 5] * 9
    )  # all alike: the mean rank


def test_a_word_of_the_dictionary_is_the_mean_of_where_it_stands() -> None:
    texts = [["The", "right"], ["a", "right,"], ["left"]]
    states = [torch.arange(10.0).view(5, 2)]
    found = word_vectors(["right", "left", "wrong"], texts, states)
    assert {word: vectors[0].tolist() for word, vectors in found.items()} == {"left": [8.0, 9.0], "right": [4.0, 5.0]}


def test_every_state_of_texts_and_words_is_ranked(reader: Reader) -> None:
    sides = read_sides(UDHR)
    rows = aligned(reader.encoder, sides, [])
    same = aligned(
        reader.encoder, (sides[0], sides[0]), [("right", "right"), ("law", "law"), ("the", "the"), ("of", "of")]
    )
    assert [r["state"] for r in rows] == [0, 0, 1, 1, 2, 2]
    assert all(1 / len(sides[0]) <= r["value"] < 1 for r in rows)
    assert all(r["value"] == pytest.approx(1) for r in same if r["unit"] == "texts")
    assert {r["candidates"] for r in same if r["unit"] == "words"} == {4}
    with pytest.raises(UserError, match="only 1 words occur on both sides"):
        aligned(reader.encoder, sides, [("law", "ley"), ("xyz", "zyx")])


@torch.no_grad()
def test_language_means_and_distances_by_hand(reader: Reader) -> None:
    sides = read_sides(UDHR)
    few = (sides[0][:6], sides[1][:6])
    means = [reader.token_means(side) for side in few]
    tokens = [reader.encoder(reader.batch(reader.encode([text])[0])).states[1][0, 1:-1] for text in few[0]]
    torch.testing.assert_close(means[0][1], torch.cat(tokens).mean(0), rtol=1e-4, atol=1e-5)
    found = {(r["state"], r["measure"]): r["value"] for r in distances(reader, few, means)}
    texts = [[reader.words([text])[1].mean(0) for text in side] for side in few]
    bare = [[text - mean[1] for text in side] for side, mean in zip(texts, means, strict=True)]
    spread = np.mean([float(b.norm()) for side in bare for b in side])
    apart = [float((a - b).norm()) for a, b in zip(*texts, strict=True)]
    without = [float((a - b).norm()) for a, b in zip(*bare, strict=True)]
    assert found[1, "to_translation"] == pytest.approx(np.mean(apart) / spread, rel=1e-3)
    assert found[1, "to_translation_without"] == pytest.approx(np.mean(without) / spread, rel=1e-3)
    assert found[1, "gap"] == pytest.approx(float((means[0][1] - means[1][1]).norm()) / spread, rel=1e-3)
    assert found[1, "to_translation_without"] < found[1, "to_translation"]


def test_the_nearest_mean_tells_languages_until_it_is_taken_off() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(200, 8), torch.randn(200, 8) + 3
    means = [one.mean(0), other.mean(0)]
    assert nearest_mean(one, other, means) > 0.98
    bare = one - means[0], other - means[1]
    assert nearest_mean(*bare, [b.mean(0) for b in bare]) < 0.7


@torch.no_grad()
def test_a_shifted_state_runs_on_through_the_layers_above_it(reader: Reader) -> None:
    torch.manual_seed(0)
    encoder, by = reader.encoder, torch.randn(16)
    batch = reader.batch(reader.encode(read_sides(UDHR)[0][:1])[0])  # one text, so that there is no padding
    states = encoder(batch).states
    for layer in (0, 1):
        expected = states[layer] + by
        for block in encoder.blocks()[layer:]:
            expected = block(expected, None)
        with shifted(encoder, layer, by):
            output = encoder(batch).states[-1]
        torch.testing.assert_close(output, encoder.trunk.norm(expected))  # type: ignore[union-attr, operator]
        assert not torch.allclose(output, states[-1])
    torch.testing.assert_close(encoder(batch).states[-1], states[-1])  # nothing stays behind


@torch.no_grad()
def test_what_is_predicted_without_a_shift_is_what_the_head_says(reader: Reader) -> None:
    method = MaskedLM(reader.encoder).eval()  # type: ignore[arg-type]
    texts = read_sides(UDHR)[0][:5]
    plain = predicted(method, reader, texts, 1, torch.zeros(16))
    for text, said in zip(texts, plain, strict=True):
        (ids,), _ = reader.encode([text])
        guess = method.head(reader.encoder(reader.batch([ids])).states[-1][0]).argmax(1).tolist()
        assert said == guess[1:-1]  # without the special tokens at the ends
    by = 50 * method.encoder.tokens.weight[77]
    last = predicted(method, reader, texts, 2, by)
    (ids,), _ = reader.encode([texts[0]])
    shifted_output = reader.encoder(reader.batch([ids])).states[-1][0] + by
    assert last[0] == method.head(shifted_output).argmax(1).tolist()[1:-1]


def test_tokens_belong_to_the_language_that_uses_them_more(reader: Reader) -> None:
    spanish = tokens_of(reader, read_sides(UDHR))
    ids = {word: reader.tokenizer.token_to_id(word) for word in ("derecho", "el", "the", "right", "[CLS]")}
    assert {word: ids[word] in spanish for word in ids} == {
        "derecho": True, "el": True, "the": False, "right": False, "[CLS]": False
    }  # fmt: skip


def test_the_best_shift_is_said_and_whether_it_raised_the_share() -> None:
    share = {0.0: 0.1, 1.0: 0.4, 2.0: 0.3}
    assert _said(share, "es").startswith("Shifted 1 times by the difference of the means, 40 % of")
    assert _said(share, "es").endswith("are of es, unshifted 10 %.")
    assert _said({0.0: 0.5, 1.0: 0.4, 2.0: 0.3}, "es").endswith("unshifted 50 %: no shift raised the share.")


@pytest.mark.parametrize("alphas", [[1.0, 1.0], [0.0], [], [np.nan], [np.inf]])
def test_alphas_are_finite_and_differ(alphas: list[float]) -> None:
    with pytest.raises(UserError, match="--alphas"):
        language_shift("x", UDHR, ["en", "es"], alphas=alphas)


@pytest.mark.parametrize("amount", [np.nan, np.inf, -5.0])
def test_amounts_are_finite_and_not_below_0(amount: float) -> None:
    with pytest.raises(UserError, match="--amounts is"):
        alignment(["x"], UDHR, ["en", "es"], amounts=[amount])


def test_a_text_without_a_token_is_named() -> None:
    encoder = tiny_text_encoder()
    encoder.tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate("abcd")}, []))  # no unknown token
    with pytest.raises(UserError, match="in column 2 of pair 3 the encoder's tokenizer finds no token"):
        expect_tokens(Reader(encoder), ([["a"]] * 4, [["b"], ["c"], ["z"], ["d"]]), UDHR)


def test_texts_that_repeat_are_refused_or_counted(reader: Reader, tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{i}\t{i % 3}\n" for i in range(9)))
    with pytest.raises(UserError, match="column 2 needs four different texts or more, but has 3"):
        read_sides(str(table))
    table.write_text("".join(f"the right {w}\tel derecho {w}\n" for w in ["a", "b", "c", "d", "d", "d"]))
    encoder = str(save_encoder(reader.encoder, tmp_path / "encoder"))
    found = alignment([encoder], str(table), ["en", "es"])
    assert "2 repeat another" in found.answer
    assert "repeat another" not in alignment([encoder], UDHR, ["en", "es"]).answer


def test_a_list_is_read_whole_and_a_line_that_lacks_a_column_is_said_exactly(tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("# of the net\n\n#one\t#uno\n# two\tdos\n")
    assert read_pairs(str(table)) == [("#one", "#uno"), ("# two", "dos")]
    table.write_text("#one\t#uno\n")
    assert read_pairs(str(table)) == [("#one", "#uno")]
    for text, said in (
        ("a\tb\nc\t \n", "column 2 of line 2 is empty; write its translation there"),
        ("a\tb\nc\n", "line 2 has 1 column, but must have a text and its translation"),
        ("a\tb\n# c\n", "line 2 has 1 column, but"),
        ("a\tb\tc\n", "line 1 has 3 columns, but"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=said):
            read_pairs(str(table))
