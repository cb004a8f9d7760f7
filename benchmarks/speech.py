"""Speed of wav2vec 2.0's shape against transformers, HuBERT's against torchaudio, of APC, and of log-mel frames."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from side_by_side import WARM_UP, Case, Clock, arguments, compare, fit, loop
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchaudio.compliance.kaldi import fbank
from torchaudio.models import wav2vec2_model

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.data import Request
from ssl_suite.core.optim import Optim
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.frontend import LogMel, Waveform
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.apc import APC


@cache
def prompts(batch_size: int) -> Speech:
    """Telephone prompts of about one to ten seconds, in batches of similar length, decoded once."""
    data = Speech("samples:prompts", batch_size=batch_size)
    data.serve(Request())
    return data


def batches(data: Speech, epoch: int = 0) -> list[SpeechBatch]:
    """The first few training batches."""
    return [data.collate([data.read("train", i, i) for i in rows]) for rows in data.train_batches(epoch)[:8]]


def audio_seconds(batch: SpeechBatch) -> float:
    return float(batch.lengths.sum()) / batch.rate


def shape(args: argparse.Namespace) -> dict[str, int]:
    """Sizes of the trunk; the convolutions are as wide as published."""
    return {"dim": 32, "layers": 1, "channels": 32} if args.tiny else {"dim": 256, "layers": 4, "channels": 512}


def encoder_step(args: argparse.Namespace, name: str, library: str, ours: SpeechEncoder, peer: nn.Module) -> Case:
    """Forward and backward of an encoder on the same batches.

    Args:
        args: of the script.
        name: of the case.
        library: whose the peer is.
        ours: without dropout.
        peer: takes waveforms and their lengths, gives its output.
    """

    def step_ours(batch: SpeechBatch) -> None:
        ours.zero_grad()
        ours(batch).states[-1].mean().backward()

    def step_peer(batch: SpeechBatch) -> None:
        peer.zero_grad()
        peer(batch.wave, batch.lengths).mean().backward()

    feed = batches(prompts(2 if args.tiny else 4))
    sides = {"ours": step_ours, "peer": step_peer}
    sizes = shape(args)
    return Case(
        f"{name}, {sizes['layers']} × {sizes['dim']}",
        "audio-s",
        library,
        {k: lambda steps, f=f: loop(f, feed, steps, audio_seconds) for k, f in sides.items()},
    )


class Masked(nn.Module):
    """transformers' model, told the lengths by an attention mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, wave: Tensor, lengths: Tensor) -> Tensor:
        mask = lengths_to_mask(lengths, wave.shape[1]).long()
        return self.model(wave, attention_mask=mask).last_hidden_state


class Output(nn.Module):
    """torchaudio's model without the lengths that it gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, wave: Tensor, lengths: Tensor) -> Tensor:
        return self.model(wave, lengths)[0]


def wav2vec2(args: argparse.Namespace) -> Case:
    """The shape of large: layer norm after each convolution, pre-norm; no dropout, layer drop or masking."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = shape(args)
    ours = SpeechEncoder("waveform", trunk="transformer", heads=4, dropout=0.0, position_kernel=65, **sizes)
    config = Wav2Vec2Config(
        hidden_size=sizes["dim"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=4,
        intermediate_size=4 * sizes["dim"],
        conv_dim=[sizes["channels"]] * 7,
        conv_kernel=list(Waveform.kernels),
        conv_stride=list(Waveform.strides),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=65,
        **dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0.0),
        apply_spec_augment=False,
    )
    return encoder_step(args, "wav2vec 2.0", "transformers Wav2Vec2Model", ours, Masked(Wav2Vec2Model(config)))


def hubert(args: argparse.Namespace) -> Case:
    """The shape of base: group norm after the first convolution, post-norm; no dropout, layer drop or masking."""
    sizes = shape(args)
    options: dict[str, Any] = {"conv_norm": "group", "norm": "post", "dropout": 0.0}
    ours = SpeechEncoder("waveform", trunk="transformer", heads=4, **options, **sizes)
    dropouts = ("projection_dropout", "attention_dropout", "ff_interm_dropout", "dropout", "layer_drop")
    model = wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[
            (sizes["channels"], k, s) for k, s in zip(Waveform.kernels, Waveform.strides, strict=True)
        ],
        extractor_conv_bias=False,
        encoder_embed_dim=sizes["dim"],
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=sizes["layers"],
        encoder_num_heads=4,
        encoder_ff_interm_features=4 * sizes["dim"],
        encoder_layer_norm_first=False,
        aux_num_out=None,
        **{f"encoder_{name}": 0.0 for name in dropouts},
    )
    return encoder_step(args, "HuBERT", "torchaudio wav2vec2_model", ours, Output(model))


def apc(args: argparse.Namespace) -> Case:
    """A training step with its data; the peer is the least code that trains the same network on the same batches."""
    dim, size = (32, 2) if args.tiny else (512, 16)
    optim, folder, data = (
        Optim("adam", 1e-4, schedule="constant", weight_decay=0.0),
        Path(tempfile.mkdtemp()),
        prompts(size),
    )
    ours, plain = (APC(SpeechEncoder(dim=dim, layers=3), optim=optim) for _ in range(2))

    def peer(steps: int) -> float:
        keys = [[(0, i) for i in rows] for rows in data.train_batches(0)]
        loader = DataLoader(data.dataset("train"), batch_sampler=keys, collate_fn=data.collate)
        optimizer = torch.optim.Adam(plain.parameters(), optim.lr, fused=True)
        encoder, clock = plain.encoder.train(), Clock()
        for _, batch in zip(range(WARM_UP + steps), cycle(loader), strict=False):
            frames, mask = encoder.frontend(batch)
            output = encoder.contextualise(encoder.enter(frames, mask)).states[-1]
            error = (plain.predict(output[:, :-5]) - frames[:, 5:]).abs().mean(-1)[mask[:, 5:]]
            optimizer.zero_grad()
            error.mean().backward()
            optimizer.step()
            clock.step(audio_seconds(batch))
        return clock.rate()

    return Case(
        f"APC, GRU 3 × {dim}",
        "audio-s",
        "plain PyTorch loop",
        {"ours": lambda steps: fit(ours, steps, audio_seconds, folder, datamodule=data), "peer": peer},
    )


def log_mel(args: argparse.Namespace) -> Case:
    """80 log-mel channels every 10 ms of a padded batch; Kaldi's takes one utterance at a time."""
    ours = LogMel()

    @torch.no_grad()
    def step_ours(batch: SpeechBatch) -> Any:
        return ours(batch)

    def step_peer(batch: SpeechBatch) -> Any:
        for wave, n in zip(batch.wave, batch.lengths.tolist(), strict=True):
            x = fbank(wave[None, :n], num_mel_bins=80, sample_frequency=16000.0)
            (x - x.mean(0)) / (x.std(0) + 1e-5)

    feed = batches(prompts(2 if args.tiny else 16))
    return Case(
        "log-mel, normalised",
        "audio-s",
        "torchaudio Kaldi fbank",
        {
            "ours": lambda steps: loop(step_ours, feed, steps, audio_seconds),
            "peer": lambda steps: loop(step_peer, feed, steps, audio_seconds),
        },
    )


if __name__ == "__main__":
    compare([wav2vec2, hubert, apc, log_mel], arguments(__doc__ or "", rounds=5, steps=5).parse_args())
