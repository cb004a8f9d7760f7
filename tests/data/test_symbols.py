"""DNA as words: one token a nucleotide, what is refused, and word vectors dealt out anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_image_encoder, tiny_text_encoder
from tokenizers import Tokenizer

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.data.text.sequences.sequences import Spelled
from ssl_suite.data.text.sequences.symbols import Symbols
from ssl_suite.data.text.text import Text
from ssl_suite.encoders import reemb  # noqa: F401  registers the scheme
from ssl_suite.encoders.tokenizer import special_ids, train_tokenizer

NUCLEOTIDES = {"A": "we", "C": "you", "G": "he", "T": "she"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["we you he she they saw her unusually"] * 20, "wordpiece", 120)


@pytest.fixture
def dna(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [("GATTACA", "TT", "ei"), ("CCC", "A", "n"), ("TGCA" * 6, "GG", "ei"), ("AC", "CA", "n")]
    path.write_text("".join(json.dumps({"text": t, "other": o, "label": y}) + "\n" for t, o, y in rows * 3))
    return tmp_path


def served(source: Path, tokenizer: Tokenizer, symbols: Symbols, target: Any = "class", **options: Any) -> Text:
    data = Text(str(source), symbols=symbols, **options)
    data.serve(Request(pretrains=target is None, target=target, tokenizer=tokenizer))
    return data


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_each_nucleotide_is_one_word_token(kind: Any, dna: Path) -> None:
    tokenizer = train_tokenizer(["we you he she they"] * 50, kind, 300)
    data = served(dna, tokenizer, NUCLEOTIDES, max_length=16)
    ids = {
        letter: tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids[0]
        for letter, word in NUCLEOTIDES.items()
    }
    start, end = (tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]"))
    for i, text in enumerate(data.rows["train"].column("text")):
        wanted = [start, *(ids[c] for c in text[:14]), end]  # longer rows are cut, as any text
        assert data.read("train", i, 0).ids.tolist() == wanted


def test_pairs_are_spelled_too(dna: Path, tokenizer: Tokenizer) -> None:
    item = served(dna, tokenizer, NUCLEOTIDES, pair="other").read("train", 0, 0)
    assert tokenizer.decode(item.ids.tolist(), skip_special_tokens=False).split()[-4:] == [
        "[SEP]",
        *["she"] * 2,
        "[SEP]",
    ]
    assert item.segments is not None
    assert item.segments.tolist() == [0] * 9 + [1] * 3


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        ({"A": "we", "C": "you", "G": "he"}, r"row 1: 'text' has the symbol 'T'"),
        (NUCLEOTIDES | {"T": "sheher"}, r"T is 'sheher', which is \d tokens"),
        (NUCLEOTIDES | {"T": "ß"}, "no token"),
        (NUCLEOTIDES | {"T": "WE"}, "A and T are the same token"),
        (NUCLEOTIDES | {"TT": "they"}, "'TT' must be a single character"),
    ],
)
def test_what_cannot_be_spelled_is_refused(dna: Path, tokenizer: Tokenizer, symbols: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        served(dna, tokenizer, symbols)


@pytest.mark.parametrize("target", [None, "tags"])
def test_symbols_are_for_tasks_on_whole_sequences(dna: Path, tokenizer: Tokenizer, target: Any) -> None:
    (dna / "train.jsonl").write_text(json.dumps({"text": ["A"], "label": ["x"]}) if target else '{"text": "A"}')
    with pytest.raises(UserError, match="leave it out"):
        served(dna, tokenizer, NUCLEOTIDES, target)


def test_another_mapping_is_another_input(dna: Path, tokenizer: Tokenizer) -> None:
    swapped = NUCLEOTIDES | {"A": "you", "C": "we"}
    assert served(dna, tokenizer, NUCLEOTIDES).fingerprint("train") != served(dna, tokenizer, swapped).fingerprint(
        "train"
    )


def test_reemb_shuffles_word_vectors_and_nothing_else(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_text_encoder()
    encoder.tokenizer = tokenizer
    folder = save_encoder(encoder, tmp_path / "encoder")
    drawn = []
    for seed in (0, 1, 0):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        drawn.append(load_encoder(f"reemb:{folder}"))
    tables = [d.state_dict()["tokens.weight"] for d in drawn]
    assert torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], tables[1])
    old, special = encoder.tokens.weight.detach(), special_ids(tokenizer)
    assert torch.equal(tables[0][special], old[special])
    assert (tables[0] != old).any(1).sum() > 0.9 * (len(old) - len(special))
    assert torch.equal(tables[0].sort(0).values, old.sort(0).values)
    rest = {k: v for k, v in encoder.state_dict().items() if k != "tokens.weight"}
    assert all(torch.equal(drawn[0].state_dict()[k], v) for k, v in rest.items())
    save_encoder(tiny_image_encoder(), tmp_path / "image")
    with pytest.raises(UserError, match="text encoder"):
        load_encoder(f"reemb:{tmp_path / 'image'}")


def test_words_of_letters_alone_are_drawn_by_the_seed(
    dna: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, keys = [], []
    for seed in (0, 1, 0):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        data = served(dna, tokenizer, "ACGT")
        spelled: Spelled = data.items["train"]  # type: ignore[assignment]
        words = spelled.spelling
        text = data.rows["train"].column("text")[0]
        said = tokenizer.decode(data.read("train", 0, 0).ids.tolist()).split()
        assert said == [words[letter] for letter in text]
        assert list(words) == list("ACGT")
        assert len(set(words.values())) == 4
        assert all(word.isalpha() and len(word) > 1 for word in words.values())
        seen.append(words)
        keys.append(data.fingerprint("train"))
    assert seen[0] == seen[2] != seen[1]
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        ("ACG", "row 1: 'text' has the symbol 'T'; add it to data.symbols"),
        ("ACGTA", "'ACGTA' has 'A' twice"),
        ("ACGT" + "".join(map(chr, range(0x4E00, 0x4F00))), "there are 260 letters, and the tokenizer has"),
    ],
)
def test_letters_alone_must_be_all_there_are_and_each_find_a_word(
    dna: Path, tokenizer: Tokenizer, symbols: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        served(dna, tokenizer, symbols)
