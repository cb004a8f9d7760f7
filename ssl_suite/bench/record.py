"""From a tested encoder to rows of the results store."""

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
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.folder import PROVENANCE, read_json
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.module import Evaluation

LOWER_IS_BETTER = {
    "cer",
    "wer",
    "per",
    "eer",
    "der",
    "mse",
    "loss",
    "unfit",
    "unsayable",
    "perplexity",
    "bits_per_byte",
}
PROTOCOL_VERSION = 1


def origin(model: Evaluation) -> tuple[str, str]:
    """Method and role: what the weights are before the task trains."""
    source, mode = model.encoder_source, model.mode
    if model.encoder.baseline:
        return model.encoder.baseline, "simple"
    shuffled = source.startswith("reemb:")
    path = Path(source.removeprefix("reemb:")) / PROVENANCE
    if path.exists():
        name = str(read_json(path, "an encoder folder").get("method", source))
        return f"{name} re-emb" if shuffled else name, "ssl"
    if ":" in source and not source.startswith("random:"):
        return source, "ssl"
    return ("from scratch", "supervised") if mode == "finetune" else ("random", "random")


def shape(encoder: Encoder) -> str:
    """Class and a hash of its arguments: what two encoders must share to be compared."""
    causal = "-causal" if encoder.config.get("causal") else ""
    return f"{type(encoder).__name__}{causal}-{config_hash(encoder.config)[:4]}"


def record(
    trainer: pl.Trainer,
    model: Evaluation,
    store: Path,
    out: Path,
    started: float,
    task: str | None = None,
    role: str | None = None,
) -> list[Result]:
    """Adds one row for each test metric, the main one first.

    Args:
        trainer: after `test`.
        model: that was tested.
        store: results file.
        out: run folder, named relative to the store.
        started: wall-clock time of the start.
        task: how to name the task; default: data/column.
        role: instead of the derived one.
    """
    data: Any = model.data
    method, found_role = origin(model)
    settings = model.run_config or {}
    shared = {
        "modality": model.encoder.modality,
        "method": method,
        "role": role or found_role,
        "encoder": shape(model.encoder),
        "task": task or f"{data.source_name.removeprefix('samples:')}/{data.target_column}",
        "data": data.source_name,
        "seed": run_seed(),
        "labels": data.labels_used,
        "protocol": f"{model.protocol}@{PROTOCOL_VERSION}",
        "config_hash": config_hash(settings),
        "seconds": round(time.time() - started, 2),
        "run": os.path.relpath(out, store.parent),
        "command": model.command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    found = {tuple(k.split("/")): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test")}
    rows = [
        Result(split=split, metric=metric, direction="min" if metric in LOWER_IS_BETTER else "max", value=v, **shared)
        for (split, metric), v in sorted(found.items(), key=lambda item: item[0] != ("test", model.main))
        if metric != "loss"
    ]
    if trainer.is_global_zero:
        Store(store).add(rows)
    return rows
