"""Task: a head, a loss, metrics and a decoder on what a readout gives. Knows no modality."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import MetricCollection

TargetKind = Literal["class", "value", "tags", "characters"]


class Task(nn.Module):
    """Base of all tasks.

    Attributes:
        sequence: whether it reads the time axis (tagging, CTC) or one vector an input.
        target: what kind of target it asks the data module for.
        main: name of the metric that selects models.
        direction: of the main metric: max or min.
    """

    sequence: bool = False
    target: TargetKind
    main: str
    direction: Literal["max", "min"] = "max"
    labels: list[str]

    @abstractmethod
    def build(self, dim: int, labels: list[str]) -> None:
        """Makes the head for features of width `dim` and these labels (empty for values), and the metrics."""

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, D) → logits or values."""

    @abstractmethod
    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the counted targets."""

    @abstractmethod
    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        """Adds a batch to the metrics."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Returns fresh metrics, for one split."""

    @abstractmethod
    def decode(self, output: Tensor, mask: Tensor) -> list[Any]:
        """What a user wants to read: label names, values, tags or text."""

    def describe(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "labels": self.labels}
