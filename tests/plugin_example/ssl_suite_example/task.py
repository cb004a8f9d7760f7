"""A task with a target of its own: `Angle` is what a cell of a column becomes, `Direction` what is learned of it."""

import torch
from torchmetrics import MeanMetric, MetricCollection

from ssl_suite import Task
from ssl_suite.data.common.kinds import Value


class Angle(Value):
    """() an angle in radians, of a column of degrees."""

    name = "angle"

    def tensor(self, row: int, ids: dict[str, int]) -> torch.Tensor:
        return torch.tensor(self.values[row]).deg2rad()


class Direction(Task):
    """Point where the target points; `error` is the mean angle between, in degrees."""

    target, main, less_is_better = "angle", "error", frozenset({"error"})

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels, self.head = labels, torch.nn.Linear(dim, 2)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.atan2(*self.head(features[:, 0]).unbind(-1))  # (B,)

    def loss(self, output: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 1 - (output - target).cos().mean()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"error": MeanMetric()})

    def update(self, metrics: MetricCollection, output: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> None:
        metrics.update((output - target).cos().clamp(-1, 1).acos().rad2deg())

    def decode(self, output: torch.Tensor, mask: torch.Tensor) -> list[float]:
        return output.rad2deg().tolist()
