"""Diarize: who speaks when, of voices that have no name: whoever is meant by the first, it is the same throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection

from ssl_suite.core.check import one_of, within
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Example, by_id
from ssl_suite.core.task import Task
from ssl_suite.tasks.orders import all_orders, cheapest

PARTS = ("miss", "false_alarm", "confusion")
"""Of the diarization error rate."""


class Diarize(Task):
    """An LSTM and a score for each voice, by a permutation-invariant binary cross-entropy (SUPERB, arXiv:2105.01051).

    `der` is (missed + falsely detected + confused speech) / speech, over all states of a split together, in which every
    voice counts that is active; each recording's voices are matched as suits its answers best. A voice is said to be
    active where its probability is above a threshold, by the majority of the states around.

    Args:
        hidden: width of the LSTM; 0 for one linear layer on each state, which is the second opinion.
        layers: of the LSTM.
        thresholds: that are tried.
        medians: states whose majority decides, odd numbers, that are tried; 1 is the state itself.
        collar: states before and behind each change of a reference that are not scored.
        overlaps: whether states with several active voices are scored.
        protocol: `strict` takes threshold and median that are best on the validation split; `compat` those that are
            best on whichever split is scored, as SUPERB's script does.
    """

    sequence = True
    target = "multi_frames"
    main = "der"
    less_is_better = frozenset({"der", *PARTS})
    labels: list[str]
    chosen: Tensor

    def __init__(
        self,
        hidden: int = 512,
        layers: int = 1,
        thresholds: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
        medians: Sequence[int] = (1, 11),
        collar: int = 0,
        overlaps: bool = True,
        protocol: Literal["strict", "compat"] = "strict",
    ) -> None:
        super().__init__()
        within("task.hidden", hidden, low=0, whole=True)
        within("task.layers", layers, low=1, whole=True)
        within("task.collar", collar, low=0, whole=True)
        one_of("task.protocol", protocol, ("strict", "compat"))
        for threshold in thresholds:
            within("task.thresholds", threshold, above=0, below=1)
        for median in medians:
            within("task.medians", median, low=1, whole=True)
        if not thresholds or not medians or any(median % 2 == 0 for median in medians):
            raise UserError("task.thresholds and task.medians name what is tried, medians by odd numbers: [1, 11].")
        self.hidden, self.layers, self.collar, self.overlaps = hidden, layers, collar, overlaps
        self.settings = [(threshold, median) for threshold in thresholds for median in medians]
        self.protocol = protocol if protocol == "compat" else ""
        plain = min(range(len(self.settings)), key=lambda k: (abs(self.settings[k][0] - 0.5), self.settings[k][1]))
        self.register_buffer("chosen", torch.tensor(plain))

    def build(self, dim: int, labels: list[str]) -> None:
        all_orders(len(labels), torch.device("cpu"))  # not too many
        self.labels = labels
        self.lstm = nn.LSTM(dim, self.hidden, self.layers, batch_first=True) if self.hidden else None
        self.head = nn.Linear(self.hidden or dim, len(labels))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features if self.lstm is None else self.lstm(features)[0])  # (B, T, C)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Mean over voices and states of −log p, of the order of voices that is the likeliest of each recording."""
        real = mask[..., None]
        logits, true = output.float(), self._along(target, mask)
        silent = (F.softplus(logits) * real).sum(1)  # (B, C): −log p of silence throughout
        costs = silent[..., None] - torch.einsum("bti,btj->bij", logits * real, true)
        unheard = F.pad(costs, (0, 0, 0, true.shape[2] - logits.shape[2]))  # voices more than there are outputs
        return cheapest(unheard)[0].sum() / (mask.sum().clamp(min=1) * logits.shape[2])

    def _along(self, target: Tensor, mask: Tensor) -> Tensor:
        """(B, L, C) → (B, T, C): silence where the reference is a state or two shorter, and behind the last state."""
        return F.pad(target, (0, 0, 0, mask.shape[1] - target.shape[1])) * mask[..., None]

    def errors(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """(K, B, 4) missed, falsely detected, confused and all speech of each recording, by each of the K settings."""
        true = self._along(target, mask) > 0.5
        said = torch.stack([self._said(output, mask, *setting) for setting in self.settings])  # (K, B, T, C)
        said = F.pad(said, (0, true.shape[2] - said.shape[3]))
        scored = mask & ~near_changes(true, self.collar)
        if not self.overlaps:
            scored &= true.sum(2) < 2
        return diarization_errors(said, true, scored)

    def _said(self, output: Tensor, mask: Tensor, threshold: float, median: int) -> Tensor:
        """(B, T, C) where each voice is said to be active."""
        active = (output.float() > math.log(threshold / (1 - threshold))) & mask[..., None]
        return majority(active, median)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"errors": Total(len(self.settings))})

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics["errors"].update(self.errors(output, mask, target).sum(1))

    def compute(self, metrics: MetricCollection, data: DataModule, split: str) -> Mapping[str, Tensor]:
        totals = metrics["errors"].compute()  # (K, 4)
        best = rates(totals).argmin()
        figures: dict[str, Tensor] = {}
        if split == "validation":
            self.chosen.copy_(best)
            both = zip(("threshold", "median"), self.settings[int(best)], strict=True)
            figures = {name: torch.tensor(value, device=totals.device) for name, value in both}
        chosen = totals[best if self.protocol else self.chosen]
        figures |= {name: of_speech(chosen[i], chosen[3]) for i, name in enumerate(PARTS)}
        return {name: value.float() for name, value in ({"der": rates(chosen)} | figures).items()}

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Any]:
        """Errors of each recording by each setting; `examples` knows which counts."""
        return list(self.errors(output, mask, target).transpose(0, 1).cpu())

    def examples(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> list[Example]:
        """Wrong and all speech of each recording."""
        if not rows:
            return []
        found = torch.stack([errors for _, errors in rows])  # (N, K, 4)
        chosen = int(rates(found.sum(0)).argmin() if self.protocol else self.chosen)
        pairs = [(float(errors[:3].sum()), float(errors[3])) for errors in found[:, chosen]]
        return by_id([(i, pair) for (i, _), pair in zip(rows, pairs, strict=True)], data, split)

    def decode(self, output: Tensor, mask: Tensor) -> list[list[list[tuple[int, int]]]]:
        """For each voice of each input where it is active: first states, and those behind the last."""
        said = self._said(output, mask, *self.settings[int(self.chosen)])
        return [[segments(voice) for voice in row.T] for row in said.cpu()]

    def files(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> dict[str, str]:
        """Who speaks when, in seconds, as RTTM (NIST's Rich Transcription), which md-eval and dscore read."""
        assert data.request is not None
        names, second = data.ids(split), data.preprocess(data.request)["sample_rate"] / data.request.stride
        lines = [
            f"SPEAKER {'_'.join(names[i].split())} 1 {first / second:.3f} {(last - first) / second:.3f} <NA> <NA> "
            f"{voice} <NA> <NA>\n"
            for i, voices in sorted(rows)
            for first, last, voice in sorted((*part, k) for k, parts in enumerate(voices) for part in parts)
        ]
        return {"predictions.rttm": "".join(lines)}


class Total(Metric):
    """Errors of all recordings, (K, 4) by each setting."""

    errors: Tensor

    def __init__(self, settings: int) -> None:
        super().__init__()
        self.add_state("errors", torch.zeros(settings, 4, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, errors: Tensor) -> None:
        self.errors += errors.long()

    def compute(self) -> Tensor:
        return self.errors


def rates(errors: Tensor) -> Tensor:
    """(..., 4) missed, falsely detected, confused and all speech → (...) the diarization error rate."""
    return of_speech(errors[..., :3].sum(-1), errors[..., 3])


def of_speech(wrong: Tensor, speech: Tensor) -> Tensor:
    """Their ratio; where nobody speaks 1 if anything is wrong, as pyannote.metrics has it."""
    return torch.where(speech > 0, wrong / speech.clamp(min=1), (wrong > 0).float())


def diarization_errors(said: Tensor, true: Tensor, scored: Tensor) -> Tensor:
    """Counts errors as NIST does, of the order of voices in which the fewest are made.

    Args:
        said: (..., B, T, C) bool, which voices are said to be active.
        true: (B, T, C) bool, which are.
        scored: (B, T) bool, which states count.

    Returns:
        (..., B, 4) states of missed, falsely detected and confused speech, and of all speech; several voices at a state
        count as many times.
    """
    said, true = (said & scored[..., None]).float(), (true & scored[..., None]).float()
    together = torch.einsum("...ti,...tj->...ij", said, true.expand_as(said))
    right = -cheapest(-together)[0]  # (..., B)
    heard, there = said.sum(-1), true.sum(-1).expand(said.shape[:-1])  # (..., B, T) active voices
    miss, alarm = ((a - b).clamp(min=0).sum(-1) for a, b in ((there, heard), (heard, there)))
    confused = torch.minimum(heard, there).sum(-1) - right
    return torch.stack([miss, alarm, confused, there.sum(-1)], -1)


def majority(active: Tensor, size: int) -> Tensor:
    """Median filter along T of (B, T, C) bool; nobody is active before the first state and behind the last."""
    if size == 1:
        return active
    share = F.avg_pool1d(active.mT.float(), size, stride=1, padding=size // 2)
    return (share > 0.5).mT


def near_changes(true: Tensor, collar: int) -> Tensor:
    """(B, T) bool: states within `collar` states of one where a voice of (B, T, C) sets in or ends."""
    edges = F.pad(true, (0, 0, 1, 1))
    changes = (edges[:, 1:] != edges[:, :-1]).any(2)  # (B, T + 1): before each state, and behind the last
    if collar == 0:
        return torch.zeros_like(changes[:, 1:])
    padded = F.pad(changes, (collar - 1, collar - 1)).float()
    return F.max_pool1d(padded[:, None], 2 * collar, stride=1)[:, 0] > 0


def segments(active: Tensor) -> list[tuple[int, int]]:
    """(T,) bool → (first, behind the last) of each run of True."""
    edges = F.pad(active, (1, 1)).int().diff()
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True))
