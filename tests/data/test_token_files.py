"""Token files: resumed after an interruption, made by one process at a time; the rows that are cut from them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ssl_suite.core.errors import UserError
from ssl_suite.data.text.corpus import tokens as tokens_module
from ssl_suite.data.text.corpus.rows import Blocks, DocumentPieces, SeparateBlocks
from ssl_suite.data.text.corpus.tokens import HEADER, TokenFile, read_tokens, write_tokens
from ssl_suite.encoders.tokenizer import token_id, tokenizer_hash, train_tokenizer

TEXTS = [f"document {i} " + "word " * (i % 7) + "né" for i in range(60)]
START, END = 2, 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, "wordpiece", 100)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module._chunks, "__defaults__", (60,))  # characters: a few documents a chunk


def texts(first: int) -> Iterator[str]:
    return iter(TEXTS[first:])


def write_slowly(path: Path, tokenizer: str, started: object) -> None:
    """In another process, to be killed: every document takes a moment."""

    def slow(first: int) -> Iterator[str]:
        for text in TEXTS[first:]:
            time.sleep(0.02)
            yield text

    write_tokens(slow, len(TEXTS), Tokenizer.from_str(tokenizer), path, every=0)


# Writing --------------------------------------------------------------------------------------------------------------


def test_a_file_holds_each_document_and_its_end(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    file = read_tokens(tmp_path / "a.tokens", tokenizer)
    wanted = [[*tokenizer.encode(text, add_special_tokens=False).ids, END] for text in TEXTS]
    assert file.tokens.tolist() == [i for document in wanted for i in document]
    assert file.documents == len(TEXTS)
    assert file.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert file.ends().tolist() == (np.cumsum([len(d) for d in wanted]) - 1).tolist()
    assert file.ends(step=7).tolist() == file.ends().tolist()
    assert (tmp_path / "a.tokens").stat().st_size == HEADER.size + 2 * len(file.tokens)


@pytest.mark.parametrize("fail_at", [1, 20, 59])
def test_an_interrupted_file_goes_on_where_it_stopped(fail_at: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    begun = []

    def interrupted(first: int) -> Iterator[str]:
        yield from TEXTS[first:fail_at]
        raise KeyboardInterrupt

    def rest(first: int) -> Iterator[str]:
        begun.append(first)
        return iter(TEXTS[first:])

    with pytest.raises(KeyboardInterrupt):
        write_tokens(interrupted, len(TEXTS), tokenizer, tmp_path / "a.tokens", every=0)
    assert not (tmp_path / "a.tokens").exists()
    write_tokens(rest, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "whole.tokens")
    assert (tmp_path / "a.tokens").read_bytes() == (tmp_path / "whole.tokens").read_bytes()
    assert fail_at - 20 <= begun[0] <= fail_at
    assert begun[0] > 0 or fail_at < 20
    assert list(tmp_path.glob("*.part")) == []


def test_what_a_part_holds_beyond_its_last_mark_is_made_again(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def interrupted(first: int) -> Iterator[str]:
        yield from TEXTS[first:30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(interrupted, len(TEXTS), tokenizer, tmp_path / "a.tokens", every=0)
    with (tmp_path / "a.part").open("ab") as part:
        part.write(b"half a chunk")
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "whole.tokens")
    assert (tmp_path / "a.tokens").read_bytes() == (tmp_path / "whole.tokens").read_bytes()


@pytest.mark.parametrize("damage", [b"", b"\0" * HEADER.size, b"SSLTOKEN" + b"\1" * HEADER.size])
def test_a_damaged_part_is_begun_anew(damage: bytes, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(damage)
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    assert read_tokens(tmp_path / "a.tokens", tokenizer).documents == len(TEXTS)


def test_a_killed_process_leaves_a_part_and_its_successor_finishes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "a.tokens"
    process = context.Process(target=write_slowly, args=(path, tokenizer.to_str(), None))
    process.start()
    while not (path.with_suffix(".part").exists() and path.with_suffix(".part").stat().st_size > 2 * HEADER.size):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not path.exists()
    write_tokens(texts, len(TEXTS), tokenizer, path)  # the dead process's lock is gone with it
    assert read_tokens(path, tokenizer).documents == len(TEXTS)


def test_two_processes_make_one_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "a.tokens"
    processes = [context.Process(target=write_slowly, args=(path, tokenizer.to_str(), None)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "whole.tokens")
    assert path.read_bytes() == (tmp_path / "whole.tokens").read_bytes()


def test_a_bad_document_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def bad(first: int) -> Iterator[str]:
        yield from TEXTS[:30]
        raise UserError("row 31 is bad")

    with pytest.raises(UserError, match="row 31"):
        write_tokens(bad, len(TEXTS), tokenizer, tmp_path / "a.tokens", every=0)
    assert [p.suffix for p in tmp_path.iterdir()] in ([], [".lock"])


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, *_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tokens_module._Part, "append", full)
        with pytest.raises(UserError, match="disk is full"):
            write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    write_tokens(texts, len(TEXTS), tokenizer, tmp_path / "a.tokens")
    assert read_tokens(tmp_path / "a.tokens", tokenizer).documents == len(TEXTS)


def test_special_tokens_in_a_document_are_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    written = ["one [SEP] two", "[MASK] three"]
    write_tokens(lambda first: iter(written[first:]), 2, tokenizer, tmp_path / "a.tokens")
    file = read_tokens(tmp_path / "a.tokens", tokenizer)
    assert len(file.ends()) == 2
    assert token_id(tokenizer, "mask") not in file.tokens
    assert tokenizer.encode("[SEP]", add_special_tokens=False).ids == [END]  # elsewhere as before


def test_a_tokenizer_that_reads_the_end_token_in_a_text_is_refused(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "a": 2}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_tokens(lambda first: iter(["a [SEP] a"]), 1, words, tmp_path / "a.tokens")
    with pytest.raises(UserError, match="end token 1 times"):
        read_tokens(tmp_path / "a.tokens", words).ends()


def test_cutting_and_padding_do_not_make_another_tokenizer(tokenizer: Tokenizer) -> None:
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_truncation(9)
    other.enable_padding(length=9)
    assert tokenizer_hash(other) == tokenizer_hash(tokenizer)
    other.add_tokens(["new"])
    assert tokenizer_hash(other) != tokenizer_hash(tokenizer)


# Cutting --------------------------------------------------------------------------------------------------------------


def file_of(documents: list[list[int]]) -> TokenFile:
    joined = [i for document in documents for i in [*document, END]]
    return TokenFile(np.array(joined, np.uint16), len(documents), 1, END)


def random_documents(n: int = 40, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(10, 99, rng.integers(0, 30)).tolist() for _ in range(n)]


def test_blocks_hold_every_token_after_a_start() -> None:
    documents = random_documents()
    rows = Blocks(file_of(documents), 8, START)
    joined = [i for document in documents for i in [*document, END]]
    found = [rows[i][0].tolist() for i in range(len(rows))]
    assert all(row[0] == START and len(row) == 8 for row in found)
    assert [i for row in found for i in row[1:]] == joined[: len(joined) // 7 * 7]


@pytest.mark.parametrize("length", [1, 5, 8, 64])
def test_separate_blocks_are_whole_documents_end_to_end(length: int) -> None:
    documents = random_documents()
    rows = SeparateBlocks(file_of(documents), length, START)
    joined = [(i, k) for k, document in enumerate(documents) for i in [START, *document, END]]
    assert len(rows) == len(joined) // length
    for index in range(len(rows)):
        ids, which = rows[index]
        part = joined[index * length : (index + 1) * length]
        assert ids.tolist() == [i for i, _ in part]
        assert which.tolist() == [k - part[0][1] for _, k in part]


@pytest.mark.parametrize("length", [2, 8, 16, 64])
def test_windows_hold_each_document_and_nothing_else(length: int) -> None:
    documents = random_documents()
    rows = DocumentPieces(file_of(documents), length, START)
    found: dict[int, list[int]] = {}
    for index in range(len(rows)):
        ids, which = rows[index]
        assert which is None
        assert ids[0] == START
        assert 1 < len(ids) == rows.lengths[index] <= length
        found.setdefault(int(rows.document[index]), []).extend(ids[1:].tolist())
    for number, document in enumerate(documents):
        if not document:
            assert number not in found
        elif len(document) % (length - 1) == 0:  # its end token would stand alone
            assert found[number] == document
        else:
            assert found[number] == [*document, END]
    assert rows.split == sum(len(d) > length - 1 for d in documents)


def test_no_documents_no_rows() -> None:
    for kind in (Blocks, SeparateBlocks, DocumentPieces):
        assert len(kind(TokenFile(np.empty(0, np.uint16), 0, 0, END), 8, START)) == 0
