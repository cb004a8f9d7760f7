"""Encoders: one transformer trunk, text, images (any timm backbone), speech, simple baselines, and those of hubs."""

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.load import add_scheme


def _from_hub(name: str) -> Encoder:
    from ssl_suite.encoders.hub.load import load_hub

    return load_hub(name)


def _from_torchaudio(name: str) -> Encoder:
    from ssl_suite.encoders.hub.bundles import load_bundle

    return load_bundle(name)


add_scheme("hf", _from_hub)
add_scheme("torchaudio", _from_torchaudio)
