"""Text: documents to pretrain on, packed into blocks; sentences, pairs and tagged words to fine-tune on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssl_suite.core.batch import Target
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.seq2seq import Seq2SeqItem
from ssl_suite.data.common.source import Layouts
from ssl_suite.data.common.targets import SlotTargets, Targets
from ssl_suite.data.text.corpus.corpus import Corpus, PairedCorpus, token_path
from ssl_suite.data.text.corpus.corrupted import Corrupted
from ssl_suite.data.text.corpus.rows import Blocks, DocumentPieces, SeparateBlocks, TokenRows
from ssl_suite.data.text.corpus.tokens import TokenFile
from ssl_suite.data.text.items import TextItem, TextItems
from ssl_suite.data.text.layouts.official import LAYOUTS
from ssl_suite.data.text.sequences.sequences import Sequences, Spelled
from ssl_suite.data.text.sequences.symbols import Symbols
from ssl_suite.data.text.sequences.tagged import TaggedWords
from ssl_suite.data.text.source import TextSource
from ssl_suite.encoders.tokenizer import Kind


class Text(TextSource):
    """Text from a folder of .txt files, one .txt file, jsonl, parquet, csv, `samples:NAME` or `hf:NAME`.

    Tagged words also from CoNLL-U (.conllu: columns tokens, upos, ...) and BIO files (.conll, .bio: tokens, tags).

    Proteins and DNA also in their official layouts: `tape/stability:FOLDER`, `tape/fluorescence:`, `deeploc:`,
    `nucleosome/H3:`.

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
        symbols: for rows that are no text: letter → word of the encoder's vocabulary, each letter one token,
            {A: we, C: you, G: he, T: she} for DNA; or the letters alone, ACGT, whose words the run's seed draws.
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

    knows_phrases = False
    """Whether rows come with the phrases and entities that a method may ask for."""

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
            column,
            tokenizer,
            vocab_size,
            cased,
            max_length,
            target=target,
            where=where,
            labels=labels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            **files,
        )
        self.pair, self.symbols = pair, symbols
        self.pack, self.separate, self.split_long = pack, separate, split_long
        self.items: dict[str, TextItems | Corrupted] = {}

    def layouts(self) -> Layouts:
        return LAYOUTS

    def prepare(self, request: Request) -> None:
        if request.phrases and not self.knows_phrases:
            raise UserError(f"{type(self).__name__} knows no phrases and entities to mask; use data: Phrases.")
        super().prepare(request)
        self.longest = min(self.max_length, request.longest or self.max_length)
        pretraining = request.target is None and not (request.phrases or request.aligned)
        drawn = request.pairs is not None or request.corruption is not None
        if pretraining and (self.pack or self.split_long or drawn):
            self.items = self._corpora(request)
        else:
            self.items = self._sequences(request)

    def _corpora(self, request: Request) -> dict[str, TextItems | Corrupted]:
        """Each split as tokens, of which rows or pairs are cut."""
        if self.longest < self.max_length:
            raise UserError(
                f"data.max_length is {self.max_length}, the encoder reads {self.longest}; lower it to that."
            )
        if self.symbols is not None:
            raise UserError("symbols spells the rows of a task on whole sequences; leave it out here.")
        tokenizer, column, length = self.take_tokenizer(request), self.input_column, self.max_length
        if request.pairs is not None:
            return {s: PairedCorpus(r, column, tokenizer, length, request.pairs) for s, r in self.rows.items()}
        kind: type[TokenRows] = DocumentPieces if not self.pack else SeparateBlocks if self.separate else Blocks
        corpora = {s: Corpus(r, column, tokenizer, length, kind, self.row_target(s)) for s, r in self.rows.items()}
        if request.corruption is None:
            return dict(corpora)
        corrupt = request.corruption.bind(tokenizer)
        return {split: Corrupted(corpus, corrupt) for split, corpus in corpora.items()}

    def _sequences(self, request: Request) -> dict[str, TextItems | Corrupted]:
        """Each split as its rows; all are checked before a tokenizer learns from them."""
        made = {split: self.sequences(split, request) for split in self.splits()}
        for items in made.values():
            items.check()
        tokenizer = self.take_tokenizer(request)
        for items in made.values():
            items.read_with(tokenizer, self.longest)
        return dict(made)

    def sequences(self, split: str, request: Request) -> Sequences:
        """The rows of a split, as a task wants them."""
        rows, target = self.rows[split], self.row_target(split)
        columns = [self.input_column, *([self.pair] if self.pair else [])]
        if "tags" in request.kinds:
            if self.symbols is not None:
                raise UserError("symbols spells the rows of a task on whole sequences; leave it out here.")
            return TaggedWords(rows, columns, target)
        if self.symbols is not None:
            return Spelled(rows, columns, self.symbols, target)
        return Sequences(rows, columns, target)

    def row_target(self, split: str) -> Callable[[int], Target] | None:
        """Row of a split → its target; None where it has none."""
        return partial(_target, self.targets, split) if self.targets is not None and self.has_targets(split) else None

    def token_file(self, split: str) -> TokenFile:
        """The tokens of a split that pretraining rows are cut from."""
        items = self.items[split]
        assert isinstance(items, Corpus | PairedCorpus | Corrupted)
        return items.file

    def token_path(self, split: str) -> Path:
        """Where a split's token file is kept, once the data are served."""
        assert self.tokenizer is not None
        paired = isinstance(self.items[split], PairedCorpus)
        return token_path(self.rows[split], self.input_column, self.tokenizer, paired)

    def tokens_per_byte(self, split: str) -> float | None:
        items = self.items.get(split)
        file = items.file if isinstance(items, Corpus | PairedCorpus | Corrupted) else None
        return len(file.tokens) / file.text_bytes if file and file.text_bytes else None

    def size(self, split: str) -> int:
        return len(self.items[split])

    def ids(self, split: str) -> list[str]:
        rows = self.items[split].rows
        if rows is None:
            return [str(i) for i in range(self.size(split))]
        names = super().ids(split)
        return [names[row] for row in rows]

    def read(self, split: str, index: int, seed: int) -> TextItem | Seq2SeqItem:
        return self.items[split].read(index, seed)

    def target(self, split: str, index: int) -> Target:
        return self.items[split].target(index)

    def answer(self, split: str, index: int, answer: Any) -> Any:
        return self.items[split].answer(index, answer)

    def lengths(self, split: str) -> Sequence[float] | None:
        return self.items[split].lengths

    def fingerprint(self, split: str) -> str:
        items = self.items[split]
        spelling = items.spelling if isinstance(items, Spelled) else None
        return f"{super().fingerprint(split)}|{self.pair}|{spelling}|{type(items).__name__}"


def _target(targets: Targets | SlotTargets, split: str, row: int) -> Target:
    return targets[split, row]
