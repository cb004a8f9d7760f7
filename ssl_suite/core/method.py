"""Method: a LightningModule that pretrains an encoder. A subclass is its paper: `step`, and little else."""

from __future__ import annotations

import functools
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_suite.core.batch import Batch, JointBatch
from ssl_suite.core.callbacks import WriteEncoder
from ssl_suite.core.collapse import collapse_signs
from ssl_suite.core.data import Request
from ssl_suite.core.ema import Ramp, update_teacher
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.folder import ENCODER
from ssl_suite.core.module import TrainModule, detached
from ssl_suite.core.optim import Optim
from ssl_suite.core.sharding import place, whole
from ssl_suite.core.term import Term
from ssl_suite.core.weights import load_strictly, untied


@dataclass(eq=False)
class StepOutput:
    """What a step returns; the base class does the rest.

    Validation figures, and the gradient over accumulated batches and ranks, are those of Σ sum / Σ count of each term.

    Attributes:
        loss: a term, several by name, or a scalar: the mean over a batch whose items cannot be told apart (contrast).
        logs: more to log under `train/` or `val/`; a scalar is a mean over the items of the batch.
        features: (N, D) of the encoder, for the collapse signs and the online probe.
    """

    loss: Tensor | Term | dict[str, Term]
    logs: Mapping[str, Tensor | Term] = field(default_factory=dict)
    features: Tensor | None = None

    @classmethod
    def of(
        cls, terms: dict[str, Term], logs: Mapping[str, Tensor | Term] | None = None, features: Tensor | None = None
    ) -> StepOutput:
        """Of terms by name; a single one that is called `loss` is it, and is not logged twice."""
        return cls(terms["loss"] if terms.keys() == {"loss"} else terms, logs or {}, features)

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name; none for a scalar."""
        if isinstance(self.loss, Tensor):
            return {}
        return {"loss": self.loss} if isinstance(self.loss, Term) else self.loss

    def total(self, counts: Mapping[str, Tensor | float] | None = None) -> Tensor:
        """The loss, each term over its own count, or over the one given for it."""
        if isinstance(self.loss, Tensor):
            return self.loss
        means = (
            term.over(term.count if counts is None else counts[name]) * term.scale for name, term in self.terms.items()
        )
        return functools.reduce(operator.add, means)

    def figures(self) -> dict[str, Tensor | Term]:
        """What is logged beside the loss."""
        return {**(self.loss if isinstance(self.loss, dict) else {}), **self.logs}


class Method(TrainModule):
    """Base of all pretraining methods.

    The base owns logging, parameter groups, optimizer and schedules, the teacher's moving average, collapse signs,
    throughput and writing the encoder folder. A method overrides `step`, and where it must one more hook. What it
    remembers from step to step (a queue, a centre) is a persistent buffer: a checkpoint keeps it, and DDP gives every
    rank the first one's before each step, so that what a rank puts in has to be gathered first.

    Args:
        encoder: an encoder, or where to start from: an encoder folder or URI.
        optim: how weights are updated.
    """

    views: ClassVar[str | None] = None
    """Name of the augmentation whose views the data module shall make."""

    momentum: Ramp = Ramp(0.996, 1.0)
    """Of the teacher, over the optimizer steps."""

    watch: str | None = None
    """Labels a callback looks at, never the method."""

    perplexity: ClassVar[bool] = False
    """Whether a mean negative log-likelihood is logged whose exponential is worth a log of its own."""

    likelihood: str = "loss"
    """Which of the logged values that is."""

    heads: tuple[str, ...] = ()
    """Modules whose weights are kept beside the encoder in its folder, so that pretraining goes on from there; of
    several encoders, `ModuleDict`s with one for each."""

    def __init__(self, encoder: Encoder | str | Mapping[str, Encoder | str], optim: Optim) -> None:
        super().__init__(encoder, optim)
        self._totals: dict[str, Tensor] = {}
        """Σ count of each term over the batches and ranks that share the present optimizer step."""
        self._scales: dict[str, float] = {}
        """Of the terms of a loss of several."""

    @abstractmethod
    def step(self, batch: Any) -> StepOutput:
        """Computes the loss of a batch; pure: no trainer, no logging."""

    def counts(self, batch: Any) -> Mapping[str, Tensor | float]:
        """What the terms of `step` count in a batch; override where the batch alone tells, which is cheaper.

        Asked when several batches share an optimizer step: their terms are divided by what all of them count.
        """
        return {name: term.count for name, term in self.step(batch).terms.items()}

    def forward_flops(self, length: int) -> float | None:
        """FLOPs of `step` forward for each row of `length`, for `ssl-suite plan`; None where that is not known."""
        return None

    def after_step(self) -> None:
        """Called after each optimizer step and its teachers' update: moves a queue, a centre, a codebook."""

    @property
    def watched(self) -> Encoder:
        """The encoder that probes, kNN and `predict` look at; of several the first."""
        return cast(Encoder, self.get_submodule(next(iter(self.exports.values()))))

    def embeddings(self, batch: Batch) -> Tensor:
        """(B, D) of the watched encoder."""
        part = batch.parts[next(iter(self.exports))] if isinstance(batch, JointBatch) else batch
        return self.watched(part).pooled

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, teacher) pairs; each teacher follows its online module after every optimizer step."""
        return []

    def take_heads(self) -> None:
        """Takes up the heads that came with the encoder; a method with `heads` calls this when they are built.

        Raises:
            UserError: the weights of a head are incomplete or of other shapes.
        """
        for name, encoder in self.encoders.items():
            for head, module in self.heads_of(name).items():
                kept = {n.removeprefix(f"{head}."): w for n, w in encoder.heads.items() if n.startswith(f"{head}.")}
                if kept:
                    own = encoder.state_dict().values()
                    load_strictly(self.get_submodule(module), kept, f"The encoder's {head!r}", own)

    def head_weights(self, encoder: str) -> dict[str, Tensor]:
        """Weights of an encoder's heads, without what they share with it; if sharded, every rank asks."""
        heads = {head: self.get_submodule(module) for head, module in self.heads_of(encoder).items()}
        named = {f"{head}.{n}": w for head, m in heads.items() for n, w in m.state_dict(keep_vars=True).items()}
        kept = untied(named, self.encoders[encoder].state_dict(keep_vars=True).values())
        return {name: whole(tensor) for name, tensor in kept.items()}

    def heads_of(self, encoder: str) -> dict[str, str]:
        return {head: head if encoder == ENCODER else f"{head}.{encoder}" for head in self.heads}

    def request(self) -> Request:
        """What this method asks of its data."""
        if len(self.encoders) > 1:
            parts = {n: Request.of(e, pretrains=True, aligned=True) for n, e in self.encoders.items()}
            return Request(pretrains=True, watch=self.watch, parts=parts)
        return Request.of(self.encoder, pretrains=True, views=self.views, watch=self.watch)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.data.serve(request := self.request())
        for name, own in self.encoders.items():
            data = self.data.part(name)
            preprocess = own.preprocess | data.preprocess(request.parts.get(name, request))
            for encoder in self.modules():  # a teacher too
                if isinstance(encoder, Encoder) and (encoder is own or name == ENCODER):
                    encoder.preprocess = preprocess
                    if encoder.modality == "text":
                        encoder.tokenizer = data.tokenizer

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | None]:
        out = self.step(batch)
        own = out.total()
        values = {"loss": own, **{name: mean_of(value) for name, value in out.figures().items()}}
        if self.perplexity:
            values["perplexity"] = values[self.likelihood].exp()
        if self.logging_now and out.features is not None:
            values |= collapse_signs(out.features)
        self.log_scalars("train", detached(values), batch, bar=("loss",))
        loss = own
        if self._micro_batches > 1 and out.terms:
            if batch_idx % self.trainer.accumulate_grad_batches == 0 or not self._totals:
                self._totals = self._count(out)
            loss = self._micro_batches * out.total(self._totals)  # Lightning and DDP divide by their number again
        return {"loss": loss, "features": None if out.features is None else out.features.detach()}

    @property
    def _micro_batches(self) -> int:
        """Batches that share an optimizer step, over ranks and accumulation."""
        return place(self.trainer)[1] * self.trainer.accumulate_grad_batches

    @torch.no_grad()
    def _count(self, out: StepOutput) -> dict[str, Tensor]:
        """Σ count of each term over this batch, those that follow in its optimizer step, and all ranks."""
        counts: list[Mapping[str, Tensor | float]] = [{name: term.count for name, term in out.terms.items()}]
        counts += [self.counts(self.data.finish(batch.to(self.device))) for batch in self.data.following]
        columns = [[torch.as_tensor(c[name], device=self.device).float() for c in counts] for name in counts[0]]
        sums = torch.stack([torch.stack(column).sum() for column in columns])
        alike = self.trainer.world_size // place(self.trainer)[1]  # ranks that count the same rows
        total = self.trainer.strategy.reduce(sums, reduce_op="sum") / alike
        return dict(zip(counts[0], total.unbind(), strict=True))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        out = self.step(batch)
        for name, value in out.figures().items():
            self._log_validation(name, value, len(batch))
        if isinstance(out.loss, dict):
            self._scales = {name: term.scale for name, term in out.loss.items()}
        else:
            self._log_validation("loss", out.loss, len(batch))

    def _log_validation(self, name: str, value: Tensor | Term, items: int) -> None:
        weight = value.count if isinstance(value, Term) else items
        self.log_mean(f"val/{name}", mean_of(value), weight, bar=name == "loss")

    def on_validation_epoch_end(self) -> None:
        figures = self.trainer.callback_metrics
        if self._scales:
            total = sum(scale * figures[f"val/{name}"] for name, scale in self._scales.items())
            self.log("val/loss", total, prog_bar=True)
        if self.perplexity:  # of the mean over all tokens; a mean of the batches' exponentials would be greater
            self.log("val/perplexity", figures[f"val/{self.likelihood}"].exp())

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Steps, then moves the teachers: once an optimizer step, from the new weights."""
        step, steps = self.trainer.global_step, int(self.trainer.estimated_stepping_batches)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for online, teacher in self.teacher_pairs():
            update_teacher(online, teacher, self.momentum.at(step, steps))
        self.after_step()

    def configure_callbacks(self) -> list[pl.Callback]:
        return [*super().configure_callbacks(), WriteEncoder()]

    @torch.no_grad()
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """(B, D) embeddings."""
        return self.embeddings(batch)


def mean_of(value: Tensor | Term) -> Tensor:
    return value.mean if isinstance(value, Term) else value
