"""Runs that an analysis needs: made by the command line, and kept while their options stay the same."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ssl_suite.bench.attempts import quiet
from ssl_suite.bench.commands import CommandLine
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import write_text
from ssl_suite.core.hashing import config_hash


def made(arguments: list[str], run: Path, seed: int, through: CommandLine, weights: str = "") -> Path:
    """The folder of a run, made now unless it is there with the same options, from the same weights.

    Args:
        arguments: of the command line, after `ssl-suite`.
        run: folder.
        seed: of the run.
        through: runs the command line.
        weights: fingerprint of those it starts from, which an option names by their place alone.
    """
    with quiet():
        identity = config_hash({**through.resolve(arguments).dumped(), "of seed": seed, "weights": weights})
        mark = run / "identity.txt"
        if not mark.exists() or mark.read_text(encoding="utf-8") != identity:
            print(f"ssl-suite {shlex.join(arguments)}", flush=True)
            through.run(arguments)
            write_text(mark, identity)
    return run


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises UserError unless there is a seed, each once."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"Seeds are whole numbers, at least one, each once, not {list(seeds)}.")
