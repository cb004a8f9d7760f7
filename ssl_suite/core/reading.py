"""Reading the files of an encoder: JSON, safetensors, tokenizers; one sentence for whatever is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ssl_suite.core.errors import UserError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def a_file(path: Path) -> Path:
    """Returns `path` if it can be opened and read to an end.

    Raises:
        UserError: it is a folder, a pipe or a device, or may not be read.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file but a folder, a pipe or a device.")
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads safetensors or says in one sentence why it cannot."""
    try:
        return load_file(str(a_file(path)))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def stored_shapes(path: Path) -> list[list[int]]:
    """Shapes of the tensors of a safetensors file, of which only the head is read."""
    try:
        with safe_open(str(a_file(path)), "pt") as file:
            return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as safetensors ({error}); copy the encoder folder again.")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object or says in one sentence why it cannot."""
    if not path.exists():
        raise UserError(f"{path.parent} is not {what}: it has no {path.name}.")
    try:
        value = json.loads(a_file(path).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); write {what} again or take another.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return value


def read_tokenizer(path: Path) -> Any:
    """Reads a tokenizer.json or says in one sentence why it cannot."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(a_file(path)))
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and panics that are no Exception
        raise UserError(f"{path} is damaged ({error}).") from None


def check_values(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Raises UserError for a weight that is no finite number, or of another kind than the one it replaces.

    Args:
        weights: name → tensor, as read.
        own: the tensors that will hold them: one of floats takes any width of float, any other its own type alone.
        source: what a message calls the file.
    """
    for name, tensor in weights.items():
        wanted = own[name].dtype
        if tensor.dtype not in FLOATS if wanted.is_floating_point else tensor.dtype != wanted:
            kind = "floating-point numbers" if wanted.is_floating_point else str(wanted).removeprefix("torch.")
            raise UserError(
                f"{source}: {name} is of {str(tensor.dtype).removeprefix('torch.')}, but must be of {kind}."
            )
        if wanted.is_floating_point and not tensor.to(wanted).isfinite().all():
            raise UserError(f"{source}: {name} holds numbers that are not finite (NaN or infinite).")
