"""SlotFilling: a transcript with the marks of its slots, by CTC: who is to be played, and where."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.text import edit_distance

from ssl_suite.core.outcomes import Outcome
from ssl_suite.tasks.ctc import CTC, Share

SLOT = re.compile(r"<([^<>/\s]+)>(.*?)</\1>")

Slots = dict[str, list[str]]
"""Name of a slot → its values in a transcript."""


class SlotFilling(CTC):
    """CTC over characters and the marks of slots (SUPERB's SF, arXiv:2105.01051, after 1910.09463).

    `slot_f1` is of the kinds of slot that an answer has, the mean over inputs; `slot_cer` the character error rate of
    their values: of several in one kind the nearest counts, and one that is missing is wrong in all its characters.

    Args:
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer, and between BLSTMs.
        projection: see `CTC`.
        blstms: see `CTC`.
        width: see `CTC`.
    """

    less_is_better = frozenset({"slot_cer", "unsayable", "unfit"})

    def __init__(
        self, hidden: int = 0, dropout: float = 0.0, projection: int = 0, blstms: int = 0, width: int = 1024
    ) -> None:
        super().__init__("characters", hidden, dropout, projection, blstms, width)
        self.target, self.rates, self.main = "marked", ("slot_f1", "slot_cer"), "slot_f1"

    def metrics(self) -> MetricCollection:
        made: dict[str, Metric | MetricCollection] = {"unsayable": Share(), "unfit": Share()}
        return MetricCollection(made | {"slot_f1": SlotF1(), "slot_cer": SlotCER()}, compute_groups=False)

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Outcome]:
        return [(f1(*map(slots, pair)), 1.0) for pair in zip(*self._texts(output, mask, target), strict=True)]


def slots(text: str) -> Slots:
    """What is between marks that belong together."""
    found: Slots = {}
    for name, value in SLOT.findall(text):
        found.setdefault(name, []).append(re.sub(r"</?[^<>/\s]+>", "", value).strip())
    return found


def f1(heard: Slots, said: Slots) -> float:
    """Of the kinds of slot in an answer; 1 where neither it nor the reference has any."""
    if not heard or not said:
        return float(not heard and not said)
    return 2 * len(heard.keys() & said.keys()) / (len(heard) + len(said))


class SlotF1(Metric):
    """Mean of `f1` over inputs."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, heard: list[str], said: list[str]) -> None:
        self.total += sum(f1(slots(a), slots(b)) for a, b in zip(heard, said, strict=True))
        self.count += len(said)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class SlotCER(Metric):
    """Σ edits / Σ characters over the values of the references."""

    errors: Tensor
    characters: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("errors", "characters"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, heard: list[str], said: list[str]) -> None:
        for answer, reference in zip(map(slots, heard), map(slots, said), strict=True):
            for name, values in reference.items():
                for value in values:
                    among = answer.get(name, [""])
                    edits = edit_distance(among, [value] * len(among), reduction="none")
                    self.errors += int(edits.min())
                    self.characters += len(value)

    def compute(self) -> Tensor:
        return self.errors / self.characters.clamp(min=1)
