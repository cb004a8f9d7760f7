"""Metrics that torchmetrics does not have, or ends differently where all answers are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MulticlassF1Score, MulticlassMatthewsCorrCoef
from torchmetrics.regression import SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from ssl_suite.core.batch import IGNORE


class Matthews(MulticlassMatthewsCorrCoef):
    """Matthews' correlation; 0, as in scikit-learn, where all answers or all truths are one class."""

    def compute(self) -> Tensor:
        constant = [(self.confmat.sum(d) > 0).sum() < 2 for d in (0, 1)]
        return torch.zeros((), device=self.confmat.device) if any(constant) else super().compute()


class SecondF1(BinaryF1Score):
    """F1 of the second of two labels; a truth that is neither is not the second."""

    def __init__(self) -> None:
        super().__init__(ignore_index=IGNORE)

    def update(self, answers: Tensor, truths: Tensor) -> None:
        super().update(answers, truths.masked_fill(truths > 1, 0))


class MacroF1(MulticlassF1Score):
    """Mean F1 of the `n` classes that occur; an answer `n` stands for none of them, and takes precision from none."""

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, n: int) -> None:
        super().__init__(n + 1, average=None, ignore_index=IGNORE)

    def compute(self) -> Tensor:
        occurs = (self.tp + self.fp + self.fn)[:-1] > 0
        return super().compute()[:-1][occurs].mean()


class Spearman(SpearmanCorrCoef):
    """Spearman's correlation; 0 where all answers or all truths are the same, for it is undefined there."""

    def compute(self) -> Tensor:
        answers, truths = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        constant = (answers == answers[0]).all() or (truths == truths[0]).all()
        return torch.zeros((), device=answers.device) if constant else self.correlation(answers, truths)

    def correlation(self, answers: Tensor, truths: Tensor) -> Tensor:
        return super().compute()


class Pearson(Spearman):
    """Pearson's correlation; of all values at once, for running sums of a constant leave a trace of rounding."""

    def correlation(self, answers: Tensor, truths: Tensor) -> Tensor:
        return torch.corrcoef(torch.stack([answers, truths]).float())[0, 1]


def are_entities(labels: Sequence[str]) -> bool:
    """Whether labels mark the places of entities: O, and TYPE after B-, I-, E- or S-."""
    places = [label for label in labels if label != "O"]
    return bool(places) and all(label[:2] in ("B-", "I-", "E-", "S-") for label in places)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Entities as (type, first, behind the last), read as conlleval and seqeval do.

    A tag goes on with the entity before it if it is I or E, follows B or I, and has the same type; any other but O
    begins one. So IOB1, IOB2, IOE and IOBES are all understood, and so is what a model says against the scheme.
    """
    found: set[tuple[str, int, int]] = set()
    start, before = 0, "O"
    for i, tag in enumerate([*tags, "O"]):
        place, _, kind = tag.partition("-")
        if place in ("I", "E") and before[0] in ("B", "I") and before[2:] == kind:
            before = tag
            continue
        if before != "O":
            found.add((before[2:], start, i))
        start, before = i, tag
    return found


class EntityF1(Metric):
    """Precision, recall and F1 over whole entities of all rows together: type and both ends must be right."""

    correct: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("correct", "predicted", "true"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, answers: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]) -> None:
        for answer, truth in zip(answers, truths, strict=True):
            said, wanted = entities(answer), entities(truth)
            self.correct += len(said & wanted)
            self.predicted += len(said)
            self.true += len(wanted)

    def compute(self) -> dict[str, Tensor]:
        return {
            "entity_f1": 2 * self.correct / (self.predicted + self.true).clamp(min=1),
            "entity_precision": self.correct / self.predicted.clamp(min=1),
            "entity_recall": self.correct / self.true.clamp(min=1),
        }
