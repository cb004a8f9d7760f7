"""Augment: noise and rooms from a user's recordings, added to what is trained on, anew every epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_suite.core.check import within
from ssl_suite.core.random import draw
from ssl_suite.data.common.source import Rows, open_source
from ssl_suite.data.speech.mixing import COLOURS, NOISE, Mix, coloured, loudness, repeated
from ssl_suite.data.speech.reading import RATE, duration, list_audio, load_audio

CHANCE, ROOM = 21, 22
"""Streams of random numbers, one for each purpose."""


class Noises:
    """Noise of a colour, or from recordings of which parts are drawn.

    Args:
        source: `white`, `pink` or `brown`, or a folder or table; one with splits keeps their noises apart.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows: dict[str, Rows] = {} if source in COLOURS else open_source(source, list_audio, list_audio.name)
        self.fingerprint = "|".join([source, *(rows.fingerprint for rows in self.rows.values())])

    def draw(self, split: str, size: int, seed: int) -> Tensor:
        """(size,) of any loudness; a shorter recording is repeated."""
        if not self.rows:
            return coloured(self.source, size, seed)
        rows = self.rows.get(split) or next(iter(self.rows.values()))
        index, seconds = int(draw(seed, 0, NOISE) * len(rows)), size / RATE
        value, where = rows[index][list_audio.name], rows.where(index)
        start = draw(seed, 1, NOISE) * max(0.0, duration(value) - seconds)
        return repeated(load_audio(value, where, start, start + seconds), size)


@dataclass(frozen=True)
class Augment:
    """How recordings are changed for training; their length, and what is said in them when, stays.

    Args:
        noise: `white`, `pink` or `brown`, or a folder or table of recordings; None: none.
        snr: dB by which a recording is louder than the noise, drawn evenly.
        rooms: a folder or table of impulse responses of rooms, in which recordings are played; None: none.
        chance: of noise, and of a room, for each recording.
    """

    noise: str | None = None
    snr: tuple[float, float] = (0.0, 20.0)
    rooms: str | None = None
    chance: float = 0.5

    @property
    def wanted(self) -> bool:
        return self.noise is not None or self.rooms is not None

    def open(self) -> Changes:
        """Opens the recordings.

        Raises:
            UserError: there are none, or a number is out of its range.
        """
        within("data.augment.chance", self.chance, above=0, high=1)
        within("data.augment.snr, from", self.snr[0])
        within("data.augment.snr, to", self.snr[1], low=self.snr[0])
        rooms = open_source(self.rooms, list_audio, list_audio.name) if self.rooms else {}
        return Changes(self, Noises(self.noise) if self.noise else None, next(iter(rooms.values()), None))


@dataclass(frozen=True)
class Changes:
    """What an `Augment` does, with its recordings at hand."""

    how: Augment
    noises: Noises | None
    rooms: Rows | None

    def __call__(self, wave: Tensor, seed: int) -> Tensor:
        """(N,) → (N,), as `seed` draws; never louder than 1."""
        if self.rooms is not None and draw(seed, 0, CHANCE) < self.how.chance:
            index = int(draw(seed, 0, ROOM) * len(self.rooms))
            wave = reverberant(wave, load_audio(self.rooms[index][list_audio.name], self.rooms.where(index)))
        if self.noises is not None and draw(seed, 1, CHANCE) < self.how.chance:
            wave = wave + Mix(snr=self.how.snr).noise(self.noises.draw("train", len(wave), seed), wave, seed)
        return wave / wave.abs().max().clamp(min=1)


def reverberant(wave: Tensor, response: Tensor) -> Tensor:
    """(N,) as it sounds in a room: as loud as before, and the direct sound where it was.

    Args:
        wave: (N,).
        response: (M,) of the room to an impulse.
    """
    n, direct = len(wave) + len(response) - 1, int(response.abs().argmax())
    heard = torch.fft.irfft(torch.fft.rfft(wave, n) * torch.fft.rfft(response, n), n)[direct : direct + len(wave)]
    return heard * (loudness(wave) / loudness(heard))
