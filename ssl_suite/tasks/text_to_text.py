"""TextToText: an encoder–decoder learns to say a text, and what it says is compared with what it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.batch import IGNORE, TextBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.module import Evaluation, detached
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import gathered
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.tasks.spoken import Comparison, compared

Name = Literal["exact_match", "bleu", "rouge1", "rouge2", "rougeL"]


@runtime_checkable
class Speaks(Protocol):
    """An encoder that says sequences."""

    def decode(self, batch: Seq2SeqBatch, memory: Encoded) -> Tensor:
        """(B, U, D), the states that the wanted tokens are predicted from."""

    def logits(self, states: Tensor) -> Tensor:
        """(…, D) → (…, V)."""

    def generate(self, batch: TextBatch, length: int, beams: int, length_penalty: float) -> list[list[int]]:
        """What it says to each input."""


class TextToText(Evaluation):
    """Fine-tunes an encoder–decoder on texts in and texts out (T5, arXiv:1910.10683, section 2.4); data: `TextPairs`.

    Args:
        encoder: folder or URI of an encoder–decoder, or one to train from scratch.
        metrics: what is reported; the first selects models. exact_match; bleu, sacrebleu's, of a whole split; rouge1,
            rouge2, rougeL: F1 of words, pairs of words, and of the longest common subsequence (Lin 2004), means of all
            rows; all of them shares of 1, but BLEU of 100.
        length: most tokens of what is said.
        beams: outputs that are followed at once.
        length_penalty: power of their length that their log-likelihoods are divided by.
        optim: how weights are updated.
    """

    mode = "finetune"
    selects = True

    def __init__(
        self,
        encoder: Encoder | str,
        metrics: Sequence[Name] = ("exact_match",),
        length: int = 64,
        beams: int = 1,
        length_penalty: float = 1.0,
        optim: Optim = Optim(lr=1e-3, weight_decay=0.0, warmup_ratio=0.1, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        if not isinstance(self.encoder, Speaks):
            kind = type(self.encoder).__name__
            raise UserError(f"TextToText needs an encoder–decoder, as Seq2Seq makes; a {kind} says nothing.")
        if not metrics:
            raise UserError("metrics is empty; name at least one of exact_match, bleu, rouge1, rouge2, rougeL.")
        for metric in metrics:
            one_of("metrics", metric, get_args(Name))
        for name, value in (("length", length), ("beams", beams)):
            within(name, value, low=1, whole=True)
        within("length_penalty", length_penalty, low=0)
        self.metrics, self.length, self.beams, self.length_penalty = tuple(metrics), length, beams, length_penalty
        self.encoder.thaw()
        self._said: dict[str, dict[int, Comparison]] = {}

    @property
    def main(self) -> str:
        return self.metrics[0]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.data.serve(Request.of(self.encoder))
        self.encoder.tokenizer = self.data.tokenizer

    def loss(self, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the wanted tokens, and their number."""
        speaker = cast(Speaks, self.encoder)
        wanted = batch.wanted
        logits = speaker.logits(speaker.decode(batch, self.encoder(batch)))
        total = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORE, reduction="sum")
        count = (wanted != IGNORE).sum()
        return total / count.clamp(min=1), count

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, _ = self.loss(batch)
        self.log_scalars("train", detached({"loss": loss}), batch, bar=("loss",))
        return loss

    @torch.no_grad()
    def said(self, batch: Seq2SeqBatch) -> list[str]:
        """What the encoder says to each input."""
        ids = cast(Speaks, self.encoder).generate(batch, self.length, self.beams, self.length_penalty)
        return [self.encoder.tokenizer.decode(row) for row in ids]

    def _judge(self, batch: Seq2SeqBatch, split: str, prefix: str) -> None:
        if not self.data.has_targets(split):
            raise UserError(f"The {split} split of {self.data.source_name} has no targets; use `predict`.")
        loss, count = self.loss(batch)
        self.log_mean(f"{prefix}/loss", loss, count)
        rows = zip(batch.index.tolist(), self.said(batch), batch.references, strict=True)
        self._said.setdefault(split, {}).update({i: Comparison(said, true) for i, said, true in rows})

    def _report(self, split: str, prefix: str) -> None:
        """Figures of what was said on all ranks; each row once, where some were given twice to fill a batch."""
        rows = dict(gathered(list(self._said.pop(split, {}).items())))
        for name in self.metrics if rows else ():
            value = compared(name, list(rows.values()))
            self.log(f"{prefix}/{name}", value, prog_bar=name == self.main)

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self._judge(batch, "validation", "val")

    def on_validation_epoch_end(self) -> None:
        self._report("validation", "val")

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self._judge(batch, "test", "test")
        if self.main != "bleu":  # which is no mean over rows
            rows = [self._said["test"][i] for i in batch.index.tolist()]
            self.keep("test", batch, [(compared(self.main, [row]), 1.0) for row in rows])

    def on_test_epoch_end(self) -> None:
        self._report("test", "test")

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> list[str]:
        return self.said(batch)
