"""A Hugging Face folder → TextEncoder, with its heads and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ssl_suite.core.arguments import build, check_types
from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import a_file
from ssl_suite.core.weights import load_strictly
from ssl_suite.encoders.hub.families import (
    ACTIVATIONS,
    POSITIONS_BEFORE,
    Family,
    head_counterparts,
    trunk_counterparts,
)
from ssl_suite.encoders.hub.files import check_expected, check_taken, check_there, read_tensors, tell_left
from ssl_suite.encoders.hub.tokenizer import TOKENIZER_FILES, read_tokenizer, table_size
from ssl_suite.encoders.text import TextEncoder

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids", ".attn.bias", ".attn.masked_bias")
"""Ends of names that hold no weights: counters and causal masks that older files carry."""
TASK_HEADS = ("classifier.", "qa_outputs.", "score.")
"""Beginnings of names of heads that transformers' fine-tuned models carry; ours are built by the task."""


def load_text(folder: Path, family: Family, config: dict[str, Any]) -> TextEncoder:
    """Reads a model of one of the `FAMILIES`.

    Args:
        folder: with its weights and tokenizer.
        family: that its config.json names.
        config: what is in that file.

    Returns:
        The encoder with its tokenizer; its pretraining heads in `heads`, for a method to take up. Without a readout of
        its own it pools by the mean, which serves untuned better than [CLS] (arXiv:1908.10084, table 1), or by the last
        token where causal.

    Raises:
        UserError: its weights or tokenizer do not fit its configuration.
    """
    for path in (folder / name for name in TOKENIZER_FILES):
        if path.exists():
            a_file(path)
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        rank_zero_warn(f"{folder} has no tokenizer: the ids of another one mean nothing to these weights.")
    arguments = read_arguments(family, config, str(folder / "config.json"))
    file = read_file(folder, family)
    trim_vocabulary(family, file, arguments, table_size(tokenizer) if tokenizer else None, folder)
    shapes = [tensor.shape for tensor in file.values()]
    encoder: TextEncoder = build(TextEncoder, arguments, shapes, str(folder / "config.json"))
    fill(encoder, family, file, config, folder)
    encoder.tokenizer = tokenizer
    return encoder


def read_arguments(family: Family, config: dict[str, Any], source: str) -> dict[str, Any]:
    """Constructor arguments of the encoder that a config.json describes.

    Raises:
        UserError: it asks for something that our trunk does not do.
    """
    check_expected(family.expected, config, source)
    config = family.flat(config, source)
    arguments = {ours: config.get(theirs, default) for ours, (theirs, default) in family.keys.items()}
    activation = str(arguments["activation"])
    check_types(TextEncoder, {k: v for k, v in arguments.items() if k != "activation"}, source)
    if activation not in ACTIVATIONS or family.activation not in (None, ACTIVATIONS[activation]):
        can = family.activation or ", ".join(ACTIVATIONS)
        raise UserError(f"{source}: {family.keys['activation'][0]} is {activation!r}; only {can} can be read.")
    arguments["activation"] = ACTIVATIONS[activation]
    if family.model_type == "electra" and arguments["embedding_dim"] == arguments["dim"]:
        arguments["embedding_dim"] = None
    arguments["max_length"] -= unused_positions(family, config)
    return arguments | family.fixed | {"pool": "last" if family.fixed["causal"] else "mean"}


def unused_positions(family: Family, config: dict[str, Any]) -> int:
    """RoBERTa's first token has the position after its padding id (fairseq's `make_positions`)."""
    return int(config.get("pad_token_id", 1)) + 1 if family.model_type == "roberta" else 0


def read_file(folder: Path, family: Family) -> dict[str, Tensor]:
    """All tensors of a folder, under the names of a bare trunk; buffers and tasks' heads are left out, and named."""
    tensors = {name.removeprefix(family.prefix): tensor for name, tensor in read_tensors(folder).items()}
    left = [n for n in tensors if n.endswith(BUFFERS) or n.startswith(TASK_HEADS)]
    tell_left(folder, left)
    return {n: t for n, t in tensors.items() if n not in left}


def trim_vocabulary(
    family: Family, file: dict[str, Tensor], arguments: dict[str, Any], entries: int | None, folder: Path
) -> None:
    """Cuts GPT-2's word embedding, often padded to a round number for speed, to the tokenizer's size.

    Raises:
        UserError: the tokenizer has more entries than the weights.
    """
    if entries is not None and entries > arguments["vocab_size"]:
        raise UserError(
            f"{folder}: the tokenizer has {entries} entries, the weights only {arguments['vocab_size']} (vocab_size in "
            "config.json); take the tokenizer these weights were trained with."
        )
    words = family.tensors["tokens.weight"]
    if not family.fixed["causal"] or words not in file:
        return
    size = entries or arguments["vocab_size"]
    if len(file[words]) > size:
        rank_zero_info(f"{folder}: the last {len(file[words]) - size} rows of {words} belong to no token and are cut.")
    arguments["vocab_size"] = size
    for name in (words, *(n for n, twin in family.tied.items() if twin == words)):
        if name in file:
            file[name] = file[name][:size]


def fill(encoder: TextEncoder, family: Family, file: dict[str, Tensor], config: dict[str, Any], folder: Path) -> None:
    """Copies a file's tensors into the encoder and its `heads`; every name must be accounted for."""
    for name, twin in family.tied.items():
        tied = file.pop(name, None)
        if tied is not None and twin in file and not torch.equal(tied, file[twin]):
            raise UserError(
                f"{folder}: {name} is not tied to {twin}, as every encoder of ours that predicts words has it."
            )
    wanted = [e for e in trunk_counterparts(family, len(encoder.trunk.blocks)) if e.ours in encoder.state_dict()]
    check_there([name for entry in wanted for name in entry.theirs], file, family.model_type, folder)
    weights = {entry.ours: entry.read(file) for entry in wanted}
    if before := unused_positions(family, config):
        table = weights["positions.weight"]
        encoder.heads[POSITIONS_BEFORE], weights["positions.weight"] = table[:before].clone(), table[before:]
    for head in family.heads:
        entries = head_counterparts(family, head)
        if all(name in file for entry in entries for name in entry.theirs):
            encoder.heads |= {entry.ours: entry.read(file) for entry in entries}
    check_taken(file, family.model_type, folder)
    load_strictly(encoder, weights, str(folder))
