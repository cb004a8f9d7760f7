"""BYOL: predict what a slowly moving copy of yourself says about another view; no negatives."""

from __future__ import annotations

from typing import Any

from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.ema import Ramp, teacher_of
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim, parameter_groups


class BYOL(Method):
    """Bootstrap your own latent (Grill et al. 2020, arXiv:2006.07733).

    Args:
        encoder: any image encoder.
        hidden_dim: of projector and predictor; 4096 in the paper.
        projection_dim: width of the predicted embedding.
        momentum: of the teacher at the first and the last step, by a cosine between; .996 → 1 for 1000 epochs.
        predictor_lr: in multiples of the others' rate; 1 in the paper, 10 in a short run (see arXiv:2102.06810).
        optim: how weights are updated.
    """

    views = "byol"

    def __init__(
        self,
        encoder: Encoder | str,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        momentum: tuple[float, float] = (0.996, 1.0),
        predictor_lr: float = 1.0,
        optim: Optim = Optim("lars", 0.2, "linear", 1.5e-6, warmup_epochs=10),
    ) -> None:
        super().__init__(encoder, optim)
        within("hidden_dim", hidden_dim, low=1, whole=True)
        within("projection_dim", projection_dim, low=1, whole=True)
        within("predictor_lr", predictor_lr, above=0)
        expect(self.encoder, "image", "BYOL")
        self.projector = BYOLProjectionHead(self.encoder.dim, hidden_dim, projection_dim)
        self.predictor = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
        self.teacher_encoder, self.teacher_projector = teacher_of(self.encoder), teacher_of(self.projector)
        self.momentum, self.predictor_lr = Ramp(*momentum), predictor_lr

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.encoder, self.teacher_encoder), (self.projector, self.teacher_projector)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        decay = self.optim.weight_decay
        learner = parameter_groups(nn.ModuleList([self.encoder, self.projector]), decay)
        return learner + [{**g, "lr_factor": self.predictor_lr} for g in parameter_groups(self.predictor, decay)]

    def step(self, batch: ImageBatch) -> StepOutput:
        views = batch.view(0), batch.view(1)  # one forward each: their batch statistics must not mix
        features = [self.encoder(view).pooled for view in views]
        a, b = (self.predictor(self.projector(f)) for f in features)
        target_a, target_b = (self.teacher_projector(self.teacher_encoder(view).pooled) for view in views)
        return StepOutput(regression(a, target_b) + regression(b, target_a), features=features[0])


def regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the unit vectors, 2 − 2 cos (equation 2)."""
    return (2 - 2 * cosine_similarity(prediction, target.detach(), dim=-1)).mean()
