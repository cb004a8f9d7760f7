"""Tag: a label for each position that has one: parts of speech, names, frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import check_head, expect_choice, head
from ssl_suite.tasks.metrics import EntityF1, MacroF1, are_entities, entities

Name = Literal["accuracy", "macro_f1", "entity_f1"]


class Tag(Task):
    """Cross-entropy at the positions whose target is not `IGNORE` (of text: the first piece of each word).

    A target where the mask is False belongs to a word that the window cut off: it costs no loss, and counts as wrong;
    so does a tag that the training split does not have. Of frames, one more or less than there are states is no error.

    Args:
        of: what is labelled: the `tags` of words, or the `frames` of a recording.
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
        metrics: what is reported; the first selects models: `accuracy` suits parts of speech, `entity_f1` names and
            other entities in IOB or IOBES labels (with `entity_precision` and `entity_recall`; reported for such labels
            whether asked for or not).
    """

    sequence = True
    target: str
    labels: list[str]

    def __init__(
        self,
        of: Literal["tags", "frames"] = "tags",
        hidden: int = 0,
        dropout: float = 0.0,
        metrics: Sequence[Name] = ("accuracy", "macro_f1"),
    ) -> None:
        super().__init__()
        self.target = of
        check_head(hidden, dropout)
        self.hidden, self.dropout = hidden, dropout
        self.names, self.main = tuple(metrics), metrics[0]

    def build(self, dim: int, labels: list[str]) -> None:
        expect_choice(labels)
        if "entity_f1" in self.names and not are_entities(labels):
            raise UserError(
                f"entity_f1 needs labels such as O, B-PER and I-PER; these are {', '.join(labels[:5])}: ask accuracy."
            )
        self.labels = labels
        self.head = head(dim, self.hidden, len(labels), self.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features)  # (B, T, C)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        target = self.learnable(self._along(target, mask)[:, : output.shape[1]]).masked_fill(~mask, IGNORE)
        counted = (target != IGNORE).sum().clamp(min=1)
        return (
            F.cross_entropy(output.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORE, reduction="sum")
            / counted
        )

    def _along(self, target: Tensor, mask: Tensor) -> Tensor:
        """Targets of as many frames as there are states; those of words stay."""
        if self.target == "tags":
            return target
        return F.pad(target, (0, mask.shape[1] - target.shape[1]), value=IGNORE).masked_fill(~mask, IGNORE)

    def metrics(self) -> MetricCollection:
        n = len(self.every_label)
        made: dict[Name, Metric] = {
            "accuracy": MulticlassAccuracy(n + 1, average="micro", ignore_index=IGNORE),
            "macro_f1": MacroF1(n),
        }
        chosen: dict[str, Metric | MetricCollection] = {k: metric for k, metric in made.items() if k in self.names}
        if are_entities(self.labels):
            chosen["entity_f1"] = EntityF1()
        return MetricCollection(chosen, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        target = self._along(target, mask)
        beyond = (0, target.shape[1] - output.shape[1])
        answer, seen = F.pad(output.argmax(-1), beyond), F.pad(mask, beyond)
        counted = target != IGNORE
        none = len(self.every_label)
        for name in ("accuracy", "macro_f1"):
            if name in metrics:
                metrics[name].update(answer.masked_fill(~seen, none).flatten(), target.flatten())
        if "entity_f1" in metrics:
            said = [self._names(row, keep) for row, keep in zip(answer.masked_fill(~seen, -1), counted, strict=True)]
            metrics["entity_f1"].update(said, [self._names(*row) for row in zip(target, counted, strict=True)])

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Outcome]:
        """Of `accuracy` and `entity_f1`; `macro_f1` is of the tags of all rows together."""
        if self.main == "macro_f1":
            return []
        target = self._along(target, mask)
        beyond = (0, target.shape[1] - output.shape[1])
        answer = F.pad(output.argmax(-1), beyond).masked_fill(~F.pad(mask, beyond), -1)
        counted = target != IGNORE
        if self.main == "accuracy":
            right = ((answer == target) & counted).sum(1).tolist()
            return list(zip(map(float, right), map(float, counted.sum(1).tolist()), strict=True))
        said = [entities(self._names(*row)) for row in zip(answer, counted, strict=True)]
        true = [entities(self._names(*row)) for row in zip(target, counted, strict=True)]
        return [(2.0 * len(a & b), float(len(a) + len(b))) for a, b in zip(said, true, strict=True)]

    def _names(self, row: Tensor, keep: Tensor) -> list[str]:
        names = self.every_label
        return [names[i] if i >= 0 else "O" for i in row[keep].tolist()]

    def decode(self, output: Tensor, mask: Tensor) -> list[list[str]]:
        best = output.argmax(-1)
        return [[self.labels[i] for i in row[keep].tolist()] for row, keep in zip(best, mask, strict=True)]
