"""Classify: one label for a whole input: a digit, a language, a sentiment, a keyword."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import check_head, expect_choice, head
from ssl_suite.tasks.metrics import Matthews, SecondF1

Name = Literal["accuracy", "macro_f1", "f1", "matthews"]
METRICS: dict[str, Callable[[int], Metric]] = {
    "accuracy": lambda n: MulticlassAccuracy(n, average="micro", ignore_index=IGNORE),
    "macro_f1": lambda n: MulticlassF1Score(n, average="macro", ignore_index=IGNORE),
    "f1": lambda n: SecondF1(),
    "matthews": lambda n: Matthews(n, ignore_index=IGNORE),
}
"""Name → number of labels → metric."""


class Classify(Task):
    """Cross-entropy over the labels of the training split; those that only other splits have count as wrong.

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
        projection: width of a linear layer before all that, with nothing between (SUPERB's is 256); 0: none.
        metrics: what is reported; the first selects models. `f1` is of the second of two labels (GLUE's positive
            class), `macro_f1` the mean over all labels, `matthews` the correlation coefficient.
    """

    target = "class"
    labels: list[str]

    def __init__(
        self,
        hidden: int = 0,
        dropout: float = 0.0,
        projection: int = 0,
        metrics: Sequence[Name] = ("accuracy", "macro_f1"),
    ) -> None:
        super().__init__()
        check_head(hidden, dropout, projection)
        self.hidden, self.dropout, self.projection = hidden, dropout, projection
        self.names, self.main = tuple(metrics), metrics[0]
        self.statistic = self.main if self.main in ("macro_f1", "matthews") else "ratio"

    def build(self, dim: int, labels: list[str]) -> None:
        expect_choice(labels)
        if "f1" in self.names and len(labels) != 2:
            raise UserError(f"The metric f1 is of one class against another; for {len(labels)} labels ask macro_f1.")
        self.labels = labels
        self.head = head(dim, self.hidden, len(labels), self.dropout, self.projection)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features[:, 0])  # (B, C)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        target = self.learnable(target)
        counted = (target != IGNORE).sum().clamp(min=1)
        return F.cross_entropy(output.float(), target, ignore_index=IGNORE, reduction="sum") / counted

    def metrics(self) -> MetricCollection:
        return MetricCollection({name: METRICS[name](len(self.every_label)) for name in self.names})

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics.update(output.argmax(-1), target)

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Outcome]:
        pairs = zip(output.argmax(-1).tolist(), target.tolist(), strict=True)
        return [None if true == IGNORE else self._outcome(said, true) for said, true in pairs]

    def _outcome(self, said: int, true: int) -> tuple[float, float]:
        if self.main == "accuracy":
            return float(said == true), 1.0
        if self.main == "f1":  # 2 true positives / (answers + truths of the second class)
            return 2.0 * (said == true == 1), float(said == 1) + (true == 1)
        return said, true

    def decode(self, output: Tensor, mask: Tensor) -> list[str]:
        return [self.labels[i] for i in output.argmax(-1).tolist()]
