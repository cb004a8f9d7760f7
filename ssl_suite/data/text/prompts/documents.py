"""Documents: whole texts for `Perplexity`, longer than an encoder's window or not, each token scored once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from ssl_suite.core.check import within
from ssl_suite.core.choices import ChoiceBatch, ChoiceItem, collate_choices
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.source import encoders_tokenizer
from ssl_suite.data.text.values import expect_texts
from ssl_suite.encoders.tokenizer import token_id


class Documents(SourceData):
    """Each document as overlapping windows: every token is scored once, after as many others as fit.

    Nothing is trained on them, so those of a source that has no splits are all the test split.

    Args:
        source: as of `Text`; may be left out where `test` or another split names a file or folder of its own.
        column: of the text.
        max_length: tokens a window.
        stride: tokens a window scores, but for the first, which scores all; default: half a window. A smaller one
            leaves more context to each token and takes longer.
        where: keep only rows with these values.
        batch_size: windows at a time.
        num_workers: loader processes.
        files: `train`, `validation`, `test`, `delimiter` and `header` of `SourceData`; `on_error: skip` leaves out rows
            without a text.
    """

    modality = "text"
    holds_out = False

    def __init__(
        self,
        source: str | None = None,
        column: str = "text",
        max_length: int = 512,
        stride: int | None = None,
        where: dict[str, str] | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        **files: Any,
    ) -> None:
        super().__init__(source, column, where, None, batch_size=batch_size, num_workers=num_workers, **files)
        within("data.max_length", max_length, low=2, whole=True)
        self.input_column, self.max_length, self.stride = column, max_length, stride or max_length // 2
        if not 0 < self.stride < max_length:
            raise UserError(f"stride must be 1 to {max_length - 1} (max_length − 1), not {self.stride}.")
        self._windows: dict[str, list[ChoiceItem]] = {}

    def folder_reader(self) -> FolderReader:
        return list_text

    def open(self) -> None:
        super().open()
        if list(self.rows) == ["train"]:
            self.rows = {"test": self.rows["train"]}

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._windows.clear()
        self.tokenizer: Tokenizer = encoders_tokenizer(request, "Documents")
        for rows in self.rows.values():
            expect_texts(rows, self.input_column)

    def _cut(self, split: str) -> list[ChoiceItem]:
        if split not in self._windows:
            start = token_id(self.tokenizer, "start")
            windows: list[ChoiceItem] = []
            texts = self.rows[split].column(self.input_column)
            for text, encoding in zip(texts, self.tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
                ids, size = [start, *encoding.ids], len(text.encode())
                for begin, first, end in rolling_windows(len(ids), self.max_length, self.stride):
                    windows.append(ChoiceItem(len(windows), [ids[begin:end]], [first - begin], [size]))
                    size = 0  # a document's bytes count once
            self._windows[split] = windows
        return self._windows[split]

    def size(self, split: str) -> int:
        return len(self._cut(split))

    def read(self, split: str, index: int, seed: int) -> ChoiceItem:
        return self._cut(split)[index]

    def lengths(self, split: str) -> Sequence[float]:
        return [len(item.ids[0]) for item in self._cut(split)]

    def collate(self, items: list[ChoiceItem]) -> ChoiceBatch:
        return collate_choices(items, token_id(self.tokenizer, "pad"))


def rolling_windows(n: int, length: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows over positions 0 to n − 1, of which each but 0 is scored in one window only.

    Returns:
        (begin, first scored, end) of each: at most `length` positions, at most `stride` scored after the first window.
    """
    windows = [(0, 1, min(length, n))]
    while (done := windows[-1][2]) < n:
        end = min(done + stride, n)
        windows.append((end - length, done, end))
    return windows
