"""LARS: SGD whose step on each matrix is a share of that matrix' own norm (arXiv:1708.03888)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.update import GroupOptimizer


class LARS(GroupOptimizer):
    """The update of lightly's LARS, over all parameters at once: nothing in a step waits for the device.

    As in SimCLR and BYOL, a group without weight decay (biases, norms) is left to plain SGD.

    Args:
        groups: of parameters.
        lr: learning rate.
        momentum: of the scaled gradients.
        weight_decay: added to the gradient before its norm is taken into account.
        trust: the share; equation 6's η.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        updates = gradients
        if group["weight_decay"]:
            updates = adapted(weights, updates, group["weight_decay"], group["trust"])
        if group["momentum"]:
            fresh = [p for p in weights if "momentum_buffer" not in self.state[p]]
            for p in fresh:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            updates = buffers
        torch._foreach_add_(weights, updates, alpha=-group["lr"])


def adapted(weights: list[Tensor], gradients: list[Tensor], weight_decay: float, trust: float) -> list[Tensor]:
    """Scales g + λw by η‖w‖ / (‖g‖ + λ‖w‖); where either norm is 0, it is g as it stands."""
    scaled = list(torch._foreach_add(gradients, weights, alpha=weight_decay))
    sizes, steps = torch._foreach_norm(weights), torch._foreach_norm(gradients)
    for i, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        factor = trust * (size / (step + size * weight_decay + 1e-8))
        scaled[i] = torch.where((size > 0) & (step > 0), scaled[i] * factor, gradients[i])
    return scaled
