"""Five kinds of tokenizer train, give back what they were given, and keep BERT's special ids."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ssl_suite.core.errors import UserError
from ssl_suite.encoders.tokenizer import (
    KINDS,
    SPECIAL,
    Kind,
    load_tokenizer,
    special_ids,
    token_id,
    tokenizer_hash,
    train_tokenizer,
)

TEXTS = [f"the quick brown fox jumps over {i} lazy dogs, and runs away." for i in range(100)]


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest):
    return request.param, train_tokenizer(TEXTS, request.param, 300)


def test_special_ids_come_first(trained) -> None:
    _, tokenizer = trained
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
    assert special_ids(tokenizer) == [0, 1, 2, 3, 4]
    assert [token_id(tokenizer, role) for role in ("pad", "start", "end", "mask")] == [0, 2, 3, 4]


def test_text_comes_back(trained) -> None:
    _, tokenizer = trained
    text = "the lazy fox jumps over 7 dogs"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (2, 3)
    assert tokenizer.decode(ids) == text


def test_a_pair_has_types(trained) -> None:
    encoding = trained[1].encode("the fox", "a dog")
    assert sorted(set(encoding.type_ids)) == [0, 1]
    assert encoding.ids.count(3) == 2


def test_unknown_characters(trained) -> None:
    kind, tokenizer = trained
    ids = tokenizer.encode("fox Ω dogs", add_special_tokens=False).ids
    if kind in ("bpe", "byte"):
        assert tokenizer.decode(ids) == "fox Ω dogs"
        assert 1 not in ids
    else:
        assert 1 in ids


def test_the_size_is_kept(trained) -> None:
    kind, tokenizer = trained
    assert tokenizer.get_vocab_size() <= 300
    if kind == "byte":
        assert tokenizer.get_vocab_size() == 261
        assert len(tokenizer.encode("aé", add_special_tokens=False).ids) == 3
    if kind == "char":
        assert len(tokenizer.encode("fox dog", add_special_tokens=False).ids) == 7


def test_a_saved_tokenizer_is_the_same(trained, tmp_path) -> None:
    _, tokenizer = trained
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(place)).encode(TEXTS[3]).ids == tokenizer.encode(TEXTS[3]).ids


def test_no_tokenizer_there(tmp_path) -> None:
    with pytest.raises(UserError, match=r"nothing\.json is not a tokenizer file"):
        load_tokenizer(str(tmp_path / "nothing.json"))


def test_a_role_nobody_plays() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(UserError, match=r"has no mask token \(\[MASK\] or <mask>\)"):
        token_id(Tokenizer(models.BPE()), "mask")


def test_every_kind_is_the_same_in_two_processes() -> None:
    """Sets and maps of another process have another order, and threads add in another; neither may decide anything."""
    code = (
        "import random; from ssl_suite.encoders.tokenizer import KINDS, tokenizer_hash, train_tokenizer as train\n"
        "draw = random.Random(0)\n"
        "words = [''.join(draw.choices('abcdefghijklmnoprstuвгд中文', k=draw.randint(1, 9))) for _ in range(1500)]\n"
        "texts = [' '.join(draw.choices(words, k=12)) for _ in range(800)]\n"
        "print([tokenizer_hash(train(texts, kind, 27 if kind == 'char' else 900)).hex() for kind in KINDS])"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": str(i), "RAYON_NUM_THREADS": str(i)} for i in (1, 2)]
    runs = [
        subprocess.run([sys.executable, "-c", code], env=e, capture_output=True, text=True, check=True)
        for e in environments
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(set(runs[0].stdout.split(","))) == len(KINDS)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "byte"])
@pytest.mark.parametrize("cased", [True, False])
def test_capitals_and_accents_are_kept_or_dropped(kind: Kind, cased: bool) -> None:
    texts = ["Élan vital in Évian, a naïve élan", "Le Café d'Été, le café d'été"] * 20
    tokenizer = train_tokenizer(texts, kind, 400, cased=cased)
    text = "Élan in Évian"
    assert tokenizer.decode(tokenizer.encode(text).ids) == (text if cased else "elan in evian")


def test_only_wordpiece_drops_capitals_unasked() -> None:
    texts = ["The Cat", "the cat"] * 20
    kept = {kind: train_tokenizer(texts, kind, 300).encode("The").ids for kind in KINDS}
    lower = {kind: train_tokenizer(texts, kind, 300).encode("the").ids for kind in KINDS}
    assert [kind for kind in KINDS if kept[kind] == lower[kind]] == ["wordpiece"]


def test_texts_that_can_be_read_only_once_give_the_same_tokenizer() -> None:
    for kind in KINDS:
        once = train_tokenizer((t for t in TEXTS), kind, 300)
        assert tokenizer_hash(once) == tokenizer_hash(train_tokenizer(TEXTS, kind, 300))
