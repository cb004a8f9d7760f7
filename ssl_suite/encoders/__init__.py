"""Encoders: one transformer trunk, text, images (any timm backbone), speech, the simple baselines, and the hub's."""

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.load import add_scheme


def _from_hub(name: str) -> Encoder:
    from ssl_suite.encoders.hub.load import load_hub

    return load_hub(name)


add_scheme("hf", _from_hub)
