"""Method: a LightningModule that pretrains an encoder. A subclass is its paper: `step`, and little else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_suite.core.batch import Batch
from ssl_suite.core.collapse import collapse_signs
from ssl_suite.core.data import Request
from ssl_suite.core.ema import cosine_momentum, update_teacher
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.folder import load_encoder, load_strictly, untied
from ssl_suite.core.module import TrainModule, detached
from ssl_suite.core.optim import Optim
from ssl_suite.core.sharding import whole
from ssl_suite.core.task import TargetKind


@dataclass(eq=False)
class StepOutput:
    """What a step returns; the base class does the rest.

    Attributes:
        loss: scalar, differentiated.
        logs: more scalars to log under `train/` or `val/`.
        features: (N, D) of the encoder, for the collapse signs and the online probe.
        weight: what the loss is a mean over (tokens, frames), where that differs from batch to batch: validation loss
            and the gradient over accumulated batches and ranks are those of Σ weight·loss / Σ weight.
        weights: the same for those of `logs` that are means over something else.
    """

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    weight: Tensor | float | None = None
    weights: Mapping[str, Tensor | float] = field(default_factory=dict)


class Method(TrainModule):
    """Base of all pretraining methods.

    The base owns logging, parameter groups, optimizer and schedule, the teacher's moving average, collapse signs,
    throughput and writing the encoder folder. A method overrides `step`, and where it must one more hook.

    Args:
        encoder: an encoder, or where to start from: an encoder folder or URI.
        optim: how weights are updated.
    """

    views: ClassVar[str | None] = None
    """Name of the augmentation whose views the data module shall make."""

    momentum: tuple[float, float] = (0.996, 1.0)
    """Of the teacher, at the first and the last step."""

    watch: TargetKind | None = None
    """Labels a callback looks at, never the method."""

    perplexity: ClassVar[bool] = False
    """Whether a mean negative log-likelihood is logged whose exponential is worth a log of its own."""

    likelihood: str = "loss"
    """Which of the logged values that is."""

    heads: tuple[str, ...] = ()
    """Modules whose weights are kept beside the encoder in its folder, so that pretraining goes on from there."""

    def __init__(self, encoder: Encoder | str, optim: Optim) -> None:
        super().__init__(optim)
        self.encoder = load_encoder(encoder)
        self._counted: Tensor | None = None
        """Σ weight since the last optimizer step, on this rank."""

    @abstractmethod
    def step(self, batch: Any) -> StepOutput:
        """Computes the loss of a batch; pure: no trainer, no logging."""

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, teacher) pairs; each teacher follows its online module after every optimizer step."""
        return []

    def take_heads(self) -> None:
        """Takes up the heads that came with the encoder; a method with `heads` calls this when they are built.

        Raises:
            UserError: the weights of a head are incomplete or of other shapes.
        """
        for head in self.heads:
            kept = {n.removeprefix(f"{head}."): w for n, w in self.encoder.heads.items() if n.startswith(f"{head}.")}
            if kept:
                module = getattr(self, head)
                load_strictly(module, kept, f"The encoder's {head!r}", self.encoder.state_dict().values())

    def head_weights(self) -> dict[str, Tensor]:
        """Weights of the modules in `heads`, without what they share with the encoder; if sharded, every rank asks."""
        named = {f"{h}.{n}": w for h in self.heads for n, w in getattr(self, h).state_dict(keep_vars=True).items()}
        kept = untied(named, self.encoder.state_dict(keep_vars=True).values())
        return {name: whole(tensor) for name, tensor in kept.items()}

    def kept_heads(self) -> tuple[str, ...]:
        return self.heads

    def request(self) -> Request:
        """What this method asks of its data."""
        encoder = self.encoder
        vocab = encoder.config.get("vocab_size")
        longest = encoder.longest
        return Request(
            views=self.views,
            tokenizer=encoder.tokenizer,
            vocab_size=vocab,
            longest=longest,
            watch=self.watch,
            preprocess=encoder.preprocess,
        )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.data.serve(request := self.request())
        self.encoder.preprocess = self.encoder.preprocess | self.data.preprocess(request)
        if self.encoder.modality == "text":
            self.encoder.tokenizer = getattr(self.data, "tokenizer", None)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | None]:
        out = self.step(batch)
        values = {"loss": out.loss, **out.logs}
        if self.perplexity:
            values["perplexity"] = values[self.likelihood].exp()
        if self.logging_now and out.features is not None:
            values |= collapse_signs(out.features)
        self.log_scalars("train", detached(values), batch, bar=("loss",))
        loss = out.loss
        if out.weight is not None and self._micro_batches > 1:
            weight = torch.as_tensor(out.weight, dtype=torch.float32, device=loss.device)
            self._counted = weight if self._counted is None else self._counted + weight
            loss = loss * weight
        return {"loss": loss, "features": None if out.features is None else out.features.detach()}

    @property
    def _micro_batches(self) -> int:
        """Batches that share an optimizer step, over ranks and accumulation."""
        return self.trainer.world_size * self.trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Turns the plain mean that Lightning and DDP took of Σ loss into Σ loss / Σ weight, before clipping."""
        if self._counted is None:
            return
        total = self.trainer.strategy.reduce(self._counted, reduce_op="sum")
        for p in self.parameters():
            if p.grad is not None:
                p.grad *= self._micro_batches / total.clamp(min=1)
        self._counted = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        out = self.step(batch)
        weight = len(batch) if out.weight is None else out.weight
        for name, value in {"loss": out.loss, **out.logs}.items():
            self.log_mean(f"val/{name}", value, out.weights.get(name, weight), bar=name == "loss")

    def on_validation_epoch_end(self) -> None:
        if self.perplexity:  # of the mean over all tokens; a mean of the batches' exponentials would be greater
            self.log("val/perplexity", self.trainer.callback_metrics[f"val/{self.likelihood}"].exp())

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Steps, then moves the teachers: once an optimizer step, from the new weights."""
        step = self.trainer.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        momentum = cosine_momentum(step, int(self.trainer.estimated_stepping_batches), *self.momentum)
        for online, teacher in self.teacher_pairs():
            update_teacher(online, teacher, momentum)

    def configure_callbacks(self) -> list[pl.Callback]:
        from ssl_suite.core.callbacks import WriteEncoder

        return [*super().configure_callbacks(), WriteEncoder()]

    @torch.no_grad()
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """(B, D) embeddings."""
        return self.encoder(batch).pooled
