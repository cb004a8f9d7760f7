"""SimCLR: agree on two views of one image, disagree on all others."""

from __future__ import annotations

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim


class SimCLR(Method):
    """Contrast two views of each image (Chen et al. 2020, arXiv:2002.05709).

    Args:
        encoder: any image encoder.
        temperature: of NT-Xent; 0.1 on ImageNet, 0.5 on CIFAR (appendix B.9).
        projection_dim: width of the contrasted embedding.
        batch_norm: in the projection head, as the authors' code has it.
        optim: how weights are updated.
    """

    views = "simclr"

    def __init__(
        self,
        encoder: Encoder | str,
        temperature: float = 0.5,
        projection_dim: int = 128,
        batch_norm: bool = True,
        optim: Optim = Optim("lars", 0.3, "linear", 1e-6, warmup_epochs=10),
    ) -> None:
        super().__init__(encoder, optim)
        within("temperature", temperature, above=0)
        within("projection_dim", projection_dim, low=1, whole=True)
        expect(self.encoder, "image", "SimCLR")
        dim = self.encoder.dim
        self.projector = SimCLRProjectionHead(dim, dim, projection_dim, batch_norm=batch_norm)
        self.contrast = NTXentLoss(temperature, gather_distributed=True)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.data.batch_size < 2:
            raise UserError("SimCLR contrasts the images of a batch: data.batch_size must be at least 2.")

    def step(self, batch: ImageBatch) -> StepOutput:
        features = self.encoder(batch.view(0, 1)).pooled  # (2B, D): both views in one forward, one batch-norm batch
        a, b = self.projector(features).chunk(2)
        self.contrast.gather_distributed = self.training  # ranks may validate unequal numbers of batches
        return StepOutput(self.contrast(a, b), features=features.chunk(2)[0])
