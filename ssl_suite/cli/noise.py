"""What Lightning and torch say that a user can do nothing about."""

from __future__ import annotations

import logging
import warnings
from functools import cache

NOISE = ("💡", "callbacks returned in", "TPU available", "GPU available")


@cache  # filters that change make Python forget which warnings it has shown
def quiet() -> None:
    """Silences advertisements and warnings a user can do nothing about; the others take one line, without code."""
    warnings.formatwarning = lambda message, *_: f"{message}\n"
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not any(x in record.getMessage() for x in NOISE))
    for text in (
        ".*LeafSpec.*",
        ".*in eval mode at the start.*",
        ".*callbacks returned in.*",
        ".*does not have many workers.*",
        ".*logging interval.*",
        ".*`validation_step`.*",
        ".*resuming from a checkpoint that ended.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*LSTM with projections.*",
    ):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", ".*args parameter is intended.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")
