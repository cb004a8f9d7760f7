"""Checks of what a command line asks of a run, before anything of it is built."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.strategies import StrategyRegistry

from ssl_suite.bench.store import ROLES
from ssl_suite.core.check import one_of, within
from ssl_suite.core.errors import UserError, nearest

COUNTS = {
    "max_epochs": -1, "max_steps": -1, "min_epochs": 0, "min_steps": 0, "num_nodes": 1, "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1, "log_every_n_steps": 0, "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0, "fast_dev_run": 0,
}  # fmt: skip
"""Option of the trainer → the least whole number it may be."""
SHARES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
"""A whole number of batches, or a share of them."""
PROCESSES = 8
"""Processes on a CPU that are let pass even where there are fewer cores: runs of two or four show that ranks agree."""


def whole_numbers_first() -> None:
    """Makes the trainer read 20 as twenty batches, and 1.0 as all, whatever was imported before.

    `typing` keeps one object for Union[int, float] and Union[float, int] inside an Optional: of whichever was made
    first in this process. The parser takes the first kind that fits, which made 20 the share 20.0.
    """
    annotations = inspect.unwrap(pl.Trainer.__init__).__annotations__
    for name in (*SHARES, "val_check_interval"):
        annotations[name] = int | float | None


def check_options(config: Any, command: str) -> None:
    """Checks the options that are not of a model or of data.

    Args:
        config: the parsed options of the command.
        command: fit, validate, test or predict.

    Raises:
        UserError: one of them is out of its range, or asks for what this command does not do.
    """
    check_seed(config.seed_everything)
    check_folder("--out", config.out)
    for name in ("task_name", "split", "ckpt_path"):
        if config.get(name) == "":
            raise UserError(f"--{name} is empty; name one, or leave the option out.")
    if config.role is not None:
        one_of("--role", config.role, ROLES)
    if config.results is not None:
        check_results(config.results)
    if config.split is not None and command != "predict":
        raise UserError(f"--split is for predict; {command} reads its own.")
    check_trainer(config.trainer, command)


def check_seed(seed: Any) -> None:
    """Raises UserError unless a run can be had again: with a number, or `true`, for which one is drawn and recorded."""
    if seed is not True:
        within("seed_everything", seed, low=0, high=2**32 - 1, whole=True)


def check_folder(option: str, path: str | None) -> None:
    """Raises UserError unless `path` is a folder, or can become one."""
    if path is None:
        return
    if not path.strip():
        raise UserError(f"{option} is empty; name a folder, or leave the option out.")
    place = existing(Path(path))
    if not place.is_dir():
        raise UserError(f"{option} {path}: {place} is a file; name a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {place} cannot be written; name another folder.")


def check_results(path: str) -> None:
    """Raises UserError unless `path` is a file of results, or can become one."""
    if not path.strip():
        raise UserError("--results is empty; name a file, or leave the option out.")
    file = Path(path)
    if file.is_dir():
        raise UserError(f"--results {path} is a folder; name a file in it: {file / 'results.sqlite'}.")
    if not file.exists():
        check_folder("--results", str(file.parent))
        return
    if not file.is_file() or not os.access(file, os.R_OK | os.W_OK):
        raise UserError(f"--results {path} cannot be written; name another file.")
    with file.open("rb") as opened:
        head = opened.read(16)
    if head and head != b"SQLite format 3\0":
        raise UserError(f"--results {path} is no results file; name another one, this one stays as it is.")


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists() or p.is_symlink())


def check_trainer(trainer: Any, command: str) -> None:
    """Raises UserError for values that Lightning answers with a traceback, or takes and then trains nothing."""
    for name, least in COUNTS.items():
        value = trainer.get(name)
        if value is not None and not isinstance(value, bool):
            within(f"trainer.{name}", value, low=least, whole=True)
    for name in SHARES:
        if (value := trainer.get(name)) is not None:
            within(f"trainer.{name}", value, low=0, high=1 if isinstance(value, float) else None)
    every = trainer.get("val_check_interval")
    if isinstance(every, int | float):
        within("trainer.val_check_interval", every, above=0, high=1 if isinstance(every, float) else None)
    if trainer.get("gradient_clip_val") is not None:
        within("trainer.gradient_clip_val", trainer.gradient_clip_val, low=0)
    check_devices(trainer)
    if command != "fit":
        return
    if trainer.get("max_epochs") == -1 and trainer.get("max_steps", -1) == -1:
        raise UserError(
            "trainer.max_epochs is -1, without end, but the learning rate falls towards one: give --trainer.max_steps."
        )
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer.get(name) == 0:
            raise UserError(f"trainer.{name} is 0: nothing would be trained; random:FOLDER names an untrained encoder.")


def check_devices(trainer: Any) -> None:
    """Raises UserError for an accelerator, a number of devices or a strategy that is not there."""
    name, devices, strategy = trainer.accelerator, trainer.devices, trainer.strategy
    if isinstance(name, str):
        known = ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]
        if name not in known:
            raise UserError(f"trainer.accelerator: there is no {name!r}.{nearest(name, known)}")
        if name in ("gpu", "cuda") and not torch.cuda.is_available() and not torch.backends.mps.is_available():
            raise UserError(f"trainer.accelerator is {name}, but torch sees no GPU; take --trainer.accelerator cpu.")
    if isinstance(strategy, str) and strategy not in (known := ["auto", *StrategyRegistry.available_strategies()]):
        close = nearest(strategy, known)
        hint = close if len(close) < 60 else " Take auto, ddp, or configs/trainer/fsdp.yaml."
        raise UserError(f"trainer.strategy: there is no {strategy!r}.{hint}")
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, int) and devices != -1:
        within("trainer.devices", devices, low=1, whole=True)
    most = max(PROCESSES, os.cpu_count() or 1)
    on_cpu = name == "cpu" or (name == "auto" and not torch.cuda.is_available())
    if on_cpu and isinstance(devices, int) and devices > most:
        raise UserError(f"trainer.devices is {devices}, but this machine has {os.cpu_count()} CPU cores; take fewer.")
