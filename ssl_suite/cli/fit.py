"""`ssl-suite fit`, `validate`, `test` and `predict`; and their command line read without being run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal, TypeVar

from jsonargparse import Namespace

from ssl_suite.cli.noise import quiet
from ssl_suite.cli.options import whole_numbers_first
from ssl_suite.cli.recipes import find, read
from ssl_suite.cli.suite import SuiteCLI
from ssl_suite.cli.usage import raise_explained
from ssl_suite.core.data import DataModule
from ssl_suite.core.module import TrainModule
from ssl_suite.plugins import load_all

C = TypeVar("C", bound=SuiteCLI)


class Resolved(SuiteCLI):
    """What a run of these arguments would be."""

    def instantiate_classes(self) -> None:
        self.subcommand = None  # so that Lightning runs nothing

    def make(self, part: Literal["model", "data"]) -> Any:
        """The model or the data module alone."""
        parser = self.options
        make = getattr(parser, "instantiate", parser.instantiate_classes)  # its name since jsonargparse 4.49
        try:
            return make(Namespace(**{part: self.settings[part]}))[part]
        except Exception as error:
            raise_explained(error, self.arguments, self.checkpoint)


def run(arguments: list[str]) -> SuiteCLI:
    """Runs a command line that begins with fit, validate, test or predict.

    Raises:
        UserError: anything wrong with what was asked, in one sentence.
    """
    return _parsed(arguments, SuiteCLI)


def resolve(arguments: list[str]) -> Resolved:
    """Reads and checks a command line as `run` does, and runs nothing of it.

    Raises:
        UserError: for what a run would not take.
    """
    return _parsed(arguments, Resolved)


def _parsed(arguments: list[str], cli: type[C]) -> C:
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
        raise_explained(error, arguments, SuiteCLI.checkpoint)
    finally:
        SuiteCLI.held.close()


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
