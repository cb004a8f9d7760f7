"""Task: a head, a loss, metrics and a decoder on what a readout gives. Knows no modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torchmetrics import MetricCollection

from ssl_suite.core.batch import IGNORE, Batch
from ssl_suite.core.outcomes import Example, Outcome, by_id

if TYPE_CHECKING:
    from ssl_suite.core.data import DataModule

Labels = list[str] | dict[str, list[str]]
"""What can be answered; of a task with several slots, in each."""


class Task(nn.Module, ABC):
    """Base of all tasks.

    Attributes:
        sequence: whether it reads the time axis (tagging, CTC) or one vector an input.
        target: what kind of target it asks the data module for, see `DataModule.kinds`; or one for each of its slots.
        inputs: fields of a batch that `forward` reads beside the features, as separation does its mixture; features are
            then not computed ahead, unless every batch has them (`index`).
        main: name of the metric that selects models.
        less_is_better: names of the metrics that are better the smaller they are.
        statistic: how the main metric is made of what `outcomes` gives, see `core.outcomes`.
        protocol: what results call a way of judging that is not strict: `compat`, where a benchmark chooses on test.
        labels: what it can answer, in each of its slots; the target of label i is i.
        unseen: labels of the data at hand that training did not have; the target of label k is len(labels) + k. They
            cost no loss, and count as wrong whatever is answered.
    """

    sequence: bool = False
    target: str | dict[str, str]
    inputs: tuple[str, ...] = ()
    main: str
    less_is_better: frozenset[str] = frozenset()
    statistic: str = "ratio"
    protocol: str = ""
    labels: Labels
    unseen: Labels | tuple[()] = ()

    @property
    def direction(self) -> Literal["max", "min"]:
        """Of the main metric."""
        return "min" if self.main in self.less_is_better else "max"

    @abstractmethod
    def build(self, dim: int, labels: Any) -> None:
        """Makes the head for features of width `dim` and these labels (empty for values), and the metrics."""

    def meet(self, data: DataModule) -> None:
        """Looks, before anything is learned, at the data it will be judged on; called after `build`.

        Raises:
            UserError: they lack what it will look up in them.
        """

    @property
    def needs_inputs(self) -> bool:
        """Whether it reads what a batch of features does not have."""
        return not {field.name for field in fields(Batch)}.issuperset(self.inputs)

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor, *inputs: Any) -> Any:
        """Features (B, T, D), and what `inputs` names of the batch → logits or values, in each slot."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of the task's own, each with its `lr_factor`, `weight_decay`, ...; the rest is grouped as ever."""
        return []

    @abstractmethod
    def loss(self, output: Any, mask: Tensor, target: Any) -> Tensor:
        """Mean loss over the counted targets."""

    @abstractmethod
    def update(self, metrics: MetricCollection, output: Any, mask: Tensor, target: Any) -> None:
        """Adds a batch to the metrics."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Returns fresh metrics, for one split."""

    @abstractmethod
    def decode(self, output: Any, mask: Tensor) -> list[Any]:
        """What a user wants to read: label names, values, tags or text."""

    @property
    def every_label(self) -> list[str]:
        """Of every target: what can be answered, then what cannot."""
        return [*self.labels, *self.unseen]

    def learnable(self, target: Tensor) -> Tensor:
        """The target with `IGNORE` where no answer could be right."""
        return target.masked_fill(target >= len(self.labels), IGNORE)

    def compute(self, metrics: MetricCollection, data: DataModule, split: str) -> Mapping[str, Tensor]:
        """The figures of a split; a task whose answers are read from the data, as spans are, looks there."""
        return metrics.compute()

    def outcomes(self, output: Any, mask: Tensor, target: Any) -> list[Outcome] | list[Any]:
        """What each item of a batch adds to the main metric, for intervals over test rows; nothing: not known."""
        return []

    def examples(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> list[Example]:
        """The outcomes of a split under the names of what was judged: its items, or the questions behind them.

        Args:
            rows: (item, what `outcomes` kept of it), of all ranks, in the order of the split.
            data: the items are of.
            split: of the items.
        """
        return by_id(rows, data, split)

    def predict(self, output: Any, mask: Tensor, target: Any) -> list[Any]:
        """What `predict` keeps of each item; `target` may say where an answer can lie."""
        return self.decode(output, mask)

    def files(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> dict[str, Any]:
        """Prediction files in a benchmark's own format: name → content; none: one row an item.

        Text and bytes are written as they are, anything else as JSON.

        Args:
            rows: (item, what `predict` kept of it), of all ranks.
            data: the items are of.
            split: of the items.
        """
        return {}

    def describe(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "labels": self.labels}
