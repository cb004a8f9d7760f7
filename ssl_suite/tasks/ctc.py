"""CTC: a sequence of characters (or phonemes) from a longer sequence of states."""

from __future__ import annotations

import unicodedata
from typing import Literal, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.text import edit_distance
from torchmetrics.text import CharErrorRate, WordErrorRate

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule
from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.beam import BLANK, Beam, Search
from ssl_suite.tasks.head import check_head, head
from ssl_suite.tasks.recurrent import BLSTM


class CTC(Task):
    """Connectionist temporal classification (Graves et al. 2006), decoded greedily, or by a beam and a language model.

    Learned is what can be said, scored the whole reference: `cer` and `wer`, or `per` of phones, count as errors the
    characters that training never had, and `unsayable` says which share of the reference they are. `unfit` is the share
    of references that are longer than their input has states.

    Args:
        of: what a sequence is of: `characters`, or `phones`.
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer, and between BLSTMs.
        projection: width of a linear layer before all others, with nothing between; 0: none. SUPERB's phones have 256.
        blstms: layers between them that read the states from both ends; SUPERB's characters have 2, after a projection
            of 1024, with dropout 0.2.
        width: of each direction of those.
        beam: how the answer is searched. A wide beam is slow: train without, and `test` the checkpoint with it.
    """

    sequence = True
    target: str
    labels: list[str]
    less_is_better = frozenset({"cer", "wer", "per", "unsayable", "unfit"})

    def __init__(
        self,
        of: Literal["characters", "phones"] = "characters",
        hidden: int = 0,
        dropout: float = 0.0,
        projection: int = 0,
        blstms: int = 0,
        width: int = 1024,
        beam: Beam = Beam(),
    ) -> None:
        super().__init__()
        check_head(hidden, dropout, projection)
        within("task.blstms", blstms, low=0, whole=True)
        within("task.width", width, low=1, whole=True)
        self.target = of
        self.rates = ("per",) if of == "phones" else ("cer", "wer")
        self.main, self.space = self.rates[0], " " if of == "phones" else ""
        self.hidden, self.dropout, self.projection = hidden, dropout, projection
        self.depth, self.width, self.beam = blstms, width, beam

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.search = Search(self.beam, labels) if self.beam.width > 1 else None
        outputs = len(labels) + 1
        self.blstm = None
        if not self.depth:
            self.head = head(dim, self.hidden, outputs, self.dropout, self.projection)
            return
        self.first = nn.Linear(dim, self.projection) if self.projection else nn.Identity()
        self.blstm = BLSTM(self.projection or dim, self.width, self.depth, self.dropout)
        self.head = head(2 * self.width, self.hidden, outputs, self.dropout)

    def meet(self, data: DataModule) -> None:
        """Says how many references of training are longer than their inputs have states, from which nothing is learned.

        Which states a front end makes of the last samples is its own: one more is allowed for.
        """
        lengths = data.lengths("train") if data.has("train") and data.has_targets("train") else None
        if lengths is None or data.request is None:
            return
        a_state = data.request.stride / data.preprocess(data.request).get("sample_rate", 1)
        states = torch.tensor([int(length / a_state) + 1 for length in lengths])
        targets = [cast(Tensor, data.target("train", i)) for i in range(len(states))]
        long = [bool(unfit(n[None], self._sayable(target[None]))) for n, target in zip(states, targets, strict=True)]
        if some := sum(long):
            first = long.index(True)
            rank_zero_warn(
                f"{data.source_name}: {some} of {len(long)} transcripts of training are longer than their recordings "
                f"have states ({data.ids('train')[first]}: {len(targets[first])} {self.target} at {int(states[first])} "
                "states), so nothing is learned from them; mend them, or take an encoder of a smaller stride."
            )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) → (B, T, 1 + characters)."""
        return self.head(features if self.blstm is None else self.blstm(self.first(features), mask))

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of −log p / length, in fp32; targets that cannot fit (T < L + repeats) count as zero."""
        log_probabilities = output.float().log_softmax(-1).transpose(0, 1)
        target = self._sayable(target)
        labelled = target != IGNORE
        return F.ctc_loss(
            log_probabilities, target.clamp(min=0) + 1, mask.sum(1), labelled.sum(1), BLANK, zero_infinity=True
        )

    def _sayable(self, target: Tensor) -> Tensor:
        """(B, L) without the characters that have no output; the others move up."""
        if not self.unseen:
            return target
        learnable = self.learnable(target)
        order = (learnable == IGNORE).int().argsort(dim=1, stable=True)
        return learnable.gather(1, order)

    def metrics(self) -> MetricCollection:
        made: dict[str, Metric | MetricCollection] = {"unsayable": Share(), "unfit": Share()}
        if self.target == "phones":
            made["per"] = WordErrorRate()  # phones stand apart, as words do
        else:
            made |= {"cer": CharErrorRate(), "wer": WordErrorRate()}
        return MetricCollection(made, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        heard, said = self._texts(output, mask, target)
        for name in self.rates:
            metrics[name].update(heard, said)
        metrics["unsayable"].update((target >= len(self.labels))[target != IGNORE])
        metrics["unfit"].update(unfit(mask.sum(1), self._sayable(target)))

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Outcome]:
        """Errors and characters, or phones."""
        heard, said = (self._units(texts) for texts in self._texts(output, mask, target))
        errors = edit_distance(heard, said, reduction="none").tolist()
        return [(float(wrong), float(len(text))) for wrong, text in zip(errors, said, strict=True)]

    def _units(self, texts: list[str]) -> list[str]:
        """Texts of which each character is one unit."""
        if not self.space:
            return texts
        units = {name: chr(i) for i, name in enumerate(self.every_label)}
        return ["".join(units[name] for name in text.split()) for text in texts]

    def _texts(self, output: Tensor, mask: Tensor, target: Tensor) -> tuple[list[str], list[str]]:
        """Answers and references."""
        names = self.every_label
        said = [self.space.join(names[i] for i in row.tolist() if i != IGNORE) for row in target]
        return [text.strip() for text in self.decode(output, mask)], said  # stripped as jiwer does

    def decode(self, output: Tensor, mask: Tensor) -> list[str]:
        """What is heard in the real frames; marks join their letters (NFC)."""
        states = output.argmax(-1) if self.search is None else output.float().softmax(-1)
        rows = zip(states.cpu(), mask.sum(1).tolist(), strict=True)
        heard = [self._labels(row[:length]) for row, length in rows]
        return [unicodedata.normalize("NFC", self.space.join(self.labels[i] for i in row)) for row in heard]

    def _labels(self, row: Tensor) -> list[int]:
        """Of a beam over (T, 1 + labels) probabilities; or of (T,) best outputs, repeats merged and blanks gone."""
        if self.search is not None:
            return self.search(row.numpy())
        return [i - 1 for i in torch.unique_consecutive(row).tolist() if i != BLANK]


def unfit(lengths: Tensor, target: Tensor) -> Tensor:
    """(B,) whether no alignment fits: fewer states than characters plus repeats; `zero_infinity` hides it."""
    real = target != IGNORE
    repeats = ((target[:, 1:] == target[:, :-1]) & real[:, 1:]).sum(1)
    return lengths < real.sum(1) + repeats


class Share(Metric):
    """How many of all are true."""

    true: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("true", torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, flags: Tensor) -> None:
        self.true += flags.sum()
        self.total += flags.numel()

    def compute(self) -> Tensor:
        return self.true / self.total.clamp(min=1)
