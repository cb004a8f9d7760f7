"""Muon for hidden matrices, AdamW for the rest (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

`torch.optim.Muon` runs its iteration in bfloat16 on every device and cannot take a fused matrix apart; otherwise the
update is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ssl_suite.core.errors import UserError
from ssl_suite.core.sharding import sharded_like, whole
from ssl_suite.core.update import GroupOptimizer, apart

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic: steepest at zero among those that keep the singular values near 1."""


@runtime_checkable
class HasMatrices(Protocol):
    """A module that names its hidden matrices."""

    def matrices(self) -> dict[Tensor, int]:
        """Each weight (parts · A, B) or (parts, A, B) with the number of (A, B) matrices stacked in it."""


def hidden_matrices(module: nn.Module) -> dict[Tensor, int]:
    """The weights between embedding and head, as the modules below `module` name them; a shared one once."""
    return {p: n for m in module.modules() if isinstance(m, HasMatrices) for p, n in m.matrices().items()}


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Moves all singular values of (…, A, B) to about 1 by Newton–Schulz: to within 0.7 and 1.2.

    In bfloat16 on a GPU, as published; in float32 on a CPU, where bfloat16 is far slower.
    """
    a, b, c = COEFFICIENTS
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    if wide := x.shape[-2] <= x.shape[-1]:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x.mT @ x  # over the shorter side
        x = a * x + x @ (b * gram + c * gram @ gram)
    return (x.mT if wide else x).to(matrix.dtype)


class Muon(GroupOptimizer):
    """Momentum whose update is made orthogonal.

    The update of an (A, B) matrix is scaled by 0.2 · √max(A, B) (arXiv:2502.16982, equation 4): its entries are then
    as large as AdamW's, so that learning rate and weight decay are AdamW's too.

    Args:
        groups: of matrices; `parts` in a group: how many matrices each of its weights holds.
        lr: learning rate.
        momentum: Nesterov's.
        weight_decay: decoupled.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            self._update(weight, gradient, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, lr, momentum = self.state[weight], group["lr"], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = apart(whole(gradient.lerp(average, momentum)), group["parts"])
        scale = 0.2 * max(update.shape[1:]) ** 0.5
        weight.mul_(1 - lr * group["weight_decay"])
        weight.add_(sharded_like(orthogonalize(update).view(weight.shape), weight), alpha=-lr * scale)


class MuonAdamW(Optimizer):
    """One optimizer to a trainer and a schedule: Muon for the groups with `parts`, AdamW for the others.

    Args:
        groups: as `split_matrices` makes them.
        lr: of both.
        adam: more options of AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, **adam: Any) -> None:
        groups = list(groups)
        self.muon = Muon([g for g in groups if "parts" in g], lr)
        self.adamw = AdamW([g for g in groups if "parts" not in g], lr, **adam)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Groups and state are this optimizer's; the two inside look at the same objects."""
        n = len(self.muon.param_groups)
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:n], self.param_groups[n:]
        self.muon.state = self.adamw.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.muon.step(closure)
        self.adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


def split_matrices(groups: list[dict[str, Any]], hidden: dict[Tensor, int]) -> list[dict[str, Any]]:
    """Takes the hidden matrices out of each group into groups of their own, which keep its other settings.

    Raises:
        UserError: there are none, or Lightning's FSDPStrategy has flattened them.
    """
    if any(p.ndim < 2 for p in hidden):
        raise UserError(
            "muon and adafactor need matrices, which FSDPStrategy flattens; take configs/trainer/fsdp.yaml, or adamw."
        )
    split = []
    for group in groups:
        by_parts: dict[int, list[Tensor]] = {}
        for p in group["params"]:
            by_parts.setdefault(hidden.get(p, 0), []).append(p)
        for parts, params in sorted(by_parts.items()):
            split.append({**group, "params": params, **({"parts": parts} if parts else {})})
    if not any("parts" in g for g in split):
        raise UserError("muon updates the hidden matrices of a transformer, and there is none to train; use adamw.")
    return split
