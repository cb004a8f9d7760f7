"""From a tested encoder to rows of the results store; beside them outcomes of test examples, and shares of layers."""

from __future__ import annotations

import datetime
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite import __version__
from ssl_suite.bench.identity import data_hash, model_name, recipe_hash
from ssl_suite.bench.in_context import ENCODER as SIZE
from ssl_suite.bench.outcome_files import write_outcomes
from ssl_suite.bench.store import Result, Store
from ssl_suite.core.checkpoint import read_checkpoint
from ssl_suite.core.data import run_seed
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.files import write_text
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.folder import ENCODER, PROVENANCE
from ssl_suite.core.hashing import sha256
from ssl_suite.core.module import Evaluation
from ssl_suite.core.reading import read_json

PROTOCOL_VERSION = 1
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")


@dataclass(frozen=True)
class Run:
    """Where and how a run was started, and what its results are to be called.

    Attributes:
        out: run folder; named relative to the store.
        store: results file.
        started: wall-clock time.
        task: name of the task; default: data/column.
        name: of the encoder; default: the method that trained it.
        role: instead of the derived one.
        checkpoint: whose weights were tested, where the run did not train them.
        overwrite: whether earlier results of this folder go.
    """

    out: Path
    store: Path
    started: float
    task: str | None = None
    name: str | None = None
    role: str | None = None
    checkpoint: Path | None = None
    overwrite: bool = False


def origin(model: Evaluation) -> tuple[str, str]:
    """Method and role: what the weights are before the task trains; of several encoders `ssl` where one is."""
    both = zip(model.sources, model.encoders.values(), strict=True)
    found = [_origin(source, encoder, model.mode) for source, encoder in both]
    methods = "+".join(dict.fromkeys(method for method, _ in found))
    return methods, found[0][1] if len({role for _, role in found}) == 1 else "ssl"


def _origin(source: str, encoder: Encoder, mode: str) -> tuple[str, str]:
    if encoder.baseline:
        return encoder.baseline, "simple"
    shuffled = source.startswith("reemb:")
    path = Path(source.removeprefix("reemb:")) / PROVENANCE
    if path.exists():
        name = str(read_json(path, "an encoder folder").get("method", source))
        return f"{name} re-emb" if shuffled else name, "ssl"
    if source.endswith(".ckpt"):
        return str(read_checkpoint(Path(source), weights=False)["encoders"][ENCODER]["provenance"]["method"]), "ssl"
    if encoder.trained:
        return source, "ssl"
    return ("from scratch", "supervised") if mode == "finetune" else ("random", "random")


def unfinished(trainer: Any, model: Evaluation, checkpoint: Path | None) -> str:
    """Why the figures of a run are no result; "" where they are one."""
    if trainer.fast_dev_run:
        return "fast_dev_run tries a few batches"
    for name in LIMITS:
        limit = getattr(trainer, name)
        if isinstance(limit, int) or limit != 1.0:  # 1 is one batch, 1.0 all of them
            return f"{name} is {limit}"
    trains = type(model).training_step is not Evaluation.training_step
    if trains and not (trained_steps(checkpoint) if checkpoint else trainer.global_step):
        return "nothing was trained"
    return ""


def trained_steps(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint."""
    return int(torch.load(checkpoint, weights_only=True, map_location="meta", mmap=True).get("global_step", 0))


def record(trainer: pl.Trainer, model: Evaluation, run: Run) -> list[Result]:
    """Adds one row for each test metric, the main one first; none for a run that only tried something.

    Args:
        trainer: after `test`.
        model: that was tested.
        run: how it was started.
    """
    if reason := unfinished(trainer, model, run.checkpoint):
        rank_zero_warn(f"No result was recorded: {reason}.")
        return []
    data = model.data
    method, role = origin(model)
    validation = selected(trainer, model)
    shared: dict[str, Any] = {
        "modality": "+".join(encoder.modality for encoder in model.encoders.values()),
        "name": run.name or ("random" if (run.role or role) == "random" else method),
        "method": method,
        "role": run.role or role,
        "encoder": model_name(model),
        "weights": model.weights,
        "task": run.task or data.task_name,
        "data": data.source_name,
        "data_hash": data_hash(data),
        "fold": 0,
        "seed": run_seed(),
        "labels": model.labels_used,
        "protocol": f"{model.protocol}@{PROTOCOL_VERSION}",
        "recipe": recipe_hash(model.run_config or {}),
        "checkpoint": sha256(run.checkpoint)[:16] if run.checkpoint else "",
        "validation": validation,
        "chosen_on": data.size("validation") if math.isfinite(validation) and data.has("validation") else 0,
        "seconds": round(time.time() - run.started, 2),
        "run": os.path.relpath(run.out, run.store.parent),
        "command": model.command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    found = {tuple(k.split("/")): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test")}
    rows = [
        Result(
            split=split,
            metric=metric,
            main=metric == model.main,
            direction="min" if metric in model.less_is_better else "max",
            value=value,
            **shared,
        )
        for (split, metric), value in sorted(found.items(), key=lambda item: item[0] != ("test", model.main))
        if metric != "loss"
    ]
    examples = {row.split: model.examples(row.split) for row in rows if row.main}
    if trainer.is_global_zero:
        Store(run.store).add(rows, instead_of=str(shared["run"]) if run.overwrite else None)
        for row in rows:
            if row.main and examples[row.split]:
                write_outcomes(run.out, row, examples[row.split], model.statistic)
        write_shares(run.out, model)
        parameters = sum(encoder.num_parameters() for encoder in model.encoders.values())
        write_text(run.out / SIZE, json.dumps({"parameters": parameters}) + "\n")
    return rows


def write_shares(folder: Path, model: Evaluation) -> None:
    """Writes `layers.json`: the share that each state of the encoder, the input first, was learned to have in a sum."""
    if isinstance(model, Finetune) and (weights := model.readout.weights) is not None:
        shares = [round(share, 6) for share in weights.detach().softmax(0).tolist()]
        write_text(folder / "layers.json", json.dumps({"readout": model.readout.name, "shares": shares}) + "\n")


def selected(trainer: Any, model: Evaluation) -> float:
    """The main metric on the validation split of the checkpoint that was chosen by it; NaN if none was."""
    chosen = (c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None) == f"val/{model.main}")
    score = next((c.best_model_score for c in chosen), None)
    return math.nan if score is None else float(score)
