"""Tag: a label for each position that has one: parts of speech, names, frames."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import head


class Tag(Task):
    """Cross-entropy at the positions whose target is not `IGNORE` (of text: the first piece of each word).

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
    """

    sequence = True
    target = "tags"
    main = "accuracy"

    def __init__(self, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.head = head(dim, self.hidden, len(labels), self.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features)  # (B, T, C)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        counted = (target != IGNORE).sum().clamp(min=1)
        return (
            F.cross_entropy(output.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORE, reduction="sum")
            / counted
        )

    def metrics(self) -> MetricCollection:
        n = len(self.labels)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(n, average="micro", ignore_index=IGNORE),
                "macro_f1": MulticlassF1Score(n, average="macro", ignore_index=IGNORE),
            }
        )

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics.update(output.flatten(0, 1).float(), target.flatten())

    def decode(self, output: Tensor, mask: Tensor) -> list[list[str]]:
        best = output.argmax(-1)
        return [[self.labels[i] for i in row[keep].tolist()] for row, keep in zip(best, mask, strict=True)]
