"""fit, validate, test and predict: LightningCLI in subclass mode, with one run folder for everything a run leaves."""

from __future__ import annotations

import json
import logging
import shlex
import time
import warnings
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.allocator import keep_freed_memory
from ssl_suite.core.checkpoint import AtomicIO, Best, read_checkpoint
from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import Interrupted, UserError
from ssl_suite.core.files import locked, sweep, write_text
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.folder import TOKENIZER
from ssl_suite.core.latest import Latest
from ssl_suite.core.log import CSVLog
from ssl_suite.core.method import Method
from ssl_suite.core.module import Evaluation, TrainModule
from ssl_suite.core.runs import CHECKPOINTS, checkpoint_path, default_out, holds_run, remove_run, run_folder
from ssl_suite.core.task import Task
from ssl_suite.data.common.layout import SPLIT_OF
from ssl_suite.display import show
from ssl_suite.explain import class_of, explain, of_lightning
from ssl_suite.options import ExpectMonitors, check_options, whole_numbers_first
from ssl_suite.plugins import load_all
from ssl_suite.predictions import WritePredictions
from ssl_suite.recipes import find, read

NOISE = ("💡", "callbacks returned in", "TPU available", "GPU available")
COMMANDS = ("fit", "validate", "test", "predict")
TASKS = {"class": "classify.Classify", "value": "regress.Regress", "tags": "tag.Tag"}


