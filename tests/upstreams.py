"""Tiny speech upstreams by name, and units for those that predict some; tests import it as `upstreams`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tiny import tiny_speech_encoder

from ssl_suite.core.batch import IGNORE, SpeechBatch, lengths_to_mask
from ssl_suite.core.method import Method
from ssl_suite.core.optim import Optim
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.encoders.waves import Mixing
from ssl_suite.methods.speech.best_rq import BestRQ
from ssl_suite.methods.speech.cpc import CPC
from ssl_suite.methods.speech.dinosr import DinoSR, SpidR
from ssl_suite.methods.speech.distil_hubert import DistilHuBERT
from ssl_suite.methods.speech.hubert import HuBERT
from ssl_suite.methods.speech.quantizer import Codebooks
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.methods.speech.tera import TERA, Alteration
from ssl_suite.methods.speech.vq_apc import VQAPC
from ssl_suite.methods.speech.wav2vec2 import Wav2Vec2
from ssl_suite.methods.speech.wavlm import WavLM

ADAM = Optim("adamw", 1e-3)
SHORT = Spans(0.5, 3, 1)


def trunk(**options: Any) -> SpeechEncoder:
    """A transformer over log-mel frames."""
    return tiny_speech_encoder(**{"trunk": "transformer", "dropout": 0.0, **options})


def taught(**options: Any) -> SpeechEncoder:
    """A wider and deeper one, as a teacher."""
    return trunk(**{**options, "dim": 32, "layers": 3})


UNITS = 5


def built(model: HuBERT) -> HuBERT:
    """One that knows how many units there are."""
    model.build(UNITS)
    return model


def with_units(batch: SpeechBatch) -> SpeechBatch:
    """The batch with a unit every 10 ms."""
    size = batch.wave.shape[1] // 160
    units = (3 * batch.index[:, None] + torch.arange(size) // 4) % UNITS
    return replace(batch, target=units.masked_fill(~lengths_to_mask(batch.lengths // 160, size), IGNORE))


UPSTREAMS: dict[str, Callable[..., Method]] = {
    "BestRQ": lambda **o: BestRQ(trunk(**o), codes=32, codebook_dim=4, codebooks=2, spans=SHORT, optim=ADAM),
    "TERA": lambda **o: TERA(trunk(**o), Alteration(SHORT, band=4, noisy=0.5), ADAM),
    "VQAPC": lambda **o: VQAPC(tiny_speech_encoder(**{"dropout": 0.0, **o}), 3, 16, optim=ADAM),
    "DistilHuBERT": lambda **o: DistilHuBERT(trunk(**o), taught(**o), (1, 3), copy=False, optim=ADAM),
    "DinoSR": lambda **o: DinoSR(trunk(**o), top=2, codes=16, spans=SHORT, optim=ADAM),
    "SpidR": lambda **o: SpidR(trunk(**o), top=2, codes=16, spans=SHORT, optim=ADAM),
    "HuBERT": lambda **o: built(HuBERT(trunk(**o), SHORT, 8, seen=0.5, optim=ADAM)),
    "WavLM": lambda **o: built(WavLM(trunk(**o), Mixing(0.0), spans=SHORT, dim=8, optim=ADAM)),
    "Wav2Vec2": lambda **o: Wav2Vec2(trunk(**o), SHORT, Codebooks(2, 6, 8), 8, 10, optim=ADAM),
    "CPC": lambda **o: CPC(tiny_speech_encoder(**{"dropout": 0.0, **o}), 3, 8, ADAM),
}
"""Each takes options of its encoder."""
WAITS = {"BestRQ": 1, "DinoSR": 1, "SpidR": 1, "CPC": 1}
"""How often the host waits for a GPU in a step of each, for the number of frames it works on; of the others never."""
