"""Adafactor: Adam's scale from the sums of a matrix's rows and columns alone, and steps in units of the weight's size.

`torch.optim.Adafactor` waits for the device twice a weight, cuts its rate at 1/√t and cannot take a fused matrix apart;
otherwise the update is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ssl_suite.core.sharding import sharded_like, whole
from ssl_suite.core.update import GroupOptimizer, apart


class Adafactor(GroupOptimizer):
    """Shazeer and Stern 2018 (arXiv:1804.04235, algorithms 4 and 5), without momentum.

    Args:
        groups: of parameters; `parts` in a group: how many matrices each of its weights holds.
        lr: of weights whose root mean square is 1; smaller ones move in proportion, down to `least`.
        weight_decay: decoupled.
        decay: of the second moment: its average forgets by 1 − t^−decay at step t (section 7.2).
        clip: the largest root mean square of an update before it is scaled (section 6).
        eps: added to squared gradients.
        least: what stands for the root mean square of smaller weights.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        decay: float = 0.8,
        clip: float = 1.0,
        eps: float = 1e-30,
        least: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "decay": decay, "clip": clip, "eps": eps, "least": least}
        super().__init__(groups, {**defaults, "parts": 1})

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            self._update(weight, gradient, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        state["step"] = state.get("step", 0) + 1
        new = state["step"] ** -group["decay"]  # share of this gradient in the averages
        w, g = (apart(whole(x), group["parts"]) for x in (weight, gradient))
        square = g.square() + group["eps"]
        if weight.ndim > 1:
            rows = averaged(state, "rows", square.mean(-1, keepdim=True), new)  # (parts, A, 1)
            columns = averaged(state, "columns", square.mean(-2, keepdim=True), new)  # (parts, 1, B)
            variance = rows * columns / rows.mean(-2, keepdim=True)
        else:
            variance = averaged(state, "variance", square, new)
        update = g * variance.rsqrt()
        update /= (size(update) / group["clip"]).clamp(min=1)
        update *= size(w).clamp(min=group["least"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(sharded_like(update.reshape(weight.shape), weight), alpha=-group["lr"])


def averaged(state: dict[str, Any], name: str, value: Tensor, new: float) -> Tensor:
    """The average kept under a name, moved to `value` by so much; at first it is that."""
    state[name] = state[name].lerp_(value, new) if name in state else value.clone()
    return state[name]


def size(x: Tensor) -> Tensor:
    """(parts, 1, 1) root mean square of each matrix."""
    return x.square().mean((-2, -1), keepdim=True).sqrt()
