"""The files of a Hugging Face folder: fetched once, and read without running anything that is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import a_file, read_json, read_weights

WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Weights in one file, or in several and their index."""
OLD_NAMES = (
    ("LayerNorm.gamma", "LayerNorm.weight"),  # TensorFlow's
    ("LayerNorm.beta", "LayerNorm.bias"),
    (".weight_g", ".parametrizations.weight.original0"),  # PyTorch's weight norm before 2.0
    (".weight_v", ".parametrizations.weight.original1"),
)
"""Ends of names as older files have them, and as files have them now."""


def fetch(name: str, *files: str) -> Path:
    """Gets files of a hub's model, once; later, and offline, they come from the hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*files]))
    except Exception as error:  # not found, not allowed, offline, no network, an impossible name: a dozen classes
        raise UserError(
            f"hf:{name} is neither a folder here nor to be had from the Hugging Face hub ({first_line(error)})."
        ) from None


def fetch_weights(name: str, folder: Path) -> None:
    """Gets the weights of a hub's model: pickled ones only where there are no others."""
    fetch(name, *WEIGHT_FILES)
    if not any(folder.glob("*.safetensors")):
        fetch(name, "pytorch_model.bin")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, under the names that files have now.

    Raises:
        UserError: there are none, or they are damaged or no plain tensors.
    """
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
    return {renewed(name): tensor for name, tensor in file.items()}


def renewed(name: str) -> str:
    """A tensor's name as files have it now."""
    for old, new in OLD_NAMES:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def tell_left(source: Path | str, names: Sequence[str]) -> None:
    """Says what of a file no encoder needs."""
    if names:
        rank_zero_info(f"{source}: not read, for no encoder needs it: {', '.join(names[:5])} ({len(names)} in all).")


def check_expected(expected: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Raises UserError for a value in a config.json that is not the only one we can express."""
    for key, value in expected.items():
        if config.get(key, value) not in (value, None):
            raise UserError(f"{source}: {key} is {config[key]!r}; only {value!r} can be read.")


def check_there(names: Sequence[str], file: Mapping[str, Tensor], kind: str, source: Path | str) -> None:
    """Raises UserError where a file lacks one of these names."""
    missing = [name for name in names if name not in file]
    if missing:
        raise UserError(
            f"{source} does not fit {kind}: its weights lack {', '.join(missing[:5])} "
            f"({len(missing)} in all), and have {', '.join(sorted(file)[:5])}."
        )


def check_taken(file: Mapping[str, Tensor], kind: str, source: Path | str) -> None:
    """Raises UserError where something of a file was not taken."""
    if file:
        raise UserError(
            f"{source} does not fit {kind}: nothing is known of {', '.join(sorted(file)[:5])} ({len(file)} in all)."
        )


def first_line(error: Exception) -> str:
    """What another library's error says, cut to its first line; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
