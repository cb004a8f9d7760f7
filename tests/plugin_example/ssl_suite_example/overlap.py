"""A speech task that knows nothing of speech: `multi_frames`, who is heard in each state, is what it asks data for."""

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score

from ssl_suite import Task


class Overlap(Task):
    """Where several voices speak at once (overlapped speech detection); `f1` is of those states."""

    sequence, target, main = True, "multi_frames", "f1"

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels, self.head = labels, nn.Linear(dim, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features)[..., 0]  # (B, T)

    def truth(self, mask: Tensor, target: Tensor) -> Tensor:
        """(B, L, voices) → (B, T); front ends differ by a state or two at the end."""
        return F.pad(target, (0, 0, 0, mask.shape[1] - target.shape[1])).sum(2).ge(2).float()

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        costs = F.binary_cross_entropy_with_logits(output.float(), self.truth(mask, target), reduction="none")
        return (costs * mask).sum() / mask.sum()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"f1": BinaryF1Score(ignore_index=-1)})

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics.update(output, self.truth(mask, target).masked_fill(~mask, -1))

    def decode(self, output: Tensor, mask: Tensor) -> list[list[bool]]:
        return [row[real].gt(0).tolist() for row, real in zip(output, mask, strict=True)]
