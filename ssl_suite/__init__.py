"""ssl_suite: self-supervised learning on text, images and speech through one interface.

`load` and `embed` use an encoder; `Encoder`, `Method`, `Task` and `DataModule` are the bases to subclass.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_suite.core.data import DataModule
    from ssl_suite.core.encoder import Encoder
    from ssl_suite.core.method import Method
    from ssl_suite.core.task import Task

__all__ = ["DataModule", "Encoder", "Method", "Task", "embed", "load"]
__version__ = "0.1.0"

_BASES = {"DataModule": "data", "Encoder": "encoder", "Method": "method", "Task": "task"}


def __getattr__(name: str) -> Any:
    """The bases, imported when they are asked for: `ssl-suite --help` needs no torch."""
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssl_suite.core.{_BASES[name]}"), name)


def load(source: str | Path) -> Encoder:
    """Returns the encoder of a folder or URI (`timm:resnet50`, `hf:gpt2`, `random:FOLDER`).

    Raises:
        UserError: there is none, or its files are damaged.
    """
    from ssl_suite.core.load import load_encoder

    return load_encoder(source)


def embed(
    encoder: Encoder | str | Path,
    inputs: Iterable[Any],
    readout: str = "last",
    batch_size: int = 64,
    image_size: int | None = None,
) -> NDArray[np.float32]:
    """Returns an embedding (N, D) of each input, as `ssl-suite embed` would of a data set with them.

    Inputs are made what the encoder learned from: tokens of its own tokenizer, images of its size, speech of its rate.

    Args:
        encoder: one, which stays on its device; or its folder or URI, for a GPU if there is one.
        inputs: of a text encoder strings; of an image encoder PIL images or paths; of a speech encoder pairs (wave,
            rate) of a one-dimensional array and its samples a second, or paths.
        readout: last, cls, mean or layer:K.
        batch_size: inputs the encoder sees together.
        image_size: side in pixels, instead of the one the encoder learned from.

    Raises:
        UserError: there are no inputs, one is of another kind, or a file cannot be read.
    """
    from ssl_suite.data.embeddings import embed as embed_inputs

    return embed_inputs(encoder, inputs, readout, batch_size, image_size)
