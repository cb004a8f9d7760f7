"""Verify: whether two inputs are of one identity that training need not have known: speakers, faces, hands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.check import one_of, within
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Example, by_id
from ssl_suite.core.task import Task
from ssl_suite.tasks.head import expect_choice
from ssl_suite.tasks.trials import Trials, eer, errors, every_pair, located, min_dcf, read_trials
from ssl_suite.tasks.xvector import XVector

TOGETHER = 16_384
"""Trials scored at a time."""


class Vectors(NamedTuple):
    """What the head makes of a batch.

    Attributes:
        compared: (B, W), whose cosine is the score of a trial.
        cosines: (B, C) with the direction of each identity of training.
        item: (B,) number of each in its split.
    """

    compared: Tensor
    cosines: Tensor
    item: Tensor


class Verify(Task):
    """Classification of the identities of training by AM-softmax (arXiv:1801.05599), judged on pairs of new ones.

    The loss is a cross-entropy of `scale` × (cosine − `margin` at the true identity). A split poses all its pairs (of
    more than two million, as many drawn ones), the test split those of a list where one is given. `eer` is the error
    rate where misses and false alarms are equally frequent, `min_dcf` the least detection cost, divided by that of the
    better constant answer.

    Args:
        head: `xvector`, SUPERB's speaker verification (arXiv:2105.01051); or `linear`, one layer on what the readout
            makes of the whole input, which is the second opinion, and fits any modality.
        width: of the vectors that are compared, and of the layers before them.
        last: width of the last layer before the pooling of `xvector`.
        scale: s of AM-softmax.
        margin: m of AM-softmax.
        trials: a list of test trials in VoxCeleb's format, `1 FIRST SECOND` for one identity and 0 for two; names are
            ids of the test split (paths of its files), or their last parts.
        p_target: prior probability of one identity in `min_dcf`.
    """

    target = "identity"
    inputs = ("index",)
    main = "eer"
    less_is_better = frozenset({"eer", "min_dcf"})
    labels: list[str]

    def __init__(
        self,
        head: Literal["xvector", "linear"] = "xvector",
        width: int = 512,
        last: int = 1500,
        scale: float = 30.0,
        margin: float = 0.4,
        trials: str | None = None,
        p_target: float = 0.01,
    ) -> None:
        super().__init__()
        one_of("task.head", head, ("xvector", "linear"))
        within("task.width", width, low=1, whole=True)
        within("task.last", last, low=1, whole=True)
        within("task.scale", scale, above=0)
        within("task.margin", margin, low=0)
        within("task.p_target", p_target, above=0, below=1)
        self.kind, self.width, self.last = head, width, last
        self.scale, self.margin, self.p_target = scale, margin, p_target
        self.sequence = head == "xvector"
        self.list = Path(trials) if trials is not None else None
        self.listed = read_trials(self.list) if self.list is not None else []
        self.posed: Trials | None = None

    def build(self, dim: int, labels: list[str]) -> None:
        expect_choice(labels)
        self.labels = labels
        self.head = XVector(dim, self.width, self.last) if self.kind == "xvector" else nn.Linear(dim, self.width)
        self.directions = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(labels), self.width)))

    def meet(self, data: DataModule) -> None:
        if self.list is not None and data.has("test"):
            among = f"the test split of {data.source_name}"
            self.posed = located(self.listed, data.ids("test"), str(self.list), among)
            if bool(self.posed.same.all()) or not bool(self.posed.same.any()):
                lacking = "two identities" if bool(self.posed.same.any()) else "one identity"
                rank_zero_warn(f"{self.list} has no trial of {lacking}, so there is no error rate.")

    def forward(self, features: Tensor, mask: Tensor, index: Tensor) -> Vectors:
        if self.kind == "xvector":
            compared, classified = self.head(features, mask)
        else:
            compared = classified = self.head(features[:, 0])
        directions = F.normalize(self.directions.float(), dim=1)
        return Vectors(compared, F.normalize(classified.float(), dim=1) @ directions.T, index)

    def loss(self, output: Vectors, mask: Tensor, target: Tensor) -> Tensor:
        target = self.learnable(target)
        true = target.clamp(min=0)[:, None]
        logits = output.cosines.scatter_add(1, true, torch.full_like(output.cosines[:, :1], -self.margin))
        summed = F.cross_entropy(self.scale * logits, target, ignore_index=IGNORE, reduction="sum")
        return summed / (target != IGNORE).sum().clamp(min=1)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"kept": Kept()})

    def update(self, metrics: MetricCollection, output: Vectors, mask: Tensor, target: Tensor) -> None:
        metrics["kept"].update(output.compared, target, output.item)

    def compute(self, metrics: MetricCollection, data: DataModule, split: str) -> Mapping[str, Tensor]:
        kept = metrics.compute()
        index, identity = kept["index"].view(-1), kept["identity"].view(-1)  # torchmetrics squeezes what is of one item
        trials, scores = self.scored(kept["vectors"].view(len(index), -1), identity, index, data, split)
        found = {"eer": eer(scores, trials.same), "min_dcf": min_dcf(scores, trials.same, self.p_target)}
        return {name: value.float() for name, value in found.items()}

    def scored(
        self, vectors: Tensor, identity: Tensor, index: Tensor, data: DataModule, split: str
    ) -> tuple[Trials, Tensor]:
        """The trials of a split, and the score of each.

        Args:
            vectors: (N, W) of items, in any order; those that several ranks had may be there twice.
            identity: (N,) of each.
            index: (N,) number of each in its split.
            data: the items are of.
            split: of the items.

        Raises:
            UserError: the list says of two items that they are of one identity, and the data that they are of two.
        """
        row = torch.full((data.size(split),), -1, device=index.device)
        row[index] = torch.arange(len(index), device=index.device)
        there = (row >= 0).nonzero()[:, 0]
        if self.posed is not None and split == "test":
            posed = Trials(*(part.to(index.device) for part in self.posed))
            self._expect_agreement(posed, row, identity)
            trials = posed.among(row >= 0)
            if lost := len(posed.same) - len(trials.same):
                rank_zero_warn(f"{self.list}: {lost} of {len(posed.same)} trials are of items that were not read.")
        else:
            trials = every_pair(identity[row[there]])
            trials = Trials(there[trials.first], there[trials.second], trials.same)
        unit = F.normalize(vectors.float(), dim=1)
        pairs = zip(row[trials.first].split(TOGETHER), row[trials.second].split(TOGETHER), strict=True)
        return trials, torch.cat([(unit[a] * unit[b]).sum(1) for a, b in pairs])

    def _expect_agreement(self, posed: Trials, row: Tensor, identity: Tensor) -> None:
        first, second = row[posed.first], row[posed.second]
        wrong = (first >= 0) & (second >= 0) & ((identity[first] == identity[second]) != posed.same)
        if wrong.any():
            trial = self.listed[int(wrong.int().argmax())]
            said, true = ("one identity", "two") if trial.same else ("two identities", "one")
            raise UserError(
                f"{self.list}, line {trial.line}: {trial.first} and {trial.second} are said to be of {said}, "
                f"but by data.target they are of {true}; mend one of them."
            )

    def outcomes(self, output: Vectors, mask: Tensor, target: Tensor) -> list[Any]:
        """Vector and identity of each item; `examples` poses the trials."""
        return list(zip(output.compared.detach().cpu(), target.tolist(), strict=True))

    def examples(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> list[Example]:
        """Of each item the errors of its trials, and the trials; its two items share one, each kind counts as much."""
        if not rows:
            return []
        index, identity = torch.tensor([i for i, _ in rows]), torch.tensor([who for _, (_, who) in rows])
        trials, scores = self.scored(torch.stack([v for _, (v, _) in rows]), identity, index, data, split)
        wrong = errors(scores, trials.same)
        if bool(wrong.isnan().any()):
            return []
        counts = torch.where(trials.same, trials.same.sum(), (~trials.same).sum())
        share = len(rows) / 4 / counts.double()
        outcome = torch.zeros(data.size(split), 2, dtype=torch.float64)
        for side in (trials.first, trials.second):
            outcome.index_add_(0, side, torch.stack([share * wrong, share], 1))
        return by_id([(i, (w, n)) for i, (w, n) in enumerate(outcome.tolist()) if n > 0], data, split)

    def decode(self, output: Vectors, mask: Tensor) -> list[list[float]]:
        """The vector of each input."""
        return output.compared.tolist()

    def files(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> dict[str, Any]:
        """`scores.json`, where there is a list of trials: their scores, in its order."""
        if self.posed is None or split != "test":
            return {}
        unit = {i: F.normalize(torch.tensor(vector), dim=0) for i, vector in rows}
        pairs = zip(self.listed, self.posed.first.tolist(), self.posed.second.tolist(), strict=True)
        return {
            "scores.json": [
                {"first": trial.first, "second": trial.second, "score": float(unit[a] @ unit[b])}
                for trial, a, b in pairs
                if a in unit and b in unit
            ]
        }


class Kept(Metric):
    """Keeps the vector of each item until those of all ranks are there."""

    vectors: list[Tensor]
    identity: list[Tensor]
    index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("vectors", "identity", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, vectors: Tensor, identity: Tensor, index: Tensor) -> None:
        self.vectors.append(vectors.detach())
        self.identity.append(identity)
        self.index.append(index)

    def compute(self) -> dict[str, Tensor]:
        return {name: dim_zero_cat(getattr(self, name)) for name in ("vectors", "identity", "index")}
