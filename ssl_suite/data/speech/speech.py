"""Speech: a folder, a manifest, a table or a hub data set of audio, with or without transcripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssl_suite.core.batch import SpeechBatch, Target, stacked
from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.core.random import item_seed, uniform
from ssl_suite.core.sampler import bucketed_batches, budget_batches
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.kinds import KINDS
from ssl_suite.data.common.source import FolderReader, Layouts, Rows
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.speech.augment import Augment, together
from ssl_suite.data.speech.layouts.official import LAYOUTS
from ssl_suite.data.speech.phones import Phones  # noqa: F401 - a kind of target that speech gives
from ssl_suite.data.speech.reading import RATE, duration, list_audio, load_audio, resampler
from ssl_suite.data.speech.segments import Utterance, agree, cut, names, path_of, utterances
from ssl_suite.data.speech.units import Units, open_units
from ssl_suite.data.speech.waveform import Waveform  # noqa: F401 - a kind of target that speech gives
from ssl_suite.data.speech.who import MultiFrames  # noqa: F401 - a kind of target that speech gives

LONG = 60.0
"""Seconds from which on a recording is not decoded, nor kept, for a crop alone: that part of it is read."""

UNITS, SPEAKER = "units", "speaker"
"""The column of `data.units`, and the one that says whose a recording is."""


@dataclass
class SpeechItem:
    """One utterance: wave (N,) at 16 kHz, where it belongs, and what is yet to be mixed into it."""

    index: int
    seed: int
    wave: Tensor
    target: Target | None
    added: dict[str, Tensor] | None = None


class Speech(SourceData):
    """Audio from a folder (with a metadata.csv or without), parquet, `samples:NAME` or `hf:NAME`; resampled to 16 kHz.

    Rows may name a part of a file, see `segments.utterances`. Corpora in their official layout are read by its name,
    `librispeech:FOLDER`, and a part of one as `librispeech/train-clean-100+dev-clean:FOLDER`: audio_snips, fluent,
    fsdd, iemocap, librimix, librispeech, quesst14, speech_commands, voicebank, voxceleb1; see `data.speech.layouts`. So
    are folders of Kaldi, `kaldi:FOLDER`, and cuts of Lhotse, `lhotse:FILE`; a NeMo manifest is a table like any other.

    Args:
        source: where the audio is.
        column: of the audio.
        target: column of the target: a label, or the transcript for CTC; or one for each slot of the task.
        where: keep only rows with these values: `{language: en}`.
        labels: number of labelled training utterances to use.
        channel: of recordings that have several, counted from 0; None: their mean.
        units: folder that `ssl-suite prepare units` wrote: they are the target where a number for each state is asked.
        augment: speed, voices, noise and rooms for what is trained on, anew every epoch; frozen features of training
            are then not kept.
        clean: how transcripts are normalised, for learning and for scoring: lower case, marks kept or not, which
            characters stay beside letters and digits, and where the phones of words are looked up.
        max_seconds: longer ones are cropped while pretraining, at a place drawn anew every epoch; None keeps all.
        cut_seconds: longer recordings are several utterances each, of equal parts of at most so many seconds, so that
            an epoch has all of them; None leaves them whole. Not for transcripts, which are of all of a recording.
        limit_seconds: for tasks, frozen features and embeddings: of longer ones the first so many seconds are read, and
            they are counted; with transcripts they are refused. None keeps all. Columns `start` and `end` cut a long
            recording into utterances.
        batch_size: utterances a step and rank.
        batch_seconds: instead: seconds of padded audio a step, so that memory does not depend on the lengths.
        eval_batch_size: most utterances in a batch of validation, test and frozen features, whose padded audio stays
            within `batch_seconds`, or else 15 s for each of them.
        in_memory: keep decoded audio in memory; None: where a split's takes less than 1 GB.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable file, or `skip` and count it.
        files: `train`, `validation`, `test`, `delimiter`, `header` and `apart` of `SourceData`.
    """

    modality = "speech"

    def __init__(
        self,
        source: str,
        column: str = "audio",
        target: str | dict[str, str] = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        channel: int | None = None,
        units: str | None = None,
        augment: Augment = Augment(),
        clean: Clean = Clean(),
        max_seconds: float | None = 15.0,
        cut_seconds: float | None = None,
        limit_seconds: float | None = 120.0,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        eval_batch_size: int | None = None,
        in_memory: bool | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
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
            on_error=on_error,
            **files,
        )
        options = {
            "max_seconds": max_seconds,
            "cut_seconds": cut_seconds,
            "limit_seconds": limit_seconds,
            "batch_seconds": batch_seconds,
        }
        for name, seconds in options.items():
            if seconds is not None:
                within(f"data.{name}", seconds, above=0)
        if channel is not None:
            within("data.channel", channel, low=0, whole=True)
        self.input_column, self.channel, self.augment, self.clean = column, channel, augment, clean
        self.max_seconds, self.cut_seconds, self.limit_seconds = max_seconds, cut_seconds, limit_seconds
        self.units = None if units is None else Path(units)
        self.in_memory, self.train_budget = in_memory, batch_seconds
        self.eval_budget = batch_seconds or 15.0 * self.eval_batch_size
        self._waves: dict[tuple[str, int], Tensor] = {}
        self._utterances: dict[str, list[Utterance]] = {}
        self._stride = 1

    def folder_reader(self) -> FolderReader:
        return list_audio

    def layouts(self) -> Layouts:
        return LAYOUTS

    def read_source(self) -> dict[str, Rows]:
        splits = super().read_source()
        if self.cut_seconds is None:
            return splits
        return {split: cut(rows, self.input_column, self.cut_seconds) for split, rows in splits.items()}

    def open(self) -> None:
        super().open()
        if self.units is None:
            return
        for split, rows in self.rows.items():
            if (units := open_units(self.units, split, rows, self._stride)) is not None:
                self.rows[split] = rows.with_column(UNITS, units)

    def _columns(self, kind: str | dict[str, str]) -> str | dict[str, str]:
        return UNITS if kind == "frames" and self.units is not None else super()._columns(kind)

    def prepare(self, request: Request) -> None:
        self._stride = request.stride
        super().prepare(request)
        if request.target and not request.pretrains and any(KINDS[kind].closed for kind in request.kinds):
            self._tell_speakers(self._columns(request.target))
        self._waves.clear()
        self._utterances = {split: utterances(rows, self.input_column) for split, rows in self.rows.items()}
        for split, rows in self.rows.items():
            if isinstance(units := rows.beside.get(UNITS), Units):
                units.expect(rows, self.input_column, self._utterances[split])
        seconds = sum(u.seconds for found in self._utterances.values() for u in found)
        fits = self.num_workers == 0 and seconds * RATE * 4 < 1e9
        self._keep = self.in_memory if self.in_memory is not None else fits
        self._crops = request.pretrains
        self._changes = self.augment.open() if self.augment.wanted else None
        self._cut_along = any(KINDS[kind].along for kind in request.kinds)
        needs_all = [kind for kind in request.kinds if KINDS[kind].whole or KINDS[kind].along]
        if needs_all and self.cut_seconds is not None:
            raise UserError(
                f"data.cut_seconds cuts recordings, but their {needs_all[0]} are of all of one; leave it out."
            )
        for split in self.splits():
            self._tell_long(split, refuse=needs_all[0] if needs_all else None)

    def _tell_speakers(self, target: str | dict[str, str]) -> None:
        """Says which speakers a user's splits share, where the task is not who speaks."""
        wanted = {target} if isinstance(target, str) else set(target.values())
        if SPEAKER in wanted or self.source.startswith("samples:") or not self.has("train"):
            return
        heard = {s: set(filter(None, rows.values(SPEAKER))) for s, rows in self.rows.items() if SPEAKER in rows.columns}
        for split, speakers in heard.items():
            if split != "train" and (shared := sorted(map(str, speakers & heard.get("train", set())))):
                some = ", ".join(shared[:3]) + ", ..." * (len(shared) > 3)
                rank_zero_warn(
                    f"{self.rows[split].name}, {split}: {len(shared)} of {len(speakers)} speakers are in training too "
                    f"({some}), so how new voices fare is not measured there; --data.apart {SPEAKER} deals them apart."
                )

    def _tell_long(self, split: str, refuse: str | None) -> None:
        """Says which utterances a task does not see whole; one whose target is of the kind `refuse` must be."""
        rows, found, limit = self.rows[split], self._utterances[split], self.limit_seconds or math.inf
        if self._crops or not (long := [i for i, u in enumerate(found) if u.seconds > limit]):
            return
        name = path_of(rows[long[0]][self.input_column]) or rows.where(long[0])
        first = f"{name} lasts {found[long[0]].seconds:.0f} s"
        cut = "cut it with columns start and end, or raise data.limit_seconds"
        if refuse:
            raise UserError(f"{first}, and its {refuse} need all of it, but data.limit_seconds is {limit:g}; {cut}.")
        some = f"{len(long)} of {len(found)} utterances"
        rank_zero_warn(f"{rows.name}: only the first {limit:g} s of {some} are read ({first}); {cut}.")

    def preprocess(self, request: Request | None) -> dict[str, Any]:
        return {"sample_rate": RATE}

    def lengths(self, split: str) -> Sequence[float]:
        """Seconds of each utterance as it is read: cropped."""
        limit = self.max_seconds if self._crops else self.limit_seconds
        return [min(u.seconds, limit or math.inf) for u in self._utterances[split]]

    def utterances(self, split: str) -> list[Utterance]:
        """Which part of its file each recording is."""
        return self._utterances[split]

    def ids(self, split: str) -> list[str]:
        return names(self.rows[split], super().ids(split), self._utterances[split])

    def fingerprint(self, split: str) -> str:
        channel = "" if self.channel is None else f"|channel {self.channel}"
        return f"{super().fingerprint(split)}|{self.limit_seconds}{channel}"

    def train_batches(self, epoch: int) -> list[list[int]]:
        lengths = self._lengths_of(epoch)
        if self.train_budget is not None:
            return budget_batches(lengths, self.train_budget, run_seed(), epoch)
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def _lengths_of(self, epoch: int) -> Sequence[float]:
        """Seconds of each utterance of training, as it is read in this epoch."""
        if (changes := self._changes) is None or not self.augment.changes_speed:
            return self.lengths("train")
        limit = self.max_seconds if self._crops else None
        whole = [u.seconds for u in self._utterances["train"]] if self._crops else self.lengths("train")
        speeds = [changes.speed(item_seed(run_seed(), epoch, i)) for i in range(len(whole))]
        return [min(seconds / speed, limit or math.inf) for seconds, speed in zip(whole, speeds, strict=True)]

    @property
    def augments(self) -> bool:
        return self.augment.wanted

    def read_for_training(self, index: int, seed: int) -> SpeechItem:
        if (changes := self._changes) is None:
            return self.read("train", index, seed)
        item = self._read("train", index, seed, changes.speed(seed))
        return replace(item, added=changes.added(len(item.wave), seed))

    def read(self, split: str, index: int, seed: int) -> SpeechItem:
        return self._read(split, index, seed)

    def _read(self, split: str, index: int, seed: int, speed: float = 1.0) -> SpeechItem:
        long = self._crops and self.max_seconds is not None and self._utterances[split][index].seconds > LONG
        wave, start = torch.empty(0) if long else self._wave(split, index), 0
        whole = round(self._utterances[split][index].seconds * RATE) if long else len(wave)
        if self._crops and self.max_seconds is not None and whole > (size := int(self.max_seconds * RATE * speed)):
            start = int(uniform(torch.tensor([seed]), 1) * (whole - size))
            if self._cut_along:
                start -= start % self._stride
            wave = self._piece(split, index, start, size) if long else wave[start : start + size]
        target = None
        if self.has_targets(split):
            assert self.targets is not None
            target = self.targets.part(split, index, whole, start, len(wave), self._stride, speed)
        if speed != 1:  # what were so many samples a second are played as 16,000
            wave = resampler(round(speed * RATE))(wave)
        return SpeechItem(index, seed, wave, target)

    def _piece(self, split: str, index: int, start: int, size: int) -> Tensor:
        """Samples `start` to `start + size` of an utterance, of which no others are decoded."""
        rows, first = self.rows[split], self._utterances[split][index].start + start / RATE
        value, where = rows[index][self.input_column], rows.where(index)
        if self._utterances[split][index].claimed:
            _expect_agreement(where, self._utterances[split][index].seconds, duration(value))
        return load_audio(value, where, first, first + size / RATE, self.channel)[:size]

    def _wave(self, split: str, index: int) -> Tensor:
        if (split, index) in self._waves:
            return self._waves[split, index]
        rows, utterance = self.rows[split], self._utterances[split][index]
        limit = math.inf if self._crops or self.limit_seconds is None else self.limit_seconds
        end = min(utterance.end, utterance.start + limit)
        wave = load_audio(rows[index][self.input_column], rows.where(index), utterance.start, end, self.channel)
        if utterance.claimed:
            _expect_agreement(rows.where(index), utterance.seconds, len(wave) / RATE, limit)
        if self._keep:
            self._waves[split, index] = wave
        return wave

    def collate(self, items: list[SpeechItem]) -> SpeechBatch:
        targets = [i.target for i in items if i.target is not None]
        added = [i.added for i in items if i.added is not None]
        return SpeechBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            stacked(targets),
            pad_sequence([i.wave for i in items], batch_first=True),
            torch.tensor([len(i.wave) for i in items]),
            RATE,
            together(added) if added else None,
        )

    def finish(self, batch: Any) -> Any:
        """Noise, rooms and other voices, where it was read for training."""
        changed = self._changes is not None and isinstance(batch, SpeechBatch) and batch.added is not None
        return self._changes.finish(batch) if self._changes and changed else batch


def _expect_agreement(where: str, claim: float, lasts: float, limit: float = math.inf) -> None:
    """Raises BadItem where a table says that a recording, or its first `limit` seconds, lasts longer than it does."""
    if not agree(min(claim, limit), lasts):
        raise BadItem(f"{where}: 'seconds' is {claim:g}, but the audio lasts {lasts:.2f}; mend the column.")
