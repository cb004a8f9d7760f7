"""TrainModule: what pretraining and fine-tuning share: seeds, optimizer, schedule, logging, default callbacks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ssl_suite.core.batch import Batch
from ssl_suite.core.batch_norm import sync_batch_norms
from ssl_suite.core.callbacks import StopOnNonFinite, Throughput
from ssl_suite.core.checkpoint import check_finite, describe, tokenizer_of
from ssl_suite.core.data import DataModule, batches_done, run_seed
from ssl_suite.core.encoder import Encoder, an, class_name
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import ENCODER, fingerprint
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.load import load_encoder, located
from ssl_suite.core.log import log_interval
from ssl_suite.core.muon import hidden_matrices, split_matrices
from ssl_suite.core.optim import Optim, build_optimizer, build_schedule, check_cover, parameter_groups
from ssl_suite.core.outcomes import Example, by_id, gathered
from ssl_suite.core.random import item_seed, seed_all
from ssl_suite.core.resume import check_settings, position, settings, settle, start
from ssl_suite.core.sharding import FSDP2, place, shard

if TYPE_CHECKING:
    from ssl_suite.core.tensor_parallel import Plan


class TrainModule(pl.LightningModule, ABC):
    """Base of `Method` and `Finetune`.

    Args:
        encoder: an encoder, or where to start from; of a joint model several, by the names of their parts of a batch.
        optim: how weights are updated.

    Attributes:
        encoder: what is trained, or judged; of a joint model there are several, see `encoders`.
        exported: name of the module that is the encoder of this run to others; of some methods it is the teacher.
        command: the command line this run was started with, for its provenance.
        run_config: the whole resolved configuration, for its provenance.
    """

    encoder: Encoder
    exported: ClassVar[str] = "encoder"
    command: str = ""
    run_config: dict[str, Any] | None = None

    def __init__(self, encoder: Encoder | str | Mapping[str, Encoder | str], optim: Optim) -> None:
        super().__init__()
        self.optim = optim
        if isinstance(encoder, Mapping):
            self.towers = nn.ModuleDict({name: load_encoder(source) for name, source in encoder.items()})
        else:
            self.encoder = load_encoder(encoder)
        self.means = nn.ModuleDict()  # of `log_mean`

    @property
    def data(self) -> DataModule:
        """The data module of this run."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, DataModule):
            raise UserError(f"{type(self).__name__} is trained on a ssl_suite DataModule: pass datamodule=Images(...).")
        return data

    @property
    def folder(self) -> Path:
        """Where this run writes: the logger's folder, else the trainer's root.

        Any rank may ask for it alone; `trainer.log_dir` would wait for the others.
        """
        logger = self.trainer.logger
        return Path(
            getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or self.trainer.default_root_dir
        )

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by the names of their parts of a batch, and of their folders."""
        towers = self._modules.get("towers")
        return {ENCODER: self.encoder} if towers is None else dict(cast(nn.ModuleDict, towers).items())  # type: ignore[arg-type]

    @property
    def exports(self) -> dict[str, str]:
        """For each of the encoders, the module that is it to others."""
        joint = "towers" in self._modules
        return {name: f"towers.{name}" for name in self.encoders} if joint else {ENCODER: self.exported}

    def setup(self, stage: str) -> None:
        for name, encoder in self.encoders.items():
            data = self.data.part(name)
            if data.modality != encoder.modality:
                raise UserError(
                    f"{type(self).__name__} got {an(encoder.modality)} encoder and {data.modality} data "
                    f"({type(data).__name__}); give both of one modality."
                )

    def configure_model(self) -> None:
        if getattr(self.trainer.strategy, "_layer_sync", None) is not None:  # sync_batchnorm
            sync_batch_norms(self, everywhere=self.trainer.strategy.root_device.type == "cpu")
        if isinstance(self.trainer.strategy, FSDP2):
            shard(self, self.trainer.strategy)

    def tensor_plan(self, size: int) -> Plan:
        """How its modules are cut over a group of `size` processes that read the same rows.

        Raises:
            UserError: they cannot be.
        """
        raise UserError(
            f"{type(self).__name__} cannot be cut over a tensor-parallel group; take configs/trainer/fsdp.yaml."
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        raise NotImplementedError("Method and Finetune say what a step is")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, each with its weight decay and, where wanted, `lr_factor` and `constant_lr`."""
        return parameter_groups(self, self.optim.weight_decay)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = self.parameter_groups()
        hidden = hidden_matrices(self)
        if self.optim.name == "muon" or (self.optim.name == "adafactor" and hidden):
            groups = split_matrices(groups, hidden)
        check_cover(self, groups)
        trainer = self.trainer
        global_batch = self.data.batch_size * place(trainer)[1] * trainer.accumulate_grad_batches
        optimizer = build_optimizer(self.optim, groups, self.optim.scaled_lr(global_batch))
        trainer.fit_loop.setup_data()  # with max_steps alone, Lightning has not counted the batches yet
        total = int(trainer.estimated_stepping_batches)
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        warmup = self.optim.warmup(total, per_epoch)
        if warmup >= total > 1:
            names = (name for name in ("warmup_epochs", "warmup_steps", "warmup_ratio") if getattr(self.optim, name))
            rank_zero_warn(
                f"The warm-up takes {warmup} steps and the run {total}: it ends before its learning rate is reached. "
                f"Train longer or lower model.optim.{next(names)}."
            )
        schedule = build_schedule(self.optim, optimizer, total, per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[pl.Callback]:
        return [StopOnNonFinite(), Throughput()]

    def on_train_start(self) -> None:
        start(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes dropout and every other draw of a step a function of (seed, rank, step): resuming is exact."""
        if self.optim.final_weight_decay is not None:
            decay = self.optim.decay_at(self.trainer.global_step, int(self.trainer.estimated_stepping_batches))
            for group in self.trainer.optimizers[0].param_groups:
                if group["decays"]:
                    group["weight_decay"] = decay
        done = batches_done(self.trainer)
        seed_all(item_seed(run_seed(), place(self.trainer)[0], done))
        if self.logging_now:
            rates = [group["lr"] for group in self.trainer.optimizers[0].param_groups if not group.get("constant_lr")]
            self.log("train/lr", max(rates))

    def heads_of(self, encoder: str) -> dict[str, str]:
        """Heads whose weights belong to an encoder wherever it is kept: their name there → the module here."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what makes the encoder again and what a resumed run must agree on.

        Raises:
            UserError: weights are NaN or infinite.
        """
        check_finite(self.trainer, self)
        origin = {"method": type(self).__name__, "data": self.data.source_name, "steps": self.trainer.global_step}
        checkpoint["encoders"] = {n: describe(self, m, self.heads_of(n), origin) for n, m in self.exports.items()}
        if self.trainer.state.fn == TrainerFn.FITTING:
            checkpoint |= {"settings": settings(self), "position": position(self.trainer)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Sets a run to resume to the very next batch.

        Raises:
            UserError: what its weights depend on is not as it was.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_settings(checkpoint.get("settings", {}), settings(self), str(self.trainer.ckpt_path))
            settle(checkpoint)

    def recall(self, checkpoint: dict[str, Any], resuming: bool = False) -> None:
        """Takes the tokenizer from a checkpoint before data is seen: the data's own cache may have gone."""
        for name, encoder in self.encoders.items():
            if encoder.tokenizer is None:
                encoder.tokenizer = tokenizer_of(checkpoint, name)

    @property
    def logging_now(self) -> bool:
        """Whether this step's figures are written; costly ones are computed only then."""
        return (self.trainer.global_step + 1) % log_interval(self.trainer) == 0

    def log_scalars(
        self, prefix: str, values: Mapping[str, Tensor | float], batch: Batch, bar: tuple[str, ...] = ()
    ) -> None:
        """Logs each value of a training step under `prefix/name`; waits for no device."""
        for name, value in values.items():
            self.log(f"{prefix}/{name}", value, batch_size=len(batch), prog_bar=name in bar)

    def log_mean(self, name: str, value: Tensor, weight: Tensor | float, bar: bool = False) -> None:
        """Logs Σ weight·value / Σ weight over the batches of an epoch and all ranks.

        Lightning's own mean rounds each rank's share of the weight to an integer.
        """
        if name not in self.means:
            self.means[name] = MeanMetric(nan_strategy=math.nan).to(self.device)  # "disable" drops the weights too
        mean = cast(MeanMetric, self.means[name])
        mean.update(value, weight)
        where = f"means.{name}"  # Lightning looks metrics up once, before this one was made
        self.log(name, mean, prog_bar=bar, add_dataloader_idx=False, metric_attribute=where)


class Evaluation(TrainModule):
    """Base of what judges an encoder on a task: its test figures are results.

    Attributes:
        sources: what each encoder was made from, as the user named it.
        weights: hash of the encoder it starts from, see `weights_hash`.
        shape: hash of what that encoder shares with its untrained twin.
        mode: how the encoder is used.
        less_is_better: names of the metrics that are better the smaller they are.
        selects: whether training keeps the weights that were best on the validation split.
        statistic: how the main metric is made of outcomes, see `core.outcomes`.
        protocol: how results name the way of judging.
    """

    sources: list[str]
    weights: str
    shape: str
    mode: str
    less_is_better: frozenset[str] = frozenset()
    selects: ClassVar[bool] = False
    statistic: str = "ratio"

    def __init__(self, encoder: Encoder | str | Mapping[str, Encoder | str], optim: Optim) -> None:
        super().__init__(encoder, optim)
        given = encoder if isinstance(encoder, Mapping) else {ENCODER: encoder}
        self.sources = [located(s) if isinstance(s, str) else type(s).__name__ for s in given.values()]
        self.weights = "+".join(weights_hash(self.encoders[name], source) for name, source in given.items())
        self.shape = "+".join(map(encoder_shape, self.encoders.values()))
        self._outcomes: dict[str, list[tuple[int, Any]]] = {}

    def keep(self, split: str, batch: Batch, outcomes: list[Any]) -> None:
        """Notes what each test item of a batch adds to the main metric; nothing where that is not known."""
        if outcomes:
            self._outcomes.setdefault(split, []).extend(zip(batch.index.tolist(), outcomes, strict=True))

    def on_test_start(self) -> None:
        self._outcomes.clear()

    def examples(self, split: str) -> list[Example]:
        """Outcomes of a tested split, of all ranks and in its order; every rank must ask."""
        return self.named(sorted(dict(gathered(self._outcomes.get(split, []))).items()), split)

    def named(self, rows: list[tuple[int, Any]], split: str) -> list[Example]:
        return by_id(rows, self.data, split)

    @property
    @abstractmethod
    def main(self) -> str:
        """Name of the metric that stands for the others."""

    @property
    def direction(self) -> Literal["max", "min"]:
        """Of the main metric."""
        return "min" if self.main in self.less_is_better else "max"

    @property
    def protocol(self) -> str:
        return self.mode

    @property
    def labels_used(self) -> int:
        """Labelled items it learns from."""
        return self.data.labels_used


def weights_hash(encoder: Encoder, source: Encoder | str) -> str:
    """Names what an encoder starts from: its trained weights; or what they are drawn from, the seed apart."""
    if not encoder.trained:
        return f"random-{encoder_shape(encoder)}"
    if isinstance(source, str) and source.startswith("reemb:"):  # shuffled by the seed
        return f"reemb-{fingerprint(load_encoder(source.removeprefix('reemb:')))}"
    return fingerprint(encoder)


def encoder_shape(encoder: Encoder) -> str:
    """Hash of class, arguments and tokenizer: what an encoder shares with its untrained twin."""
    tokenizer = encoder.tokenizer.to_str() if encoder.tokenizer is not None else None
    return config_hash({"class": class_name(type(encoder)), **encoder.config, "tokenizer": tokenizer})


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
