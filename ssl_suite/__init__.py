"""ssl_suite: self-supervised learning on text, images and speech through one interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_suite.core.encoder import Encoder

__version__ = "0.1.0"


def load(source: str | Path) -> Encoder:
    """Returns the encoder of a folder or URI (`timm:resnet50`, `hf:gpt2`, `random:FOLDER`).

    Raises:
        UserError: there is none, or its files are damaged.
    """
    from ssl_suite.core.load import load_encoder

    return load_encoder(source)
