"""Encoder folders: config.json, model.safetensors (+ heads, tokenizer), provenance.json, manifest.json with hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.arguments import build
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, class_name, encoder_class
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import replacing
from ssl_suite.core.hashing import sha256
from ssl_suite.core.reading import a_file, check_values, read_json, read_tokenizer, read_weights, stored_shapes
from ssl_suite.core.sharding import whole
from ssl_suite.core.weights import load_strictly, untied, write_weights

CONFIG, WEIGHTS, HEADS = "config.json", "model.safetensors", "heads.safetensors"
ENCODER = "encoder"
"""Folder of a run's encoder, and name of the only one."""
TOKENIZER, PROVENANCE, MANIFEST = "tokenizer.json", "provenance.json", "manifest.json"
HASHED = (CONFIG, WEIGHTS, HEADS, TOKENIZER, PROVENANCE)
"""What a manifest may name: all that is ever read."""
FILES = {*HASHED, MANIFEST}


def encoder_folder(run: Path, name: str) -> Path:
    """Where a run keeps its encoder; those of a joint one lie side by side below."""
    return run / ENCODER if name == ENCODER else run / ENCODER / name


def encoder_folders(folder: Path) -> list[Path]:
    """The encoder folders that a run's `encoder` folder is or holds; none if there is anything else in it."""
    if not folder.is_dir():
        return []
    found = [folder] if (folder / CONFIG).exists() else sorted(folder.iterdir())
    return found if all(path.is_dir() and is_encoder_folder(path) for path in found) else []


def is_encoder_folder(folder: Path) -> bool:
    """Whether a folder is an encoder's and holds nothing else, so that saving may replace it."""
    names = {path.name for path in folder.iterdir()}
    return CONFIG in names and names <= FILES


def save_encoder(
    encoder: Encoder,
    folder: str | Path,
    provenance: dict[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes an encoder folder, whole or not at all.

    Args:
        encoder: any registered encoder; its weights are stored once each, tied ones too.
        folder: replaced if it is an encoder folder.
        provenance: where the weights come from: method, data, seed, steps, versions, metrics.
        weights: `stored_weights` of the encoder, where they had to be gathered from other ranks first.
    """
    folder = Path(folder)
    config = {"class": class_name(type(encoder)), "arguments": encoder.config}
    if encoder.preprocess:
        config["preprocess"] = encoder.preprocess
    with replacing(folder, is_encoder_folder) as temporary:
        temporary.mkdir()
        (temporary / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        write_weights(stored_weights(encoder) if weights is None else weights, temporary / WEIGHTS)
        if encoder.heads:
            write_weights(untied(encoder.heads), temporary / HEADS)
        if encoder.tokenizer is not None:
            (temporary / TOKENIZER).write_text(encoder.tokenizer.to_str(pretty=True), encoding="utf-8")
        (temporary / PROVENANCE).write_text(json.dumps(provenance or {}, indent=1), encoding="utf-8")
        write_manifest(temporary)
    return folder


def write_manifest(folder: Path) -> None:
    """Notes which files an encoder folder has, and the sha256 of each."""
    hashes = {name: sha256(folder / name) for name in HASHED if (folder / name).exists()}
    (folder / MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=1), encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Raises UserError unless a folder has the files it was saved with, bit for bit, and no other that is read."""
    if not (folder / MANIFEST).exists():
        raise UserError(
            f"{folder} has no {MANIFEST}, so that nobody can tell whether its files are whole; copy the folder again, "
            "or write it again with this version."
        )
    hashes = read_json(folder / MANIFEST, "an encoder folder").get("sha256")
    if not isinstance(hashes, dict) or not {CONFIG, WEIGHTS} <= set(hashes) <= set(HASHED):
        raise UserError(f"{folder / MANIFEST} does not name the files of an encoder; copy the folder again.")
    for name in HASHED:
        path = folder / name
        if name not in hashes and path.exists():
            raise UserError(f"{path} was not there when the encoder was saved; remove it, or copy the folder again.")
        if name in hashes and not path.exists():
            raise UserError(f"{folder} was saved with {name}, which is missing now; copy the folder again.")
        if name in hashes and sha256(a_file(path)) != hashes[name]:
            raise UserError(
                f"{path} is not the file that was saved (its sha256 differs from {MANIFEST}'s); copy the folder again."
            )


def stored_weights(encoder: Encoder) -> dict[str, Tensor]:
    """What `model.safetensors` holds; of a sharded encoder every rank must ask."""
    return {name: whole(tensor) for name, tensor in untied(encoder.state_dict(keep_vars=True)).items()}


def read_provenance(folder: Path) -> dict[str, Any]:
    """Where an encoder's weights come from; empty where its folder does not say.

    Raises:
        UserError: it cannot be read, or names its method or modality by something else than a word.
    """
    if not (folder / PROVENANCE).exists():
        return {}
    found = read_json(folder / PROVENANCE, "an encoder folder")
    for name in ("method", "modality"):
        if not isinstance(found.get(name, ""), str):
            raise UserError(f"{folder / PROVENANCE}: {name} is {shortened(found[name])}, but must be a word.")
    return found


def build_encoder(folder: Path) -> Encoder:
    """Makes the encoder that `config.json` describes, with new random weights and its tokenizer.

    Raises:
        UserError: a file is missing or not the one that was saved, or a value in it is not what the encoder takes.
    """
    path = folder / CONFIG
    config = read_json(path, "an encoder folder")
    if "class" not in config and "model_type" in config:
        raise UserError(f"{folder} is a Hugging Face folder, not one of ours; write hf:{folder}.")
    check_manifest(folder)
    read_provenance(folder)
    cls = encoder_class(str(config.get("class")))
    arguments, preprocess = config.get("arguments", {}), config.get("preprocess", {})
    if not isinstance(arguments, dict) or not isinstance(preprocess, dict):
        raise UserError(f"{path}: arguments and preprocess must be JSON objects.")
    encoder: Encoder = build(cls, arguments, stored_shapes(folder / WEIGHTS), str(path))
    encoder.preprocess = preprocess
    if "image_size" in preprocess:
        within(f"{path}: image_size", preprocess["image_size"], low=1, high=2**14, whole=True)
    if (folder / TOKENIZER).exists():
        tokenizer = read_tokenizer(folder / TOKENIZER)
        check_vocabulary(tokenizer, encoder.config.get("vocab_size"), str(folder))
        encoder.tokenizer = tokenizer
    return encoder


def check_vocabulary(tokenizer: Any, size: int | None, source: str) -> None:
    """Raises UserError where a tokenizer gives ids that an encoder of `size` word vectors has none for."""
    highest = max(tokenizer.get_vocab().values(), default=0)
    if size is not None and highest >= size:
        raise UserError(
            f"{source}: its tokenizer counts to {highest}, but the encoder has only {size} word vectors (vocab_size); "
            "take the tokenizer it was trained with."
        )


def load_weights(encoder: Encoder, folder: Path) -> None:
    """Copies the folder's weights in, strictly: every name must match."""
    load_strictly(encoder, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    if (folder / HEADS).exists():
        encoder.heads = read_weights(folder / HEADS)
        check_values(encoder.heads, encoder.heads, str(folder / HEADS))


def fingerprint(encoder: Encoder) -> str:
    """Hash of configuration and weights: equal for encoders that compute the same thing."""
    digest = hashlib.sha256(json.dumps([class_name(type(encoder)), encoder.config], sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    if encoder.tokenizer is not None:
        digest.update(encoder.tokenizer.to_str().encode())
    return digest.hexdigest()[:16]
