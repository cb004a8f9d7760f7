"""What a benchmark needs of the command line, which stands above it: to run an argument list, and to read one."""

from __future__ import annotations

from typing import Any, Literal, Protocol


class Resolved(Protocol):
    """A command line that was read and checked."""

    def dumped(self) -> dict[str, Any]:
        """The whole configuration."""

    def make(self, part: Literal["model", "data"]) -> Any:
        """The model or the data module alone."""


class CommandLine(Protocol):
    """fit, validate, test and predict (`ssl_suite.cli.fit`)."""

    def run(self, arguments: list[str]) -> Any:
        """Runs a command line; raises UserError for what is wrong with it."""

    def resolve(self, arguments: list[str]) -> Resolved:
        """Reads a command line, and runs nothing of it; raises UserError for what a run would not take."""
