"""`ssl-suite prepare`: a tokenizer and token files ahead of training, which training then takes as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_suite.cli import main
from ssl_suite.core.data import Request
from ssl_suite.data.text.corpus import corpus as corpus_module
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import KINDS, load_tokenizer, tokenizer_hash


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_and_where_it_comes_from(
    kind: str, text_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", text_file, "--kind", kind, "--vocab_size", "300", "--out", str(tmp_path / "made")]
    assert main(["prepare", "tokenizer", *arguments]) == 0
    made = load_tokenizer(str(tmp_path / "made"))
    told = json.loads((tmp_path / "made/tokenizer_provenance.json").read_text())
    assert (told["source"], told["kind"], told["entries"]) == (text_file, kind, made.get_vocab_size())
    assert told["sha256"] == tokenizer_hash(made).hex()
    assert told["versions"]["tokenizers"]
    data = Text(text_file, tokenizer=kind, vocab_size=300, max_length=16)
    data.serve(Request())
    assert told["fingerprint"] == data.rows["train"].fingerprint
    said = capsys.readouterr().out
    documents = data.rows["validation"].column("text")
    count = sum(len(made.encode(text, add_special_tokens=False).ids) for text in documents)
    assert f"{sum(map(len, documents)) / count:.2f} characters a token" in said
    assert f"on {len(documents)} documents of validation" in said
    assert "0.000% [UNK]" in said


def test_unknown_characters_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, text in (("train", "abab\n" * 20), ("validation", "abΩb\n" * 5)):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text(text)
    out = str(tmp_path / "made")
    assert main(["prepare", "tokenizer", "--source", str(tmp_path), "--kind", "char", "--out", out]) == 0
    assert "25.000% [UNK]" in capsys.readouterr().out


def test_a_tokenizer_of_words_in_lists(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"tokens": ["alpha", "beta"]}\n' * 20)
    arguments = ["--source", str(tmp_path / "a.jsonl"), "--column", "tokens", "--out", str(tmp_path / "made")]
    assert main(["prepare", "tokenizer", *arguments]) == 0
    assert "alpha" in load_tokenizer(str(tmp_path / "made")).get_vocab()


def test_training_takes_prepared_tokens(
    text_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["prepare", "tokenizer", "--source", text_file, "--out", str(tmp_path)]) == 0
    assert main(["prepare", "tokens", "--source", text_file, "--tokenizer", str(tmp_path)]) == 0
    monkeypatch.setattr(corpus_module, "write_tokens", lambda *_: pytest.fail("tokenised again"))
    for options in ({"max_length": 16}, {"pack": False}, {"separate": True, "max_length": 16}):
        data = Text(text_file, tokenizer=str(tmp_path), **options)
        data.serve(Request())
    said = capsys.readouterr().out
    for split in data.splits():
        assert f"{data.token_path(split)}: {split}, " in said
        assert f"{len(data.token_file(split).tokens):,} tokens" in said


def test_mistakes_are_one_sentence(text_file: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    tokenizer, tokens = ("prepare", "tokenizer", "--source"), ("prepare", "tokens", "--source")
    out = ("--out", str(tmp_path / "made"))
    assert "nowhere.txt" in fails(*tokenizer, "nowhere.txt", *out)
    assert "Did you mean text?" in fails(*tokenizer, text_file, "--column", "texd", *out)
    assert "invalid choice: 'wordpeace'" in fails(*tokenizer, text_file, "--kind", "wordpeace", *out)
    assert "required: --source" in fails("prepare", "tokens")
    assert "tokenizer, tokens, units or manifest" in fails("prepare")
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": null}\n')
    assert "a.jsonl, row 2" in fails(*tokens, str(tmp_path / "a.jsonl"), "--tokenizer", "byte")
    assert not (tmp_path / "made").exists()
    assert main([*tokenizer, text_file, *out]) == 0
    assert "already holds a tokenizer" in fails(*tokenizer, text_file, *out)
