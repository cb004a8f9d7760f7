"""A Switch block of 8 experts against the dense block it replaces, at equal FLOPs a token."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from side_by_side import Case, arguments, compare, loop

from ssl_suite.core.term import Term
from ssl_suite.encoders.transformer import Transformer
from ssl_suite.encoders.trunk import TrunkConfig

EXPERTS, ROWS, LENGTH = 8, 8, 256


def trained(config: TrunkConfig, x: torch.Tensor) -> Callable[[int], float]:
    """Forward, backward and the experts' losses of a trunk of one block."""
    trunk = Transformer(config).train()
    weights = list(trunk.parameters())

    def step(x: torch.Tensor) -> None:
        losses: dict[str, Term] = {}
        loss = trunk(x, losses=losses)[-1].square().mean() + sum(term.mean * term.scale for term in losses.values())
        torch.autograd.grad(loss, weights)

    return lambda steps: loop(step, [x], steps, lambda x: x.shape[0] * x.shape[1])


def block(dim: int) -> Callable[[argparse.Namespace], Case]:
    def build(args: argparse.Namespace) -> Case:
        width, rows = (16, 1) if args.tiny else (dim, ROWS)
        dense = TrunkConfig(width, 1, 4, bias=False, dropout=0.0)
        switch = replace(dense, experts=EXPERTS, experts_every=1)
        x = torch.randn(rows, LENGTH, width)
        sides = {"ours": trained(switch, x), "peer": trained(dense, x)}
        name = f"a Switch block of {EXPERTS} experts, width {width}, {rows} × {LENGTH} tokens"
        return Case(name, "tokens", "ours, the dense block", sides)

    build.__name__ = f"block_{dim}"
    return build


if __name__ == "__main__":
    compare([block(256), block(512)], arguments(__doc__ or "", rounds=5, steps=5).parse_args())
