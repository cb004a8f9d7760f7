"""Exponential moving average of an encoder's weights: the teacher of BYOL and its successors."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoder

M = TypeVar("M", bound=nn.Module)
Shape = Literal["cosine", "linear", "exponential"]


@dataclass(frozen=True)
class Ramp:
    """A share that moves over the optimizer steps, then stays: a teacher's momentum τ.

    Args:
        start: at step 0.
        end: at the last of its steps.
        steps: it takes; None for all of a run. Of an exponential one: in which what is left to `end` falls to 1/e.
        shape: cosine (BYOL, arXiv:2006.07733, section 3.3), linear (data2vec, arXiv:2202.03555) or exponential (SpidR,
            arXiv:2512.20308).
    """

    start: float
    end: float
    steps: int | None = None
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            within(f"momentum.{name}", getattr(self, name), low=0, high=1)
        one_of("momentum.shape", self.shape, get_args(Shape))

    def at(self, step: int, total: int) -> float:
        """The share at a step of `total`."""
        taken = step / max(1, total if self.steps is None else self.steps)
        if self.shape == "exponential":
            return self.end - (self.end - self.start) * math.exp(-taken)
        done = min(1.0, taken)
        left = 1 - done if self.shape == "linear" else (math.cos(math.pi * done) + 1) / 2
        return self.end - (self.end - self.start) * left


def teacher_of(module: M) -> M:
    """Returns a copy that no gradient reaches and that drops no paths."""
    from timm.layers import DropPath

    teacher = copy.deepcopy(module).requires_grad_(False)
    for part in teacher.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
    return teacher


@torch.no_grad()
def update_teacher(online: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """teacher ← τ·teacher + (1 − τ)·online for parameters.

    Buffers (running statistics, counters) belong to the teacher's own forward passes in train mode and stay: an
    average would cast τ to 0 on integer buffers.
    """
    targets: list[Tensor] = list(teacher.parameters())
    sources: list[Tensor] = list(online.parameters())
    torch._foreach_lerp_(targets, sources, 1 - momentum)


@torch.no_grad()
def share_input(online: Encoder, teacher: Encoder) -> None:
    """Gives a teacher what stands below the online encoder's blocks as it is: embeddings, front end, positions."""
    for mine, average in zip(online.layers()[0], teacher.layers()[0], strict=True):
        average.copy_(mine)
