"""wav2vec 2.0 and its kin: a Hugging Face folder ↔ SpeechEncoder, by one table of names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.arguments import build, check_types
from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import read_json
from ssl_suite.core.weights import load_strictly, write_weights
from ssl_suite.encoders.frontend import RATE, Waveform
from ssl_suite.encoders.hub.families import Counterpart, Family, trunk_counterparts
from ssl_suite.encoders.hub.files import check_expected, check_taken, check_there, read_tensors, tell_left
from ssl_suite.encoders.speech import SpeechEncoder

PREPROCESSOR = "preprocessor_config.json"
"""What is done to a waveform before a model sees it."""
KEYS: dict[str, tuple[str, Any]] = {
    "dim": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "ffn": ("intermediate_size", 3072),
    "dropout": ("hidden_dropout", 0.1),
    "layer_drop": ("layerdrop", 0.1),
    "conv_bias": ("conv_bias", False),
    "position_groups": ("num_conv_pos_embedding_groups", 16),
}
SINGLE = {"conv_norm": ("feat_extract_norm", "group"), "position_kernel": ("num_conv_pos_embeddings", 128)}
STACKED = {"position_kernel": ("conv_pos_kernel_size", 19), "position_layers": ("num_conv_pos_embeddings", 5)}
BIAS = {"buckets": ("num_buckets", 320), "reach": ("max_bucket_distance", 800)}
SHAPE = {"frontend": "waveform", "trunk": "transformer", "causal": False, "positions": "convolution"}
FIXED = SHAPE | {"feature_norm": True}
EXPECTED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_kernel": list(Waveform.kernels),
    "conv_stride": list(Waveform.strides),
    "add_adapter": False,
    "adapter_attn_dim": None,
}
CONVOLUTION = "feature_extractor.conv_layers.{i}"
MODULES = {
    **{f"frontend.convolutions.{i}": f"{CONVOLUTION.format(i=i)}.conv" for i in range(len(Waveform.kernels))},
    **{f"frontend.norms.{i}": f"{CONVOLUTION.format(i=i)}.layer_norm" for i in range(len(Waveform.kernels))},
    "feature_norm": "feature_projection.layer_norm",
    "project": "feature_projection.projection",
    "norm": "encoder.layer_norm",  # before the blocks where they are post-norm, else behind them
    "trunk.norm": "encoder.layer_norm",
}
POSITIONS = "encoder.pos_conv_embed.conv"
POSITION_TENSORS = {
    "positions.convolutions.0.weight": f"{POSITIONS}.parametrizations.weight.original1",
    "positions.convolutions.0.gain": f"{POSITIONS}.parametrizations.weight.original0",
    "positions.convolutions.0.bias": f"{POSITIONS}.bias",
}
BLOCK = {
    "attention.out": "attention.out_proj",
    "norm1": "layer_norm",
    "feed_forward.up": "feed_forward.intermediate_dense",
    "feed_forward.down": "feed_forward.output_dense",
    "norm2": "final_layer_norm",
}
MASK = "masked_spec_embed"
"""Takes the place of a masked state: a method's, not the encoder's."""


def _family(model_type: str, architecture: str, **changes: Any) -> Family:
    parts: dict[str, Any] = {
        "keys": KEYS | SINGLE,
        "fixed": FIXED | {"buckets": 0, "position_layers": 1},
        "expected": EXPECTED,
        "tensors": POSITION_TENSORS,
        "modules": MODULES,
        "inner": BLOCK,
    }
    return Family(
        model_type=model_type,
        prefix=f"{model_type.replace('-', '_')}.",
        block="encoder.layers.{i}",
        qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        heads={},
        tied={},
        architectures=(("", architecture),),
        dropouts=("activation_dropout", "attention_dropout"),
        **(parts | changes),
    )


WAV2VEC2 = _family("wav2vec2", "Wav2Vec2Model")
HUBERT = _family(
    "hubert",
    "HubertModel",
    keys=KEYS | SINGLE | {"feature_norm": ("feat_proj_layer_norm", True)},
    fixed=SHAPE | {"buckets": 0, "position_layers": 1},
    expected=EXPECTED | {"conv_pos_batch_norm": False},
)
WAVLM = _family(
    "wavlm",
    "WavLMModel",
    keys=KEYS | SINGLE | BIAS,
    fixed=FIXED | {"position_layers": 1},
    tensors=POSITION_TENSORS | {"trunk.bias.table.weight": "encoder.layers.0.attention.rel_attn_embed.weight"},
    inner=BLOCK | {"attention.gate.project": "attention.gru_rel_pos_linear"},
)
DATA2VEC = _family(
    "data2vec-audio",
    "Data2VecAudioModel",
    keys=KEYS | STACKED,
    fixed=FIXED | {"buckets": 0, "norm": "post", "conv_norm": "layer"},
    tensors={},
)
SPEECH_FAMILIES = {family.model_type: family for family in (WAV2VEC2, HUBERT, WAVLM, DATA2VEC)}


def load_speech(folder: Path, family: Family, config: dict[str, Any]) -> SpeechEncoder:
    """Reads a model of one of the `SPEECH_FAMILIES`; heads are left, and named.

    Args:
        folder: with its weights and `PREPROCESSOR`.
        family: that its config.json names.
        config: what is in that file.

    Raises:
        UserError: its weights do not fit its configuration, or that asks for what our encoder does not do.
    """
    arguments = read_arguments(family, config, str(folder / "config.json")) | {"normalize": asks_to_normalize(folder)}
    file = read_tensors(folder)
    if any(name.startswith(family.prefix) for name in file):
        tell_left(folder, [name for name in file if not name.startswith(family.prefix)])
        file = {n.removeprefix(family.prefix): t for n, t in file.items() if n.startswith(family.prefix)}
    return filled(family, arguments, file, str(folder / "config.json"))


def filled(family: Family, arguments: dict[str, Any], file: dict[str, Tensor], source: str) -> SpeechEncoder:
    """The encoder of these arguments with a file's tensors, each of which must be accounted for.

    Args:
        family: whose names the file has.
        arguments: of the encoder.
        file: name → tensor of the trunk alone.
        source: what a message calls it.
    """
    encoder: SpeechEncoder = build(SpeechEncoder, arguments, [t.shape for t in file.values()], source)
    file.pop(MASK, None)
    wanted = list(counterparts(encoder, family))
    check_there([name for entry in wanted for name in entry.theirs], file, family.model_type, source)
    weights = {entry.ours: entry.read(file) for entry in wanted}
    check_taken(file, family.model_type, source)
    load_strictly(encoder, weights, source)
    return encoder


def counterparts(encoder: SpeechEncoder, family: Family) -> Iterator[Counterpart]:
    """Every tensor of the encoder and those of theirs that it is made of."""
    layers, own = len(encoder.blocks()), encoder.state_dict()
    yield from (entry for entry in trunk_counterparts(family, layers) if entry.ours in own)
    for i in range(layers if family is WAVLM else 0):
        block = family.block.format(i=i)
        yield Counterpart(f"trunk.blocks.{i}.attention.gate.weight", (f"{block}.attention.gru_rel_pos_const",))
    for i in range(encoder.config["position_layers"] if family is DATA2VEC else 0):
        for kind in ("weight", "bias"):
            theirs = f"encoder.pos_conv_embed.layers.{i}.conv.{kind}"
            yield Counterpart(f"positions.convolutions.{i}.{kind}", (theirs,))


def read_arguments(family: Family, config: dict[str, Any], source: str) -> dict[str, Any]:
    """Constructor arguments of the encoder that a config.json describes, but `normalize`.

    Raises:
        UserError: it asks for something that our encoder does not do.
    """
    check_expected(family.expected, config, source)
    arguments = {ours: config.get(theirs, default) for ours, (theirs, default) in family.keys.items()}
    widths = config.get("conv_dim", [512] * len(Waveform.kernels))
    if not isinstance(widths, list) or len(widths) != len(Waveform.kernels) or any(w != widths[0] for w in widths):
        raise UserError(f"{source}: conv_dim is {widths!r}; only {len(Waveform.kernels)} equal widths can be read.")
    arguments |= {"channels": widths[0], "norm": "pre" if config.get("do_stable_layer_norm") else "post"}
    arguments |= family.fixed
    if family is DATA2VEC and arguments["position_layers"] == 1:
        raise UserError(f"{source}: num_conv_pos_embeddings is 1; only several convolutions can be read.")
    check_types(SpeechEncoder, arguments, source)
    return arguments


def asks_to_normalize(folder: Path) -> bool:
    """Whether a waveform is to have mean 0 and variance 1: what the checkpoint says, or that it does not say."""
    if not (folder / PREPROCESSOR).exists():
        rank_zero_warn(f"{folder} has no {PREPROCESSOR}: waveforms are taken as they are, not normalised.")
        return False
    asked = read_json(folder / PREPROCESSOR, "a Hugging Face folder")
    if (rate := asked.get("sampling_rate", RATE)) != RATE:
        raise UserError(f"{folder / PREPROCESSOR}: sampling_rate is {rate!r}; only {RATE} can be read.")
    normalize = asked.get("do_normalize", True)  # as transformers reads a file without it
    if not isinstance(normalize, bool):
        raise UserError(f"{folder / PREPROCESSOR}: do_normalize is {normalize!r}, but must be true or false.")
    return normalize


def write_speech(encoder: SpeechEncoder, family: Family, folder: Path) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json.

    A masked state's embedding belongs to a method: none is written, and `mask_time_prob` 0 says so.
    """
    own = encoder.config
    weights = encoder.state_dict()
    file: dict[str, Tensor] = {}
    for entry in counterparts(encoder, family):
        file |= entry.write(weights[entry.ours])
    write_weights(file, folder / "model.safetensors", {"format": "pt"})
    ours = own | {"ffn": own["ffn"] or 4 * encoder.dim}
    config = {
        "architectures": [name for _, name in family.architectures],
        "model_type": family.model_type,
        **{theirs: ours[name] for name, (theirs, _) in family.keys.items()},
        **dict.fromkeys(family.dropouts, own["dropout"]),
        **family.expected,
        "conv_dim": [own["channels"]] * len(Waveform.kernels),
        "do_stable_layer_norm": own["norm"] == "pre",
        "mask_time_prob": 0.0,
        "dtype": str(next(encoder.parameters()).dtype).removeprefix("torch."),
    }
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": RATE,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": own["normalize"],
        "return_attention_mask": own["conv_norm"] == "layer",  # as transformers' own: theirs of groups sees padding
    }
    for name, value in (("config.json", config), (PREPROCESSOR, preprocessor)):
        (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")


def speech_family(encoder: SpeechEncoder, name: str | None) -> Family:
    """The family of this name, or the one whose shape an encoder has; HuBERT's is wav2vec 2.0's.

    Raises:
        UserError: it cannot say all that the encoder is.
    """
    own = encoder.config
    looks = WAVLM if own["buckets"] else DATA2VEC if own["position_layers"] > 1 else WAV2VEC2
    family = looks if name is None else SPEECH_FAMILIES[name]
    wrong = [f"{key}: {own[key]} (not {value})" for key, value in family.fixed.items() if own[key] != value]
    wrong += [f"{key}: {own[key]}" for key, least in (("buckets", 1), ("position_layers", 2))
              if key in family.keys and own[key] < least]  # fmt: skip
    if wrong:
        raise UserError(f"transformers' {family.model_type} cannot express this encoder: {'; '.join(wrong)}.")
    return family
