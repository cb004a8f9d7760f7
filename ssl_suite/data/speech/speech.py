"""Speech: a folder, a manifest, a table or a hub data set of audio, with or without transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import pad_targets
from ssl_suite.core.random import uniform
from ssl_suite.core.sampler import bucketed_batches, budget_batches
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.module import SourceData
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.speech.reading import RATE, duration, list_audio, load_audio


@dataclass
class Item:
    """One utterance: wave (N,) at 16 kHz, and where it belongs."""

    index: int
    seed: int
    wave: Tensor
    target: Tensor | None


class Speech(SourceData):
    """Audio from a folder (with a metadata.csv or without), parquet, `samples:NAME` or `hf:NAME`; resampled to 16 kHz.

    Args:
        source: where the audio is.
        column: of the audio.
        target: column of the target: a label, or the transcript for CTC.
        where: keep only rows with these values: `{language: en}`.
        labels: number of labelled training utterances to use.
        clean: how transcripts are normalised, for learning and for scoring: lower case, marks kept or not, and which
            characters stay beside letters and digits.
        max_seconds: longer ones are cropped while pretraining, at a place drawn anew every epoch; None keeps all.
        batch_size: utterances a step and rank.
        batch_seconds: instead: seconds of padded audio a step, so that memory does not depend on the lengths.
        eval_batch_size: for validation, test and frozen features.
        in_memory: keep decoded audio in memory; None: where a split's takes less than 1 GB.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable file, or `skip` and count it.
        cache_features: keep frozen features on disk.
    """

    modality = "speech"

    def __init__(
        self,
        source: str,
        column: str = "audio",
        target: str = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        clean: Clean = Clean(),
        max_seconds: float | None = 15.0,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        eval_batch_size: int | None = None,
        in_memory: bool | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        cache_features: bool = True,
    ) -> None:
        super().__init__(
            source,
            target,
            where,
            labels,
            clean=clean,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            on_error=on_error,
            cache_features=cache_features,
        )
        for name, seconds in (("max_seconds", max_seconds), ("batch_seconds", batch_seconds)):
            if seconds is not None:
                within(f"data.{name}", seconds, above=0)
        self.input_column = column
        self.max_seconds, self.batch_seconds, self.in_memory = max_seconds, batch_seconds, in_memory
        self._waves: dict[tuple[str, int], Tensor] = {}
        self._lengths: dict[str, list[float]] = {}

    def folder_reader(self) -> FolderReader:
        return list_audio

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._waves.clear()
        self._lengths.clear()
        seconds = sum(sum(self.lengths(s)) for s in self.splits())
        fits = self.num_workers == 0 and seconds * RATE * 4 < 1e9
        self._keep = self.in_memory if self.in_memory is not None else fits

    def lengths(self, split: str) -> Sequence[float]:
        """Seconds of each utterance."""
        if split not in self._lengths:
            rows = self.rows[split]
            given: list[Any] = rows.column("seconds") if "seconds" in rows.columns else [None]
            if any(s in (None, "") for s in given):
                given = [duration(rows[i][self.input_column], rows.where(i)) for i in range(len(rows))]
            try:
                self._lengths[split] = [float(s) for s in given]
            except ValueError as error:
                raise UserError(f"{rows.name}: column 'seconds' must hold numbers ({error}).") from None
        return self._lengths[split]

    def train_batches(self, epoch: int) -> list[list[int]]:
        lengths = self.lengths("train")
        if self.batch_seconds is not None:
            return budget_batches(lengths, self.batch_seconds, run_seed(), epoch)
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def read(self, split: str, index: int, seed: int) -> Item:
        wave = self._wave(split, index)
        if self._pretraining and self.max_seconds is not None and len(wave) > self.max_seconds * RATE:
            size = int(self.max_seconds * RATE)
            start = int(uniform(torch.tensor([seed]), 1) * (len(wave) - size))
            wave = wave[start : start + size]
        return Item(index, seed, wave, self.target(split, index) if self.has_targets(split) else None)

    def _wave(self, split: str, index: int) -> Tensor:
        if (split, index) in self._waves:
            return self._waves[split, index]
        rows = self.rows[split]
        wave = load_audio(rows[index][self.input_column], rows.where(index))
        if self._keep:
            self._waves[split, index] = wave
        return wave

    def collate(self, items: list[Item]) -> SpeechBatch:
        targets = [i.target for i in items if i.target is not None]
        return SpeechBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            pad_targets(targets) if targets else None,
            pad_sequence([i.wave for i in items], batch_first=True),
            torch.tensor([len(i.wave) for i in items]),
            RATE,
        )
