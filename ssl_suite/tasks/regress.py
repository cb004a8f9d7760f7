"""Regress: one number for a whole input: a similarity, a rating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.regression import MeanSquaredError

from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import check_head, head
from ssl_suite.tasks.metrics import Pearson, Spearman

Name = Literal["pearson", "spearman", "mse"]
METRICS: dict[str, Callable[[], Metric]] = {"pearson": Pearson, "spearman": Spearman, "mse": MeanSquaredError}


class Regress(Task):
    """Squared error; Pearson and Spearman correlation, as STS-B.

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
        metrics: what is reported; the first selects models.
    """

    target = "value"
    labels: list[str]
    less_is_better = frozenset({"mse"})

    def __init__(
        self, hidden: int = 0, dropout: float = 0.0, metrics: Sequence[Name] = ("pearson", "spearman", "mse")
    ) -> None:
        super().__init__()
        check_head(hidden, dropout)
        self.hidden, self.dropout = hidden, dropout
        self.names, self.main = tuple(metrics), metrics[0]
        self.statistic = "ratio" if self.main == "mse" else self.main

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.head = head(dim, self.hidden, 1, self.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features[:, 0])[:, 0]  # (B,)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output.float(), target)

    def metrics(self) -> MetricCollection:
        return MetricCollection({name: METRICS[name]() for name in self.names}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics.update(output.float(), target)

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Outcome]:
        pairs = zip(output.float().tolist(), target.tolist(), strict=True)
        return [((said - true) ** 2, 1.0) if self.main == "mse" else (said, true) for said, true in pairs]

    def decode(self, output: Tensor, mask: Tensor) -> list[float]:
        return output.tolist()
