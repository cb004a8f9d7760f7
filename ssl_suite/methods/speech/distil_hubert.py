"""DistilHuBERT: a small speech encoder predicts several layers of a large one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term


class DistilHuBERT(Method):
    """Layer-wise distillation of any speech encoder into a small one (Chang et al. 2021, arXiv:2110.01900).

    Each layer has a head of its own over the student's last state (section 2.2); heads and teacher are left behind.

    Args:
        encoder: the student.
        teacher: a trained speech encoder with as many states a second: a folder, a run or a URI.
        layers: of the teacher, which are predicted; 0 is its input embedding.
        cosine: λ, weight of the cosine's part of the loss (section 2.2).
        copy: start from the teacher's weights wherever the student has one of the same name and shape: the front end
            and the lowest blocks (section 2.2).
        optim: how weights are updated.
    """

    teacher: Encoder

    def __init__(
        self,
        encoder: Encoder | str,
        teacher: Encoder | str,
        layers: Sequence[int] = (4, 8, 12),
        cosine: float = 1.0,
        copy: bool = True,
        optim: Optim = Optim(lr=2e-4, warmup_ratio=0.07, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        self.teacher = load_encoder(teacher).requires_grad_(False)
        for which in (self.encoder, self.teacher):
            expect(which, "speech", "DistilHuBERT")
        if self.encoder.stride != self.teacher.stride:
            raise UserError(
                f"The student has a state every {self.encoder.stride} samples and its teacher every "
                f"{self.teacher.stride}, but they are compared one by one: give the student its teacher's front end."
            )
        if not layers:
            raise UserError("layers is empty: name at least one layer of the teacher.")
        for layer in layers:
            within("layers", layer, low=0, high=self.teacher.num_states - 1, whole=True)
        within("cosine", cosine, low=0)
        self.layers, self.cosine = tuple(layers), cosine
        if copy:
            own = self.encoder.state_dict()
            theirs = self.teacher.state_dict()
            same = {n: w for n, w in theirs.items() if n in own and own[n].shape == w.shape}
            self.encoder.load_state_dict(same, strict=False)
        dim = self.encoder.dim
        self.predict = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, self.teacher.widths[layer]))
            for layer in layers
        )

    def train(self, mode: bool = True) -> DistilHuBERT:
        super().train(mode)
        self.teacher.eval()
        return self

    def step(self, batch: SpeechBatch) -> StepOutput:
        encoded = self.encoder(batch)
        with torch.no_grad():
            taught = self.teacher(batch)
        real = both(encoded.mask, taught.mask)  # (B, T)
        output, size = encoded.states[-1][:, : real.shape[1]], real.shape[1]
        distances, cosines = [], []
        for layer, head in zip(self.layers, self.predict, strict=True):
            predicted, target = head(output).float(), taught.states[layer][:, :size].float()
            distances.append((predicted - target).abs().mean(-1))
            cosines.append(-F.logsigmoid(F.cosine_similarity(predicted, target, dim=-1)))
        distance, cosine = ((torch.stack(parts).mean(0) * real).sum() for parts in (distances, cosines))
        count = real.sum()
        return StepOutput(
            {"l1": Term(distance, count), "cosine": Term(cosine, count, self.cosine)}, features=encoded.pooled
        )

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        count = both(self.encoder.embed(batch).mask, self.teacher.embed(batch).mask).sum()
        return {"l1": count, "cosine": count}


def both(mask: Tensor, other: Tensor) -> Tensor:
    """(B, T) and (B, T′) → (B, min) where both are real: front ends of one stride end a state or two apart."""
    size = min(mask.shape[1], other.shape[1])
    return mask[:, :size] & other[:, :size]
