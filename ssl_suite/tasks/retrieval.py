"""Retrieval: which picture is meant, which caption fits: encoders of two modalities, judged without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import JointBatch, TextBatch, lengths_to_mask
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import side_by_side
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import gathered
from ssl_suite.core.random import drawn_from, run_seed
from ssl_suite.core.request import Request

HEAD = "projections.weight"
"""Of what `Contrast` keeps beside an encoder."""


class Retrieval(Evaluation):
    """Recall@k of each item's counterpart among those of all items of a split, and zero-shot classes (CLIP, section 3).

    `recall@k` is the mean of both directions, each of which stands beside it by the name of what is asked with. An item
    that is as similar to others as to its own counterpart is found after them. With a `template`, `accuracy` is of the
    class whose description is the most similar; chance is 1 / number of classes, and k / number of items.

    Args:
        encoders: the run that contrasted two, `random:RUN`, or a folder for each: `{image: FOLDER, text: FOLDER}`.
        ks: how many answers are looked at; the first selects models.
        template: of a text that describes a class, `{}` its label, such as `a picture of {}`; None: no classes.
    """

    mode = "zero-shot"

    def __init__(
        self, encoders: dict[str, Encoder | str] | str, ks: Sequence[int] = (1, 5, 10), template: str | None = None
    ) -> None:
        encoders = dict(side_by_side(encoders))
        if len(encoders) != 2:
            raise UserError(f"Retrieval is between two encoders, not {len(encoders)}.")
        super().__init__(encoders, Optim())
        if not ks:
            raise UserError("model.ks is empty; name how many answers are looked at: [1, 5, 10].")
        for k in ks:
            within("model.ks", k, low=1, whole=True)
        if template is not None and (template.count("{}") != 1 or template.count("{") != 1):
            raise UserError(
                f"model.template {template!r} must have one {{}}, where the label goes, and no other brace."
            )
        self.ks, self.template = tuple(ks), template
        heads = [weight for e in self.encoders.values() if (weight := e.heads.get(HEAD)) is not None]
        width = min(len(weight) for weight in heads) if heads else min(e.dim for e in self.encoders.values())
        self.projections = nn.ModuleDict({name: projection(e, width) for name, e in self.encoders.items()})
        widths = {name: cast(nn.Linear, p).out_features for name, p in self.projections.items()}
        if len(set(widths.values())) > 1:
            raise UserError(f"The encoders were not contrasted with each other: their spaces are {widths} wide.")
        self._seen: list[tuple[int, Tensor, Tensor, int]] = []  # position, both (D,), class

    @property
    def main(self) -> str:
        return f"recall@{self.ks[0]}"

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError("Retrieval trains nothing; use test or validate.")
        self.text = next((name for name, encoder in self.encoders.items() if encoder.modality == "text"), None)
        if self.template is not None and self.text is None:
            raise UserError("model.template describes classes in words: one of the encoders must read text.")
        parts = {name: Request.of(encoder, aligned=True) for name, encoder in self.encoders.items()}
        self.data.serve(Request(target="class" if self.template else None, parts=parts))

    def embed(self, name: str, batch: Any) -> Tensor:
        """(B, D) unit vectors."""
        return F.normalize(self.projections[name](self.encoders[name](batch).pooled).float(), dim=-1)

    def _keep(self, batch: JointBatch) -> None:
        vectors = (self.embed(name, batch.parts[name]).cpu() for name in self.encoders)
        target = batch.target if isinstance(batch.target, Tensor) else torch.full((len(batch),), -1)
        self._seen += zip(batch.index.tolist(), *vectors, target.tolist(), strict=True)

    def _report(self, prefix: str) -> None:
        rows = sorted({row[0]: row for row in gathered(self._seen)}.values(), key=lambda row: row[0])
        self._seen = []
        index, first, second = [row[0] for row in rows], *(torch.stack([row[i] for row in rows]) for i in (1, 2))
        similar = first @ second.T
        found = {name: ranks(s) for name, s in zip(self.encoders, (similar, similar.T), strict=True)}
        for k in self.ks:
            hits = {name: (rank < k).float() for name, rank in found.items()}
            for name, hit in hits.items():
                self.log(f"{prefix}/{name}_recall@{k}", hit.mean())
            self.log(f"{prefix}/recall@{k}", torch.stack([*hits.values()]).mean(), prog_bar=k == self.ks[0])
        both = torch.stack([(rank < self.ks[0]).float() for rank in found.values()]).mean(0)
        if prefix == "test":
            self._outcomes["test"] = [(i, (value, 1.0)) for i, value in zip(index, both.tolist(), strict=True)]
        if self.template is not None:
            self.log(f"{prefix}/accuracy", self._zero_shot(first, second, torch.tensor([row[3] for row in rows])))

    def _zero_shot(self, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
        """Share of the items of the other modality whose class is described best."""
        name = cast(str, self.text)
        items = second if name == next(iter(self.encoders)) else first
        described = [cast(str, self.template).format(label) for label in self.data.labels]
        encoder = self.encoders[name]
        classes = self.embed(name, spelled_out(described, encoder.tokenizer, encoder.longest).to(self.device)).cpu()
        return ((items @ classes.T).argmax(1) == target).float().mean()

    def validation_step(self, batch: JointBatch, batch_idx: int) -> None:
        self._keep(batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def test_step(self, batch: JointBatch, batch_idx: int) -> None:
        self._keep(batch)

    def on_test_epoch_end(self) -> None:
        self._report("test")


def projection(encoder: Encoder, width: int) -> nn.Linear:
    """The head that came with an encoder; of random weights one of `width`, drawn from the run's seed."""
    weight = encoder.heads.get(HEAD)
    with drawn_from(run_seed()):
        made = nn.Linear(encoder.dim, width if weight is None else len(weight), bias=False)
    if weight is not None:
        made.load_state_dict({"weight": weight})
    return made.requires_grad_(False)


def ranks(similar: Tensor) -> Tensor:
    """(N,) how many columns come before each row's own, the diagonal, in (N, N); ties come before it too."""
    own = similar.diagonal()[:, None]
    return (similar >= own).sum(1) - 1


def spelled_out(texts: list[str], tokenizer: Any, longest: int | None) -> TextBatch:
    """A batch of short texts, of at most `longest` tokens."""
    ids = [torch.tensor(encoding.ids[:longest]) for encoding in tokenizer.encode_batch(texts)]
    lengths = torch.tensor([len(row) for row in ids])
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    count = torch.arange(len(texts))
    return TextBatch(count, torch.zeros_like(count), None, padded, lengths_to_mask(lengths, padded.shape[1]))
