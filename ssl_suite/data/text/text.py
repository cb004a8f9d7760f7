"""Text: documents to pretrain on, packed into blocks; sentences, pairs and tagged words to fine-tune on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Tokenizer
from torch import Tensor

from ssl_suite.core.batch import IGNORE, TextBatch, lengths_to_mask
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import default_cache, pad_targets
from ssl_suite.core.folder import replacing
from ssl_suite.core.sampler import bucketed_batches
from ssl_suite.data.common.module import SourceData
from ssl_suite.data.common.source import FolderReader, columns_of, read_lines, read_rows
from ssl_suite.data.text.symbols import Symbols, check_letters, check_words, spell
from ssl_suite.data.text.tokens import read_tokens, tokenizer_hash, write_tokens
from ssl_suite.encoders.tokenizer import Kind, load_tokenizer, token_id, train_tokenizer


@dataclass
class Item:
    """One sequence: ids and segments (T,), and where it belongs."""

    index: int
    seed: int
    ids: NDArray[Any]
    segments: NDArray[Any] | None
    target: Tensor | None


class Text(SourceData):
    """Text from a folder of .txt files, one .txt file, jsonl, parquet, csv, `samples:NAME` or `hf:NAME`.

    Without a task, documents are joined (each closed by the end token) and cut into blocks of `max_length`: no padding.
    With a task, each row is one sequence, batches hold similar lengths, and padding is masked.

    Args:
        source: where the text is.
        column: of the text; of a list of words for tagging.
        pair: column of the second sequence, for tasks on pairs.
        target: column of the target.
        where: keep only rows with these values.
        labels: number of labelled training rows to use.
        symbols: for rows that are no text: letter → word of the encoder's vocabulary, each letter one token;
            {A: we, C: you, G: he, T: she} for DNA.
        tokenizer: a tokenizer.json, an encoder folder, or the kind to train on the training split: wordpiece, bpe,
            unigram, char or byte. An encoder that brings its own decides.
        vocab_size: of a tokenizer to train.
        max_length: tokens a block, or at most a row.
        pack: join documents for pretraining; otherwise one document a row, cut at `max_length`.
        batch_size: sequences a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        cache_features: keep frozen features on disk.
    """

    modality = "text"

    def __init__(
        self,
        source: str,
        column: str = "text",
        pair: str | None = None,
        target: str = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        symbols: Symbols | None = None,
        tokenizer: Kind | str = "wordpiece",
        vocab_size: int = 8192,
        max_length: int = 128,
        pack: bool = True,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        cache_features: bool = True,
    ) -> None:
        super().__init__(
            source,
            target,
            where,
            labels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            cache_features=cache_features,
        )
        self.input_column = column
        self.pair, self.wanted_tokenizer, self.vocab_size = pair, tokenizer, vocab_size
        self.max_length, self.pack, self.symbols = max_length, pack, symbols
        self.tokenizer: Tokenizer | None = None
        self._tokens: dict[str, NDArray[Any]] = {}
        self._encoded: dict[str, list[Item]] = {}

    def folder_reader(self) -> FolderReader:
        return list_text

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._tokens.clear()
        self._encoded.clear()
        self.blocks = request.target is None and self.pack
        self.tagging = request.target == "tags"
        if self.symbols is not None and (self.blocks or self.tagging):
            raise UserError("symbols spells the rows of a task on whole sequences; leave it out here.")
        if not self.blocks:
            for split in self.splits():
                self._check(split)
        self.tokenizer = request.tokenizer or self.tokenizer or self._make_tokenizer()
        self.tokenizer.no_padding()  # batches pad themselves
        if self.symbols is not None:
            check_words(self.tokenizer, self.symbols)
        size = self.tokenizer.get_vocab_size()
        if request.vocab_size is not None and size > request.vocab_size:
            raise UserError(f"The tokenizer has {size} entries, the encoder only {request.vocab_size} (vocab_size).")
        if self.blocks:
            for split in self.splits():
                self._tokens[split] = self._tokenise(split)

    def _check(self, split: str) -> None:
        """Raises UserError at the first row without a text (or, for tagging, without a tag for each word)."""
        rows, kind = self.rows[split], list if self.tagging else str
        for column in [self.input_column, *([self.pair] if self.pair else [])]:
            for i, value in enumerate(rows.column(column)):
                if not isinstance(value, kind):
                    wanted = "a list of words" if self.tagging else "a text"
                    raise UserError(f"{rows.where(i)}: {column!r} holds {repr(value)[:60]}, not {wanted}.")
            if self.symbols is not None:
                check_letters(rows, column, self.symbols)
        if self.tagging and self.targets is not None:
            for i, words in enumerate(rows.column(self.input_column)):
                if len(words) != (tags := len(self.targets.encoded[split][i])):
                    raise UserError(f"{rows.where(i)}: {len(words)} words but {tags} tags; each word needs one.")

    def _make_tokenizer(self) -> Tokenizer:
        if self.wanted_tokenizer not in ("wordpiece", "bpe", "unigram", "char", "byte"):
            return load_tokenizer(self.wanted_tokenizer)
        key = f"{self.rows['train'].fingerprint}|{self.input_column}|{self.wanted_tokenizer}|{self.vocab_size}"
        path = default_cache() / "tokenizers" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        if not path.exists():
            self._check("train")
            texts = [t if isinstance(t, str) else " ".join(t) for t in self.rows["train"].column(self.input_column)]
            trained = train_tokenizer(texts, self.wanted_tokenizer, self.vocab_size)
            with replacing(path) as temporary:
                trained.save(str(temporary))
        return load_tokenizer(str(path))

    def _tokenise(self, split: str) -> NDArray[Any]:
        assert self.tokenizer is not None
        rows = self.rows[split]
        key = f"{rows.fingerprint}|{self.input_column}|{tokenizer_hash(self.tokenizer).hex()}"
        path = default_cache() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.tokens"
        if not path.exists():
            self._check(split)
            write_tokens(iter(rows.column(self.input_column)), self.tokenizer, path)
        tokens = read_tokens(path, self.tokenizer)
        if len(tokens) < self.max_length - 1:
            raise UserError(f"{rows.name} has {len(tokens)} tokens, fewer than one block of {self.max_length}.")
        return tokens

    def size(self, split: str) -> int:
        if self.blocks:
            return len(self._tokens[split]) // (self.max_length - 1)  # one place of a block is the start token's
        return len(self.rows[split])

    def ids(self, split: str) -> list[str]:
        return [str(i) for i in range(self.size(split))] if self.blocks else super().ids(split)

    def read(self, split: str, index: int, seed: int) -> Item:
        assert self.tokenizer is not None
        if self.blocks:
            step = self.max_length - 1
            block = self._tokens[split][index * step : (index + 1) * step]
            return Item(index, seed, np.concatenate([[token_id(self.tokenizer, "start")], block]), None, None)
        item = self._encode(split)[index]
        item.seed = seed
        return item

    def _encode(self, split: str) -> list[Item]:
        """All rows of a split as ids, once."""
        if split not in self._encoded:
            assert self.tokenizer is not None
            rows = self.rows[split]
            columns = [rows.column(c) for c in (self.input_column, self.pair) if c is not None]
            if self.symbols is not None:
                columns = [[spell(text, self.symbols) for text in column] for column in columns]
            inputs = list(zip(*columns, strict=True)) if self.pair else columns[0]
            self.tokenizer.enable_truncation(self.max_length)
            encodings = self.tokenizer.encode_batch(inputs, is_pretokenized=self.tagging or self.symbols is not None)
            self.tokenizer.no_truncation()
            self._encoded[split] = [
                Item(
                    i,
                    0,
                    np.asarray(e.ids),
                    np.asarray(e.type_ids) if self.pair else None,
                    self._target(split, i, e.word_ids),
                )
                for i, e in enumerate(encodings)
            ]
            cut = sum(bool(e.overflowing) for e in encodings)
            if cut:
                rank_zero_warn(
                    f"{rows.name}: {cut} of {len(rows)} rows are longer than {self.max_length} tokens and were cut."
                )
        return self._encoded[split]

    def _target(self, split: str, index: int, words: list[int | None]) -> Tensor | None:
        """Of tags: on the first piece of each word, `IGNORE` elsewhere."""
        if self.targets is None:
            return None
        target = self.targets[split, index]
        if not self.tagging:
            return target
        placed = torch.full((len(words),), IGNORE)
        for t, word in enumerate(words):
            if word is not None and (t == 0 or words[t - 1] != word):
                placed[t] = target[word]
        return placed

    def target(self, split: str, index: int) -> Tensor:
        target = self._encode(split)[index].target
        assert target is not None
        return target

    def lengths(self, split: str) -> Sequence[float] | None:
        return None if self.blocks else [len(item.ids) for item in self._encode(split)]

    def train_batches(self, epoch: int) -> list[list[int]]:
        lengths = self.lengths("train")
        if lengths is None:
            return super().train_batches(epoch)
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def collate(self, items: list[Item]) -> TextBatch:
        assert self.tokenizer is not None
        lengths = torch.tensor([len(i.ids) for i in items])
        longest = int(lengths.max())
        ids = torch.full((len(items), longest), token_id(self.tokenizer, "pad"))
        segments = torch.zeros_like(ids) if items[0].segments is not None else None
        for row, item in enumerate(items):
            ids[row, : len(item.ids)] = torch.from_numpy(item.ids.astype(np.int64))
            if segments is not None:
                segments[row, : len(item.ids)] = torch.from_numpy(item.segments)
        targets = [i.target for i in items if i.target is not None]
        target = pad_targets(targets) if targets else None
        return TextBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            target,
            ids,
            lengths_to_mask(lengths, longest),
            segments,
            dense=bool((lengths == longest).all()),
        )

    def fingerprint(self, split: str) -> str:
        assert self.tokenizer is not None
        options = f"{self.input_column}|{self.pair}|{self.max_length}|{self.symbols}"
        return f"{super().fingerprint(split)}|{options}|{tokenizer_hash(self.tokenizer).hex()}"


def list_text(folder: Path) -> dict[str, list[Any]]:
    """Documents of all .txt files below a folder; a table is read as it is.

    Raises:
        UserError: there is none, one is empty of text, or one is not UTF-8.
    """
    if folder.is_file():
        return columns_of(read_rows(folder))
    paths = sorted(folder.rglob("*.txt"))
    if not paths:
        raise UserError(f"{folder} holds no .txt files and no table named after a split.")
    documents = [document for path in paths for document in read_lines(path)]
    if not documents:
        raise UserError(f"{folder}: every .txt file is empty.")
    return {"text": documents}
