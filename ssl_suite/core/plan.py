"""Memory of a rank, computed from a model on the meta device: what a run would hold, without any of it.

Counted are weights, gradients and optimizer states, exactly, and what a block gathers for a while; activations are an
estimate. Autocast's copies of weights, the kernels' workspace and the allocator's gaps come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import nn

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.expert_parallel import ExpertLayer
from ssl_suite.core.method import Method
from ssl_suite.core.module import TrainModule
from ssl_suite.core.muon import hidden_matrices
from ssl_suite.core.optim import Optim

WORD = 4
"""Bytes of a weight, a gradient and an optimizer's number: mixed precision keeps them in float32."""
SCHEMES = ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3")
"""`configs/trainer/ddp.yaml`, and `configs/trainer/fsdp.yaml` with `zero: 1`, 2 and 3."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of one rank's share, after tensor parallelism and before anything is sharded over data-parallel ranks.

    Attributes:
        weights: all of them, teachers too.
        learned: those with a gradient.
        states: numbers an optimizer keeps of the latter.
        block: the learned ones of the largest block that are gathered: all but experts that are spread.
        root: the learned ones outside blocks.
    """

    weights: int
    learned: int
    states: int
    block: int
    root: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank.

    Attributes:
        weights: what stays from step to step.
        states: of the optimizer.
        gradients: at their most.
        gathered: weights of other ranks that it has for a while, at their most.
        activations: an estimate.
    """

    weights: float
    states: float
    gradients: float
    gathered: float
    activations: float

    @property
    def kept(self) -> float:
        """What is there between two steps."""
        return self.weights + self.states

    @property
    def total(self) -> float:
        return self.kept + self.gradients + self.gathered + self.activations


def on_meta(make: Callable[[], TrainModule]) -> TrainModule:
    """Makes a model without memory for its weights."""
    with torch.device("meta"):
        return make()


def experts(model: TrainModule) -> int:
    """Over so many processes or fewer its experts can be spread; 0: it has none."""
    layers = [m for m in model.modules() if isinstance(m, ExpertLayer)]
    return min((len(layer.expert_weights()[0]) for layer in layers), default=0)


def sizes(model: TrainModule, tensor_parallel: int = 1, expert_parallel: bool = False) -> Sizes:
    """Counts a model's numbers on one rank of a tensor-parallel group, or of those over which experts are spread.

    Raises:
        UserError: it cannot be cut over so many.
    """
    plan = model.tensor_plan(tensor_parallel) if tensor_parallel > 1 else {}
    matrices = {f"{name}.weight" for name, _ in model.named_modules() if any(fnmatch(name, cut) for cut in plan)}
    counts = {p: p.numel() // (tensor_parallel if n in matrices else 1) for n, p in model.named_parameters()}
    learned = {p: n for p, n in counts.items() if p.requires_grad}
    hidden = hidden_matrices(model) if model.optim.name == "muon" else {}
    blocks = [b for m in model.modules() if isinstance(m, Encoder) for b in m.blocks()]
    layers = [m for m in model.modules() if isinstance(m, ExpertLayer)] if expert_parallel else []
    away = {p for layer in layers for p in layer.expert_weights()}
    of_blocks = [sum(learned.get(p, 0) for p in block.parameters() if p not in away) for block in blocks]
    inside = {p for block in blocks for p in block.parameters()}
    return Sizes(
        sum(counts.values()),
        sum(learned.values()),
        sum(n * kept(model.optim, p in hidden) for p, n in learned.items()),
        max(of_blocks, default=0),
        sum(n for p, n in learned.items() if p not in inside),
    )


def kept(optim: Optim, by_muon: bool = False) -> int:
    """Numbers an optimizer keeps for each that it learns: two averages, one momentum, or a matrix's sides alone."""
    if by_muon or optim.name == "adafactor":
        return int(by_muon)
    return 2 if optim.name in ("adamw", "adam", "muon") else int(optim.momentum > 0)


def memory(s: Sizes, scheme: str, ranks: int, activations: float = 0.0) -> Memory:
    """Bytes of a rank among `ranks` that read other rows (arXiv:1910.02054, section 5, as FSDP2 does it).

    DDP sends gradients from a second copy of them (buckets). FSDP2 gathers blocks one ahead of the one that runs; what
    is in no block stays whole through a step. One rank alone has nothing to send.
    """
    if scheme == "DDP" or ranks == 1:
        copies = 1 if ranks == 1 else 2
        return Memory(WORD * s.weights, WORD * s.states, WORD * copies * s.learned, 0.0, activations)
    own, states = WORD * s.weights / ranks, WORD * s.states / ranks
    once = s.root + s.block
    at_once = s.root + 2 * s.block if scheme == "ZeRO-3" else s.weights
    whole = s.learned if scheme == "ZeRO-1" else once
    return Memory(own, states, WORD * (s.learned / ranks + whole), WORD * min(at_once, s.weights), activations)


def activation_bytes(encoder: Encoder, length: int, tensor_parallel: int = 1, mixed: bool = True) -> float:
    """Of a row of `length` through a transformer, kept for the backward pass (arXiv:2205.05198, equations 1 and 2).

    Without the scores of attention, which fused kernels do not keep: 34 bytes a number of a layer's input in 16 bits,
    of which 24 are cut by tensor parallelism.
    """
    layers = encoder.num_states - 1
    return length * encoder.dim * layers * (10 + 24 / tensor_parallel) * (1 if mixed else 2)


def row_flops(model: nn.Module, length: int) -> float | None:
    """FLOPs of a step, forward and backward, for each row of `length`; None where a method does not say."""
    forward = model.forward_flops(length) if isinstance(model, Method) else None
    return None if forward is None else 3 * forward
