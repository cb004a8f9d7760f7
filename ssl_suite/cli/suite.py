"""LightningCLI in subclass mode, with the suite's options and one run folder for everything a run leaves."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from ssl_suite.cli.callbacks import ExpectMonitors, KeepRun, RequireTest
from ssl_suite.cli.display import show
from ssl_suite.cli.explain import class_of
from ssl_suite.cli.options import check_options
from ssl_suite.cli.predictions import WritePredictions
from ssl_suite.core.allocator import keep_freed_memory
from ssl_suite.core.checkpoint import AtomicIO, Best, read_checkpoint
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import locked, sweep
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.latest import Latest
from ssl_suite.core.log import CSVLog
from ssl_suite.core.method import Method
from ssl_suite.core.module import Evaluation, TrainModule
from ssl_suite.core.runs import CHECKPOINTS, checkpoint_path, default_out, holds_run, run_folder
from ssl_suite.data.common.layout import SPLIT_OF

TASKS = {"class": "classify.Classify", "value": "regress.Regress", "tags": "tag.Tag"}


class SuiteCLI(LightningCLI):
    """The suite's options on top of Lightning's.

    Attributes:
        command: fit, validate, test or predict.
        options: the parser of that command.
        asked: the checkpoint that was named, which Lightning does not see while it reads the command line: it would
            take settings from it, and ours come from the command line alone.
    """

    arguments: list[str]
    checkpoint: str | None = None
    command: str
    options: LightningArgumentParser
    asked: str | None
    held: ExitStack
    """What is given back when the command is done: the lock of the run's folder."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one command that was asked for: each builds a parser of hundreds of options."""
        return {k: v for k, v in LightningCLI.subcommands().items() if k == SuiteCLI.arguments[0]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        self.command = self.config.subcommand
        config = self.settings
        if isinstance(config.trainer.callbacks, Namespace):  # one, by its short name
            config.trainer.callbacks = [config.trainer.callbacks]
        check_options(config, self.command)
        self.asked, config.ckpt_path = config.ckpt_path, None

    @property
    def settings(self) -> Namespace:
        """The options of the command, as they are given."""
        return self.config[self.command]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.options = parser
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
        config = self.settings
        if config.out is None:
            config.out = default_out(str((config.get("model") or {}).get("class_path", "run")).rpartition(".")[2])
        out = run_folder(config.out)
        config.ckpt_path = checkpoint_path(self.asked, out, self.command)
        resumes_here = config.ckpt_path and out.resolve() in Path(config.ckpt_path).resolve().parents
        self.loaded = read_checkpoint(Path(config.ckpt_path), weights=False) if config.ckpt_path else None
        config.trainer.default_root_dir = config.out
        self.goes_on = self.command == "fit" and bool(resumes_here)
        SuiteCLI.checkpoint = config.ckpt_path
        model = class_of(config.model.class_path) if config.get("model") else TrainModule
        is_task = bool(getattr(model, "selects", False))  # what is fine-tuned
        if issubclass(model, Finetune) and config.model.init_args.get("task") is None:
            config.model.init_args.task = proposed_task(config.data)
        if self.command != "fit" and not config.ckpt_path and is_task:
            raise UserError(f"{self.command} needs the weights of a run: --ckpt_path RUN/checkpoints/best.ckpt.")
        if self.command == "test" and issubclass(model, Method):
            raise UserError(
                f"{model.__name__} pretrains, which no test split scores: judge its encoder by fit --model Finetune "
                "--model.encoder RUN/encoder --test_after true, or see its loss with validate."
            )
        options = (config.get("model") or {}).get("init_args", {})
        given = options.get("encoders", options.get("encoder"))
        named = isinstance(given, dict) and all(isinstance(source, str) for source in given.values())
        started = config.ckpt_path or named or isinstance(given, str)
        if self.command != "fit" and issubclass(model, Method) and not started:
            raise UserError(
                f"{self.command} needs trained weights: --model.encoder RUN/encoder, or --ckpt_path "
                "RUN/checkpoints/last.ckpt."
            )
        if config.test_after and not is_task:
            raise UserError("--test_after is for Finetune; a method has no test split.")

    def instantiate_classes(self) -> None:
        config = self.settings
        out = Path(config.out)
        if self.command == "fit":
            SuiteCLI.held.enter_context(locked(out))
            for folder in (out, out / CHECKPOINTS):
                sweep(folder)
            if holds_run(out) and not self.goes_on and not config.overwrite:
                raise UserError(
                    f"{out} already holds a run; choose another --out, resume it with --ckpt_path, or --overwrite true."
                )
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.settings
        made = self.config_init[self.command].trainer
        if kwargs.get("logger", made.get("logger")) is None:
            kwargs["logger"] = self.log(config.out)
        plugins = made.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = plugins if any(isinstance(p, CheckpointIO) for p in plugins) else [*plugins, AtomicIO()]
        trainer = super().instantiate_trainer(**kwargs)
        show(trainer)
        trainer.callbacks.append(ExpectMonitors())  # type: ignore[attr-defined]
        self._started = time.time()
        text = self.options.dump(config, skip_none=False, format="yaml")
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(KeepRun(text, Path(config.out), self.command == "fit" and not self.goes_on))
        if config.test_after:
            callbacks.append(RequireTest())
        dumped = self.dumped()
        torch.set_float32_matmul_precision(config.matmul)
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        if config.compile:
            torch._dynamo.config.recompile_limit = 32  # a block with or without padding, chosen places, gradients
            for encoder in self.model.encoders.values():
                encoder.compile()
        self.model.command, self.model.run_config = "ssl-suite " + shlex.join(self.arguments), dumped
        if self.loaded is not None:
            self.model.recall(self.loaded, resuming=self.command == "fit")
        if self.command == "predict":
            self.datamodule.predict_split = SPLIT_OF.get(config.split, config.split)
            callbacks.append(WritePredictions(Path(config.out)))
        if trainer.checkpoint_callbacks:
            folder = Path(config.out).absolute() / CHECKPOINTS
            if not any("ModelCheckpoint" in str(c) for c in config.trainer.callbacks or []):
                callbacks[:] = [c for c in callbacks if type(c) is not ModelCheckpoint]  # Lightning's default
                if isinstance(self.model, Evaluation) and self.model.selects:
                    callbacks.append(Best(folder, f"val/{self.model.main}", self.model.direction))
            callbacks.append(Latest(folder, config.checkpoint_minutes))
        return trainer

    def log(self, out: str) -> CSVLog:
        """metrics.csv of a run, without the steps that are taken again; of the other commands a file of their own."""
        if self.command != "fit":
            return CSVLog(out, f"metrics-{self.command}.csv")
        return CSVLog(out, until=self.loaded["global_step"] if self.loaded and self.goes_on else 0)

    def dumped(self) -> dict[str, Any]:
        """The whole resolved configuration, as a run records it."""
        return json.loads(self.options.dump(self.settings, format="json", skip_link_targets=False))

    def after_fit(self) -> None:
        config = self.settings
        if config.test_after:
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", None) or None
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
            self.after_test()

    def after_test(self) -> None:
        from ssl_suite.bench.record import Run, record

        config = self.settings
        if isinstance(self.model, Evaluation):
            run = Run(
                out=Path(config.out),
                store=Path(config.results or Path(config.out) / "results.sqlite"),
                started=self._started,
                task=config.task_name,
                name=config.name,
                role=config.role,
                checkpoint=Path(config.ckpt_path) if config.ckpt_path and self.command == "test" else None,
                overwrite=config.overwrite,
            )
            if rows := record(self.trainer, self.model, run):
                said = f"test/{rows[0].metric} {rows[0].value:.4f}"
                rank_zero_info(f"{said}, in {run.store}: `ssl-suite results {run.store.parent}` shows all.")


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
