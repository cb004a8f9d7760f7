"""Text: blocks without padding, token files that are reused or refused, tags on first pieces, pairs, buckets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.corpus import corpus as corpus_module
from ssl_suite.data.text.corpus.tokens import HEADER, read_tokens, write_tokens
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer

LINES = [f"the {i}th sentence of a small corpus about cats and dogs" for i in range(200)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def served(source: Path | str, request: Request = Request(), **options: Any) -> Text:
    data = Text(str(source), **{"vocab_size": 300, "max_length": 16, **options})
    data.serve(request)
    return data


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Blocks ---------------------------------------------------------------------------------------------------------------


def test_blocks_have_no_padding_and_cover_the_tokens(corpus: Path) -> None:
    data = served(corpus)
    tokenizer = data.tokenizer
    end = tokenizer.token_to_id("[SEP]")
    wanted = [
        i
        for line in data.rows["train"].column("text")
        for i in [*tokenizer.encode(line, add_special_tokens=False).ids, end]
    ]
    blocks = []
    for batch in data.eval_dataloader("train"):
        assert batch.dense
        assert batch.mask.all()
        assert batch.ids.shape[1] == 16
        blocks += batch.ids.tolist()
    assert all(block[0] == tokenizer.token_to_id("[CLS]") for block in blocks)
    joined = [i for block in blocks for i in block[1:]]
    assert joined == wanted[: len(joined)]
    assert len(wanted) - len(joined) < 15  # less than a block is left over
    assert end in joined


def test_without_packing_a_document_is_a_row(corpus: Path) -> None:
    data = served(corpus, pack=False)
    assert data.size("train") + data.size("validation") == 200
    batch = next(iter(data.eval_dataloader("validation")))
    for ids, mask in zip(batch.ids, batch.mask, strict=True):
        assert ids[0] == data.tokenizer.token_to_id("[CLS]")
        assert ids[mask][-1] == data.tokenizer.token_to_id("[SEP]")
        assert (ids[~mask] == data.tokenizer.token_to_id("[PAD]")).all()


def test_a_block_of_separate_documents_names_them(corpus: Path) -> None:
    data = served(corpus, separate=True, max_length=40)
    start, end = (data.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    for batch in data.eval_dataloader("train"):
        assert batch.dense
        assert batch.documents.shape == batch.ids.shape == (len(batch), 40)
        begins = batch.documents[:, 1:] != batch.documents[:, :-1]
        assert (batch.documents[:, 0] == 0).all()
        assert (begins == (batch.ids[:, 1:] == start)).all()
        assert (begins == (batch.ids[:, :-1] == end)).all()
    assert begins.any()
    assert served(corpus).collate([served(corpus).read("train", 0, 0)]).documents is None


def test_a_long_document_takes_several_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"id": f"d{n}", "text": "word " * n} for n in (2, 30, 16)] * 4)
    data = served(path, pack=False, max_length=16)
    rows = [data.read("train", i, 0).ids.tolist() for i in range(data.size("train"))]
    word, start, end = (data.tokenizer.token_to_id(name) for name in ("word", "[CLS]", "[SEP]"))
    assert [start] + [word] * 2 + [end] in rows
    assert [start] + [word] * 15 in rows
    assert [start, word, end] in rows  # what 16 words leave over
    assert sum(row.count(word) for row in rows) == sum(len(t.split()) for t in data.rows["train"].column("text"))
    names = data.ids("train")
    assert names.count("d30") == 2 * data.rows["train"].column("id").count("d30")
    kept = served(path, pack=False, max_length=16, split_long=False)
    with pytest.warns(UserWarning, match="rows are longer than 16 tokens and were cut"):
        assert len(kept.lengths("train")) == kept.size("train") == len(kept.rows["train"])


@pytest.mark.parametrize("pack", [True, False])
def test_tokens_a_byte_counts_raw_text(pack: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ünïcode wörds\n" * 40, encoding="utf-8")
    data = served(path, pack=pack, tokenizer="byte")
    assert data.tokens_per_byte("train") == 17 / 16  # 13 characters in 16 bytes, and the end token
    assert served(path, Request(target="class"), target="text").tokens_per_byte("train") is None


@pytest.mark.parametrize("options", [{"pack": True}, {"pack": False}, {"separate": True}])
def test_masks_are_the_same_for_any_workers_and_batch_size(options: dict[str, bool], corpus: Path) -> None:
    from tiny import bert_mask

    def masks(**loading: int) -> dict[tuple[int, int], list[int]]:
        data = served(corpus, **options, **loading)
        special = torch.arange(5)
        found = {}
        for epoch in range(2):
            data._position = lambda epoch=epoch: epoch * len(data.train_batches(0))  # where a run would stand
            for batch in data.train_dataloader():
                ids, _ = bert_mask(batch, special, 4, 261, 0.15)
                for row, index in enumerate(batch.index.tolist()):
                    found[epoch, index] = ids[row][batch.mask[row]].tolist()
        return found

    one = masks(batch_size=1)
    many = masks(batch_size=8, num_workers=2)
    assert many.keys() <= one.keys()
    assert len(many) > 0.8 * len(one)
    assert all(one[key] == row for key, row in many.items())
    assert one[0, 0] != one[1, 0]


# Token files ----------------------------------------------------------------------------------------------------------


def lines(first: int) -> Iterator[str]:
    return iter(LINES[first:])


def token_files() -> list[Path]:
    return sorted(Path(os.environ["SSL_SUITE_CACHE"]).glob("tokens/*.tokens"))


def test_a_token_takes_two_bytes(corpus: Path) -> None:
    data = served(corpus)
    sizes = sum(path.stat().st_size for path in token_files())
    count = sum(len(data.token_file(split).tokens) for split in data.splits())
    assert sizes <= 2.2 * count
    assert isinstance(data.token_file("train").tokens, np.memmap)


def test_tokens_are_used_again_until_text_or_tokenizer_change(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(corpus)
    before = {path: path.stat().st_mtime_ns for path in token_files()}
    assert len(before) == 2
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "write_tokens", lambda *_: pytest.fail("tokenised again"))
        served(corpus)
    assert {path: path.stat().st_mtime_ns for path in token_files()} == before
    served(corpus, tokenizer="bpe")
    assert len(token_files()) == 4
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join(reversed(lines)))
    data = served(corpus)
    first = data.tokenizer.decode(data.token_file("train").tokens[:12].tolist())
    assert "19" in first  # as many rows of the same lengths, in another order


def test_another_column_of_one_table_is_another_text(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"a": f"alpha {i} " * 5, "b": f"omega {i} " * 5} for i in range(50)])
    first, second = (served(path, column=c) for c in "ab")
    assert "alpha" in first.tokenizer.get_vocab()
    assert "omega" in second.tokenizer.get_vocab()
    assert "omega" in second.tokenizer.decode(second.token_file("train").tokens[:10].tolist())


def test_a_damaged_token_file_is_refused(corpus: Path) -> None:
    served(corpus)
    for path in token_files():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is cut short; delete it"):
        served(corpus)
    for path in token_files():
        path.write_bytes(b"not tokens")
    with pytest.raises(UserError, match="is not a token file"):
        served(corpus)


def test_tokens_of_another_tokenizer_or_version_are_refused(tmp_path: Path) -> None:
    first, second = train_tokenizer(LINES, "wordpiece", 200), train_tokenizer(LINES, "wordpiece", 100)
    path = tmp_path / "a.tokens"
    write_tokens(lines, len(LINES), first, path)
    assert read_tokens(path, first).tokens[-1] == first.token_to_id("[SEP]")
    with pytest.raises(UserError, match="another tokenizer"):
        read_tokens(path, second)
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(UserError, match="version 2"):
        read_tokens(path, first)


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(LINES, "char", 60)
    tokenizer.add_tokens([f"t{i}" for i in range(70_000)])
    write_tokens(lambda k: iter(["t69999 t1"]), 1, tokenizer, tmp_path / "a.tokens")
    tokens = read_tokens(tmp_path / "a.tokens", tokenizer).tokens
    assert tokens.dtype == np.uint32
    assert tokenizer.token_to_id("t69999") in tokens
    assert (tmp_path / "a.tokens").stat().st_size == HEADER.size + 4 * len(tokens)


# Tasks ----------------------------------------------------------------------------------------------------------------


def test_tags_stand_on_first_pieces_only(tmp_path: Path) -> None:
    pack = Path(corpus_module.__file__).parents[2] / "samples/brown/validation.parquet"
    pq.write_table(pq.read_table(pack).slice(0, 300), tmp_path / "brown.parquet")
    data = served(
        tmp_path / "brown.parquet",
        Request(target="tags"),
        column="tokens",
        target="tags",
        max_length=64,
        vocab_size=500,
    )
    rows = data.rows["validation"]
    batch = next(iter(data.eval_dataloader("validation")))
    for row, index in enumerate(batch.index.tolist()):
        words, tags = rows[index]["tokens"], rows[index]["tags"]
        encoding = data.tokenizer.encode(words, is_pretokenized=True)
        word_ids = encoding.word_ids[:63]
        starts = [t for t, w in enumerate(word_ids) if w is not None and w != word_ids[t - 1]]
        target, beyond = batch.target[row].split([64, batch.target.shape[1] - 64])
        assert target[starts].tolist() == tags[: len(starts)]
        others = torch.ones(len(target), dtype=torch.bool)
        others[starts] = False
        assert (target[others] == IGNORE).all()
        assert beyond[beyond != IGNORE].tolist() == tags[len(starts) :]  # of the words that were cut off
    assert batch.ids.shape[1] == 64


def test_a_pair_has_two_segments(tmp_path: Path) -> None:
    vocabulary = str(tmp_path / "tokenizer.json")
    train_tokenizer(["first second words"] * 9, "wordpiece", 100).save(vocabulary)
    rows = [{"a": "first words", "b": "second words", "label": "x"}] * 3
    data = served(
        write_rows(tmp_path / "p.jsonl", rows), Request(target="class"), column="a", pair="b", tokenizer=vocabulary
    )
    batch = next(iter(data.eval_dataloader("train")))
    tokenizer, end = data.tokenizer, data.tokenizer.token_to_id("[SEP]")
    ids, segments = batch.ids[0][batch.mask[0]], batch.segments[0][batch.mask[0]]
    assert (ids == end).sum() == 2
    cut = int((ids == end).nonzero()[0]) + 1
    assert segments.tolist() == [0] * cut + [1] * (len(ids) - cut)
    assert tokenizer.decode(ids[:cut].tolist()) == "first words"
    assert tokenizer.decode(ids[cut:].tolist()) == "second words"


def test_rows_that_are_cut_are_counted(tmp_path: Path) -> None:
    rows = [{"text": "word " * n, "label": "x"} for n in (2, 50, 60)]
    data = served(write_rows(tmp_path / "p.jsonl", rows), Request(target="class"))
    with pytest.warns(UserWarning, match="2 of 3 rows are longer than 16 tokens"):
        assert max(data.lengths("train")) == 16


def test_training_batches_hold_similar_lengths_and_every_row_once() -> None:
    data = served("samples:sentences", Request(target="class"), max_length=64, batch_size=32)
    lengths = np.array(data.lengths("train"))
    batches = data.train_batches(0)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.1 * lengths.sum()
    assert batches != data.train_batches(1)
    assert batches == data.train_batches(0)


def test_an_encoders_tokenizer_decides(corpus: Path) -> None:
    own = train_tokenizer(LINES, "char", 60)
    assert served(corpus, Request(tokenizer=own)).tokenizer is own


def test_a_tokenizer_that_pads_by_itself_is_kept_from_it(tmp_path: Path) -> None:
    own = train_tokenizer(LINES, "wordpiece", 100)
    own.enable_padding(length=40)
    own.save(str(tmp_path / "tokenizer.json"))
    rows = write_rows(tmp_path / "p.jsonl", [{"text": "cats and dogs", "label": "x"}])
    data = served(rows, Request(target="class"), tokenizer=str(tmp_path / "tokenizer.json"))
    assert data.lengths("train")[0] < 10


# Longer than the encoder reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["class", "tags"])
def test_rows_of_every_split_are_cut_at_what_the_encoder_reads(target: Any, tmp_path: Path) -> None:
    for split, long in (("train", 3), ("test", 2999)):
        words = ["good"] * (long + 1)
        rows = [{"text": words if target == "tags" else " ".join(words), "label": ["A", "B"] * ((long + 1) // 2)}] * 2
        if target == "class":
            rows = [{**row, "label": "AB"[i]} for i, row in enumerate(rows)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Text(str(tmp_path), max_length=4000, tokenizer="byte")
    data.serve(Request(target=target, longest=64))
    with pytest.warns(UserWarning, match="test.jsonl: 2 of 2 rows are longer than 64 tokens and were cut"):
        batch = data.collate([data.read("test", i, 0) for i in range(2)])
    assert batch.ids.shape == (2, 64)


def test_blocks_longer_than_the_encoder_reads_are_refused(text_file: str) -> None:
    with pytest.raises(UserError, match=r"data\.max_length is 128, the encoder reads 64; lower it"):
        Text(text_file, max_length=128, tokenizer="byte").serve(Request(longest=64))
