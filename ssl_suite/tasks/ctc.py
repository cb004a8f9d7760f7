"""CTC: a sequence of characters (or phonemes) from a longer sequence of states."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.text import CharErrorRate, WordErrorRate

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import check_head, head

BLANK = 0
"""Output 0 is the blank; character i of the labels is output i + 1."""


class CTC(Task):
    """Connectionist temporal classification (Graves et al. 2006) with greedy decoding.

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
    """

    sequence = True
    target = "characters"
    main = "cer"
    direction = "min"

    def __init__(self, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        check_head(hidden, dropout)
        self.hidden, self.dropout = hidden, dropout

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.head = head(dim, self.hidden, len(labels) + 1, self.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features)  # (B, T, 1 + characters)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of −log p / length, in fp32; targets that cannot fit (T < L + repeats) count as zero."""
        log_probabilities = output.float().log_softmax(-1).transpose(0, 1)
        labelled = target != IGNORE
        return F.ctc_loss(
            log_probabilities, target.clamp(min=0) + 1, mask.sum(1), labelled.sum(1), BLANK, zero_infinity=True
        )

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {"cer": CharErrorRate(), "wer": WordErrorRate(), "unfit": Unfit()}, compute_groups=False
        )

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        said = ["".join(self.labels[i] for i in row.tolist() if i != IGNORE) for row in target]
        heard = self.decode(output, mask)
        metrics["cer"].update(heard, said)
        metrics["wer"].update(heard, said)
        metrics["unfit"].update(mask.sum(1), target)

    def decode(self, output: Tensor, mask: Tensor) -> list[str]:
        """The best output of each real frame; repeats merge, blanks go."""
        texts = []
        for row, length in zip(output.argmax(-1).cpu(), mask.sum(1).tolist(), strict=True):
            best = torch.unique_consecutive(row[:length]).tolist()
            texts.append("".join(self.labels[i - 1] for i in best if i != BLANK))
        return texts


class Unfit(Metric):
    """Share of targets that no alignment fits: fewer states than characters plus repeats; `zero_infinity` hides it."""

    unfit: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("unfit", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, lengths: Tensor, target: Tensor) -> None:
        real = target != IGNORE
        repeats = ((target[:, 1:] == target[:, :-1]) & real[:, 1:]).sum(1)
        self.unfit += (lengths < real.sum(1) + repeats).sum()
        self.total += len(target)

    def compute(self) -> Tensor:
        return self.unfit / self.total.clamp(min=1)
