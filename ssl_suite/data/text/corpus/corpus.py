"""A split to pretrain on: its token file, and the rows that are cut from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info
from tokenizers import Tokenizer

from ssl_suite.core.batch import Target
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import default_cache
from ssl_suite.data.common.source import Rows
from ssl_suite.data.text.corpus.pairs import SentencePairs, sentence_stream
from ssl_suite.data.text.corpus.rows import DocumentPieces, TokenRows
from ssl_suite.data.text.corpus.tokens import VERSION, TokenFile, read_tokens, write_tokens
from ssl_suite.data.text.items import TextItem, TextItems
from ssl_suite.data.text.values import texts_of
from ssl_suite.encoders.tokenizer import roles_of, token_id, tokenizer_hash


class Corpus(TextItems):
    """Rows of tokens, blocks or pieces of documents.

    Args:
        rows: of the source.
        column: of the text.
        tokenizer: that reads it.
        length: tokens a row.
        kind: how rows are cut.
        target: row of the source → its target, for probes that watch; rows that join several have none.
    """

    def __init__(
        self,
        rows: Rows,
        column: str,
        tokenizer: Tokenizer,
        length: int,
        kind: type[TokenRows],
        target: Callable[[int], Target] | None = None,
    ) -> None:
        self.file = tokenised(rows, column, tokenizer)
        self.start = token_id(tokenizer, "start" if "start" in roles_of(tokenizer) else "pad")  # T5 has none
        self.cut, self.row_target = kind(self.file, length, self.start), target
        if len(self.cut) == 0:
            raise UserError(f"{rows.name} has {len(self.file.tokens)} tokens, fewer than one block of {length}.")
        if isinstance(self.cut, DocumentPieces) and self.cut.split:
            rank_zero_info(
                f"{rows.name}: {self.cut.split} of {self.file.documents} documents are longer than {length} tokens "
                "and were spread over several rows."
            )

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def lengths(self) -> Sequence[float] | None:
        return self.cut.lengths

    @property
    def rows(self) -> Sequence[int] | None:
        return None if self.cut.document is None else self.cut.document.tolist()

    def read(self, index: int, seed: int) -> TextItem:
        ids, documents = self.cut[index]
        watched = self.row_target is not None and self.cut.document is not None
        return TextItem(index, seed, ids, None, self.target(index) if watched else None, documents)

    def target(self, index: int) -> Target:
        assert self.row_target is not None
        assert self.cut.document is not None
        return self.row_target(int(self.cut.document[index]))


class PairedCorpus(TextItems):
    """Pairs of segments, drawn anew every epoch, for a method with a second objective.

    Args:
        rows: of the source.
        column: of the text.
        tokenizer: that reads it.
        length: most tokens a pair.
        kind: nsp or sop.
    """

    lengths = rows = None

    def __init__(self, rows: Rows, column: str, tokenizer: Tokenizer, length: int, kind: str) -> None:
        self.file = tokenised(rows, column, tokenizer, sentences=True)
        self.pairs = SentencePairs(self.file, token_id(tokenizer, "start"), length, kind, rows.name)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int, seed: int) -> TextItem:
        ids, segments, pair = self.pairs.make(index, seed)
        return TextItem(index, seed, ids, segments, None, pair=pair)

    def target(self, index: int) -> Target:
        raise UserError("Pairs of segments are drawn anew every epoch and have no targets.")


def token_path(rows: Rows, column: str, tokenizer: Tokenizer, sentences: bool = False) -> Path:
    """Where the token file of a split is kept; another text or tokenizer has another."""
    what = "sentences" if sentences else "documents"
    made_from = (VERSION, rows.fingerprint, column, tokenizer_hash(tokenizer).hex(), what)
    key = hashlib.sha256("|".join(map(str, made_from)).encode()).hexdigest()
    return default_cache() / "tokens" / f"{key[:24]}.tokens"


def tokenised(rows: Rows, column: str, tokenizer: Tokenizer, sentences: bool = False) -> TokenFile:
    """The tokens of a split, document by document or, with `sentences`, sentence by sentence; made once."""
    path = token_path(rows, column, tokenizer, sentences)
    if not path.exists():
        texts = partial(texts_of, rows, column)
        if sentences:
            write_tokens(lambda k: islice(sentence_stream(texts()), k, None), None, tokenizer, path)
        else:
            write_tokens(texts, len(rows), tokenizer, path)
    return read_tokens(path, tokenizer)
