"""Mixing voices and noise: who is chosen, when each begins, how loud each is, and who is heard in which state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.random import draw, uniform

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
"""Noise whose power falls with the frequency to this exponent."""
QUIET = 35.0
"""dB under the loudest state of a voice from which on it is silent."""
PAUSE = 0.25
"""Seconds: a shorter silence within a voice is none."""
VOICES, OVERLAP, LEVEL, NOISE, SNR = range(11, 16)
"""Streams of random numbers, one for each purpose."""

Range = tuple[float, float]


class Others:
    """Draws, for a row, further rows of other speakers, each as likely as another.

    Args:
        speakers: of each row, anything that can be compared.

    Attributes:
        number: of the speakers.
    """

    def __init__(self, speakers: Sequence[Any]) -> None:
        names = np.array([str(speaker) for speaker in speakers])
        self.order = np.argsort(names, kind="stable")  # each speaker's rows lie together
        _, first, self.speaker, sizes = np.unique(
            names[self.order], return_index=True, return_inverse=True, return_counts=True
        )
        self.first, self.sizes, self.number = first, sizes, len(first)
        self.place = np.argsort(self.order)

    def draw(self, rows: Sequence[int], seeds: Tensor, voices: int) -> list[list[int]]:
        """For each row itself and `voices − 1` others: no speaker twice.

        Args:
            rows: the first voice of each mixture.
            seeds: (B,) of the mixtures.
            voices: at most `number`.
        """
        chances = uniform(seeds, voices, VOICES).numpy()
        return [self._draw(row, chance) for row, chance in zip(rows, chances, strict=True)]

    def _draw(self, row: int, chances: Any) -> list[int]:
        chosen, taken = [row], [int(self.speaker[self.place[row]])]
        for chance in chances[1:]:
            left = len(self.order) - int(self.sizes[taken].sum())
            place = min(int(chance * left), left - 1)
            for speaker in sorted(taken):  # their rows are stepped over
                place += int(self.sizes[speaker]) if place >= self.first[speaker] else 0
            chosen.append(int(self.order[place]))
            taken.append(int(self.speaker[place]))
        return chosen


@dataclass(frozen=True)
class Mix:
    """How voices and noise are mixed; every range is drawn from evenly.

    Args:
        overlap: share of the shorter of a voice and what is there before, during which both are heard: 1 is all of it,
            −0.5 a pause of half of it.
        level: dB by which each further voice is louder than the first.
        snr: dB by which the voices together are louder than the noise.
    """

    overlap: Range = (0.0, 1.0)
    level: Range = (-5.0, 5.0)
    snr: Range = (0.0, 20.0)

    def begins(self, lengths: Sequence[float], seed: int) -> list[float]:
        """When each voice begins, in the unit of `lengths`; the first at 0."""
        begins, end = [0.0], lengths[0]
        for voice, length in enumerate(lengths[1:], 1):
            shared = between(self.overlap, seed, OVERLAP, voice) * min(length, end)
            begins.append(max(0.0, end - shared))
            end = max(end, begins[-1] + length)
        return begins

    def lasts(self, lengths: Sequence[float], seed: int) -> float:
        """How long the mixture is."""
        return max(begin + length for begin, length in zip(self.begins(lengths, seed), lengths, strict=True))

    def voices(self, waves: Sequence[Tensor], seed: int) -> Tensor:
        """Each voice at its place and level.

        Args:
            waves: (N_v,) each.
            seed: of the mixture.

        Returns:
            (V, N), silent before and after each.
        """
        begins = [round(begin) for begin in self.begins([len(wave) for wave in waves], seed)]
        placed = torch.zeros(len(waves), max(b + len(w) for b, w in zip(begins, waves, strict=True)))
        for voice, (row, begin, wave) in enumerate(zip(placed, begins, waves, strict=True)):
            louder = between(self.level, seed, LEVEL, voice) if voice else 0.0
            row[begin : begin + len(wave)] = wave * (loudness(waves[0]) / loudness(wave) * gain(louder))
        return placed

    def noise(self, noise: Tensor, voices: Tensor, seed: int) -> Tensor:
        """The noise, as loud as it is to be under these voices; both (N,)."""
        return noise * (loudness(voices) / loudness(noise) * gain(-between(self.snr, seed, SNR)))


def between(limits: Range, seed: int, stream: int, column: int = 0) -> float:
    """A number of a range."""
    return limits[0] + (limits[1] - limits[0]) * draw(seed, column, stream)


def gain(decibels: float) -> float:
    """The factor of an amplitude."""
    return float(10 ** (decibels / 20))


def loudness(wave: Tensor) -> float:
    """Root of the mean square; of silence the least number that can be divided by."""
    return max(float(wave.square().mean().sqrt()), 1e-8)


def coloured(colour: str, size: int, seed: int) -> Tensor:
    """(size,) noise of a colour, drawn from `seed`."""
    white = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft(white)
    bands = torch.arange(len(spectrum)).clamp(min=1)
    return torch.fft.irfft(spectrum * bands ** (-COLOURS[colour] / 2), size)


def repeated(noise: Tensor, size: int) -> Tensor:
    """(size,) of a recording, again and again where it is shorter."""
    return noise.repeat(1 + size // len(noise))[:size]


def heard(voice: Tensor, stride: int, rate: int) -> Tensor:
    """(L,) whether a voice is heard in each state of an encoder, 1 or 0, from its energy.

    Args:
        voice: (N,) clean.
        stride: samples a state; the last one may lack some.
        rate: samples a second.
    """
    states = F.pad(voice, (0, -len(voice) % stride)).view(-1, stride)
    energy = states.square().mean(1)
    loud = (energy > energy.max() * 10 ** (-QUIET / 10)).float()
    reach = math.ceil(PAUSE * rate / stride / 2)
    within = F.pad(loud, (reach, reach))[None]
    grown = F.max_pool1d(within, 2 * reach + 1, 1, reach)
    return -F.max_pool1d(-grown, 2 * reach + 1, 1, reach)[0, reach : reach + len(loud)]
