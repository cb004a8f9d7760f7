"""fit, validate, test and predict: LightningCLI in subclass mode, with one run folder for everything a run leaves."""

from __future__ import annotations

import datetime
import json
import logging
import shlex
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger

from ssl_suite.bench.store import check_names
from ssl_suite.core.allocator import keep_freed_memory
from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import write_text
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.method import Method
from ssl_suite.core.module import Evaluation, TrainModule
from ssl_suite.core.task import Task
from ssl_suite.data.common.layout import SPLIT_OF
from ssl_suite.explain import class_of, explain, of_lightning
from ssl_suite.options import check_options
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
        precision = Literal["highest", "high", "medium"]
        parser.add_argument("--matmul", type=precision, default="highest", help="fp32 products; high: TF32.")
        parser.add_argument("--split", type=str | None, default=None, help="Which one predict answers; default: test.")
        parser.add_argument("--role", type=str | None, default=None, help="ssl, random, simple or supervised.")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.out is None:
            name = str(config.model.class_path).rpartition(".")[2] if config.get("model") else "run"
            config.out = f"runs/{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        out = Path(config.out)
        has_run = (out / "encoder").exists() or (out / "checkpoints").exists()
        if self.subcommand == "fit" and has_run and not config.ckpt_path and not config.overwrite:
            raise UserError(
                f"{out} already holds a run; choose another --out, resume it with --ckpt_path, or --overwrite true."
            )
        config.trainer.default_root_dir = config.out
        check_checkpoint(config.ckpt_path)
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
        check_names(config.results, config.role)
        if config.test_after and not is_task:
            raise UserError("--test_after is for Finetune; a method has no test split.")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config[self.subcommand]
        if kwargs.get("logger", self._get(self.config_init, "trainer").get("logger")) is None:
            kwargs["logger"] = CSVLogger(config.out, name="", version="")
        trainer = super().instantiate_trainer(**kwargs)
        self._started = time.time()
        text = self._parser(self.subcommand).dump(config, skip_none=False, format="yaml")
        trainer.callbacks.append(SaveConfig(text, Path(config.out) / "config.yaml"))  # type: ignore[attr-defined]
        if config.test_after:
            trainer.callbacks.append(RequireTest())  # type: ignore[attr-defined]
        dumped = self.dumped()
        torch.set_float32_matmul_precision(config.matmul)
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        if config.compile:
            torch._dynamo.config.recompile_limit = 32  # a block with or without padding, chosen places, gradients
            self.model.encoder.compile()
        self.model.command, self.model.run_config = "ssl-suite " + shlex.join(self.arguments), dumped
        if self.subcommand != "fit" and isinstance(self.model, Finetune) and config.ckpt_path:
            self.model.recall(torch.load(config.ckpt_path, weights_only=True, map_location="meta", mmap=True))
        if self.subcommand == "predict":
            self.datamodule.predict_split = SPLIT_OF.get(config.split, config.split)
            trainer.callbacks.append(WritePredictions(Path(config.out)))  # type: ignore[attr-defined]
        mine = next((i for i, c in enumerate(trainer.callbacks) if type(c) is ModelCheckpoint), None)  # type: ignore[attr-defined]
        if mine is not None and not any("ModelCheckpoint" in str(c) for c in config.trainer.callbacks or []):
            trainer.callbacks[mine] = default_checkpoint(self.model, self.datamodule, Path(config.out))  # type: ignore[attr-defined]
        return trainer

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


class SaveConfig(pl.Callback):
    """Writes the resolved configuration beside what it made, once the first step is due."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_text(self.path, self.text)


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


def default_checkpoint(model: Any, data: Any, out: Path) -> ModelCheckpoint:
    """The last state always; for a task also the best on the validation split, which alone selects models."""
    monitor = f"val/{model.task.main}" if isinstance(model, Finetune) else None
    return ModelCheckpoint(
        dirpath=out / "checkpoints",
        filename="best" if monitor else "epoch{epoch:04d}",
        auto_insert_metric_name=False,
        monitor=monitor,
        mode=model.task.direction if monitor else "min",
        save_last=True,
        save_top_k=1 if monitor else 0,
        enable_version_counter=False,
    )


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


def check_checkpoint(path: str | None) -> None:
    """Raises UserError for a checkpoint that is not there or cannot be read; executes nothing from it."""
    if path is None or path in ("best", "last", "hpc", "registry"):
        return
    if not Path(path).exists():
        others = ", ".join(sorted(p.name for p in Path(path).parent.glob("*.ckpt")))
        raise UserError(f"There is no checkpoint {path}" + (f"; its folder has {others}." if others else "."))
    if Path(path).is_dir() and (Path(path) / "model.safetensors").exists():
        raise UserError(f"{path} is an encoder folder: start from it with --model.encoder; --ckpt_path resumes a run.")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="meta", mmap=True)
    except Exception as error:  # a zip, pickle or I/O error, whatever the damage is
        raise UserError(
            f"{path} is not a readable checkpoint ({' '.join(str(error).split())[:120]}); take another."
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a run.")


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
    load_all()
    SuiteCLI.arguments = arguments
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
            trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 10},
            parser_kwargs={**strict, arguments[0]: strict},
            args=with_recipes(arguments),
        )
    except Exception as error:
        raise_explained(error, arguments)


def raise_explained(error: Exception, arguments: list[str]) -> NoReturn:
    """Raises what went wrong as one sentence where the user can mend it, else as it is."""
    if isinstance(error, UserError):
        raise error
    if "Error(s) in loading state_dict" in str(error) and SuiteCLI.checkpoint:
        what = " ".join(str(error).partition("\n")[2].split())[:150]
        raise UserError(f"{SuiteCLI.checkpoint} is a checkpoint of another model or size: {what} ...") from error
    if said := of_lightning(error):
        raise UserError(f"The trainer's options: {said}") from error
    if not _is_usage(error):
        raise error
    raise UserError(explain(error, class_names(), options_of(arguments))) from error


def _is_usage(error: BaseException) -> bool:
    """Whether the parser, rather than the run, failed; or a UserError lies underneath."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, UserError):
            return True
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return type(error).__name__ in ("ArgumentError", "ParserError", "NSKeyError") or "validate against" in text


def class_names() -> set[str]:
    """Short names of everything a recipe can build."""
    found: set[str] = set()

    def walk(cls: type) -> None:
        subclasses: list[type] = cls.__subclasses__()
        for sub in subclasses:
            found.add(sub.__name__)
            walk(sub)

    for base in (TrainModule, DataModule, Encoder, Task, pl.Callback):
        walk(base)
    return found - {"Method", "Evaluation", "Scorer", "SourceData"}


def options_of(arguments: list[str]) -> set[str]:
    """Top-level options of the trainer and of ours."""
    import inspect

    trainer = {f"trainer.{name}" for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"}
    ours = {"out", "overwrite", "test_after", "results", "task_name", "name", "role", "split", "config", "ckpt_path"}
    return (
        trainer
        | ours
        | {"seed_everything"}
        | {"model", "data", "print_config", "model.encoder", "model.optim.lr", "data.source"}
    )
