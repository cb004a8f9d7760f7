"""Slots: several labels for one input, which is right when all of them are: an intent of action, object and place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import check_head, expect_choice, head

Labels = dict[str, list[str]]


class Slots(Task):
    """A cross-entropy for each slot, added up; `accuracy` is of whole answers (SUPERB's intents, arXiv:2105.01051).

    An input counts as right when every slot is; one without a label in some slot is judged by the others. Beside it
    stands the accuracy of each slot.

    Args:
        slots: their names; the data's columns have these, or `data.target` says which is which.
        hidden: width of a hidden layer; 0 for linear heads.
        dropout: before the last layer.
        projection: width of a linear layer before all that, with nothing between (SUPERB's is 256); 0: none.
    """

    main = "accuracy"
    target: dict[str, str]
    labels: Labels
    unseen: Labels

    def __init__(
        self, slots: list[str] | None = None, hidden: int = 0, dropout: float = 0.0, projection: int = 0
    ) -> None:
        super().__init__()
        check_head(hidden, dropout, projection)
        if slots is None:
            raise UserError("Slots needs the names of an answer's parts: --model.task.slots '[action, place]'.")
        if not slots or len(set(slots)) != len(slots) or "accuracy" in slots:
            raise UserError(f"task.slots names the slots of an answer, each once: not {slots}.")
        self.target = dict.fromkeys(slots, "class")
        self.hidden, self.dropout, self.projection = hidden, dropout, projection

    def build(self, dim: int, labels: Labels) -> None:
        for names in labels.values():
            expect_choice(names)
        self.labels = labels
        self.head = head(dim, self.hidden, sum(map(len, labels.values())), self.dropout, self.projection)

    def forward(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        parts = self.head(features[:, 0]).split([len(names) for names in self.labels.values()], -1)
        return dict(zip(self.labels, parts, strict=True))  # slot → (B, C)

    def loss(self, output: dict[str, Tensor], mask: Tensor, target: dict[str, Tensor]) -> Tensor:
        losses = [self._slot_loss(output[slot], target[slot], len(self.labels[slot])) for slot in output]
        return torch.stack(losses).sum()

    def _slot_loss(self, logits: Tensor, target: Tensor, known: int) -> Tensor:
        target = target.masked_fill(target >= known, IGNORE)
        counted = (target != IGNORE).sum().clamp(min=1)
        return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum") / counted

    def metrics(self) -> MetricCollection:
        made: dict[str, Metric | MetricCollection] = {name: MeanMetric() for name in ("accuracy", *self.labels)}
        return MetricCollection(made, compute_groups=False)

    def update(
        self, metrics: MetricCollection, output: dict[str, Tensor], mask: Tensor, target: dict[str, Tensor]
    ) -> None:
        right = {slot: logits.argmax(-1) == target[slot] for slot, logits in output.items()}
        for slot, hits in right.items():
            metrics[slot].update(hits.float(), (target[slot] != IGNORE).float())
        metrics["accuracy"].update(self._whole(right, target).float())

    def _whole(self, right: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        """(B,) whether no slot is wrong."""
        return torch.stack([hits | (target[slot] == IGNORE) for slot, hits in right.items()]).all(0)

    def outcomes(self, output: dict[str, Tensor], mask: Tensor, target: dict[str, Tensor]) -> list[Outcome]:
        right = {slot: logits.argmax(-1) == target[slot] for slot, logits in output.items()}
        return [(float(whole), 1.0) for whole in self._whole(right, target).tolist()]

    def decode(self, output: dict[str, Tensor], mask: Tensor) -> list[dict[str, str]]:
        best = {slot: logits.argmax(-1).tolist() for slot, logits in output.items()}
        rows = zip(*best.values(), strict=True)
        return [{slot: self.labels[slot][i] for slot, i in zip(best, row, strict=True)} for row in rows]
