"""Attention by blocks (BigBird) and in windows (ModernBERT) against dense attention, over the length of a row."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from side_by_side import Case, arguments, compare, loop
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.optim import Optim, build_optimizer, parameter_groups
from ssl_suite.encoders.masks import AttentionMask
from ssl_suite.encoders.sparse import big_bird, near
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import SPECIAL
from ssl_suite.methods.text.masked_lm import MaskedLM

HEADS, WIDTH, BLOCK, DRAWN, VOCAB = 4, 64, 64, 3, 8192
LENGTHS = (512, 1024, 2048, 4096, 8192)
CPU = torch.device("cpu")


def size(length: int, args: argparse.Namespace) -> tuple[int, int]:
    """Length of a row and of a block."""
    return (length // 16, BLOCK // 16) if args.tiny else (length, BLOCK)


def attention(kind: str, length: int) -> Callable[[argparse.Namespace], Case]:
    """Forward and backward of one layer's attention alone, its mask made anew: a row of `length` positions, 4 × 64."""

    def build(args: argparse.Namespace) -> Case:
        t, block = size(length, args)
        inputs = [torch.randn(1, HEADS, t, WIDTH, requires_grad=True) for _ in range(3)]

        def sparse() -> Any:
            row = AttentionMask()
            if kind == "window":
                return near(row, t, block, CPU).attend(*inputs)
            if t <= (5 + DRAWN) * block:  # as the trunk does
                return F.scaled_dot_product_attention(*inputs)
            return big_bird(row, t, HEADS, block, DRAWN, 0, CPU).attend(*inputs)

        def side(attend: Callable[[], Any]) -> Callable[[int], float]:
            def step(_: None) -> None:
                torch.autograd.grad(attend().sum(), inputs)

            return lambda steps: loop(step, [None], steps, lambda _: t)

        sides = {"ours": side(sparse), "peer": side(lambda: F.scaled_dot_product_attention(*inputs))}
        return Case(f"{kind}, a row of {t}", "tokens", "dense SDPA", sides)

    build.__name__ = f"{kind}_{length}"
    return build


def pretraining(kind: str, length: int) -> Callable[[argparse.Namespace], Case]:
    """A whole step of MaskedLM, 4 layers of width 256 on a row of `length` tokens."""

    def build(args: argparse.Namespace) -> Case:
        t, block = size(length, args)
        ids = torch.randint(len(SPECIAL), VOCAB, (1, t))
        batch = TextBatch(
            torch.zeros(1).long(), torch.zeros(1).long(), None, ids, torch.ones_like(ids).bool(), dense=True
        )

        def side(attention: str) -> Callable[[int], float]:
            encoder = TextEncoder(
                VOCAB,
                256,
                4,
                HEADS,
                t,
                positions="rotary",
                attention=attention,
                window=block,
                dropout=0.0,  # type: ignore[arg-type]
            )
            method = MaskedLM(encoder)
            method.special, method.mask_id, method.vocab_size = torch.arange(len(SPECIAL)), 4, VOCAB
            optimizer = build_optimizer(Optim(), parameter_groups(method, 0.01), 1e-4)

            def step(batch: TextBatch) -> None:
                optimizer.zero_grad()
                method.step(batch).total().backward()
                optimizer.step()

            return lambda steps: loop(step, [batch], steps, lambda b: b.ids.numel())

        sides = {"ours": side(kind), "peer": side("full")}
        return Case(f"MaskedLM, attention: {kind}, a row of {t}", "tokens", "ours, attention: full", sides)

    build.__name__ = f"step_{kind}_{length}"
    return build


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=3)
    cases = [attention("blocks", length) for length in LENGTHS]
    cases += [attention("window", 4096), pretraining("blocks", 4096), pretraining("local", 4096)]
    compare(cases, parser.parse_args())
