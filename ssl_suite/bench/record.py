"""From a tested Finetune to rows of the results store."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_suite import __version__
from ssl_suite.bench.store import Result, Store
from ssl_suite.core.data import run_seed
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.folder import PROVENANCE, read_json
from ssl_suite.core.hashing import config_hash

LOWER_IS_BETTER = {"cer", "wer", "per", "eer", "der", "mse", "loss", "unfit"}
PROTOCOL_VERSION = 1


def origin(model: Finetune) -> tuple[str, str, str]:
    """Method, role and encoder: what the weights are before the task trains."""
    source, mode, name = model.encoder_source, model.mode, type(model.encoder).__name__
    if getattr(model.encoder, "baseline", ""):
        return model.encoder.baseline, "simple", name
    if source.startswith("random:"):
        return "random" if mode == "probe" else "from scratch", "random" if mode == "probe" else "supervised", name
    path = Path(source) / PROVENANCE
    if path.exists():
        return str(read_json(path, "an encoder folder").get("method", source)), "ssl", name
    if ":" in source:
        return source, "ssl", name
    return ("from scratch", "supervised", name) if mode == "finetune" else ("random", "random", name)


def record(
    trainer: pl.Trainer,
    model: Finetune,
    store: Path,
    out: Path,
    started: float,
    task: str | None = None,
    role: str | None = None,
    encoder: str | None = None,
) -> list[Result]:
    """Adds one row for each test metric.

    Args:
        trainer: after `test`.
        model: that was tested.
        store: results file.
        out: run folder, named relative to the store.
        started: wall-clock time of the start.
        task: how to name the task; default: data/column.
        role: instead of the derived one.
        encoder: instead of the encoder's class.
    """
    data: Any = model.data
    method, found_role, name = origin(model)
    settings = model.run_config or {}
    shared = {
        "modality": model.encoder.modality,
        "method": method,
        "role": role or found_role,
        "encoder": encoder or name,
        "task": task or f"{data.source_name.removeprefix('samples:')}/{data.target_column}",
        "data": data.source_name,
        "split": "test",
        "seed": run_seed(),
        "labels": len(data.targets.encoded["train"]),
        "protocol": f"{model.mode}-{model.readout_name}@{PROTOCOL_VERSION}",
        "config_hash": config_hash(settings),
        "seconds": round(time.time() - started, 2),
        "run": os.path.relpath(out, store.parent),
        "command": model.command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    values = {k.removeprefix("test/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    rows = [
        Result(metric=metric, direction="min" if metric in LOWER_IS_BETTER else "max", value=value, **shared)  # type: ignore[arg-type]
        for metric, value in values.items()
        if metric != "loss"
    ]
    if trainer.is_global_zero:
        Store(store).add(rows)
    return rows