class SuiteCLI(LightningCLI):
    """The suite's options on top of Lightning's."""

    arguments: list[str]
    checkpoint: str | None = None
    held: ExitStack
    """What is given back when the command is done: the lock of the run's folder."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one command that was asked for: each builds a parser of hundreds of options."""
        return {k: v for k, v in LightningCLI.subcommands().items() if k == SuiteCLI.arguments[0]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        if isinstance(config.trainer.callbacks, Namespace):  # one, by its short name
            config.trainer.callbacks = [config.trainer.callbacks]
        check_options(config, self.config.subcommand)

    def _parse_ckpt_path(self) -> None:
        """Lightning would read settings from the checkpoint here; ours come from the command line alone."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str | None, default=None, help="Run folder; default: runs/MODEL-TIME.")
        parser.add_argument("--overwrite", type=bool, default=False, help="Write into a run folder that has a run.")
        parser.add_argument("--test_after", type=bool, default=False, help="After fit: test the best weights once.")
        parser.add_argument(
            "--results", type=str | None, default=None, help="Results file; default: OUT/results.sqlite."
        )
        parser.add_argument("--task_name", type=str | None, default=None, help="How results name the task.")
        parser.add_argument("--name", type=str | None, default=None, help="How results name the encoder.")
        parser.add_argument("--compile", type=bool, default=False, help="torch.compile the encoder.")
        parser.add_argument("--checkpoint_minutes", type=float, default=10.0, help="Most time between two last.ckpt.")
        precision = Literal["highest", "high", "medium"]
        parser.add_argument("--matmul", type=precision, default="highest", help="fp32 products; high: TF32.")
        parser.add_argument("--split", type=str | None, default=None, help="Which one predict answers; default: test.")
        parser.add_argument("--role", type=str | None, default=None, help="ssl, random, simple or supervised.")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.out is None:
            config.out = default_out(str((config.get("model") or {}).get("class_path", "run")).rpartition(".")[2])
        out = run_folder(config.out)
        config.ckpt_path = checkpoint_path(config.ckpt_path, out, self.subcommand)
        resumes_here = config.ckpt_path and out.resolve() in Path(config.ckpt_path).resolve().parents
        self.loaded = read_checkpoint(Path(config.ckpt_path), weights=False) if config.ckpt_path else None
        config.trainer.default_root_dir = config.out
        self.goes_on = self.subcommand == "fit" and bool(resumes_here)
        SuiteCLI.checkpoint = config.ckpt_path
        model = class_of(config.model.class_path) if config.get("model") else TrainModule
        is_task = issubclass(model, Finetune)
        if is_task and config.model.init_args.get("task") is None:
            config.model.init_args.task = proposed_task(config.data)
        if self.subcommand != "fit" and not config.ckpt_path and is_task:
            raise UserError(f"{self.subcommand} needs the weights of a run: --ckpt_path RUN/checkpoints/best.ckpt.")
        if self.subcommand == "test" and issubclass(model, Method):
            raise UserError(
                f"{model.__name__} pretrains, which no test split scores: judge its encoder by fit --model Finetune "
                "--model.encoder RUN/encoder --test_after true, or see its loss with validate."
            )
        started = config.ckpt_path or isinstance((config.get("model") or {}).get("init_args", {}).get("encoder"), str)
        if self.subcommand != "fit" and issubclass(model, Method) and not started:
            raise UserError(
                f"{self.subcommand} needs trained weights: --model.encoder RUN/encoder, or --ckpt_path "
                "RUN/checkpoints/last.ckpt."
            )
        if config.test_after and not is_task:
            raise UserError("--test_after is for Finetune; a method has no test split.")

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        out = Path(config.out)
        if self.subcommand == "fit":
            SuiteCLI.held.enter_context(locked(out))
            for folder in (out, out / CHECKPOINTS):
                sweep(folder)
            if holds_run(out) and not self.goes_on and not config.overwrite:
                raise UserError(
                    f"{out} already holds a run; choose another --out, resume it with --ckpt_path, or --overwrite true."
                )
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config[self.subcommand]
        if kwargs.get("logger", self._get(self.config_init, "trainer").get("logger")) is None:
            kwargs["logger"] = self.log(config.out)
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = plugins if any(isinstance(p, CheckpointIO) for p in plugins) else [*plugins, AtomicIO()]
        trainer = super().instantiate_trainer(**kwargs)
        show(trainer)
        trainer.callbacks.append(ExpectMonitors())  # type: ignore[attr-defined]
        self._started = time.time()
        text = self._parser(self.subcommand).dump(config, skip_none=False, format="yaml")
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(KeepRun(text, Path(config.out), self.subcommand == "fit" and not self.goes_on))
        if config.test_after:
            callbacks.append(RequireTest())
        dumped = self.dumped()
        torch.set_float32_matmul_precision(config.matmul)
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        if config.compile:
            torch._dynamo.config.recompile_limit = 32  # a block with or without padding, chosen places, gradients
            self.model.encoder.compile()
        self.model.command, self.model.run_config = "ssl-suite " + shlex.join(self.arguments), dumped
        if self.loaded is not None:
            self.model.recall(self.loaded, resuming=self.subcommand == "fit")
        if self.subcommand == "predict":
            self.datamodule.predict_split = SPLIT_OF.get(config.split, config.split)
            callbacks.append(WritePredictions(Path(config.out)))
        if trainer.checkpoint_callbacks:
            folder = Path(config.out).absolute() / CHECKPOINTS
            if not any("ModelCheckpoint" in str(c) for c in config.trainer.callbacks or []):
                callbacks[:] = [c for c in callbacks if type(c) is not ModelCheckpoint]  # Lightning's default
                if isinstance(self.model, Finetune):
                    callbacks.append(Best(folder, f"val/{self.model.task.main}", self.model.task.direction))
            callbacks.append(Latest(folder, config.checkpoint_minutes))
        return trainer

    def log(self, out: str) -> CSVLog:
        """metrics.csv of a run, without the steps that are taken again; of the other commands a file of their own."""
        if self.subcommand != "fit":
            return CSVLog(out, f"metrics-{self.subcommand}.csv")
        return CSVLog(out, until=self.loaded["global_step"] if self.loaded and self.goes_on else 0)

    def dumped(self) -> dict[str, Any]:
        """The whole resolved configuration, as a run records it."""
        config = self.config[self.subcommand]
        return json.loads(self._parser(self.subcommand).dump(config, format="json", skip_link_targets=False))

    def after_fit(self) -> None:
        config = self.config[self.subcommand]
        if config.test_after:
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", None) or None
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
            self.after_test()

    def after_test(self) -> None:
        from ssl_suite.bench.record import Run, record

        config = self.config[self.subcommand]
        if isinstance(self.model, Evaluation):
            run = Run(
                out=Path(config.out),
                store=Path(config.results or Path(config.out) / "results.sqlite"),
                started=self._started,
                task=config.task_name,
                name=config.name,
                role=config.role,
                checkpoint=Path(config.ckpt_path) if config.ckpt_path and self.subcommand == "test" else None,
                overwrite=config.overwrite,
            )
            record(self.trainer, self.model, run)


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
        if pl_module.encoder.tokenizer is not None:
            write_text(self.folder / TOKENIZER, pl_module.encoder.tokenizer.to_str(pretty=True))


def proposed_task(data: Any) -> Namespace:
    """The task that the data's settings name (GLUE, CLUE), as if it stood in the recipe.

    Raises:
        UserError: they name none.
    """
    proposal = class_of(data.class_path).proposed_task(dict(data.init_args)) if data else None
    if proposal is None:
        raise UserError("Finetune needs a task: --model.task Classify, Regress, Tag or another (ssl-suite list tasks).")
    kind, metrics = proposal
    return Namespace(class_path=f"ssl_suite.tasks.{TASKS[kind]}", init_args=Namespace(metrics=metrics))


def with_recipes(arguments: list[str]) -> list[str]:
    """The arguments with each `-c NAME` as the file it stands for, which is a recipe and safe to read."""
    made, follows = [], False
    for argument in arguments:
        option, equals, name = argument.partition("=")
        if follows or (equals and option in ("-c", "--config")):
            path = find(argument if follows else name)
            read(path)
            argument = str(path) if follows else f"{option}={path}"
        follows = argument in ("-c", "--config")
        made.append(argument)
    return made


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


C = TypeVar("C", bound=SuiteCLI)


def run(arguments: list[str], cli: type[C] = SuiteCLI) -> C:  # type: ignore[assignment]
    """Runs one of `COMMANDS`; as a `Resolved`, only reads it.

    Raises:
        UserError: anything wrong with what was asked, in one sentence.
    """
    quiet()
    whole_numbers_first()
    load_all()
    SuiteCLI.arguments = arguments
    SuiteCLI.held = ExitStack()
    strict = {"exit_on_error": False, "allow_abbrev": False}
    try:
        return cli(
            TrainModule,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "use_distributed_sampler": False,
                "log_every_n_steps": 10,
                "enable_model_summary": False,
            },
            parser_kwargs={**strict, arguments[0]: strict},
            args=with_recipes(arguments),
        )
    except Exception as error:
        raise_explained(error, arguments)
    finally:
        SuiteCLI.held.close()


def raise_explained(error: Exception, arguments: list[str]) -> NoReturn:
    """Raises what went wrong as one sentence where the user can mend it, else as it is."""
    if isinstance(error, UserError | Interrupted):
        raise error
    if "Error(s) in loading state_dict" in str(error) and SuiteCLI.checkpoint:
        what = " ".join(str(error).partition("\n")[2].split())[:150]
        raise UserError(f"{SuiteCLI.checkpoint} is a checkpoint of another model or size: {what} ...") from error
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

    for base in (TrainModule, DataModule, Encoder, Task, pl.Callback):
        walk(base)
    return found


def options_of(arguments: list[str]) -> set[str]:
    """Top-level options of the trainer and of ours."""
    import inspect

    trainer = {f"trainer.{name}" for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"}
    ours = {"out", "overwrite", "test_after", "results", "task_name", "name", "role", "split", "config", "ckpt_path"}
    ours |= {"checkpoint_minutes"}
    return (
        trainer
        | ours
        | {"seed_everything"}
        | {"model", "data", "print_config", "model.encoder", "model.optim.lr", "data.source"}
    )
