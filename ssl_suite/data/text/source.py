"""TextSource: a source of text and the tokenizer it is read with, whatever its items are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from tokenizers import Tokenizer

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.sampler import bucketed_batches
from ssl_suite.core.seq2seq import Seq2SeqItem, collate_pairs
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.text.items import collate
from ssl_suite.data.text.learned import learned_tokenizer
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.values import texts_of
from ssl_suite.encoders.tokenizer import KINDS, Kind, load_tokenizer, token_id, tokenizer_hash
from ssl_suite.encoders.vocabulary import Again


def encoders_tokenizer(request: Request, reader: str) -> Tokenizer:
    """The tokenizer that comes with the encoder, which neither pads nor cuts from now on.

    Raises:
        UserError: there is none; `reader` says what cannot be read.
    """
    if request.tokenizer is None:
        raise UserError(f"{reader} are read with the encoder's own tokenizer; name a pretrained encoder folder.")
    request.tokenizer.no_padding()
    request.tokenizer.no_truncation()
    return request.tokenizer


def with_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer with these special tokens behind its own, where it has them not."""
    tokenizer.add_special_tokens([token for token in tokens if tokenizer.token_to_id(token) is None])
    return tokenizer


class TextSource(SourceData):
    """Base of what reads text with the encoder's tokenizer or, before there is one, with its own.

    Args:
        source: where the text is.
        column: of the text.
        tokenizer: a tokenizer.json, an encoder folder, or the kind to train on the training split.
        vocab_size: of a tokenizer to train.
        cased: whether a tokenizer to train keeps capitals and accents; None: all kinds but wordpiece do.
        max_length: tokens an item.
        options: of `SourceData`.
    """

    modality = "text"

    def __init__(
        self,
        source: str,
        column: str,
        tokenizer: Kind | str,
        vocab_size: int,
        cased: bool | None,
        max_length: int,
        **options: Any,
    ) -> None:
        super().__init__(source, **options)
        within("data.vocab_size", vocab_size, low=1, whole=True)
        within("data.max_length", max_length, low=2, whole=True)
        self.input_column, self.max_length, self.longest = column, max_length, max_length
        self.wanted_tokenizer, self.vocab_size, self.cased = tokenizer, vocab_size, cased
        self.tokenizer: Tokenizer | None = None

    def folder_reader(self) -> FolderReader:
        return list_text

    def take_tokenizer(self, request: Request) -> Tokenizer:
        """Settles which tokenizer reads the text: the encoder's, else the one of before, else the one that is wanted.

        Raises:
            UserError: the encoder brings another than the data name, or has too few word vectors for it.
        """
        tokens = () if request.corruption is None else request.corruption.tokens
        self.tokenizer = with_tokens(request.tokenizer or self.tokenizer or self._make_tokenizer(len(tokens)), tokens)
        self._expect_same(request.tokenizer, tokens)
        self.tokenizer.no_padding()  # batches pad themselves
        self.tokenizer.no_truncation()
        size = self.tokenizer.get_vocab_size()
        if request.vocab_size is not None and size > request.vocab_size:
            raise UserError(f"The tokenizer has {size} entries, the encoder only {request.vocab_size} (vocab_size).")
        return self.tokenizer

    def _expect_same(self, encoders: Tokenizer | None, tokens: Sequence[str]) -> None:
        wanted = self.wanted_tokenizer
        if encoders is None or wanted in KINDS:
            return
        if tokenizer_hash(with_tokens(load_tokenizer(wanted), tokens)) != tokenizer_hash(encoders):
            raise UserError(
                f"The encoder was trained with another tokenizer than {wanted}; leave data.tokenizer out to use that."
            )

    def _make_tokenizer(self, more: int = 0) -> Tokenizer:
        """The tokenizer that is wanted; a trained one leaves room for so many tokens more."""
        if self.wanted_tokenizer not in KINDS:
            return load_tokenizer(self.wanted_tokenizer)
        self._expect("train")
        fingerprint = f"{self.rows['train'].fingerprint}|{self.columns_read}"
        texts = Again(partial(self.texts, "train"))
        return learned_tokenizer(texts, fingerprint, self.wanted_tokenizer, max(1, self.vocab_size - more), self.cased)

    @property
    def columns_read(self) -> str:
        """The column, or columns, that `texts` are of."""
        return self.input_column

    def texts(self, split: str) -> Iterator[str]:
        """The documents of a split, for a tokenizer to learn from; lists of words are joined."""
        words = isinstance(next(self.rows[split].values(self.input_column), None), list)
        texts = texts_of(self.rows[split], self.input_column, words=words)
        return (text if isinstance(text, str) else " ".join(text) for text in texts)

    def train_batches(self, epoch: int) -> list[list[int]]:
        lengths: Sequence[float] | None = self.lengths("train")
        if lengths is None:
            return super().train_batches(epoch)
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def collate(self, items: list[Any]) -> TextBatch:
        assert self.tokenizer is not None
        if isinstance(items[0], Seq2SeqItem):
            assert self.request is not None
            return collate_pairs(items, token_id(self.tokenizer, "pad"), self.request.start_id or 0)
        return collate(items, self.tokenizer)

    def fingerprint(self, split: str) -> str:
        assert self.tokenizer is not None
        return f"{super().fingerprint(split)}|{self.longest}|{tokenizer_hash(self.tokenizer).hex()}"
