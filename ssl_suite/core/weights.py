"""Weights as files keep them: each tensor once, and every name and shape checked when they are copied in."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import check_values
from ssl_suite.core.sharding import identity


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


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: str, given: Iterable[Tensor] = ()) -> None:
    """Copies `weights` in; every name and shape must match, but tied tensors come once.

    Args:
        module: what they are for.
        weights: name → tensor, as `untied` leaves them.
        source: what a message calls them.
        given: tensors of the module that come from elsewhere, such as a word embedding that a head is tied to.

    Raises:
        UserError: lists what is missing, unexpected, or of another shape; or a value that is no weight.
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
    check_values(weights, own, source)
    module.load_state_dict(weights, strict=False)
