"""Augment: speed, voices, rooms and noise for what is trained on, anew every epoch.

What comes from files is read here, with the recording; it is mixed on the device, a batch at a time. Speed alone is
changed where the recording is read, because its length decides which batch it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import draw, uniform
from ssl_suite.data.common.source import Rows, open_source
from ssl_suite.data.speech.mixing import COLOURS, NOISE, SNR, coloured, repeated
from ssl_suite.data.speech.reading import RATE, duration, list_audio, load_audio
from ssl_suite.encoders.waves import Mixing, noisy, reverberant, unclipped

CHANCE, ROOM, SPEED, VOICE = range(21, 25)
"""Streams of random numbers, one for each purpose."""


class Noises:
    """Noise of a colour, or from recordings of which parts are drawn.

    Args:
        source: `white`, `pink` or `brown`, or a folder or table; one with splits keeps their noises apart.
        stream: of the random numbers by which a recording is chosen.
    """

    def __init__(self, source: str, stream: int = NOISE) -> None:
        self.source, self.stream = source, stream
        self.rows: dict[str, Rows] = {} if source in COLOURS else open_source(source, list_audio, list_audio.name)
        self.fingerprint = "|".join([source, *(rows.fingerprint for rows in self.rows.values())])

    def draw(self, split: str, size: int, seed: int) -> Tensor:
        """(size,) of any loudness; a shorter recording is repeated."""
        if not self.rows:
            return coloured(self.source, size, seed)
        rows = self.rows.get(split) or next(iter(self.rows.values()))
        index, seconds = int(draw(seed, 0, self.stream) * len(rows)), size / RATE
        value, where = rows[index][list_audio.name], rows.where(index)
        start = draw(seed, 1, self.stream) * max(0.0, duration(value) - seconds)
        return repeated(load_audio(value, where, start, start + seconds), size)


@dataclass(frozen=True)
class Augment:
    """How recordings are changed for training.

    Args:
        noise: `white`, `pink` or `brown`, or a folder or table of recordings; None: none.
        snr: dB by which a recording is louder than the noise, drawn evenly.
        rooms: a folder or table of impulse responses of rooms, in which recordings are played; None: none.
        chance: of noise, and of a room, for each recording.
        mixing: of parts of other recordings, as WavLM mixes; a `rate` of 0 for none.
        voices: a folder or table of the recordings that are mixed in; None: those of the same batch.
        speeds: of which one is drawn for each recording, tempo and pitch together; [0.9, 1.0, 1.1] by Ko et al.
            (Interspeech 2015). Targets along time are stretched too.
    """

    noise: str | None = None
    snr: tuple[float, float] = (0.0, 20.0)
    rooms: str | None = None
    chance: float = 0.5
    mixing: Mixing = Mixing(rate=0.0)
    voices: str | None = None
    speeds: Sequence[float] = (1.0,)

    @property
    def wanted(self) -> bool:
        return bool(self.noise or self.rooms or self.voices or self.mixing.rate or self.changes_speed)

    @property
    def changes_speed(self) -> bool:
        """Whether there is any speed but the recording's own."""
        return any(speed != 1 for speed in self.speeds) or not self.speeds

    def open(self) -> Changes:
        """Opens the recordings.

        Raises:
            UserError: there are none, or a number is out of its range.
        """
        within("data.augment.chance", self.chance, above=0, high=1)
        within("data.augment.snr, from", self.snr[0])
        within("data.augment.snr, to", self.snr[1], low=self.snr[0])
        for speed in self.speeds:
            within("data.augment.speeds", speed, low=0.5, high=2)
        if not self.speeds:
            raise UserError("data.augment.speeds names no speed; [0.9, 1.0, 1.1] is usual, [1.0] changes nothing.")
        if self.voices is not None and self.mixing.rate == 0:
            raise UserError("data.augment.voices are mixed into no recording; set data.augment.mixing.rate above 0.")
        rooms = open_source(self.rooms, list_audio, list_audio.name) if self.rooms else {}
        noises = Noises(self.noise) if self.noise else None
        voices = Noises(self.voices, VOICE) if self.voices else None
        return Changes(self, noises, next(iter(rooms.values()), None), voices)


@dataclass(frozen=True)
class Changes:
    """What an `Augment` does, with its recordings at hand; all that is random is drawn from an item's seed."""

    how: Augment
    noises: Noises | None
    rooms: Rows | None
    voices: Noises | None

    def speed(self, seed: int) -> float:
        """By which a recording is faster than it was."""
        return self.how.speeds[int(draw(seed, 0, SPEED) * len(self.how.speeds))]

    def added(self, size: int, seed: int) -> dict[str, Tensor]:
        """What `finish` mixes into a recording of so many samples, by what it is; empty where there shall be none."""
        found, none = {}, torch.zeros(0)
        if self.voices is not None:
            taken = self.how.mixing.mixes(seed)
            found["voice"] = self.voices.draw("train", size, seed) if taken else none
        if self.rooms is not None:
            index = int(draw(seed, 0, ROOM) * len(self.rooms))
            played = draw(seed, 0, CHANCE) < self.how.chance
            value = self.rooms[index][list_audio.name]
            found["room"] = load_audio(value, self.rooms.where(index)) if played else none
        if self.noises is not None:
            taken = draw(seed, 1, CHANCE) < self.how.chance
            found["noise"] = self.noises.draw("train", size, seed) if taken else none
        return found

    def finish(self, batch: SpeechBatch) -> SpeechBatch:
        """Mixes what was read for a batch, on its device: never louder than 1."""
        wave, lengths, size = batch.wave, batch.lengths, batch.wave.shape[1]
        added = batch.added or {}
        if self.how.mixing.rate > 0:
            voices = long(added["voice"], size) if "voice" in added else None
            wave = self.how.mixing.mix(wave, lengths, batch.seed, voices)
        if "room" in added:
            wave = reverberant(wave, lengths, long(added["room"], 1))
        if "noise" in added:
            low, high = self.how.snr
            decibels = low + (high - low) * uniform(batch.seed, 1, SNR)[:, 0]
            wave = noisy(wave, lengths, long(added["noise"], size), decibels)
        return replace(batch, wave=unclipped(wave), added=None)


def together(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is added to each recording as that of a batch: (B, longest) each."""
    return {name: pad_sequence([item[name] for item in items], batch_first=True) for name in items[0]}


def long(waves: Tensor, size: int) -> Tensor:
    """(B, N) → (B, max(N, size)), followed by silence."""
    return F.pad(waves, (0, max(0, size - waves.shape[1])))
