"""What a run says on the terminal while it trains."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.utilities import rank_zero_info


class Progress(RichProgressBar):
    """Lightning's bar, which counts epochs to −2 where a run ends after so many steps."""

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs == -1:
            return f"Epoch {current_epoch}, to step {self.trainer.max_steps:,}"
        return super()._get_train_description(current_epoch)


class Sizes(pl.Callback):
    """One line instead of a table: how much is trained, and how much is not."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        others = sum(p.numel() for p in pl_module.parameters() if not p.requires_grad)
        rest = f", {others:,} are not" if others else ""
        rank_zero_info(f"{type(pl_module).__name__}: {trained:,} parameters are trained{rest}.")


def show(trainer: pl.Trainer) -> None:
    """Puts the bar in the place of Lightning's own, and the line in that of its table."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [Progress() if type(c) is RichProgressBar else c for c in callbacks]
    if trainer.progress_bar_callback is not None:
        callbacks.append(Sizes())
