"""Callbacks every run has: throughput and MFU, a stop on a non-finite loss, and the encoder folder at the end."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from ssl_suite.core.checkpoint import check_finite
from ssl_suite.core.data import run_seed
from ssl_suite.core.encoder import Encoder, batch_units
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import check_target, replacing
from ssl_suite.core.flops import peak_flops, step_flops
from ssl_suite.core.folder import encoder_folder, is_encoder_folder, save_encoder, stored_weights
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.log import log_interval

if TYPE_CHECKING:
    from ssl_suite.core.method import Method


class Throughput(pl.Callback):
    """Logs speed in the modality's own unit and the model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B).

    Units are summed on the device and read only when a log is due. Loading and augmentation count from the second batch
    on; time spent in validation does not.
    """

    def __init__(self) -> None:
        self.unit = ""
        self.total_units = 0.0
        self.total_seconds = 0.0
        self.total_batches = 0
        self.flops: float | None = None
        self._since = 0.0
        self._units: Tensor | float = 0.0
        self._steps = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.flops is None:
            self.flops = step_flops(pl_module, batch) or 0.0
        if not self._since:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        units, self.unit = batch_units(batch)
        self._units = self._units + units
        self._steps += 1
        if trainer.global_step % log_interval(trainer) == 0:
            self._close(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._since and not trainer.sanity_checking:
            self._close(pl_module)
            self._since = 0.0

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._since:
            self._close(None)

    def _close(self, module: Any) -> None:
        units, steps, now = float(self._units), self._steps, time.perf_counter()
        seconds, self._since, self._units, self._steps = now - self._since, now, 0.0, 0
        if not steps:
            return
        self.total_batches += steps
        self.total_seconds += seconds
        self.total_units += units
        if module is not None:
            module.log(f"train/{self.unit.replace('/', '_per_')}", units / seconds)
            if self.flops and (share := utilisation(self.flops * steps / seconds, peak_flops(module.device))):
                module.log("train/mfu", share)

    def state_dict(self) -> dict[str, Any]:
        return {
            "units": self.total_units,
            "seconds": self.total_seconds,
            "batches": self.total_batches,
            "unit": self.unit,
            "flops": self.flops,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Figures are those of the whole run, over all its resumes."""
        self.total_units, self.total_seconds = state_dict["units"], state_dict["seconds"]
        self.total_batches, self.unit, self.flops = (state_dict[k] for k in ("batches", "unit", "flops"))

    def summary(self, device: torch.device) -> dict[str, Any]:
        """Figures of the whole run, for its provenance."""
        seconds = max(self.total_seconds, 1e-9)
        flops = self.flops * self.total_batches if self.flops else None
        return {
            "throughput": {"value": self.total_units / seconds, "unit": self.unit},
            "seconds": self.total_seconds,
            "mfu": utilisation(flops / seconds if flops else None, peak_flops(device)),
        }


class StopOnNonFinite(pl.Callback):
    """Stops at a loss that is NaN or infinite and keeps the batch for inspection.

    On a CPU every step is checked; on an accelerator each logged one, so that no step waits for the device.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        due = pl_module.device.type == "cpu" or trainer.global_step % log_interval(trainer) == 0
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not due or loss is None or bool(torch.isfinite(loss)):
            return
        path = pl_module.folder / f"non_finite_batch_rank{trainer.global_rank}.pt"
        with replacing(path) as temporary:
            torch.save({k: v for k, v in vars(batch).items() if v is not None}, temporary)
        raise UserError(
            f"The loss became {loss.item()} at step {trainer.global_step}; its batch is in {path}. "
            "Lower the learning rate, clip gradients (--trainer.gradient_clip_val 1) or look at that batch."
        )


class WriteEncoder(pl.Callback):
    """Writes the encoder folder when pretraining ends: `RUN/encoder`, or `RUN/encoder/NAME` for each of several."""

    def __init__(self) -> None:
        self._written = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for name in pl_module.exports:
            check_target(encoder_folder(pl_module.folder, name), is_encoder_folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        check_finite(trainer, pl_module)
        for name, module in pl_module.exports.items():
            encoder = pl_module.get_submodule(module)
            encoder.heads, weights = pl_module.head_weights(name), stored_weights(encoder)
            self.write(trainer, pl_module, name, encoder, weights)
        self._written = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A run that is resumed at its last step trains nothing, and `on_train_end` is not called."""
        if not self._written:
            self.on_train_end(trainer, pl_module)

    @rank_zero_only
    def write(
        self, trainer: pl.Trainer, module: Method, name: str, encoder: Encoder, weights: dict[str, Tensor]
    ) -> None:
        folder = encoder_folder(module.folder, name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = save_encoder(encoder, folder, provenance(trainer, module, encoder), weights)
        rank_zero_info(f"Encoder written to {path}")


def utilisation(rate: float | None, peak: float | None) -> float | None:
    """MFU; None where it is not known, as after a peak that was measured while others used the machine."""
    return rate / peak if rate and peak and rate <= peak else None


def provenance(trainer: pl.Trainer, module: Method, encoder: Encoder) -> dict[str, Any]:
    """Where an encoder comes from: enough to make it again and to read its cost."""
    speed = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # type: ignore[attr-defined]
    figures = speed.summary(module.device) if speed else {}
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    return {
        "method": type(module).__name__,
        "encoder": type(encoder).__name__,
        "modality": encoder.modality,
        "data": module.data.source_name,
        "seed": run_seed(),
        "steps": trainer.global_step,
        "parameters": encoder.num_parameters(),
        "config_hash": config_hash(module.run_config or {"method": type(module).__name__, **encoder.config}),
        "command": module.command,
        "metrics": metrics,
        "machine": machine(module.device),
        "versions": versions(),
        **figures,
    }


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (
        "ssl_suite",
        "torch",
        "torchvision",
        "torchaudio",
        "pytorch-lightning",
        "timm",
        "lightly",
        "tokenizers",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
