"""WavLM: HuBERT on recordings that other voices talk into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.method import StepOutput
from ssl_suite.encoders.waves import Mixing
from ssl_suite.methods.speech.hubert import HuBERT


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
