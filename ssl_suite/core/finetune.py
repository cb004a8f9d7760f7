"""Finetune: the one LightningModule that joins encoder, readout and task: a probe or the whole network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ssl_suite.core.batch import Batch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import FeatureBatch
from ssl_suite.core.folder import fingerprint, load_encoder
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim, parameter_groups
from ssl_suite.core.readout import Readout
from ssl_suite.core.task import Task


class Finetune(Evaluation):
    """Learns a task on an encoder.

    Args:
        encoder: an encoder folder, a URI (`timm:resnet50`, `random:FOLDER`), or an encoder to train from scratch.
        task: what to learn.
        readout: last, cls, mean, weighted_sum or layer:K.
        mode: `probe` freezes the encoder: eval() whatever Lightning calls, no gradient, its features computed once;
            `finetune` trains everything, the learning rate falling by `optim.layer_decay` a layer.
        standardize: probe only: shift and scale each feature to mean 0, deviation 1 over the training split, so that
            the head's learning rate suits every encoder, random ones too.
        optim: how weights are updated.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        task: Task,
        readout: str = "last",
        mode: Literal["probe", "finetune"] = "probe",
        standardize: bool = True,
        optim: Optim = Optim(weight_decay=0.0),
    ) -> None:
        super().__init__(optim)
        self.encoder = load_encoder(encoder)
        self.encoder_source = encoder if isinstance(encoder, str) else type(encoder).__name__
        self.task, self.mode = task, mode
        self.readout = Readout(readout, self.encoder, task.sequence, standardize and mode == "probe")
        if mode == "probe":
            self.encoder.requires_grad_(False).eval()

    @property
    def main(self) -> str:
        return self.task.main

    def setup(self, stage: str) -> None:
        super().setup(stage)
        known = getattr(self.task, "labels", None)
        request = Request(
            target=self.task.target,
            labels=known,
            tokenizer=self.encoder.tokenizer,
            vocab_size=self.encoder.config.get("vocab_size"),
            stride=self.encoder.stride,
        )
        self.data.serve(request)
        if self.encoder.modality == "text":
            self.encoder.tokenizer = getattr(self.data, "tokenizer", None)
        if known is None:
            self.task.build(self.encoder.dim, self.data.labels)
        if not hasattr(self, "val_metrics"):
            self.val_metrics, self.test_metrics = self.task.metrics(), self.task.metrics()
        if self.mode == "probe":
            device = self.trainer.strategy.root_device
            self.encoder.to(device)
            self.data.use_features(
                self._select, f"{fingerprint(self.encoder)}|{self.readout.name}|{self.task.sequence}"
            )
            if self.readout.standardize and stage == "fit":
                self.readout.fit(self.data.features("train").values)

    @torch.no_grad()
    def _select(self, batch: Batch) -> Encoded:
        self.encoder.eval()
        device = self.trainer.strategy.root_device
        return self.readout.select(self.encoder(self.data.finish(batch.to(device))))

    def train(self, mode: bool = True) -> Finetune:
        super().train(mode)
        if self.mode == "probe":
            self.encoder.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the task's output and the mask of its time axis."""
        if isinstance(batch, FeatureBatch):
            selected = batch.encoded()
        else:
            with torch.set_grad_enabled(self.mode == "finetune" and torch.is_grad_enabled()):
                selected = self.readout.select(self.encoder(batch))
        features, mask = self.readout(selected)
        return self.task(features, mask), mask

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output, mask = self(batch)
        assert batch.target is not None
        loss = self.task.loss(output, mask, batch.target)
        self.log_scalars("train", {"loss": loss.detach()}, batch, bar=("loss",))
        return loss

    def _evaluate(self, batch: Batch, metrics: MetricCollection, prefix: str) -> None:
        output, mask = self(batch)
        if batch.target is None:
            raise UserError("This split has no targets; use `predict`.")
        self.log_scalars(prefix, {"loss": self.task.loss(output, mask, batch.target)}, batch)
        self.task.update(metrics, output, mask, batch.target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, "val")

    def on_validation_epoch_end(self) -> None:
        self._report(self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics, "test")

    def on_test_epoch_end(self) -> None:
        self._report(self.test_metrics, "test")

    def _report(self, metrics: MetricCollection, prefix: str) -> None:
        for name, value in metrics.compute().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == self.task.main)
        metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Any]:
        output, mask = self(batch)
        return self.task.decode(output, mask)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Head and readout at the full rate; layer l of n at `layer_decay` ** (n + 1 − l)."""
        decay, weight_decay = self.optim.layer_decay, self.optim.weight_decay
        if self.mode == "probe" or decay == 1.0:
            return parameter_groups(self, weight_decay)
        layers = self.encoder.layers()
        inside = {id(p) for layer in layers for p in layer}
        groups = []
        for depth, layer in enumerate(reversed(layers), 1):
            groups += _groups([p for p in layer if p.requires_grad], weight_decay, decay**depth)
        return groups + _groups(
            [p for p in self.parameters() if id(p) not in inside and p.requires_grad], weight_decay, 1
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["labels"] = list(self.task.labels)
        if self.encoder.tokenizer is not None:
            checkpoint["tokenizer"] = self.encoder.tokenizer.to_str()

    def recall(self, checkpoint: dict[str, Any]) -> None:
        """Takes labels and tokenizer from a checkpoint before data is seen: other data than training's will do."""
        if "tokenizer" in checkpoint and self.encoder.tokenizer is None:
            from tokenizers import Tokenizer

            self.encoder.tokenizer = Tokenizer.from_str(checkpoint["tokenizer"])
        if "labels" in checkpoint:
            self.task.build(self.encoder.dim, checkpoint["labels"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        labels = checkpoint.get("labels", [])
        if labels != self.task.labels:
            raise UserError(
                f"The checkpoint knows the labels {labels[:10]}, the data has {self.task.labels[:10]}; use the same."
            )


def _groups(parameters: list[nn.Parameter], weight_decay: float, factor: float) -> list[dict[str, Any]]:
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "lr_factor": factor},
        {"params": vectors, "weight_decay": 0.0, "lr_factor": factor},
    ]
