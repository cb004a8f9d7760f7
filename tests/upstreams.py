"""Tiny speech upstreams by name; tests import it as `upstreams`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiny import tiny_speech_encoder

from ssl_suite.core.method import Method
from ssl_suite.core.optim import Optim
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.best_rq import BestRQ
from ssl_suite.methods.speech.cpc import CPC
from ssl_suite.methods.speech.dinosr import DinoSR, SpidR
from ssl_suite.methods.speech.distil_hubert import DistilHuBERT
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.methods.speech.tera import TERA, Alteration
from ssl_suite.methods.speech.vq_apc import VQAPC

ADAM = Optim("adamw", 1e-3)
SHORT = Spans(0.5, 3, 1)


def trunk(**options: Any) -> SpeechEncoder:
    """A transformer over log-mel frames."""
    return tiny_speech_encoder(**{"trunk": "transformer", "dropout": 0.0, **options})


def taught(**options: Any) -> SpeechEncoder:
    """A wider and deeper one, as a teacher."""
    return trunk(**{**options, "dim": 32, "layers": 3})


UPSTREAMS: dict[str, Callable[..., Method]] = {
    "BestRQ": lambda **o: BestRQ(trunk(**o), codes=32, codebook_dim=4, codebooks=2, spans=SHORT, optim=ADAM),
    "TERA": lambda **o: TERA(trunk(**o), Alteration(SHORT, band=4, noisy=0.5), ADAM),
    "VQAPC": lambda **o: VQAPC(tiny_speech_encoder(**{"dropout": 0.0, **o}), 3, 16, optim=ADAM),
    "DistilHuBERT": lambda **o: DistilHuBERT(trunk(**o), taught(**o), (1, 3), copy=False, optim=ADAM),
    "DinoSR": lambda **o: DinoSR(trunk(**o), top=2, codes=16, spans=SHORT, optim=ADAM),
    "SpidR": lambda **o: SpidR(trunk(**o), top=2, codes=16, spans=SHORT, optim=ADAM),
    "CPC": lambda **o: CPC(tiny_speech_encoder(**{"dropout": 0.0, **o}), 3, 8, ADAM),
}
"""Each takes options of its encoder."""
WAITS = {"BestRQ": 1, "DinoSR": 1, "SpidR": 1, "CPC": 1}
"""How often the host waits for a GPU in a step of each, for the number of frames it works on; of the others never."""
