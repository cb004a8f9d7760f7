"""Resuming: where a run stands, what must be as it was, and Lightning's loops set to the very next batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.loops.loop import _Loop

from ssl_suite.core.data import batches_done, run_seed
from ssl_suite.core.errors import UserError
from ssl_suite.core.sharding import place

if TYPE_CHECKING:
    from ssl_suite.core.module import TrainModule

FREE = {"source", "eval_batch_size", "num_workers"}
"""Options of data that may change: `source` may move, as long as it holds the same."""
ROOM = "model.room."
"""How those begin that say where frozen features are kept."""

TRAINER = (
    "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "precision",
    "limit_train_batches", "val_check_interval", "check_val_every_n_epoch",
)  # fmt: skip
WRITTEN = "configuration"
"""Whether the run was started from the command line, so that every option is known by its name."""
TOTAL = ("trainer.max_epochs", "trainer.max_steps")


def settings(module: TrainModule) -> dict[str, Any]:
    """Option → value of all that a run's weights depend on; a resumed run must have the same."""
    trainer, data = module.trainer, module.data
    given = module.run_config or {}
    config = flat(given.get("model"), "model") | flat(given.get("data"), "data")
    free = {n for n in config if (n.startswith("data.") and n.rpartition(".")[2] in FREE) or n.startswith(ROOM)}
    found = {name: value for name, value in config.items() if name not in free}
    found |= {f"trainer.{name}": getattr(trainer, name) for name in TRAINER}
    found |= {"model": type(module).__name__, "data": type(data).__name__, "data.batch_size": data.batch_size}
    found |= flat(asdict(module.optim), "model.optim")
    for name, encoder in module.encoders.items():
        found |= {name: type(encoder).__name__} | flat(encoder.config, name)
    found |= {"seed_everything": run_seed(), "number of processes": place(trainer)[1]}
    return found | {"training data": data.fingerprint("train"), WRITTEN: bool(given)}


def flat(value: Any, name: str) -> dict[str, Any]:
    """Nested options as `a.b.c` → value, named as on the command line; values are plain."""
    if isinstance(value, Mapping) and "class_path" in value:
        kind = str(value["class_path"]).rpartition(".")[2]
        return {name: kind} | flat(value.get("init_args") or {}, name)
    if isinstance(value, Mapping):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, list | tuple):
        return {name: [v if isinstance(v, str | int | float | bool | None) else str(v) for v in value]}
    return {name: value if isinstance(value, str | int | float | bool | None) else str(value)}


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], path: str) -> None:
    """Raises UserError that names what differs between the run that wrote a checkpoint and the one to resume it."""
    names = [name for name in before if name in now]
    if before.get(WRITTEN) and now.get(WRITTEN):  # options that are None are not written down
        names = list({**before, **now})
    differing = [name for name in names if before.get(name) != now.get(name) and name != WRITTEN]
    if not differing:
        return
    if any(name.startswith("data") for name in differing):
        differing = [name for name in differing if name != "training data"]  # which its options are a part of
    if "training data" in differing:
        raise UserError(f"{path} was trained on other data (or its files changed since); resume with the same data.")
    told = " and ".join(f"{name} {_said(before.get(name))}, not {_said(now.get(name))}" for name in differing[:4])
    if set(differing) <= set(TOTAL):
        hint = "The schedule depends on it; to train on, start a new run from its encoder (--model.encoder RUN)."
    else:
        hint = "Resume with the options in that run's config.yaml, or start a new run."
    raise UserError(f"{path} was trained with {told}. {hint}")


def _said(value: Any) -> str:
    return str(value)[:60]


def position(trainer: pl.Trainer) -> dict[str, Any]:
    """Where a run stands, for its checkpoint: batches done, batches an epoch, whether a validation is due first.

    Batches since the last optimizer step do not count: their gradients are not kept, so they are read again.
    """
    loop, per_epoch = trainer.fit_loop.epoch_loop, trainer.num_training_batches
    done = batches_done(trainer)
    if math.isinf(per_epoch) or not done:
        return {}
    counts, validation = loop.batch_progress.total, loop.val_loop.batch_progress
    partial = done % per_epoch % trainer.accumulate_grad_batches if done % per_epoch else 0
    begun = trainer.validating and not (
        validation.is_last_batch and validation.current.completed == validation.current.ready
    )
    awaits = counts.ready == done and not partial and (begun or counts.completed < done)
    fetcher = trainer.fit_loop._data_fetcher
    due = awaits and fetcher and trainer.val_check_batch is not None and loop._should_check_val_fx(fetcher)
    return {"batches": done - partial, "per_epoch": int(per_epoch), "validation": bool(due)}


def settle(checkpoint: dict[str, Any]) -> None:
    """Rewrites the counts of Lightning's loops in a loaded checkpoint, so that they go on at the very next batch.

    What the loops count depends on the hook that wrote the checkpoint, and some of those states are resumed with an
    epoch too many. Three are always understood: between two batches, before a validation, and before an epoch.
    """
    if not (at := checkpoint.get("position")):
        return
    loops, steps = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
    epoch, batch = divmod(at["batches"], at["per_epoch"])
    last = at["validation"] and batch == 0
    if last:
        epoch, batch = epoch - 1, at["per_epoch"]
    inside = batch > 0
    batches = {"total": _counts(at["batches"]), "current": _counts(batch), "is_last_batch": last}
    validation = {"total": _counts(0), "current": _counts(0), "is_last_batch": False}
    if at["validation"]:
        validation["total"] = {**_counts(0), "ready": 1, "started": 1}
    elif inside:
        for part in ("total", "current"):
            batches[part]["completed"] -= 1
    begun = {**_counts(epoch), "ready": epoch + inside, "started": epoch + inside}
    loops["epoch_progress"] = {"total": dict(begun), "current": dict(begun)}
    loops["epoch_loop.batch_progress"] = batches
    loops["epoch_loop.val_loop.batch_progress"] = validation
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - inside


def start(trainer: pl.Trainer) -> None:
    """Once the loops are loaded: one that begins an epoch is not amid one, whatever Lightning takes `max_steps` for."""
    progress = trainer.fit_loop.epoch_progress.current
    if progress.ready == progress.completed:
        _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]


def _counts(n: int) -> dict[str, Any]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), n)
