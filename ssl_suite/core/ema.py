"""Exponential moving average of an encoder's weights: the teacher of BYOL and its successors."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def teacher_of(module: nn.Module) -> nn.Module:
    """Returns a copy that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


def cosine_momentum(step: int, total: int, start: float, end: float = 1.0) -> float:
    """τ of BYOL (arXiv:2006.07733, section 3.3): from `start` at step 0 to `end` at the last step, by a cosine."""
    return end - (end - start) * (math.cos(math.pi * min(1.0, step / max(1, total))) + 1) / 2


@torch.no_grad()
def update_teacher(online: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """teacher ← τ·teacher + (1 − τ)·online for parameters.

    Buffers (running statistics, counters) belong to the teacher's own forward passes in train mode and stay: an
    average would cast τ to 0 on integer buffers.
    """
    targets: list[Tensor] = list(teacher.parameters())
    sources: list[Tensor] = list(online.parameters())
    torch._foreach_lerp_(targets, sources, 1 - momentum)
