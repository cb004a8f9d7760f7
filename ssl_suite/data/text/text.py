"""Text: documents to pretrain on, packed into blocks; sentences, pairs and tagged words to fine-tune on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from tokenizers import Encoding, Tokenizer

from ssl_suite.core.batch import Target, TextBatch, lengths_to_mask, padded, stacked, tensors_of
from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import default_cache
from ssl_suite.core.sampler import bucketed_batches
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.text.learned import learned_tokenizer
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.pairs import SentencePairs, sentence_stream
from ssl_suite.data.text.rows import Blocks, DocumentPieces, SeparateBlocks, TokenRows
from ssl_suite.data.text.symbols import Symbols, check_letters, check_words, spell
from ssl_suite.data.text.tokens import VERSION, TokenFile, read_tokens, write_tokens
from ssl_suite.data.text.words import encode_words, expect_words, first_pieces, place
from ssl_suite.encoders.tokenizer import KINDS, Kind, load_tokenizer, token_id, tokenizer_hash
from ssl_suite.encoders.vocabulary import Again


@dataclass
class TextItem:
    """One sequence: ids, segments and documents (T,), and where it belongs; the first piece of each tagged word."""

    index: int
    seed: int
    ids: NDArray[Any]
    segments: NDArray[Any] | None
    target: Target | None
    documents: NDArray[Any] | None = None
    pair: int | None = None
    units: NDArray[Any] | None = None
    first: list[int | None] | None = None


class Text(SourceData):
    """Text from a folder of .txt files, one .txt file, jsonl, parquet, csv, `samples:NAME` or `hf:NAME`.

    Tagged words also from CoNLL-U (.conllu: columns tokens, upos, ...) and BIO files (.conll, .bio: tokens, tags).

    Without a task, documents are tokenised once into a file of two bytes a token, then joined (each closed by the end
    token) and cut into blocks of `max_length`: no padding. Without packing, each document is a row, or several if it
    is long. For a method with a second objective (`pairs`), each is cut into chunks of sentences, see `SentencePairs`.
    With a task, each row is one sequence. Rows of unequal length are batched by length, their padding masked.

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
        cased: whether a tokenizer to train keeps capitals and accents; None: all kinds but wordpiece do.
        max_length: tokens a block, or at most a row; rows of a task are also cut at what the encoder reads.
        pack: join documents for pretraining; otherwise one document a row.
        separate: let no token of a block see another document: each one begins with a start token, at position 0.
        split_long: without packing, spread a document longer than `max_length` over several rows; otherwise, and
            always for a task, it is cut.
        batch_size: sequences a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        files: `train`, `validation`, `test`, `delimiter` and `header` of `SourceData`; `on_error: skip` leaves out rows
            without a text.
    """

    modality = "text"
    knows_units = False
    """Whether rows come with units to mask whole, see `units`."""

    def __init__(
        self,
        source: str,
        column: str = "text",
        pair: str | None = None,
        target: str | dict[str, str] = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        symbols: Symbols | None = None,
        tokenizer: Kind | str = "wordpiece",
        vocab_size: int = 8192,
        cased: bool | None = None,
        max_length: int = 128,
        pack: bool = True,
        separate: bool = False,
        split_long: bool = True,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        **files: Any,
    ) -> None:
        super().__init__(
            source,
            target,
            where,
            labels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            **files,
        )
        within("data.vocab_size", vocab_size, low=1, whole=True)
        within("data.max_length", max_length, low=2, whole=True)
        self.input_column = column
        self.pair, self.wanted_tokenizer, self.vocab_size, self.cased = pair, tokenizer, vocab_size, cased
        self.max_length, self.pack, self.separate, self.split_long = max_length, pack, separate, split_long
        self.longest = max_length
        self.symbols = symbols
        self.tokenizer: Tokenizer | None = None
        self._files: dict[str, TokenFile] = {}
        self._rows: dict[str, TokenRows | SentencePairs] = {}
        self._encoded: dict[str, list[TextItem]] = {}

    def folder_reader(self) -> FolderReader:
        return list_text

    def prepare(self, request: Request) -> None:
        if request.units and not self.knows_units:
            raise UserError(f"{type(self).__name__} knows no phrases and entities to mask; use data: Phrases.")
        super().prepare(request)
        self._files.clear()
        self._rows.clear()
        self._encoded.clear()
        self.pairs, self.with_units = request.pairs, request.units
        pretraining = request.target is None and not request.units
        self.streaming = pretraining and (self.pack or self.split_long or request.pairs is not None)
        self.tagging = "tags" in request.kinds or request.units  # rows are lists of words
        self.longest = min(self.max_length, request.longest or self.max_length)
        if self.streaming and self.longest < self.max_length:
            raise UserError(
                f"data.max_length is {self.max_length}, the encoder reads {self.longest}; lower it to that."
            )
        if self.symbols is not None and (self.streaming or self.tagging):
            raise UserError("symbols spells the rows of a task on whole sequences; leave it out here.")
        if not self.streaming:
            for split in self.splits():
                self._check(split)
        self.tokenizer = request.tokenizer or self.tokenizer or self._make_tokenizer()
        self._expect_same(request.tokenizer)
        self.tokenizer.no_padding()  # batches pad themselves
        self.tokenizer.no_truncation()
        if self.symbols is not None:
            check_words(self.tokenizer, self.symbols)
        size = self.tokenizer.get_vocab_size()
        if request.vocab_size is not None and size > request.vocab_size:
            raise UserError(f"The tokenizer has {size} entries, the encoder only {request.vocab_size} (vocab_size).")
        if self.streaming:
            for split in self.splits():
                self._files[split] = self._tokenise(split)
                self._rows[split] = self._cut(split)

    def _expect_same(self, encoders: Tokenizer | None) -> None:
        """Raises UserError where the encoder brings a tokenizer and the data name another."""
        wanted = self.wanted_tokenizer
        if encoders is None or wanted in KINDS:
            return
        if tokenizer_hash(load_tokenizer(wanted)) != tokenizer_hash(encoders):
            raise UserError(
                f"The encoder was trained with another tokenizer than {wanted}; leave data.tokenizer out to use that."
            )

    def _texts(self, split: str, column: str, start: int = 0, words: bool = False) -> Iterator[Any]:
        """Values of a column from row `start` on; raises UserError at the first that is no text (or list of words)."""
        rows, kind = self.rows[split], list if words else str
        for i, value in enumerate(rows.values(column, start), start):
            if not isinstance(value, kind):
                wanted = "a list of words" if words else "a text"
                raise UserError(f"{rows.where(i)}: {column!r} holds {repr(value)[:60]}, not {wanted}.")
            yield value

    def _check(self, split: str) -> None:
        """Raises UserError at the first row without a text (or, for tagging, without a tag for each word)."""
        rows = self.rows[split]
        for column in [self.input_column, *([self.pair] if self.pair else [])]:
            for i, value in enumerate(self._texts(split, column, words=self.tagging)):
                if self.tagging:
                    expect_words(rows, i, value)
            if self.symbols is not None:
                check_letters(rows, column, self.symbols)
        if self.tagging and self.targets is not None and self.has_targets(split):
            for i, words in enumerate(rows.column(self.input_column)):
                for tags in tensors_of(self.targets[split, i]):
                    if tags.ndim and len(words) != (n := len(tags)):
                        raise UserError(f"{rows.where(i)}: {len(words)} words but {n} tags; each word needs one.")

    def _make_tokenizer(self) -> Tokenizer:
        if self.wanted_tokenizer not in KINDS:
            return load_tokenizer(self.wanted_tokenizer)
        self._expect("train")
        fingerprint = f"{self.rows['train'].fingerprint}|{self.input_column}"
        texts = Again(partial(self.texts, "train"))
        return learned_tokenizer(texts, fingerprint, self.wanted_tokenizer, self.vocab_size, self.cased)

    def texts(self, split: str) -> Iterator[str]:
        """The documents of a split, for a tokenizer to learn from; lists of words are joined."""
        words = isinstance(next(self.rows[split].values(self.input_column), None), list)
        texts = self._texts(split, self.input_column, words=words)
        return (text if isinstance(text, str) else " ".join(text) for text in texts)

    def token_file(self, split: str) -> TokenFile:
        """The tokens of a split that pretraining rows are cut from."""
        return self._files[split]

    def token_path(self, split: str) -> Path:
        """Where a split's token file is kept, once the data are served; another text or tokenizer has another."""
        assert self.tokenizer is not None
        unit = "sentences" if self.pairs else "documents"
        tokenizer = tokenizer_hash(self.tokenizer).hex()
        made_from = (VERSION, self.rows[split].fingerprint, self.input_column, tokenizer, unit)
        key = hashlib.sha256("|".join(map(str, made_from)).encode()).hexdigest()
        return default_cache() / "tokens" / f"{key[:24]}.tokens"

    def _tokenise(self, split: str) -> TokenFile:
        assert self.tokenizer is not None
        path, rows = self.token_path(split), self.rows[split]
        if not path.exists():
            texts = partial(self._texts, split, self.input_column)
            if self.pairs:
                write_tokens(lambda k: islice(sentence_stream(texts()), k, None), None, self.tokenizer, path)
            else:
                write_tokens(texts, len(rows), self.tokenizer, path)
        return read_tokens(path, self.tokenizer)

    def _cut(self, split: str) -> TokenRows | SentencePairs:
        """The rows that a token file gives."""
        assert self.tokenizer is not None
        file, name, start = self._files[split], self.rows[split].name, token_id(self.tokenizer, "start")
        if self.pairs:
            return SentencePairs(file, start, self.max_length, self.pairs, name)
        kind: type[TokenRows] = DocumentPieces if not self.pack else SeparateBlocks if self.separate else Blocks
        rows = kind(file, self.max_length, start)
        if len(rows) == 0:
            raise UserError(f"{name} has {len(file.tokens)} tokens, fewer than one block of {self.max_length}.")
        if isinstance(rows, DocumentPieces) and rows.split:
            rank_zero_info(
                f"{name}: {rows.split} of {file.documents} documents are longer than {self.max_length} tokens "
                "and were spread over several rows."
            )
        return rows

    def tokens_per_byte(self, split: str) -> float | None:
        file = self._files.get(split)
        return len(file.tokens) / file.text_bytes if file and file.text_bytes else None

    def size(self, split: str) -> int:
        return len(self._rows[split]) if self.streaming else len(self.rows[split])

    def ids(self, split: str) -> list[str]:
        if not self.streaming:
            return super().ids(split)
        document = self._rows[split].document
        if document is None:
            return [str(i) for i in range(self.size(split))]
        names = super().ids(split)
        return [names[d] for d in document]

    def read(self, split: str, index: int, seed: int) -> TextItem:
        if self.streaming:
            rows = self._rows[split]
            if isinstance(rows, SentencePairs):
                ids, segments, pair = rows.make(index, seed)
                return TextItem(index, seed, ids, segments, None, pair=pair)
            watched = self.targets is not None and rows.document is not None
            target = self.target(split, index) if watched else None
            ids, documents = rows[index]
            return TextItem(index, seed, ids, None, target, documents)
        item = self._encode(split)[index]
        item.seed = seed
        return item

    def _encode(self, split: str) -> list[TextItem]:
        """All rows of a split as ids, once."""
        if split not in self._encoded:
            assert self.tokenizer is not None
            rows = self.rows[split]
            columns = [rows.column(c) for c in (self.input_column, self.pair) if c is not None]
            if self.symbols is not None:
                columns = [[spell(text, self.symbols) for text in column] for column in columns]
            inputs = list(zip(*columns, strict=True)) if self.pair else columns[0]
            self.tokenizer.enable_truncation(self.longest)
            if self.tagging:
                encodings = encode_words(self.tokenizer, inputs)
            else:
                encodings = self.tokenizer.encode_batch(inputs, is_pretokenized=self.symbols is not None)
            self.tokenizer.no_truncation()
            self._encoded[split] = [
                TextItem(
                    i,
                    0,
                    np.asarray(e.ids),
                    np.asarray(e.type_ids) if self.pair else None,
                    self._target(split, i),
                    units=self.units(split, i, e.word_ids) if self.with_units else None,
                )
                for i, e in enumerate(encodings)
            ]
            lost = self._place_tags(columns[0], encodings, self._encoded[split]) if self.tagging else 0
            cut = sum(bool(e.overflowing) for e in encodings)
            if cut:
                rank_zero_warn(
                    f"{rows.name}: {cut} of {len(rows)} rows are longer than {self.longest} tokens and were cut."
                    + f" The {lost} words cut off are not learned from and count as wrongly tagged." * bool(lost)
                )
        return self._encoded[split]

    def units(self, split: str, index: int, words: list[int | None]) -> NDArray[np.bool_]:
        """(2, T): where a phrase and where an entity begins; a word outside them is a unit of its own.

        Args:
            split: of the row.
            index: of the row.
            words: number of each token's word, None for special tokens.
        """
        raise NotImplementedError

    def _place_tags(self, texts: list[list[str]], encodings: list[Encoding], items: list[TextItem]) -> int:
        """Moves each tag to the first piece of its word; returns how many words are cut off."""
        for words, encoding, item in zip(texts, encodings, items, strict=True):
            item.first = first_pieces(encoding, len(words))
            if item.target is not None:
                item.target = place(item.target, item.first, len(item.ids))
        return sum(item.first.count(None) for item in items if item.first)

    def _target(self, split: str, index: int) -> Target | None:
        return self.targets[split, index] if self.targets is not None and self.has_targets(split) else None

    def answer(self, split: str, index: int, answer: Any) -> Any:
        """Of tagging: the tag of each word, None for one that is cut off."""
        first = self._encode(split)[index].first if self.tagging else None
        return answer if first is None else [None if t is None else answer[t] for t in first]

    def target(self, split: str, index: int) -> Target:
        if self.streaming:
            document = self._rows[split].document
            assert document is not None
            return super().target(split, int(document[index]))
        target = self._encode(split)[index].target
        assert target is not None
        return target

    def lengths(self, split: str) -> Sequence[float] | None:
        return self._rows[split].lengths if self.streaming else [len(item.ids) for item in self._encode(split)]

    def train_batches(self, epoch: int) -> list[list[int]]:
        lengths = self.lengths("train")
        if lengths is None:
            return super().train_batches(epoch)
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def collate(self, items: list[TextItem]) -> TextBatch:
        assert self.tokenizer is not None
        lengths = torch.tensor([len(i.ids) for i in items])
        longest = int(lengths.max())
        ids = padded([i.ids for i in items], longest, token_id(self.tokenizer, "pad"))
        segments = padded([i.segments for i in items if i.segments is not None], longest, 0)
        documents = padded([i.documents for i in items if i.documents is not None], longest, 0)
        units = [np.pad(i.units, ((0, 0), (0, longest - len(i.ids)))) for i in items if i.units is not None]
        return TextBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            stacked([i.target for i in items if i.target is not None]),
            ids,
            lengths_to_mask(lengths, longest),
            segments=segments if len(segments) else None,
            documents=documents if len(documents) else None,
            dense=bool((lengths == longest).all()),
            pair=torch.tensor([i.pair for i in items]) if items[0].pair is not None else None,
            units=torch.from_numpy(np.stack(units)) if units else None,
        )

    def fingerprint(self, split: str) -> str:
        assert self.tokenizer is not None
        options = f"{self.input_column}|{self.pair}|{self.longest}|{self.symbols}|{self.tagging}"
        return f"{super().fingerprint(split)}|{options}|{tokenizer_hash(self.tokenizer).hex()}"
