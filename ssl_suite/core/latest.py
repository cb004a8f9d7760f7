"""`last.ckpt`: always the latest state of a run, also when it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from ssl_suite.core.check import within
from ssl_suite.core.checkpoint import LAST
from ssl_suite.core.errors import Interrupted
from ssl_suite.core.log import log_interval

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAVE = 1
"""What ranks agree on: nothing (0), a save, or the number of the signal that ends the run."""


class Latest(Checkpoint):
    """Writes `last.ckpt` after every validation and epoch, every few minutes, at the end, and at a signal to stop.

    SIGTERM, SIGINT and SIGUSR1 (by which SLURM tells of a time limit) let the step end, then save and raise
    `Interrupted`; a job of SLURM asks to be queued again at SIGUSR1. Over several ranks they stop at the same step,
    which a GPU learns at each logged one; a validation that several ranks are at is finished first.

    Args:
        folder: of the file.
        minutes: most time between two saves.
    """

    def __init__(self, folder: Path, minutes: float = 10.0) -> None:
        within("checkpoint_minutes", minutes, above=0)
        self.path, self.minutes = folder / LAST, minutes
        self._signal = 0
        self._training = self._validated = False
        self._step = -1
        self._since = 0.0
        self._launcher: Any = None

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._listen(trainer)
        self._training, self._step, self._since = True, trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Here all that belongs to the step before is done, validated and logged."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        late = time.monotonic() - self._since > 60 * self.minutes
        self._act(trainer, self._agreed(trainer, self._signal or SAVE * (late or self._validated)))

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._signal and self._training and trainer.world_size == 1:
            self._act(trainer, self._signal)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._act(trainer, self._agreed(trainer, self._signal, now=True))
        self._training = False

    def _listen(self, trainer: pl.Trainer) -> None:
        """Takes the signals over from Lightning, which puts the earlier handlers back when it is done."""
        self._launcher = trainer.strategy.launcher
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, self._told)

    def _told(self, number: int, frame: Any) -> None:
        if self._signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = self._signal or number
        if not self._training:
            if self._launcher is not None:
                self._launcher.kill(number)
            raise Interrupted(number, "nothing was trained since the last checkpoint.")
        rank_zero_info(f"{signal.Signals(number).name}: saving after this step")

    def _agreed(self, trainer: pl.Trainer, wanted: int, now: bool = False) -> int:
        """The most that any rank wants; on a GPU asked at logged steps only, so that no other waits for the device."""
        if trainer.world_size == 1:
            return wanted
        device = trainer.strategy.root_device
        if device.type != "cpu" and trainer.global_step % log_interval(trainer) and not now:
            return 0
        most = torch.tensor(wanted, device=device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def _act(self, trainer: pl.Trainer, wanted: int) -> None:
        if not wanted:
            return
        self._save(trainer)
        if wanted == SAVE:
            return
        if wanted == signal.SIGUSR1 and trainer.is_global_zero:
            queue_again()
        raise Interrupted(wanted, f"go on with --ckpt_path {self.path}.")

    def _save(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)
        self._validated, self._since = False, time.monotonic()


def queue_again() -> None:
    """Asks SLURM, where this is a job of it, to run the job again."""
    if job := os.environ.get("SLURM_JOB_ID"):
        try:
            subprocess.run(["scontrol", "requeue", job], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            rank_zero_warn(f"SLURM could not queue job {job} again ({error}).")
