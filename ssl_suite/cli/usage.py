"""Mistakes on the command line: which errors are the user's to mend, and what may be named."""

from __future__ import annotations

import inspect
from typing import NoReturn

import pytorch_lightning as pl

from ssl_suite.cli.explain import explain, of_lightning
from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import Interrupted, UserError
from ssl_suite.core.masking import Masking
from ssl_suite.core.module import TrainModule
from ssl_suite.core.task import Task


def raise_explained(error: Exception, arguments: list[str], checkpoint: str | None) -> NoReturn:
    """Raises what went wrong as one sentence where the user can mend it, else as it is.

    Args:
        error: from reading the command line, or from what it asked for.
        arguments: the command line.
        checkpoint: the one it takes weights from.
    """
    if isinstance(error, UserError | Interrupted):
        raise error
    if "Error(s) in loading state_dict" in str(error) and checkpoint:
        what = " ".join(str(error).partition("\n")[2].split())[:150]
        raise UserError(f"{checkpoint} is a checkpoint of another model or size: {what} ...") from error
    if said := of_lightning(error):
        raise UserError(f"The trainer's options: {said}") from error
    if not _is_usage(error):
        raise error
    raise UserError(explain(error, classes(), options_of(arguments))) from error


def _is_usage(error: BaseException) -> bool:
    """Whether the parser, rather than the run, failed; or a UserError lies underneath."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, UserError):
            return True
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return type(error).__name__ in ("ArgumentError", "ParserError", "NSKeyError") or "validate against" in text


def classes() -> dict[str, type]:
    """What a recipe can build, and the bases of it, by short name."""
    found: dict[str, type] = {}

    def walk(cls: type) -> None:
        subclasses: list[type] = cls.__subclasses__()
        for sub in subclasses:
            found[sub.__name__] = sub
            walk(sub)

    for base in (TrainModule, DataModule, Encoder, Task, Masking, pl.Callback):
        walk(base)
    return found


def options_of(arguments: list[str]) -> set[str]:
    """Top-level options of the trainer and of ours."""

    trainer = {f"trainer.{name}" for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"}
    ours = {"out", "overwrite", "test_after", "results", "task_name", "name", "role", "split", "config", "ckpt_path"}
    ours |= {"checkpoint_minutes"}
    return (
        trainer
        | ours
        | {"seed_everything"}
        | {"model", "data", "print_config", "model.encoder", "model.optim.lr", "data.source"}
    )
