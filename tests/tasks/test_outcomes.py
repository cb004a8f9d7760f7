"""What single examples add up to is the metric itself, for every task and every metric that selects models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_suite.bench.resample import Outcomes, score
from ssl_suite.core.batch import IGNORE
from ssl_suite.core.task import Task
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.regress import Regress
from ssl_suite.tasks.tag import Tag

TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def classes(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    target = torch.randint(len(task.labels), (40,))
    target[3] = IGNORE
    return torch.randn(40, len(task.labels)) + 2 * target.clamp(min=0)[:, None].eq(torch.arange(len(task.labels))), \
        torch.ones(40, 1, dtype=torch.bool), target  # fmt: skip


def values(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    target = torch.randn(40)
    return target + torch.randn(40), torch.ones(40, 1, dtype=torch.bool), target


def sequences(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs shorter than some targets, padded, with targets that the window cut off."""
    target = torch.randint(len(task.labels), (40, 12))
    target[torch.rand(40, 12) < 0.3] = IGNORE
    mask = torch.arange(9)[None] < torch.randint(4, 10, (40, 1))
    near = 2.5 * target[:, :9].clamp(min=0)[..., None].eq(torch.arange(len(task.labels)))
    return torch.randn(40, 9, len(task.labels)) + near, mask, target


def characters(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    target = torch.randint(len(task.labels), (40, 5))
    target[torch.arange(5)[None] >= torch.randint(1, 6, (40, 1))] = IGNORE
    return torch.randn(40, 14, len(task.labels) + 1), torch.ones(40, 14, dtype=torch.bool), target


@pytest.mark.parametrize(("task", "labels", "draw"), [
    (Classify(metrics=["accuracy"]), list("abc"), classes), (Classify(metrics=["macro_f1"]), list("abc"), classes),
    (Classify(metrics=["matthews"]), ["a", "b"], classes), (Classify(metrics=["f1"]), ["a", "b"], classes),
    (Regress(metrics=["pearson"]), [], values), (Regress(metrics=["spearman"]), [], values),
    (Regress(metrics=["mse"]), [], values), (Tag(metrics=["accuracy"]), TAGS, sequences),
    (Tag(metrics=["entity_f1"]), TAGS, sequences), (CTC(), list("abc "), characters),
    (CTC(of="phones"), ["AA1", "B", "SPN"], characters),
], ids=lambda value: f"{type(value).__name__}-{value.main}" if isinstance(value, Task) else "")  # fmt: skip
def test_outcomes_make_up_the_metric(
    task: Task, labels: list[str], draw: Callable[[Task], tuple[Tensor, Tensor, Tensor]]
) -> None:
    torch.manual_seed(0)
    task.build(4, labels)
    output, mask, target = draw(task)
    metrics, kept = task.metrics(), []
    for rows in torch.arange(40).split(16):  # over batches
        task.update(metrics, output[rows], mask[rows], target[rows])
        kept += task.outcomes(output[rows], mask[rows], target[rows])
    counted = [outcome for outcome in kept if outcome is not None]
    assert len(kept) == 40
    found = Outcomes(tuple(map(str, range(len(counted)))), np.array(counted, float), task.statistic)
    value = float(metrics.compute()[task.main])
    assert score(found, np.ones((1, len(counted))))[0] == pytest.approx(value, abs=1e-5)
    assert 0 < value < 4, "nothing trivial"


def test_directions_come_from_the_task() -> None:
    assert (CTC().direction, Regress(metrics=["mse"]).direction, Regress(metrics=["pearson"]).direction) == (
        "min", "min", "max"
    )  # fmt: skip
    names: Sequence[str] = ("cer", "wer", "per", "unfit", "unsayable")
    assert set(names) == CTC.less_is_better
