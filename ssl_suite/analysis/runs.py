"""Runs that an analysis needs: made by the command line, and kept while their options stay the same."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_suite.bench.attempts import quiet
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.identity import data_hash
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import write_text
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.load import load_encoder
from ssl_suite.core.module import weights_hash
from ssl_suite.data.text.source import TextSource
from ssl_suite.encoders.tokenizer import KINDS, load_tokenizer, tokenizer_hash


def made(arguments: list[str], run: Path, seed: int, through: CommandLine) -> Path:
    """The folder of a run, made now unless it is there with the same options, weights, data and tokenizer.

    Args:
        arguments: of the command line, after `ssl-suite`.
        run: folder.
        seed: of the run.
        through: runs the command line.
    """
    with quiet():
        resolved = through.resolve(arguments)
        config = resolved.dumped()
        data = resolved.make("data")
        read = {"weights": _weights(config), "data": data_hash(data), "tokenizer": _tokenizer(data)}  # not their places
        identity = config_hash({**config, "of seed": seed, **read})
        mark = run / "identity.txt"
        if not mark.exists() or mark.read_text(encoding="utf-8") != identity:
            print(f"ssl-suite {shlex.join(arguments)}", flush=True)
            mark.unlink(missing_ok=True)
            through.run(arguments)
            write_text(mark, identity)
    return run


def _weights(config: dict[str, Any]) -> str:
    """A hash of the encoder that a run starts from; none of one that it makes itself."""
    source = config["model"]["init_args"].get("encoder")
    return weights_hash(load_encoder(source), source) if isinstance(source, str) else ""


def _tokenizer(data: DataModule) -> str:
    """A hash of the tokenizer that the data name; none of one that is learned from them or is the encoder's."""
    if not isinstance(data, TextSource) or data.wanted_tokenizer in KINDS:
        return ""
    return tokenizer_hash(load_tokenizer(data.wanted_tokenizer)).hex()


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises UserError unless there is a seed, each once."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"Seeds are whole numbers, at least one, each once, not {list(seeds)}.")
