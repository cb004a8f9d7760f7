"""Mixtures of real voices, and of voices and noise: for diarization, separation and enhancement."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_suite.core.batch import Target
from ssl_suite.core.check import within
from ssl_suite.core.data import Request, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed, uniform
from ssl_suite.core.sampler import bucketed_batches
from ssl_suite.core.task import Labels
from ssl_suite.data.common.source import Rows
from ssl_suite.data.speech.augment import Noises
from ssl_suite.data.speech.mixing import Mix, Others, heard
from ssl_suite.data.speech.reading import RATE
from ssl_suite.data.speech.speech import Speech, SpeechItem


class Mixtures(Speech):
    """Utterances of several speakers at once, or of one in noise, mixed of any source of speech as they are read.

    Each utterance is the first voice of one mixture; the others are of other speakers of its split. Training has new
    mixtures every epoch, cropped to `max_seconds`; validation and test have the same in every run. Targets:

    - `multi_frames`: (L, voices) who is heard in each state of the encoder, by the energy of each voice. Speakers are
      numbered by when they begin.
    - `waveform`: (N,) the clean voice; a task with a slot for each of several voices gets them by its slots' order.

    Args:
        source: where the voices are, see `Speech`.
        voices: in each mixture.
        speaker: column that says whose an utterance is; not read where there is one voice.
        mix: how they are mixed.
        noise: none, `white`, `pink` or `brown`, or a folder or table of recordings; one with the splits of the voices
            keeps their noises apart.
        anew: new mixtures for every epoch of training; False: always the same, whose frozen features can be kept.
        seed: of the mixtures that stay the same.
        column: of the audio.
        labels: number of training voices to mix, drawn evenly over the speakers by the run's seed; None: all.
        channel: of recordings that have several, counted from 0; None: their mean.
        where: keep only rows with these values: `{language: en}`.
        max_seconds: longer mixtures are cropped for training, at a random place; None keeps all.
        limit_seconds: of a longer voice the first so many seconds are read.
        batch_size: mixtures a step and rank.
        batch_seconds: instead: seconds of padded audio a step, of mixtures of up to `max_seconds`.
        eval_batch_size: see `Speech`.
        in_memory: keep decoded voices in memory; None: where a split's take less than 1 GB.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable file, or `skip` the mixtures it is in, and count them.
        train: a file or folder of its own for this split, instead of what the source has for it.
        validation: likewise.
        test: likewise.
        apart: a column, as `speaker`, of which no value is to be in two splits: all voices are dealt anew.
    """

    def __init__(
        self,
        source: str = "samples:prompts",
        voices: int = 2,
        speaker: str = "speaker",
        mix: Mix = Mix(),
        noise: str | None = None,
        anew: bool = True,
        seed: int = 0,
        column: str = "audio",
        labels: int | None = None,
        channel: int | None = None,
        where: dict[str, str] | None = None,
        max_seconds: float | None = 15.0,
        limit_seconds: float | None = 120.0,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        eval_batch_size: int | None = None,
        in_memory: bool | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        apart: str | None = None,
    ) -> None:
        within("data.voices", voices, low=1, whole=True)
        for name, limits in vars(mix).items():
            low = -1 if name == "overlap" else None
            within(f"data.mix.{name}, from", limits[0], low=low)
            within(f"data.mix.{name}, to", limits[1], low=limits[0], high=1 if name == "overlap" else None)
        if voices == 1 and noise is None:
            raise UserError("data.voices is 1 and there is no data.noise, so nothing is mixed; give one of them.")
        if batch_seconds is not None:
            if max_seconds is None:
                raise UserError("data.batch_seconds needs data.max_seconds, which says how long a mixture may be.")
            within("data.batch_seconds", batch_seconds, low=max_seconds)
            batch_size = int(batch_seconds / max_seconds)
        super().__init__(
            source,
            column,
            labels=labels,
            where=where,
            channel=channel,
            max_seconds=max_seconds,
            limit_seconds=limit_seconds,
            batch_size=batch_size,
            batch_seconds=batch_seconds,
            eval_batch_size=eval_batch_size,
            in_memory=in_memory,
            num_workers=num_workers,
            on_error=on_error,
            train=train,
            validation=validation,
            test=test,
            apart=apart,
        )
        self.voices, self.speaker, self.mix, self.noise = voices, speaker, mix, noise
        self.anew, self.seed = anew, seed
        self._others: dict[str, Others] = {}
        self._wanted: str | dict[str, str] | None = None
        self._learns = False

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return ["multi_frames", "waveform"]

    def prepare(self, request: Request) -> None:
        self._wanted, self._learns = request.target or request.watch, request.target is not None
        self.labels = self._labels(request)
        super().prepare(replace(request, target=None, watch=None))
        _ = self._noises  # what is wrong with them is said before training
        if self.voices > 1:
            self._others = {split: self._speakers(rows) for split, rows in self.rows.items()}

    def open(self) -> None:
        super().open()
        if self._learns and self.label_budget is not None:
            self._expect("train")
            self._keep_few(self._whose(self.rows["train"]))

    @cached_property
    def _noises(self) -> Noises | None:
        return Noises(self.noise) if self.noise is not None else None

    def _labels(self, request: Request) -> Labels:
        """The numbers of the speakers, where the task names them.

        Raises:
            UserError: the task is of another number of voices.
        """
        kinds = request.kinds
        numbers = [str(voice) for voice in range(self.voices)]
        if (clean := kinds.count("waveform")) and clean != self.voices:
            raise UserError(f"The task wants {clean} clean voices, but data.voices is {self.voices}; make them equal.")
        of = {kind: numbers if kind == "multi_frames" else [] for kind in kinds}
        wanted = self._wanted
        labels = {s: of[k] for s, k in wanted.items()} if isinstance(wanted, dict) else of.get(wanted or "", [])
        if request.labels is not None and request.target and request.labels != labels:
            raise UserError(f"The task was trained on mixtures of another number of voices than {self.voices}.")
        return labels

    def _whose(self, rows: Rows) -> list[Any]:
        """Whose each voice is, where it matters."""
        if self.voices == 1:
            return [None] * len(rows)
        rows.expect(self.speaker)
        return list(rows.column(self.speaker))

    def _speakers(self, rows: Rows) -> Others:
        others = Others(self._whose(rows))
        if others.number < self.voices:
            has = f"{others.number} speaker{'s' * (others.number != 1)}"
            raise UserError(f"{rows.name} has {has}, too few for mixtures of {self.voices}; lower data.voices.")
        return others

    def has_targets(self, split: str) -> bool:
        return self._wanted is not None

    @property
    def augments(self) -> bool:
        return self.anew

    @property
    def labels_used(self) -> int:
        return self.size("train") if self.has("train") else 0

    @property
    def task_name(self) -> str:
        noise = f"+{Path(self.noise).name}" if self.noise else ""
        return f"{self.source_name.removeprefix('samples:')}/{self.voices} voices{noise}"

    def train_batches(self, epoch: int) -> list[list[int]]:
        n = self.size("train")
        seeds = [item_seed(run_seed(), epoch, i) for i in range(n)] if self.anew else self._seeds("train")
        lengths = [min(seconds, self.max_seconds or seconds) for seconds in self._lengths("train", seeds)]
        return bucketed_batches(lengths, self.batch_size, run_seed(), epoch, drop_last=self._pretraining)

    def lengths(self, split: str) -> Sequence[float]:
        """Seconds of each mixture that stays the same."""
        limit = self.max_seconds if self._crops else None
        return [min(seconds, limit or seconds) for seconds in self._lengths(split, self._seeds(split))]

    def _seeds(self, split: str) -> list[int]:
        """Of the mixtures of a split that stay the same."""
        return [self._seed(split, i) for i in range(self.size(split))]

    def _seed(self, split: str, index: int) -> int:
        return item_seed(self.seed, zlib.crc32(split.encode()), index)

    def _lengths(self, split: str, seeds: list[int]) -> list[float]:
        seconds = super().lengths(split) if not self._crops else [u.seconds for u in self._utterances[split]]
        rows = self._rows(split, range(len(seconds)), seeds)
        return [self.mix.lasts([seconds[i] for i in row], seed) for row, seed in zip(rows, seeds, strict=True)]

    def _rows(self, split: str, first: Sequence[int], seeds: list[int]) -> list[list[int]]:
        """The utterances of each mixture."""
        if self.voices == 1:
            return [[index] for index in first]
        return self._others[split].draw(first, torch.tensor(seeds), self.voices)

    def read(self, split: str, index: int, seed: int) -> SpeechItem:
        return self._item(split, index, seed, self._seed(split, index), self._crops)

    def read_for_training(self, index: int, seed: int) -> SpeechItem:
        return self._item("train", index, seed, seed if self.anew else self._seed("train", index), True)

    def target(self, split: str, index: int) -> Target:
        target = self.read(split, index, 0).target
        assert target is not None
        return target

    def _item(self, split: str, index: int, seed: int, mine: int, crops: bool) -> SpeechItem:
        """The mixture that `mine` draws, and the crop that `seed` does."""
        (rows,) = self._rows(split, [index], [mine])
        voices = self.mix.voices([self._wave(split, row) for row in rows], mine)  # (V, N)
        wave = voices.sum(0)
        if self._noises is not None:
            wave = wave + self.mix.noise(self._noises.draw(split, len(wave), mine), wave, mine)
        loudest = wave.abs().max().clamp(min=1)  # so that nothing is clipped
        wave, voices, start, size = wave / loudest, voices / loudest, 0, len(wave)
        if crops and self.max_seconds is not None and len(wave) > (most := int(self.max_seconds * RATE)):
            start, size = int(uniform(torch.tensor([seed]), 1) * (len(wave) - most)), most
            start -= start % self._stride
        return SpeechItem(index, seed, wave[start : start + size], self._made(voices, start, size))

    def _made(self, voices: Tensor, start: int, size: int) -> Target | None:
        """What the task wants of a part of (V, N) clean voices."""
        clean = iter(voices[:, start : start + size])

        def one(kind: str) -> Tensor:
            if kind == "waveform":
                return next(clean)
            who = torch.stack([heard(voice, self._stride, RATE) for voice in voices], 1)
            return who[start // self._stride :][: math.ceil(size / self._stride)]

        if isinstance(self._wanted, dict):
            return {slot: one(kind) for slot, kind in self._wanted.items()}
        return one(self._wanted) if self._wanted else None

    def identity(self) -> str:
        return f"{super().identity()}|{self._recipe()}"

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}|{self._recipe()}"

    def _recipe(self) -> str:
        """All that the mixtures are made by."""
        noises = self._noises.fingerprint if self._noises else None
        return f"{self.voices}|{self.speaker}|{self.mix}|{noises}|{self.seed}"
