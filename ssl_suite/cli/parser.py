"""The parser of the commands that Lightning does not parse."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import NoReturn

from ssl_suite.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing a page."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}. Try {self.prog} --help.")


def place(text: str) -> Path:
    """A path; nothing would mean the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name one")
    return Path(text)


def row(name: str, text: str, width: int) -> str:
    """A name and what it stands for, below one another in a list, as wide as the terminal.

    Args:
        name: of at most `width` characters.
        text: goes on under itself where a line is not enough.
        width: of the longest name of the list.
    """
    first = f"  {name:<{width}}  "
    columns = max(shutil.get_terminal_size().columns, len(first) + 20)
    return textwrap.fill(text, columns, initial_indent=first, subsequent_indent=" " * len(first)) or first.rstrip()
