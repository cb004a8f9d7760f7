"""WavLM: HuBERT on recordings that other voices talk into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import StepOutput
from ssl_suite.core.random import uniform
from ssl_suite.methods.speech.hubert import HuBERT


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

    def mix(self, wave: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """Adds to each chosen recording a part of another, drawn among all of the batch; waits for no device.

        Args:
            wave: (B, N), 0 in the padding.
            lengths: (B,) samples of each.
            seeds: (B,) of the recordings.

        Returns:
            (B, N).
        """
        chosen, which, ratio, share, into, out_of = uniform(seeds, 6, stream=505).T  # (B,) each
        other = (which * len(wave)).long()
        size = torch.minimum(share * self.longest * lengths, lengths[other]).long()
        start, first = (into * (lengths - size)).long(), (out_of * (lengths[other] - size)).long()
        energy = wave.square().sum(1) / lengths
        decibels = self.quietest + (self.loudest - self.quietest) * ratio
        factor = (energy / (10 ** (decibels / 10) * energy[other].clamp(min=1e-12))).sqrt()
        places = torch.arange(wave.shape[1], device=wave.device) - start[:, None]  # in what is added
        added = wave[other].gather(1, (places + first[:, None]).clamp(0, wave.shape[1] - 1))
        inside = (places >= 0) & (places < size[:, None]) & (chosen < self.rate)[:, None]
        return wave + factor[:, None] * added * inside


class WavLM(HuBERT):
    """Masked prediction and denoising in one (Chen et al. 2021, arXiv:2110.13900): units are those of the clean voice.

    Args:
        encoder: a transformer over speech; WavLM's has a gated relative position bias, `buckets: 320`.
        mixing: what is added to the recordings.
        options: of `HuBERT`.
    """

    def __init__(self, encoder: Encoder | str, mixing: Mixing = Mixing(), **options: Any) -> None:
        super().__init__(encoder, **options)
        self.mixing = mixing

    def step(self, batch: SpeechBatch) -> StepOutput:
        return super().step(replace(batch, wave=self.mixing.mix(batch.wave, batch.lengths, batch.seed)))
