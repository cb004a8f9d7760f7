"""A Hugging Face folder or hub name → TextEncoder, with its heads and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ssl_suite.core.arguments import build, check_types
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.reading import a_file, read_json, read_weights
from ssl_suite.core.weights import load_strictly
from ssl_suite.encoders.hub.families import (
    ACTIVATIONS,
    FAMILIES,
    POSITIONS_BEFORE,
    Family,
    head_counterparts,
    trunk_counterparts,
)
from ssl_suite.encoders.hub.tokenizer import TOKENIZER_FILES, first_line, read_tokenizer, table_size
from ssl_suite.encoders.text import TextEncoder

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids", ".attn.bias", ".attn.masked_bias")
"""Ends of names that hold no weights: counters and causal masks that older files carry."""
TASK_HEADS = ("classifier.", "qa_outputs.", "score.")
"""Beginnings of names of heads that transformers' fine-tuned models carry; ours are built by the task."""
WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Weights in one file, or in several and their index."""


def load_hub(name: str) -> TextEncoder:
    """Reads a model of one of the `FAMILIES`.

    Args:
        name: a folder with config.json and model.safetensors, or a name on the Hugging Face hub.

    Returns:
        The encoder with its tokenizer; its pretraining heads in `heads`, for a method to take up. Without a readout of
        its own it pools by the mean, which serves untuned better than [CLS] (arXiv:1908.10084, table 1), or by the last
        token where causal.

    Raises:
        UserError: it is not there, of no known family, or its weights or tokenizer do not fit its configuration.
    """
    local = Path(name).is_dir()
    folder = Path(name) if local else fetch(name, "config.json", *TOKENIZER_FILES)
    config = read_json(folder / "config.json", "a Hugging Face folder")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        known = nearest(str(config.get("model_type")), FAMILIES)
        raise UserError(f"{folder / 'config.json'}: model_type {config.get('model_type')!r} is not supported.{known}")
    if not local:
        fetch(name, *WEIGHT_FILES)
        if not any(folder.glob("*.safetensors")):
            fetch(name, "pytorch_model.bin")
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
    encoder.check()
    return encoder


def read_arguments(family: Family, config: dict[str, Any], source: str) -> dict[str, Any]:
    """Constructor arguments of the encoder that a config.json describes.

    Raises:
        UserError: it asks for something that our trunk does not do.
    """
    for key, value in family.expected.items():
        if config.get(key, value) not in (value, None):
            raise UserError(f"{source}: {key} is {config[key]!r}; only {value!r} can be read.")
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
    if (folder / "model.safetensors").exists():
        file = read_weights(folder / "model.safetensors")
    elif (index := folder / "model.safetensors.index.json").exists():
        parts = sorted(set(read_json(index, "a Hugging Face folder").get("weight_map", {}).values()))
        file = {name: tensor for part in parts for name, tensor in read_weights(folder / Path(part).name).items()}
    elif (path := folder / "pytorch_model.bin").exists():
        try:
            file = torch.load(a_file(path), map_location="cpu", weights_only=True)
        except UserError:
            raise
        except Exception as error:  # UnpicklingError, RuntimeError, EOFError by kind of damage
            raise UserError(f"{path} cannot be read as plain weights ({first_line(error)}).") from None
    else:
        raise UserError(f"{folder} holds no model.safetensors and no pytorch_model.bin.")
    tensors = {n.removeprefix(family.prefix).replace("LayerNorm.gamma", "LayerNorm.weight"): t for n, t in file.items()}
    tensors = {
        n.replace("LayerNorm.beta", "LayerNorm.bias"): t for n, t in tensors.items()
    }  # as TensorFlow called them
    left = [n for n in tensors if n.endswith(BUFFERS) or n.startswith(TASK_HEADS)]
    if left:
        rank_zero_info(f"{folder}: not read, for no encoder needs it: {', '.join(left[:5])} ({len(left)} in all).")
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
    missing = [name for entry in wanted for name in entry.theirs if name not in file]
    if missing:
        raise UserError(
            f"{folder} does not fit {family.model_type}: its weights lack {', '.join(missing[:5])} "
            f"({len(missing)} in all), and have {', '.join(sorted(file)[:5])}."
        )
    weights = {entry.ours: entry.read(file) for entry in wanted}
    if before := unused_positions(family, config):
        table = weights["positions.weight"]
        encoder.heads[POSITIONS_BEFORE], weights["positions.weight"] = table[:before].clone(), table[before:]
    for head in family.heads:
        entries = head_counterparts(family, head)
        if all(name in file for entry in entries for name in entry.theirs):
            encoder.heads |= {entry.ours: entry.read(file) for entry in entries}
    if file:
        raise UserError(
            f"{folder} does not fit {family.model_type}: nothing is known of {', '.join(sorted(file)[:5])} "
            f"({len(file)} in all)."
        )
    load_strictly(encoder, weights, str(folder))


def fetch(name: str, *files: str) -> Path:
    """Gets files of a hub's model, once; later, and offline, they come from the hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*files]))
    except Exception as error:  # not found, not allowed, offline, no network, an impossible name: a dozen classes
        raise UserError(
            f"hf:{name} is neither a folder here nor to be had from the Hugging Face hub ({first_line(error)})."
        ) from None
