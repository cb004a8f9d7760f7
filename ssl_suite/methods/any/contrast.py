"""Contrast: encoders of two modalities agree on what belongs together: a picture and its caption, a voice and text."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from ssl_suite.core.batch import JointBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import side_by_side
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim

MOST = math.log(100)
"""Of the logarithm of the scale, for the softmax (CLIP, section 2.5)."""


class Contrast(Method):
    """Contrast each pair with all other ones of the batch, over all ranks (CLIP, arXiv:2103.00020, figure 3).

    Args:
        encoders: two, by the names of the parts of a batch; or the run that wrote two.
        loss: `softmax`, over the rows and over the columns of the similarities; or `sigmoid`, each similarity by itself
            (SigLIP, arXiv:2303.15343, algorithm 1).
        projection_dim: width of the space where they meet.
        optim: how weights are updated.
    """

    heads = ("projections",)

    def __init__(
        self,
        encoders: dict[str, Encoder | str] | str,
        loss: Literal["softmax", "sigmoid"] = "softmax",
        projection_dim: int = 256,
        optim: Optim = Optim(lr=5e-4, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, warmup_ratio=0.05),
    ) -> None:
        encoders = dict(side_by_side(encoders))
        if len(encoders) != 2:
            raise UserError(f"Contrast takes two encoders, not {len(encoders)}: {{image: ..., text: ...}}.")
        super().__init__(encoders, optim)
        one_of("model.loss", loss, ("softmax", "sigmoid"))
        within("model.projection_dim", projection_dim, low=1, whole=True)
        self.loss = loss
        self.projections = nn.ModuleDict(
            {name: nn.Linear(encoder.dim, projection_dim, bias=False) for name, encoder in self.encoders.items()}
        )
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07 if loss == "softmax" else 10)))
        self.bias = nn.Parameter(torch.tensor(-10.0), requires_grad=loss == "sigmoid")
        self.take_heads()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.data.batch_size < 2:
            raise UserError("Contrast tells the items of a batch apart: data.batch_size must be at least 2.")

    def step(self, batch: JointBatch) -> StepOutput:
        pooled = {name: encoder(batch.parts[name]).pooled for name, encoder in self.encoders.items()}  # (B, D) each
        first, second = (F.normalize(self.projections[n](v).float(), dim=-1) for n, v in pooled.items())  # (B, P)
        scale = self.scale.clamp(max=MOST).exp() if self.loss == "softmax" else self.scale.exp()
        others = self.training and dist.is_available() and dist.is_initialized()  # ranks may validate unequal batches
        firsts, seconds = (torch.cat(all_gather(v)) if others else v for v in (first, second))
        place = dist.get_rank() * len(first) if others else 0
        if self.loss == "softmax":
            loss = (softmax_loss(scale * first @ seconds.T, place) + softmax_loss(scale * second @ firsts.T, place)) / 2
        else:
            loss = sigmoid_loss(scale * first @ seconds.T + self.bias, place)
        return StepOutput(loss, {"scale": scale.detach()}, features=next(iter(pooled.values())))


def softmax_loss(logits: Tensor, place: int = 0) -> Tensor:
    """Mean cross-entropy of choosing one's own: row i of (B, N) belongs to column `place` + i."""
    return F.cross_entropy(logits, torch.arange(place, place + len(logits), device=logits.device))


def sigmoid_loss(logits: Tensor, place: int = 0) -> Tensor:
    """−Σ log σ(±logit) over pairs, a row; + where row i of (B, N) meets column `place` + i, − elsewhere."""
    own = torch.zeros_like(logits, dtype=torch.bool)
    own[:, place : place + len(logits)].fill_diagonal_(True)
    return -F.logsigmoid(torch.where(own, logits, -logits)).sum() / len(logits)
