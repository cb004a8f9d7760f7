"""Run folders: their names, what they hold, and which checkpoint a command means."""

from __future__ import annotations

import datetime
import os
import shutil
from pathlib import Path

from pytorch_lightning.plugins.environments import SLURMEnvironment

from ssl_suite.core.checkpoint import BEST, LAST
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import ENCODER, encoder_folders
from ssl_suite.core.milestones import PATTERN

CHECKPOINTS = "checkpoints"
INHERITED = "SSL_SUITE_DEFAULT_OUT"


def default_out(name: str) -> str:
    """`runs/NAME-TIME`: chosen once, and inherited by the processes a run starts for its other ranks.

    Raises:
        UserError: ranks that something else started would each choose their own.
    """
    started_by_us = os.environ.get("LOCAL_RANK", "0") != "0" and INHERITED in os.environ
    if started_by_us:
        return os.environ[INHERITED]
    tasks = os.environ.get("SLURM_NTASKS", "1") if SLURMEnvironment.detect() else "1"
    if int(tasks) > 1 or ("TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1):
        raise UserError("Several processes of one run need one folder: name it with --out.")
    os.environ[INHERITED] = f"runs/{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    return os.environ[INHERITED]


def run_folder(out: str) -> Path:
    """Raises UserError where `--out` is empty or names a file."""
    if not out.strip():
        raise UserError("--out is empty; name a folder for this run.")
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"--out {out} is a file; name a folder.")
    return Path(out)


def holds_run(folder: Path) -> bool:
    return (folder / ENCODER).exists() or (folder / CHECKPOINTS).exists()


def remove_run(folder: Path) -> None:
    """Removes the encoder and checkpoints of an earlier run, and nothing else, so that they are not taken for new."""
    for path in (folder / CHECKPOINTS / LAST, folder / CHECKPOINTS / BEST, *(folder / CHECKPOINTS).glob(PATTERN)):
        path.unlink(missing_ok=True)
    if encoder_folders(folder / ENCODER):
        shutil.rmtree(folder / ENCODER)


def checkpoint_path(given: str | None, out: Path, command: str | None) -> str | None:
    """The checkpoint a command means: `last` and `best` are the run's own, and a job SLURM queued again goes on.

    Raises:
        UserError: a word of Lightning's that means no file here.
    """
    last = out / CHECKPOINTS / LAST
    if given in ("last", "best"):
        return str(out / CHECKPOINTS / f"{given}.ckpt")
    if given in ("hpc", "registry"):
        raise UserError(f"--ckpt_path {given} is not for runs of this suite; name a file, or last or best.")
    again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return str(last) if command == "fit" and not given and again and last.exists() else given
