"""What a run of the command line does beside training: stop early where it cannot end well, keep its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.files import write_text
from ssl_suite.core.folder import TOKENIZER
from ssl_suite.core.runs import remove_run


class RequireTest(pl.Callback):
    """Stops before training where there is no test split to score after it."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data = pl_module.data
        if not data.has("test") or not data.has_targets("test"):
            what = "targets in its test split" if data.has("test") else "test split"
            raise UserError(
                f"{data.source_name} has no {what} for --test_after (it has {', '.join(data.splits())}); "
                "add one, or leave the option out and read val/ in metrics.csv."
            )
        if not data.has("validation"):
            rank_zero_warn(
                f"{data.source_name} has no validation split to select weights on: the last ones are tested."
            )


class ExpectMonitors(pl.Callback):
    """Stops before training where a callback waits for a figure that validation does not give."""

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not pl_module.data.has("validation"):  # the last weights are taken
            return
        known = [name for name in trainer.callback_metrics if "/" in name]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            if name and name not in known and not name.startswith(("train/", "online/", "knn/")):
                kind = type(callback).__name__
                raise UserError(f"{kind} waits for {name!r}, which is not logged.{nearest(name, known)}")


class KeepRun(pl.Callback):
    """Writes the resolved configuration and the tokenizer beside what a run makes, once it is about to train.

    Args:
        text: the configuration.
        folder: of the run.
        fresh: whether files of an earlier run in this folder go first.
    """

    def __init__(self, text: str, folder: Path, fresh: bool) -> None:
        self.text, self.folder, self.fresh = text, folder, fresh

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.fresh:
            remove_run(self.folder)
        write_text(self.folder / "config.yaml", self.text)
        for encoder in pl_module.encoders.values():
            if encoder.tokenizer is not None:
                write_text(self.folder / TOKENIZER, encoder.tokenizer.to_str(pretty=True))
