"""Steps of pretraining on speech, data loading and optimizer too, in seconds of real audio a second.

wav2vec 2.0 against transformers, HuBERT against torchaudio, each fed as its own recipe feeds it; BEST-RQ against our
wav2vec 2.0; and a downstream epoch on kept features against one with the encoder in the loop. On the telephone prompts
as they are (0.3 to 12 s, most below 2), joined to 2 to 16 s, most near 14 as in read books, and to 10 s each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import soundfile
import speech_peers
import torch
from side_by_side import Case, arguments, compare, fit
from torch import Tensor

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.data import Request
from ssl_suite.core.features import default_cache
from ssl_suite.core.files import Lock
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.frozen import Room
from ssl_suite.core.method import Method
from ssl_suite.core.optim import Optim
from ssl_suite.data.speech.prepare import Recipe, prepare_units
from ssl_suite.data.speech.reading import RATE
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.best_rq import BestRQ
from ssl_suite.methods.speech.front_end import FrontEnd
from ssl_suite.methods.speech.hubert import HuBERT
from ssl_suite.methods.speech.wav2vec2 import Wav2Vec2
from ssl_suite.tasks.classify import Classify

OPTIM = Optim("adamw", 5e-4, betas=(0.9, 0.98), eps=1e-6, schedule="constant")
UNITS = 100
A_STEP = {"prompts": 8, "joined": 3, "equal": 3}
"""Recordings of a peer's step; ours has as many seconds."""


def sizes(args: argparse.Namespace) -> dict[str, int]:
    """Of the trunk; the convolutions are as wide as published."""
    if args.tiny:
        return {"dim": 32, "layers": 1, "heads": 2, "channels": 16}
    small = {"dim": 256, "layers": 4, "heads": 4}
    return {"channels": 512} | ({"dim": 768, "layers": 12, "heads": 12} if args.size == "base" else small)


# Data --------------------------------------------------------------------------------------------------------------


@cache
def source(kind: str, tiny: bool) -> str:
    """Where recordings of a kind are; those that are joined are made once."""
    if kind == "prompts" and not tiny:
        return "samples:prompts"
    folder = default_cache() / "benchmarks" / f"{kind}{'_tiny' * tiny}"
    folder.mkdir(parents=True, exist_ok=True)
    number, part = (12, 0.1) if tiny else (96, 1.0)
    u = torch.rand(number, generator=torch.Generator().manual_seed(0))
    seconds = part * (2 + 14 * (1 - u**3) if kind == "joined" else torch.full_like(u, 10.0))
    with Lock(folder / ".lock"):
        if not (folder / f"{number - 1}.wav").exists():
            data = Speech("samples:prompts")
            data.serve(Request())
            voices = torch.cat([data.read("train", i, 0).wave for i in range(12 if tiny else data.size("train"))])
            ends = (seconds * RATE).int().cumsum(0).tolist()
            for i, piece in enumerate(voices.tensor_split(ends)[:number]):
                soundfile.write(folder / f"{i}.wav", piece.numpy(), RATE)
    return str(folder)


@cache
def units(kind: str, tiny: bool) -> Path:
    """Of MFCC, as HuBERT's first iteration has them; made once."""
    folder = default_cache() / "benchmarks" / f"units_{kind}{'_tiny' * tiny}"
    prepare_units(Recipe(source(kind, tiny), units=10 if tiny else UNITS, hours=0.2), folder)
    return folder


@cache
def data(kind: str, tiny: bool, batch_seconds: float | None = None, with_units: bool = False) -> Speech:
    """Recordings of at most 15.6 s; without a budget, to be read one by one."""
    of = units(kind, tiny) if with_units else None
    made = Speech(
        source(kind, tiny), batch_seconds=batch_seconds, max_seconds=15.6, units=None if of is None else str(of)
    )
    made.serve(Request(pretrains=True, target="frames" if with_units else None, stride=speech_peers.STRIDE))
    return made


def seconds_a_step(kind: str, tiny: bool) -> float:
    lengths = data(kind, tiny).lengths("train")
    return A_STEP[kind] * sum(lengths) / len(lengths)


def audio_seconds(batch: SpeechBatch) -> float:
    return float(batch.lengths.sum()) / batch.rate


