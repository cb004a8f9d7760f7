"""What it saves to encode the visible positions alone: a trunk's pass, and a whole step of Data2Vec.

Ours encodes what is visible; the other side is the same model that carries the hidden positions along.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from side_by_side import Case, arguments, compare, loop
from torch import Tensor

from ssl_suite.core.batch import ImageBatch, SpeechBatch
from ssl_suite.core.encoder import Encoder, Tokens
from ssl_suite.core.method import StepOutput, Term
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes


class Carrying(Data2Vec):
    """The same step, but its students read every position, the hidden ones as zeros."""

    def step(self, batch: Any) -> StepOutput:
        target, summary = self.target(batch)
        tokens = self.encoder.embed(batch)
        chosen = self.holes.draw(tokens, batch.seed, self.masks)
        every = torch.arange(tokens.length).expand(len(chosen.hidden), -1)
        carried = tokens.keep(every).replace(chosen.hidden, torch.zeros(tokens.values.shape[2]))
        output = self.encoder.contextualise(replace(carried, places=None)).states[-1]
        predicted = self.decoder(output, tokens.grid)
        error = (predicted - target.repeat_interleave(self.masks, 0)).square().sum(-1) * self.scale
        return StepOutput(Term((error * chosen.hidden).sum(), chosen.hidden.sum()), features=summary)


def images(n: int, size: int) -> ImageBatch:
    return ImageBatch(torch.arange(n), torch.arange(n), None, torch.rand(n, 3, size, size))


def speech(n: int, seconds: float) -> SpeechBatch:
    lengths = torch.full((n,), int(16000 * seconds))
    return SpeechBatch(torch.arange(n), torch.arange(n), None, torch.randn(n, int(lengths[0])) * 0.1, lengths)


def items(batch: Any) -> float:
    return float(len(batch))


def trunk(name: str, encoder: Encoder, batch: Any, holes: Holes) -> Case:
    """Forward and backward through the trunk, of tokens that are there already."""
    with torch.no_grad():
        tokens = encoder.embed(batch)
    chosen = holes.draw(tokens, batch.seed)

    def once(make: Callable[[], Tokens]) -> Callable[[Any], None]:
        def step(_: Any) -> None:
            encoder.contextualise(make()).states[-1].square().mean().backward()

        return step

    sides = {
        "ours": lambda steps: loop(once(lambda: tokens.keep(chosen.places, chosen.real)), [batch], steps, items),
        "peer": lambda steps: loop(once(lambda: tokens), [batch], steps, items),
    }
    return Case(name, "items/s", "all positions", sides)


def vit(args: argparse.Namespace) -> Case:
    encoder = ImageEncoder("test_vit" if args.tiny else "vit_small_patch16_224")
    return trunk("ViT-S/16, 224 px, 80 % hidden", encoder, images(2 if args.tiny else 16, 224), Holes())


def speech_trunk(args: argparse.Namespace) -> Case:
    dim, layers = (32, 1) if args.tiny else (384, 12)
    encoder = SpeechEncoder("waveform", channels=32, trunk="transformer", dim=dim, layers=layers, heads=dim // 16)
    holes = Holes(0.8, 5, 0.05, inverse=False)
    return trunk(f"speech, {layers} × {dim}, 80 % hidden", encoder, speech(2, 1.0 if args.tiny else 10.0), holes)


def data2vec_step(args: argparse.Namespace) -> Case:
    name, n = ("test_vit", 1) if args.tiny else ("vit_small_patch16_224", 4)
    options: dict[str, Any] = {"top": 4, "masks": 8, "decoder": Decoder(2, 64) if args.tiny else Decoder()}
    feed = [images(n, 224)]

    def side(method: type[Data2Vec]) -> Callable[[int], float]:
        model = method(ImageEncoder(name), **options)

        def step(batch: ImageBatch) -> None:
            model.zero_grad()
            loss: Tensor = model.step(batch).total()
            loss.backward()

        return lambda steps: loop(step, feed, steps, items)

    sides = {"ours": side(Data2Vec), "peer": side(Carrying)}
    return Case("Data2Vec step, ViT-S/16, 8 masks", "images/s", "students carry the hidden", sides)


if __name__ == "__main__":
    compare([vit, speech_trunk, data2vec_step], arguments(__doc__ or "", rounds=3, steps=3).parse_args())
