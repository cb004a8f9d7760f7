"""The parser of the commands that Lightning does not parse."""

from __future__ import annotations

import argparse
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