# Sides -------------------------------------------------------------------------------------------------------------


def encoder(args: argparse.Namespace, **options: Any) -> SpeechEncoder:
    return SpeechEncoder(**{"frontend": "waveform", "trunk": "transformer", **sizes(args), **options})


def ours(method: Callable[[], Method], args: argparse.Namespace, **options: Any) -> Callable[[int], float]:
    def side(steps: int) -> float:
        made = data(args.on, args.tiny, seconds_a_step(args.on, args.tiny), **options)
        folder = Path(tempfile.mkdtemp())
        return fit(method(), steps, audio_seconds, folder, datamodule=made, gradient_clip_val=10.0)

    return side


def wav2vec2_method(args: argparse.Namespace) -> Method:
    """The shape of large, which transformers' recipe asks for; it has no penalty and no smaller gradient."""
    return Wav2Vec2(encoder(args, normalize=True), front_end=FrontEnd(1.0, 0.0), optim=OPTIM)


def wav2vec2(args: argparse.Namespace) -> Case:
    def peer(steps: int) -> float:
        made = data(args.on, args.tiny)
        some = torch.randperm(made.size("train"), generator=torch.Generator().manual_seed(0))[: 20 * A_STEP[args.on]]
        waves = [made.read("train", i, i).wave for i in some.tolist()]
        return speech_peers.wav2vec2(waves, A_STEP[args.on], sizes(args), OPTIM, steps)

    sides = {"ours": ours(lambda: wav2vec2_method(args), args), "peer": peer}
    return Case(f"wav2vec 2.0, {shape(args)}, {args.on}", "audio-s", "transformers' recipe", sides)


def hubert(args: argparse.Namespace) -> Case:
    def peer(steps: int) -> float:
        made = data(args.on, args.tiny, seconds_a_step(args.on, args.tiny), with_units=True)

        def read(index: int) -> tuple[Tensor, Tensor]:
            item = made.read("train", index, index)
            assert isinstance(item.target, Tensor)
            return item.wave, item.target

        return speech_peers.hubert(read, made.train_batches(0), sizes(args), OPTIM, len(made.labels), steps)

    def method() -> Method:
        return HuBERT(encoder(args, conv_norm="group", norm="post"), penalized=args.penalized, optim=OPTIM)

    sides = {"ours": ours(method, args, with_units=True), "peer": peer}
    return Case(f"HuBERT, {shape(args)}, {args.on}", "audio-s", "torchaudio's recipe", sides)


def best_rq(args: argparse.Namespace) -> Case:
    def method() -> Method:
        return BestRQ(encoder(args, frontend="logmel", stack=4, positions="rotary"), optim=OPTIM)

    sides = {"ours": ours(method, args), "peer": ours(lambda: wav2vec2_method(args), args)}
    return Case(f"BEST-RQ, {shape(args)}, {args.on}", "audio-s", "our wav2vec 2.0", sides)


def shape(args: argparse.Namespace) -> str:
    return f"{sizes(args)['layers']} × {sizes(args)['dim']}"


def downstream(args: argparse.Namespace) -> Case:
    """A probe of the prompts' languages, on kept features, and with the encoder in the loop, as s3prl always has it."""

    def probe(room: Room) -> Callable[[int], float]:
        def side(steps: int) -> float:
            made = Speech("samples:prompts", target="language", batch_size=8, labels=16 if args.tiny else 256)
            model = Finetune(encoder(args), Classify(), "weighted_sum", room=room)
            return fit(model, steps, len, Path(tempfile.mkdtemp()), datamodule=made)

        return side

    sides = {"ours": probe(Room(keep=False)), "peer": probe(Room(keep=False, memory_gb=0.0))}
    return Case(f"probe, {shape(args)}, prompts", "prompts", "ours, encoder in the loop", sides)


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=3, steps=5)
    parser.add_argument("--size", choices=["small", "base"], default="small", help="trunks of 4 × 256 or 12 × 768")
    parser.add_argument("--penalized", choices=["all", "seen"], default="seen", help="frames of HuBERT's penalty")
    parser.add_argument("--on", choices=list(A_STEP), default="prompts", help="recordings: as they are, or joined")
    compare([wav2vec2, hubert, best_rq, downstream], parser.parse_args())
