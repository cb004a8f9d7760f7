"""How often the host waits for a GPU in a step of training: loss, gradient, optimizer, teacher and logs of each method.

What is predicted only at some positions is gathered, and the host waits once for their number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from host_waits import HostWaits
from tiny import QUIET, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from upstreams import UPSTREAMS, WAITS

from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.images import Images
from ssl_suite.data.joint import Joint
from ssl_suite.data.speech.mixtures import Mixtures
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.methods.any.contrast import Contrast
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.image.mae import MAE
from ssl_suite.methods.image.simclr import SimCLR
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.electra import Electra
from ssl_suite.methods.text.elmo import ELMo
from ssl_suite.methods.text.gpt_bert import GPTBERT
from ssl_suite.methods.text.mask import Mask
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.methods.text.mdlm import MDLM
from ssl_suite.methods.text.multi_token import MultiTokenLM
from ssl_suite.methods.text.seq2seq import Seq2Seq
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.diarize import Diarize
from ssl_suite.tasks.separate import Separate
from ssl_suite.tasks.verify import Verify

ADAM = Optim("adamw", 1e-3)


def vit() -> ImageEncoder:
    return ImageEncoder("test_vit", image_size=64)


def trunk() -> Any:
    shape = {"frontend": "waveform", "conv_norm": "group", "buckets": 8, "reach": 9, "layer_drop": 0.1}
    return tiny_speech_encoder(trunk="transformer", dim=32, layers=3, dropout=0.0, **shape)


def data2vec(encoder: Any, block: int) -> Data2Vec:
    decoder = Decoder(layers=1, width=16, kernel=3, groups=4)
    return Data2Vec(encoder, top=2, masks=2, holes=Holes(0.5, block=block, adjust=0.0), decoder=decoder, optim=ADAM)


METHODS: dict[str, tuple[Callable[[], Any], int]] = {
    "SimCLR": (lambda: SimCLR(tiny_image_encoder(), optim=ADAM), 4),  # masks in lightly's loss and its gradient
    "SimCLR, LARS": (lambda: SimCLR(tiny_image_encoder(), optim=Optim("lars", 1e-3)), 4),
    "BYOL": (lambda: BYOL(tiny_image_encoder(), hidden_dim=16, projection_dim=8, optim=ADAM), 0),
    "MAE": (lambda: MAE(vit(), dim=32, layers=1, heads=4, optim=ADAM), 0),
    "Data2Vec, images": (lambda: data2vec(vit(), 2), 0),
    "Data2Vec, text": (lambda: data2vec(tiny_text_encoder(), 1), 0),
    "Data2Vec, speech": (lambda: data2vec(trunk(), 2), 0),
    "Finetune": (lambda: Finetune(tiny_image_encoder(), Classify(), mode="finetune", optim=ADAM), 0),
    "Finetune, Verify": (
        lambda: Finetune(tiny_speech_encoder(), Verify(width=8, last=12), mode="finetune", optim=ADAM),
        0,
    ),
    "Finetune, Diarize": (lambda: Finetune(tiny_speech_encoder(), Diarize(8), mode="finetune", optim=ADAM), 0),
    "Finetune, Separate": (lambda: Finetune(tiny_speech_encoder(), Separate(hidden=8), mode="finetune", optim=ADAM), 0),
    "Contrast": (lambda: Contrast({"a": tiny_image_encoder(), "b": tiny_image_encoder()}, optim=ADAM), 0),
    "APC": (lambda: APC(tiny_speech_encoder(), optim=ADAM), 0),
    "Seq2Seq": (lambda: Seq2Seq(EncoderDecoder(370, 16, 2, heads=2), optim=ADAM), 0),
    "Seq2Seq, Adafactor": (lambda: Seq2Seq(EncoderDecoder(370, 16, 2, heads=2), optim=Optim("adafactor", 1e-2)), 0),
    "MaskedLM": (lambda: MaskedLM(tiny_text_encoder(), optim=ADAM), 1),
    "MaskedLM, Muon": (lambda: MaskedLM(tiny_text_encoder(), optim=Optim("muon", 1e-3)), 1),
    "MaskedLM, spans": (lambda: MaskedLM(tiny_text_encoder(), mask=Mask("span"), optim=ADAM), 1),
    "MDLM": (lambda: MDLM(tiny_text_encoder(), optim=ADAM), 1),
    "MultiTokenLM": (lambda: MultiTokenLM(tiny_text_encoder(causal=True), 3, optim=ADAM), 3),
    "GPTBERT": (lambda: GPTBERT(tiny_text_encoder(), 0.5, optim=ADAM), 2),  # masked tokens, and next ones
    "CausalLM": (lambda: CausalLM(tiny_text_encoder(causal=True), optim=ADAM), 1),
    "Electra": (lambda: Electra(tiny_text_encoder(), generator_size=0.5, optim=ADAM), 2),  # masked, and real tokens
    "ELMo": (lambda: ELMo(LSTMEncoder(vocab_size=270, dim=12), optim=ADAM), 3),  # either direction, and features
    **{name: (make, WAITS.get(name, 0)) for name, make in UPSTREAMS.items()},
}

OTHER_DATA = {"Contrast": "joint", "Finetune, Diarize": "mixtures", "Finetune, Separate": "mixtures"}
"""Than those of the encoder's modality."""


class SecondStep(pl.Callback):
    """Counts in the second step; in the first, constants are put on the device and optimizer states are made."""

    waits = HostWaits()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.waits = HostWaits().__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, out: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.waits.__exit__(None, None, None)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_waits_as_often_as_stated(
    name: str, image_folder: str, text_file: str, speech_folder: str, units_folder: str, tmp_path: Path
) -> None:
    make, stated = METHODS[name]
    model, second = make(), SecondStep()
    data = {
        "image": lambda: Images(image_folder, image_size=64, batch_size=4),
        "text": lambda: Text(text_file, tokenizer="byte", max_length=32, batch_size=4),
        "speech": lambda: Speech(speech_folder, units=units_folder, batch_size=4),
        "mixtures": lambda: Mixtures(speech_folder, speaker="label", batch_size=4),
        "joint": lambda: Joint({n: Images(image_folder, image_size=32, batch_size=4) for n in "ab"}, batch_size=4),
    }[OTHER_DATA.get(name) or model.encoder.modality]()
    pl.Trainer(
        accelerator="cpu", devices=1, max_steps=2, limit_val_batches=0, enable_checkpointing=False,
        log_every_n_steps=100, default_root_dir=tmp_path, callbacks=[second], **QUIET,
    ).fit(model, data)  # fmt: skip
    assert model.trainer.global_step == 2
    assert len(second.waits.found) == stated, second.waits.found
