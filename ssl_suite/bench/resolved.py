"""A command line, read and checked as a run does it, of which nothing is run."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse import Namespace

from ssl_suite.lightning_cli import SuiteCLI, raise_explained, run


class Resolved(SuiteCLI):
    """What a run of these arguments would be."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def make(self, part: Literal["model", "data"]) -> Any:
        """The model or the data module alone."""
        parser = self._parser(self.subcommand)
        make = getattr(parser, "instantiate", parser.instantiate_classes)  # its name since jsonargparse 4.49
        try:
            return make(Namespace(**{part: self.config[self.subcommand][part]}))[part]
        except Exception as error:
            raise_explained(error, self.arguments)


def resolve(arguments: list[str]) -> Resolved:
    """Raises UserError for what a run would not take."""
    return run(arguments, Resolved)
