"""Milestones: checkpoints at logarithmic steps, to look at afterwards how a run came to what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError

PATTERN = "step-*.ckpt"


class Milestones(pl.Callback):
    """Keeps `checkpoints/step-N.ckpt`, weights alone, before the first step, at growing steps, and after the last.

    Each is an encoder to all that takes one: `--model.encoder RUN/checkpoints/step-100.ckpt`. Early steps lie close
    together, since what a network learns it learns over orders of magnitude of steps (arXiv:2010.02480, section 2).

    Args:
        per_decade: checkpoints between a step and ten times that step.
        every: a checkpoint every so many steps too; None: none.
    """

    def __init__(self, per_decade: int = 4, every: int | None = None) -> None:
        within("Milestones.per_decade", per_decade, low=1, whole=True)
        if every is not None:
            within("Milestones.every", every, low=1, whole=True)
        self.per_decade, self.every = per_decade, every
        self._kept = -1

    def is_due(self, step: int) -> bool:
        """Whether a step is one of 1, 10^(1/n), 10^(2/n), ..., rounded, or a multiple of `every`."""
        if step == 0 or (self.every is not None and step % self.every == 0):
            return True
        power = 0
        while (milestone := round(10 ** (power / self.per_decade))) < step:
            power += 1
        return milestone == step

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._kept = trainer.global_step or -1

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._kept < 0:  # not before: another callback clears the folder when training starts
            self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > self._kept and self.is_due(trainer.global_step):
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step > self._kept:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._kept = trainer.global_step
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(milestone_path(pl_module.folder, self._kept), weights_only=True)


def milestone_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step}.ckpt"


def milestones(run: Path) -> dict[int, Path]:
    """The milestones of a run, by their steps.

    Raises:
        UserError: it has fewer than two.
    """
    found = {int(p.stem.removeprefix("step-")): p for p in (run / "checkpoints").glob(PATTERN) if p.stem[5:].isdigit()}
    if len(found) < 2:
        raise UserError(f"{run} has no checkpoints along its way; train it with --trainer.callbacks Milestones.")
    return dict(sorted(found.items()))
