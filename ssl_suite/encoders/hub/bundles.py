"""torchaudio's pipelines of wav2vec 2.0, HuBERT and WavLM → SpeechEncoder: `torchaudio:HUBERT_BASE`."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchaudio import pipelines

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.encoders.frontend import Waveform
from ssl_suite.encoders.hub.files import first_line, renewed, tell_left
from ssl_suite.encoders.hub.speech import HUBERT, WAVLM, filled
from ssl_suite.encoders.speech import SpeechEncoder

KEYS = {
    "extractor_conv_bias": "conv_bias",
    "encoder_embed_dim": "dim",
    "encoder_pos_conv_kernel": "position_kernel",
    "encoder_pos_conv_groups": "position_groups",
    "encoder_num_layers": "layers",
    "encoder_num_heads": "heads",
    "encoder_ff_interm_features": "ffn",
    "encoder_dropout": "dropout",
    "encoder_layer_drop": "layer_drop",
    "encoder_num_buckets": "buckets",
    "encoder_max_distance": "reach",
}
"""Theirs → ours."""
NAMES = (
    ("encoder.transformer.", "encoder."),
    ("encoder.feature_projection.", "feature_projection."),
    ("attention.attention.", "attention."),
)
"""Parts of torchaudio's names and what transformers has for them."""


def load_bundle(name: str) -> SpeechEncoder:
    """Reads a pipeline's weights, fetched once into PyTorch's cache; a head for transcripts is left, and named.

    Args:
        name: of the pipeline, `HUBERT_BASE`.

    Raises:
        UserError: torchaudio has none of that name, or its weights are not to be had.
    """
    known = {n: b for n in dir(pipelines) if isinstance(b := getattr(pipelines, n), pipelines.Wav2Vec2Bundle)}
    if name not in known:
        raise UserError(f"torchaudio has no pipeline {name!r} of speech encoders.{nearest(name, known)}")
    bundle = known[name]
    try:
        file = bundle._get_state_dict({"map_location": "cpu", "weights_only": True})
    except Exception as error:  # no network, a damaged file, no room: many classes
        raise UserError(f"torchaudio:{name} is not to be had ({first_line(error)}).") from None
    source = f"torchaudio:{name}"
    tell_left(source, [n for n in file if n.startswith("aux.")])
    encoder = filled(
        WAVLM if bundle._model_type == "WavLM" else HUBERT,
        read_parameters(bundle._params, source) | {"normalize": bundle._normalize_waveform},
        read_names({n: t for n, t in file.items() if not n.startswith("aux.")}),
        source,
    )
    encoder.check()
    return encoder


def read_parameters(parameters: dict[str, Any], source: str) -> dict[str, Any]:
    """Arguments of torchaudio's factory → those of our encoder, but `normalize`.

    Raises:
        UserError: the convolutions are others than ours.
    """
    shapes = parameters["extractor_conv_layer_config"]
    width = shapes[0][0]
    if shapes != [(width, k, s) for k, s in zip(Waveform.kernels, Waveform.strides, strict=True)]:
        raise UserError(f"{source}: its convolutions are {shapes}; none but those of wav2vec 2.0 can be read.")
    return {
        "frontend": "waveform",
        "trunk": "transformer",
        "channels": width,
        "conv_norm": parameters["extractor_mode"].removesuffix("_norm"),
        "norm": "pre" if parameters["encoder_layer_norm_first"] else "post",
        **{ours: parameters[theirs] for theirs, ours in KEYS.items() if theirs in parameters},
    }


def read_names(file: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchaudio's names → transformers'; queries, keys and values of WavLM's lie in one tensor."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in file.items():
        for theirs, new in NAMES:
            name = name.replace(theirs, new)
        head, projection, kind = renewed(name).partition("in_proj_")
        if projection:
            tensors |= dict(zip((f"{head}{x}_proj.{kind}" for x in "qkv"), tensor.chunk(3), strict=True))
        else:
            tensors[head] = tensor
    return tensors
