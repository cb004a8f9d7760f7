"""Exponential moving average of an encoder's weights: the teacher of BYOL and its successors."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ssl_suite.core.check import one_of, within

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Ramp:
    """A share that moves over the optimizer steps, then stays: a teacher's momentum τ.

    Args:
        start: at step 0.
        end: at the last of its steps.
        steps: it takes; None for all of a run.
        shape: cosine (BYOL, arXiv:2006.07733, section 3.3) or linear (data2vec, arXiv:2202.03555).
    """

    start: float
    end: float
    steps: int | None = None
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            within(f"momentum.{name}", getattr(self, name), low=0, high=1)
        one_of("momentum.shape", self.shape, ("cosine", "linear"))

    def at(self, step: int, total: int) -> float:
        """The share at a step of `total`."""
        done = min(1.0, step / max(1, total if self.steps is None else self.steps))
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
