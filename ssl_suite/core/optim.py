"""Optimizers, learning-rate scaling and schedules: decided here once, for every method and for fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ssl_suite.core.adafactor import Adafactor
from ssl_suite.core.check import one_of, within
from ssl_suite.core.errors import UserError
from ssl_suite.core.lars import LARS
from ssl_suite.core.muon import MuonAdamW

Name = Literal["adamw", "adam", "sgd", "lars", "muon", "adafactor"]
LrScale = Literal["none", "linear", "sqrt"]
Schedule = Literal["cosine", "linear", "constant", "stable", "inverse_sqrt"]


@dataclass(frozen=True)
class Optim:
    """How weights are updated.

    Args:
        name: adamw (bias-corrected, decoupled decay), adam, sgd (Nesterov momentum), lars,
            muon: hidden matrices of a transformer by Muon at AdamW's rates, all else by AdamW; or
            adafactor: without momentum, at rates in units of each matrix's own size.
        lr: learning rate, before `lr_scale`.
        lr_scale: none; linear: lr · B/256; sqrt: lr · √B. B is the global batch: ranks × accumulation × batch size.
        weight_decay: for weights only; biases, norms and other vectors are left out (of LARS adaptation too).
        momentum: of sgd and lars; Muon's is 0.95.
        betas: of Adam, beside Muon too.
        eps: of Adam.
        schedule: after the warm-up, cosine or linear decay to `final_lr`; constant; stable: constant, at the end by
            1 − √ to `final_lr` (warm-up–stable–decay, arXiv:2405.18392); or inverse_sqrt: √(k/step) from step k on, the
            last of the warm-up or, if that is later, of `hold_steps` (arXiv:1706.03762, section 5.3).
        warmup_epochs: linear warm-up, in epochs (a fraction is fine).
        warmup_steps: linear warm-up, in optimizer steps; used when `warmup_epochs` is 0.
        warmup_ratio: linear warm-up, as a share of all steps; used when both others are 0.
        decay_ratio: of stable: share of all steps that the decay takes, the last ones.
        hold_steps: of inverse_sqrt: until when the rate is held (T5, arXiv:1910.10683, section 3.1.2: 10^4).
        final_lr: the last learning rate as a share of the first.
        layer_decay: fine-tuning only: the learning rate falls by this factor a layer towards the input.
        final_weight_decay: where it has moved by a cosine at the last step (DINO, arXiv:2104.14294); None: it stays.
    """

    name: Name = "adamw"
    lr: float = 1e-3
    lr_scale: LrScale = "none"
    weight_decay: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    decay_ratio: float = 0.1
    hold_steps: int = 0
    final_lr: float = 0.0
    layer_decay: float = 1.0
    final_weight_decay: float | None = None

    def __post_init__(self) -> None:
        one_of("optim.name", self.name, get_args(Name))
        one_of("optim.lr_scale", self.lr_scale, get_args(LrScale))
        one_of("optim.schedule", self.schedule, get_args(Schedule))
        for name in ("lr", "weight_decay", "warmup_epochs"):
            within(f"optim.{name}", getattr(self, name), low=0)
        if self.final_weight_decay is not None:
            within("optim.final_weight_decay", self.final_weight_decay, low=0)
        for name in ("warmup_steps", "hold_steps"):
            within(f"optim.{name}", getattr(self, name), low=0, whole=True)
        within("optim.momentum", self.momentum, low=0, below=1)
        for i, beta in enumerate(self.betas):
            within(f"optim.betas[{i}]", beta, low=0, below=1)
        within("optim.eps", self.eps, above=0)
        within("optim.warmup_ratio", self.warmup_ratio, low=0, high=1)
        within("optim.decay_ratio", self.decay_ratio, above=0, high=1)
        within("optim.final_lr", self.final_lr, low=0, high=1)
        within("optim.layer_decay", self.layer_decay, above=0, high=1)

    def scaled_lr(self, global_batch: int) -> float:
        return self.lr * {"none": 1.0, "linear": global_batch / 256, "sqrt": math.sqrt(global_batch)}[self.lr_scale]

    def decay_at(self, step: int, total: int) -> float:
        """The weight decay of a step of `total`."""
        last = self.weight_decay if self.final_weight_decay is None else self.final_weight_decay
        return last + (self.weight_decay - last) * (1 + math.cos(math.pi * min(1.0, step / max(1, total)))) / 2

    def warmup(self, total_steps: int, steps_per_epoch: float) -> int:
        """Warm-up in optimizer steps."""
        if self.warmup_epochs:
            return round(self.warmup_epochs * steps_per_epoch)
        return self.warmup_steps or round(self.warmup_ratio * total_steps)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits trainable parameters into decayed matrices and undecayed vectors (biases, norms, scales)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trainable if p.ndim > 1], [p for p in trainable if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def check_cover(module: nn.Module, groups: Iterable[dict[str, Any]]) -> None:
    """Raises UserError unless the groups hold every trainable parameter exactly once."""
    held = [id(p) for group in groups for p in group["params"]]
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    lost = [name for key, name in names.items() if key not in held]
    if lost or len(held) != len(set(held)) or set(held) - set(names):
        raise UserError(f"The parameter groups must hold each trainable parameter once; left out: {lost[:5]}.")


def build_optimizer(optim: Optim, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """Makes the optimizer over `groups`; a group's own `lr_factor` multiplies `lr`."""
    groups = [
        {**g, "lr": lr * g.get("lr_factor", 1.0), "decays": g.get("weight_decay", 0.0) > 0}
        for g in groups
        if g["params"]
    ]
    if optim.name in ("adamw", "adam"):
        adam = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
        made = adam(groups, lr=lr, betas=optim.betas, eps=optim.eps, fused=True)
        made._step_supports_amp_scaling = False  # else Lightning refuses to clip gradients in mixed precision
        return made
    if optim.name == "muon":
        return MuonAdamW(groups, lr, betas=optim.betas, eps=optim.eps, fused=True)
    if optim.name == "adafactor":
        return Adafactor(groups, lr)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, nesterov=optim.momentum > 0)
    return LARS(groups, lr=lr, momentum=optim.momentum)


def lr_factor(optim: Optim, total_steps: int, steps_per_epoch: float) -> Callable[[int], float]:
    """Returns step → factor of the base learning rate."""
    warmup = optim.warmup(total_steps, steps_per_epoch)
    held = max(1, warmup, optim.hold_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        cooled = min(1.0, max(0.0, 1 - (total_steps - step) / max(1, optim.decay_ratio * total_steps)))
        shape = {
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "linear": 1 - done,
            "constant": 1.0,
            "stable": 1 - math.sqrt(cooled),
            "inverse_sqrt": math.sqrt(held / max(step, held)),
        }[optim.schedule]
        return optim.final_lr + (1 - optim.final_lr) * shape

    return factor


def build_schedule(
    optim: Optim, optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: float
) -> LambdaLR:
    """One factor for all groups, except those that ask for a constant rate (`constant_lr`, SimSiam's predictor)."""
    factor = lr_factor(optim, total_steps, steps_per_epoch)
    return LambdaLR(optimizer, [(lambda _: 1.0) if g.get("constant_lr") else factor for g in optimizer.param_groups])
