"""Finetune: the one LightningModule that joins encoder, readout and task: a probe or the whole network."""

from __future__ import annotations

from reprlib import repr as shortened
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ssl_suite.core.batch import Batch
from ssl_suite.core.data import DataModule, Request, Split
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import FeatureBatch
from ssl_suite.core.folder import fingerprint
from ssl_suite.core.frozen import Room
from ssl_suite.core.masking import Masking
from ssl_suite.core.module import Evaluation, detached
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import Example
from ssl_suite.core.readout import Readout
from ssl_suite.core.sharding import FSDP2
from ssl_suite.core.task import Task
from ssl_suite.core.tensor_parallel import Plan


class Finetune(Evaluation):
    """Learns a task on an encoder.

    Args:
        encoder: an encoder folder, a URI (`timm:resnet50`, `random:FOLDER`), or an encoder to train from scratch.
        task: what to learn; on the command line it may be left out for data that names its task (GLUE, CLUE).
        readout: last, cls, mean, weighted_sum or layer:K.
        mode: `probe` freezes the encoder: eval() whatever Lightning calls, no gradient, its features computed once
            (of training inputs that are augmented, in every step); `finetune` trains everything, the learning rate
            falling by `optim.layer_decay` a layer.
        standardize: probe only: shift and scale each feature to mean 0, deviation 1 over the training split, so that
            the head's learning rate suits every encoder, random ones too.
        features: how a probe's features are kept; float16 takes half the room and changes them in the fourth digit.
        room: where they are kept, and how many; where they would not fit, the encoder runs in every epoch.
        masking: what the encoder does not see while it is fine-tuned: SpecAugment, MaskedStates; None: it sees all.
        optim: how weights are updated.
    """

    selects = True

    def __init__(
        self,
        encoder: Encoder | str,
        task: Task | None = None,
        readout: str = "last",
        mode: Literal["probe", "finetune"] = "probe",
        standardize: bool = True,
        features: Literal["float32", "float16"] = "float32",
        room: Room = Room(),
        masking: Masking | None = None,
        optim: Optim = Optim(weight_decay=0.0),
    ) -> None:
        if task is None:
            raise UserError("Finetune needs a task (--model.task Classify, Regress, Tag, ...): this data names none.")
        super().__init__(encoder, optim)
        self.task, self.mode, self.features, self.room = task, mode, features, room
        self.scores = nn.ModuleDict()  # metrics of each split
        self.readout = Readout(readout, self.encoder, task.sequence, standardize and mode == "probe")
        self.masking = masking
        if masking is not None:
            if mode == "probe":
                raise UserError("model.masking is for an encoder that learns; set model.mode to finetune, or drop it.")
            masking.check(self.encoder)
        if mode == "probe":
            self.encoder.freeze()
        else:
            self.encoder.thaw()  # a probe may have had it before
            self.encoder.stop(self.encoder.unread())

    @property
    def main(self) -> str:
        return self.task.main

    @property
    def less_is_better(self) -> frozenset[str]:  # type: ignore[override]
        return self.task.less_is_better

    @property
    def statistic(self) -> str:  # type: ignore[override]
        return self.task.statistic

    @property
    def protocol(self) -> str:
        return f"{self.mode} {self.task.protocol}".strip()

    def named(self, rows: list[tuple[int, Any]], split: str) -> list[Example]:
        return self.task.examples(rows, self.data, split)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        known = self.meet(self.data)
        if known and stage == "fit":
            self.data.expect_known("train")
        for split in (*self.data.parts("validation"), *self.data.parts("test")):
            self.scores[split] = self.task.metrics()
        if self.mode == "probe":
            self._freeze()
            if self.readout.standardize and stage == "fit":
                unkept = self.task.needs_inputs or self.data.augments
                self.readout.fit(self.data.frozen.measure() if unkept else self.data.frozen.moments)
            if self.task.needs_inputs:
                self.data.use_inputs()

    def meet(self, data: DataModule) -> bool:
        """Builds the head for these data, unless it is there; returns whether it was."""
        known = getattr(self.task, "labels", None)
        data.serve(Request.of(self.encoder, target=self.task.target, labels=known))
        if self.encoder.modality == "text":
            self.encoder.tokenizer = data.tokenizer
        if known is None:
            self.task.build(self.readout.dim, data.labels)
        self.task.unseen = data.unseen
        self.task.meet(data)
        return known is not None

    def _freeze(self) -> None:
        """Lets the data serve features, computed on this run's device and in its precision."""
        device, precision = self.trainer.strategy.root_device, self.trainer.precision_plugin
        precision.convert_module(self.encoder.to(device))

        def encode(batch: Batch) -> Encoded:
            finished = precision.convert_input(self.data.finish(batch.to(device)))
            with precision.forward_context():
                return self._select(finished)

        self.data.use_features(
            encode,
            self._features_key(device),
            dtype=getattr(torch, self.features),
            passing=self.weights.startswith("random-"),
            room=self.room,
        )

    def _features_key(self, device: torch.device) -> str:
        """All that determines what `_select` gives for a batch."""
        precision = f"{device.type} {self.trainer.precision} {torch.get_float32_matmul_precision()}"
        return f"{fingerprint(self.encoder)}|{self.readout.name}|{self.task.sequence}|{precision}"

    def configure_model(self) -> None:
        if self.mode == "probe" and isinstance(self.trainer.strategy, FSDP2):
            raise UserError("A probe trains only a head, which needs no sharding; take configs/trainer/ddp.yaml.")
        super().configure_model()

    def tensor_plan(self, size: int) -> Plan:
        """The encoder is cut; readout and head stay whole."""
        return {f"encoder.{name}": style for name, style in self.encoder.tensor_plan(size).items()}

    @torch.no_grad()
    def _select(self, batch: Batch) -> Encoded:
        """What the head may need of the frozen encoder's states."""
        self.encoder.eval()
        return self.readout.select(self.encoder(batch))

    def train(self, mode: bool = True) -> Finetune:
        super().train(mode)
        if self.mode == "probe":
            self.encoder.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Any, Tensor]:
        """Returns the task's output and the mask of its time axis."""
        return self._judge(self._encoded(batch), batch)

    def _encoded(self, batch: Batch) -> Encoded:
        """The states that the readout needs."""
        if isinstance(batch, FeatureBatch):
            return batch.encoded()
        if self.mode == "probe":
            return self._select(batch)
        if self.masking is not None and self.training:
            return self.readout.select(self.encoder.contextualise(self.masking.embed(self.encoder, batch)))
        return self.readout.select(self.encoder(batch))

    def _judge(self, encoded: Encoded, batch: Batch) -> tuple[Any, Tensor]:
        features, mask = self.readout(encoded)
        return self.task(features, mask, *(getattr(batch, name) for name in self.task.inputs)), mask

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        encoded = self._encoded(batch)
        output, mask = self._judge(encoded, batch)
        assert batch.target is not None
        loss = self.task.loss(output, mask, batch.target)
        terms = encoded.losses if self.mode == "finetune" else {}  # of a frozen encoder nothing can change them
        values = {"loss": loss, **{name: term.mean for name, term in terms.items()}}
        self.log_scalars("train", detached(values), batch, bar=("loss",))
        return loss + sum(term.mean * term.scale for term in terms.values())

    def _evaluate(self, batch: Batch, split: str) -> tuple[Any, Tensor]:
        output, mask = self(batch)
        if batch.target is None:
            raise UserError(f"The {split} split of {self.data.source_name} has no targets; use `predict`.")
        self.log_mean(f"{prefix(split)}/loss", self.task.loss(output, mask, batch.target), len(batch))
        self.task.update(self._scores(split), output, mask, batch.target)
        return output, mask

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, self.data.parts("validation")[dataloader_idx])

    def on_validation_epoch_end(self) -> None:
        self._report("validation")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        split = self.data.parts("test")[dataloader_idx]
        output, mask = self._evaluate(batch, split)
        assert batch.target is not None
        self.keep(split, batch, self.task.outcomes(output, mask, batch.target))

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _scores(self, split: str) -> MetricCollection:
        return cast(MetricCollection, self.scores[split])

    def _report(self, kind: Split) -> None:
        for split in self.data.parts(kind):
            for name, value in self.task.compute(self._scores(split), self.data, split).items():
                self.log(f"{prefix(split)}/{name}", value, prog_bar=name == self.task.main)
            self._scores(split).reset()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[Any]:
        output, mask = self(batch)
        return self.task.predict(output, mask, batch.target)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Head and readout at the full rate, unless the task says; layer l of n at `layer_decay` ** (n + 1 − l)."""
        decay, weight_decay = self.optim.layer_decay, self.optim.weight_decay
        groups = self.task.parameter_groups()
        inside = {id(p) for group in groups for p in group["params"]}
        layers = [] if self.mode == "probe" or decay == 1.0 else self.encoder.layers()
        inside |= {id(p) for layer in layers for p in layer}
        for depth, layer in enumerate(reversed(layers), 1):
            groups += _groups([p for p in layer if p.requires_grad], weight_decay, decay**depth)
        return groups + _groups([p for p in self.parameters() if id(p) not in inside and p.requires_grad], weight_decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["labels"] = self.task.labels

    def recall(self, checkpoint: dict[str, Any], resuming: bool = False) -> None:
        """Takes labels too, unless the run is to go on: then the data must have the same ones."""
        super().recall(checkpoint)
        if "labels" in checkpoint and not resuming:
            self.task.build(self.readout.dim, checkpoint["labels"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        labels = checkpoint.get("labels", [])
        if labels != self.task.labels:
            raise UserError(
                f"The checkpoint knows the labels {shortened(labels)}, the data has {shortened(self.task.labels)}; use "
                "the same."
            )
        super().on_load_checkpoint(checkpoint)


def prefix(split: str) -> str:
    """How logs name a split."""
    return split.replace("validation", "val")


def _groups(parameters: list[nn.Parameter], weight_decay: float, factor: float = 1.0) -> list[dict[str, Any]]:
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "lr_factor": factor},
        {"params": vectors, "weight_decay": 0.0, "lr_factor": factor},
    ]
