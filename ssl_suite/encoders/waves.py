"""What is done to the waveforms of a batch for training, on their device: voices, rooms and noise; no step waits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import draw, uniform

MIXING = 505
"""Stream of random numbers."""
FFT = 4096
"""Samples of which a transform has a multiple, so that there are few plans to make."""


@dataclass(frozen=True)
class Mixing:
    """Which recordings a part of another one is added to, and how loud (WavLM, arXiv:2110.13900, algorithm 1).

    Args:
        rate: share of the recordings that are mixed.
        quietest: least ratio of a recording's energy to that of what is added, in dB.
        loudest: the greatest.
        longest: most of a recording that is talked into, as a share of it.
    """

    rate: float = 0.2
    quietest: float = -5.0
    loudest: float = 5.0
    longest: float = 0.5

    def __post_init__(self) -> None:
        within("mixing.rate", self.rate, low=0, high=1)
        within("mixing.quietest", self.quietest)
        within("mixing.loudest", self.loudest)
        within("mixing.longest", self.longest, low=0, high=1)
        if self.quietest > self.loudest:
            raise UserError(f"mixing.quietest is {self.quietest:g} dB, above mixing.loudest, {self.loudest:g} dB.")

    def mixes(self, seed: int) -> bool:
        """Whether something is added to the recording of this seed."""
        return draw(seed, 0, MIXING) < self.rate

    def mix(self, wave: Tensor, lengths: Tensor, seeds: Tensor, others: Tensor | None = None) -> Tensor:
        """Adds to each chosen recording a part of another.

        Args:
            wave: (B, N), 0 in the padding.
            lengths: (B,) samples of each.
            seeds: (B,) of the recordings.
            others: (B, N) what is added to each, as long as it; None: one that is drawn among all of the batch.

        Returns:
            (B, N).
        """
        chosen, which, ratio, share, into, out_of = uniform(seeds, 6, stream=MIXING).T  # (B,) each
        pool = wave if others is None else others
        other = (which * len(wave)).long() if others is None else torch.arange(len(wave), device=wave.device)
        size = torch.minimum(share * self.longest * lengths, lengths[other]).long()
        start, first = (into * (lengths - size)).long(), (out_of * (lengths[other] - size)).long()
        decibels = self.quietest + (self.loudest - self.quietest) * ratio
        factor = amplitude(energy(wave, lengths), energy(pool, lengths)[other], decibels)
        places = torch.arange(wave.shape[1], device=wave.device) - start[:, None]  # in what is added
        added = pool[other].gather(1, (places + first[:, None]).clamp(0, wave.shape[1] - 1))
        inside = (places >= 0) & (places < size[:, None]) & (chosen < self.rate)[:, None]
        return wave + factor[:, None] * added * inside


def energy(wave: Tensor, lengths: Tensor) -> Tensor:
    """(B, N), 0 in the padding → (B,) mean square."""
    return wave.square().sum(1) / lengths


def amplitude(energy: Tensor, other: Tensor, decibels: Tensor) -> Tensor:
    """(B,) factor for waves of energy `other` that leaves one of `energy` louder than them by so many dB."""
    return (energy / (10 ** (decibels / 10) * other.clamp(min=1e-12))).sqrt()


def noisy(wave: Tensor, lengths: Tensor, noise: Tensor, decibels: Tensor) -> Tensor:
    """Adds noise under which each recording is heard by `decibels`.

    Args:
        wave: (B, N), 0 in the padding.
        lengths: (B,) samples of each.
        noise: (B, N) of any loudness, 0 in the padding; silence adds nothing.
        decibels: (B,).
    """
    return wave + amplitude(energy(wave, lengths), energy(noise, lengths), decibels)[:, None] * noise


def reverberant(wave: Tensor, lengths: Tensor, response: Tensor) -> Tensor:
    """Each recording as it sounds in a room: as loud as before, and the direct sound where it was.

    Args:
        wave: (B, N), 0 in the padding.
        lengths: (B,) samples of each.
        response: (B, M) of its room to an impulse, whose loudest sample is the direct sound; silence is no room.

    Returns:
        (B, N), 0 in the padding.
    """
    size = wave.shape[1]
    n = -(-(size + response.shape[1]) // FFT) * FFT
    heard = torch.fft.irfft(torch.fft.rfft(wave, n) * torch.fft.rfft(response, n), n)
    direct = response.abs().argmax(1, keepdim=True)
    real = lengths_to_mask(lengths, size)
    heard = heard.gather(1, torch.arange(size, device=wave.device) + direct) * real
    heard = heard * amplitude(energy(wave, lengths), energy(heard, lengths), torch.zeros_like(wave[:, 0]))[:, None]
    return torch.where(response.any(1, keepdim=True), heard, wave)


def unclipped(wave: Tensor) -> Tensor:
    """(B, N), none louder than 1."""
    return wave / wave.abs().amax(1, keepdim=True).clamp(min=1)
