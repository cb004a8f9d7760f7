"""CPC: from the past of a recording, tell the frame that follows from frames of anywhere else."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.apc import check_reach


class CPC(Method):
    """Contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748).

    z are the frames of the front end, c the last state, which sees the past; f_k(z, c) = exp(z · W_k c / F) (equation
    3), over the width F of z as in the code of Rivière et al. 2020 (arXiv:2002.02848). Negatives are real frames of the
    whole batch, of all ranks, the positive among them; they are drawn once for each recording, so that all its scores
    are one product of matrices.

    Args:
        encoder: a speech encoder that sees the past only.
        steps: K, how many frames ahead at most; frames with fewer after them predict nothing.
        negatives: drawn for each recording.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(
        self,
        encoder: Encoder | str,
        steps: int = 12,
        negatives: int = 128,
        optim: Optim = Optim("adam", 2e-4, weight_decay=0.0, schedule="constant"),
    ) -> None:
        super().__init__(encoder, optim)
        within("steps", steps, low=1, whole=True)
        within("negatives", negatives, low=1, whole=True)
        expect(self.encoder, "speech", "CPC")
        if not getattr(self.encoder, "causal", False):
            raise UserError(
                "CPC needs an encoder that sees the past only: trunk: gru, or a transformer with causal: true."
            )
        self.steps, self.negatives = steps, negatives
        self.predict = nn.ModuleList(
            nn.Linear(self.encoder.dim, self.encoder.frontend.dim, bias=False) for _ in range(steps)
        )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            check_reach(self.data, self.encoder, self.steps)

    def step(self, batch: SpeechBatch) -> StepOutput:
        z, mask = self.encoder.frontend(batch)  # (B, T, F)
        encoded = self.encoder.contextualise(self.encoder.enter(z, mask))
        others = self.training and dist.is_available() and dist.is_initialized()  # ranks may validate unequal batches
        pool = gathered_rows(z[mask]) if others else z[mask]  # (M, F)
        chosen = (uniform(batch.seed, self.negatives, stream=630) * len(pool)).long().clamp(max=len(pool) - 1)
        negatives = pool[chosen].mT / z.shape[2]  # (B, F, N)
        size = max(0, z.shape[1] - self.steps)
        ahead, context = mask[:, self.steps :], encoded.states[-1][:, :size]  # a real frame follows at every step
        losses, right = torch.zeros_like(context[..., 0]), torch.zeros((), device=z.device)
        for k, predict in enumerate(self.predict, start=1):
            predicted = predict(context)  # (B, T − K, F)
            positive = (predicted * z[:, k : k + size]).mean(-1, keepdim=True)
            scores = torch.cat([positive, predicted @ negatives], -1).float()
            losses = losses - F.log_softmax(scores, -1)[..., 0] / self.steps
            right = right + ((scores.argmax(-1) == 0) * ahead).sum() / self.steps
        count = ahead.sum()
        return StepOutput(Term((losses * ahead).sum(), count), {"accuracy": Term(right, count)}, encoded.pooled)

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        return {"loss": (self.encoder.frontend.frames(batch.lengths) - self.steps).clamp(min=0).sum()}


def gathered_rows(rows: Tensor) -> Tensor:
    """(M, F) of each rank → those of all, one rank after the other, with gradient; M may be another on each."""
    sizes = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(rows), device=rows.device))
    numbers = torch.stack(sizes).tolist()
    padded = F.pad(rows, (0, 0, 0, max(numbers) - len(rows)))
    return torch.cat([part[:n] for part, n in zip(all_gather(padded), numbers, strict=True)])
