"""Encoder folders: config.json + model.safetensors (+ heads.safetensors, tokenizer.json) + provenance.json."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_suite.core.encoder import Encoder, encoder_class
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.files import replacing
from ssl_suite.core.sharding import identity, whole

CONFIG, WEIGHTS, HEADS = "config.json", "model.safetensors", "heads.safetensors"
TOKENIZER, PROVENANCE = "tokenizer.json", "provenance.json"
FILES = {CONFIG, WEIGHTS, HEADS, TOKENIZER, PROVENANCE}

schemes: dict[str, Callable[[str], Encoder]] = {}
"""`SCHEME:NAME` → encoder, for weights that live elsewhere (`timm:resnet50`); filled by ssl_suite.encoders."""


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
    config = {"class": type(encoder).__name__, "arguments": encoder.config}
    with replacing(folder, is_encoder_folder) as temporary:
        temporary.mkdir()
        (temporary / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        write_weights(stored_weights(encoder) if weights is None else weights, temporary / WEIGHTS)
        if encoder.heads:
            write_weights(untied(encoder.heads), temporary / HEADS)
        if encoder.tokenizer is not None:
            (temporary / TOKENIZER).write_text(encoder.tokenizer.to_str(pretty=True), encoding="utf-8")
        (temporary / PROVENANCE).write_text(json.dumps(provenance or {}, indent=1), encoding="utf-8")
    return folder


def stored_weights(encoder: Encoder) -> dict[str, Tensor]:
    """What `model.safetensors` holds; of a sharded encoder every rank must ask."""
    return {name: whole(tensor) for name, tensor in untied(encoder.state_dict(keep_vars=True)).items()}


def untied(weights: Mapping[str, Tensor], stored: Iterable[Tensor] = ()) -> dict[str, Tensor]:
    """Each tensor once, under its first name: what shares memory with an earlier one, or with `stored`, is left out."""
    seen = {identity(tensor) for tensor in stored}
    kept = {}
    for name, tensor in weights.items():
        if identity(tensor) not in seen or not tensor.numel():
            kept[name] = tensor.detach()
        seen.add(identity(tensor))
    return kept


def write_weights(weights: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors; an error of the disk is an OSError."""
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, str(path), metadata)
    except SafetensorError as error:
        full = "space" in str(error).lower()
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads safetensors or says in one sentence why it cannot."""
    try:
        return load_file(str(path))
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); copy the encoder folder again.") from None


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object or says in one sentence why it cannot."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not {what}: it has no {path.name}.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); write {what} again or take another.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return value


def build_encoder(folder: Path) -> Encoder:
    """Makes the encoder that `config.json` describes, with new random weights and its tokenizer."""
    config = read_json(folder / CONFIG, "an encoder folder")
    if "class" not in config and "model_type" in config:
        raise UserError(f"{folder} is a Hugging Face folder, not one of ours; write hf:{folder}.")
    cls = encoder_class(str(config.get("class")))
    try:
        encoder = cls(**config.get("arguments", {}))
    except TypeError as error:
        raise UserError(f"{folder / CONFIG} does not fit {cls.__name__}: {error}.") from None
    if (folder / TOKENIZER).exists():
        from tokenizers import Tokenizer

        try:
            encoder.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"{folder / TOKENIZER} is damaged ({error}).") from None
    return encoder


def load_weights(encoder: Encoder, folder: Path) -> None:
    """Copies the folder's weights in, strictly: every name must match."""
    load_strictly(encoder, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    if (folder / HEADS).exists():
        encoder.heads = read_weights(folder / HEADS)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: str, given: Iterable[Tensor] = ()) -> None:
    """Copies `weights` in; every name and shape must match, but tied tensors come once.

    Args:
        module: what they are for.
        weights: name → tensor, as `untied` leaves them.
        source: what a message calls them.
        given: tensors of the module that come from elsewhere, such as a word embedding that a head is tied to.

    Raises:
        UserError: lists what is missing, unexpected, or of another shape.
    """
    own = module.state_dict()
    needed = untied(own, given)
    missing, unexpected = sorted(set(needed) - set(weights)), sorted(set(weights) - set(own))
    shapes = [n for n in weights if n in own and weights[n].shape != own[n].shape]
    if missing or unexpected or shapes:
        raise UserError(
            f"{source} does not fit {type(module).__name__}: missing {missing[:5]}, unexpected {unexpected[:5]}, "
            f"other shape {shapes[:5]} ({len(missing)}, {len(unexpected)} and {len(shapes)} in all)."
        )
    module.load_state_dict(weights, strict=False)


def load_encoder(source: str | Path | Encoder) -> Encoder:
    """Gives an encoder: a folder of ours, `random:FOLDER-OR-URI` (the same, untrained) or a URI such as `hf:gpt2`."""
    if isinstance(source, Encoder):
        source.check()
        return source
    text = str(source)
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "random" and rest.partition(":")[0] in schemes:
        trained = load_encoder(rest)
        untrained = type(trained)(**trained.config)
        untrained.tokenizer = trained.tokenizer
        return untrained
    if colon and scheme == "random":
        return build_encoder(Path(rest))
    if colon and scheme in schemes:
        return schemes[scheme](rest)
    folder = Path(text)
    if not folder.is_dir():
        known = ["random", *schemes]
        hint = nearest(text, Encoder.registry) if "/" not in text else ""
        uris = ", ".join(f"{k}:" for k in known)
        raise UserError(f"No encoder folder {text!r}, and it is no encoder class and no URI ({uris}).{hint}")
    encoder = build_encoder(folder)
    load_weights(encoder, folder)
    encoder.check()
    return encoder


def fingerprint(encoder: Encoder) -> str:
    """Hash of configuration and weights: equal for encoders that compute the same thing."""
    digest = hashlib.sha256(json.dumps([type(encoder).__name__, encoder.config], sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    if encoder.tokenizer is not None:
        digest.update(encoder.tokenizer.to_str().encode())
    return digest.hexdigest()[:16]
