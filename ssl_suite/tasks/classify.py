"""Classify: one label for a whole input: a digit, a language, a sentiment, a keyword."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import head


class Classify(Task):
    """Cross-entropy over the labels of the training split.

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
    """

    target = "class"
    main = "accuracy"

    def __init__(self, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.head = head(dim, self.hidden, len(labels), self.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features[:, 0])  # (B, C)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.float(), target, ignore_index=IGNORE)

    def metrics(self) -> MetricCollection:
        n = len(self.labels)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(n, average="micro", ignore_index=IGNORE),
                "macro_f1": MulticlassF1Score(n, average="macro", ignore_index=IGNORE),
            }
        )

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics.update(output.float(), target)

    def decode(self, output: Tensor, mask: Tensor) -> list[str]:
        return [self.labels[i] for i in output.argmax(-1).tolist()]
