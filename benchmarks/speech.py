"""Speed of the wav2vec 2.0 shape against transformers, of APC against a plain loop, and of the log-mel front end."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from side_by_side import WARM_UP, Case, Clock, arguments, compare, fit, loop
from torch.utils.data import DataLoader
from torchaudio.compliance.kaldi import fbank

from ssl_suite.core.batch import SpeechBatch
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


def wav2vec2(args: argparse.Namespace) -> Case:
    """Forward and backward of the encoder; no dropout, layer drop or masking on either side."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    dim, layers, channels = (32, 1, 32) if args.tiny else (256, 4, 512)
    shape: dict[str, Any] = {"channels": channels, "dim": dim, "layers": layers, "heads": 4, "position_kernel": 65}
    ours = SpeechEncoder("waveform", trunk="transformer", dropout=0.0, **shape)
    config = Wav2Vec2Config(
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * dim,
        conv_dim=[channels] * 7,
        conv_kernel=list(Waveform.kernels),
        conv_stride=list(Waveform.strides),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,  # pre-norm, as ours
        num_conv_pos_embeddings=65,
        **dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0.0),
        apply_spec_augment=False,
    )
    peer = Wav2Vec2Model(config)

    def step_ours(batch: SpeechBatch) -> None:
        ours.zero_grad()
        ours(batch).states[-1].mean().backward()

    def step_peer(batch: SpeechBatch) -> None:
        peer.zero_grad()
        mask = torch.arange(batch.wave.shape[1]) < batch.lengths[:, None]
        peer(batch.wave, attention_mask=mask.long()).last_hidden_state.mean().backward()

    feed = batches(prompts(2 if args.tiny else 4))
    sides = {"ours": step_ours, "peer": step_peer}
    return Case(
        f"wav2vec 2.0, {layers} × {dim}",
        "audio-s",
        "transformers Wav2Vec2Model",
        {k: lambda steps, f=f: loop(f, feed, steps, audio_seconds) for k, f in sides.items()},
    )


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
    compare([wav2vec2, apc, log_mel], arguments(__doc__ or "", rounds=5, steps=5).parse_args())
