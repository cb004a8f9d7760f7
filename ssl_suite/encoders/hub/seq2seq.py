"""T5 and BART: a Hugging Face folder → EncoderDecoder, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.arguments import build, check_types
from ssl_suite.core.errors import UserError
from ssl_suite.core.weights import load_strictly, write_weights
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.feed_forward import GATES
from ssl_suite.encoders.hub.families import Counterpart, Names
from ssl_suite.encoders.hub.files import check_expected, check_taken, check_there, read_tensors, tell_left
from ssl_suite.encoders.hub.tokenizer import read_tokenizer, role_token, table_size, write_tokenizer

BEFORE = "positions.before"
"""End of the names of the two rows of BART's position tables that no token uses: kept with the heads."""
OFFSET = 2
"""How many those are."""


@dataclass(frozen=True)
class Seq2SeqFamily:
    """How an architecture is written in a Hugging Face folder.

    Args:
        model_type: its name in config.json.
        architecture: transformers' class.
        keys: our argument → their key and the value that a config.json without it means.
        same: their further keys that say the same, or our one number.
        expected: their key → the one value we can express.
        activations: theirs → ours.
        prefix: of all names of the two stacks, `{side}` standing for `encoder` or `decoder`.
        block: of block {i} after that.
        attention: names of one attention's projections and of its output.
        inner: {cross} → modules of a block, without and with attention on the memory; norms, attentions, feed-forward.
        outside: modules of a stack outside its blocks.
        gated: names of the two parts of a gated layer.
        words: name of the word embedding.
        tied: ends of names that may repeat it.
    """

    model_type: str
    architecture: str
    keys: dict[str, tuple[str, Any]]
    same: dict[str, str]
    expected: dict[str, Any]
    activations: dict[str, str]
    prefix: str
    block: str
    attention: tuple[str, str, str, str]
    inner: dict[bool, Names]
    outside: Names
    gated: tuple[str, str]
    words: str
    tied: tuple[str, ...] = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


T5 = Seq2SeqFamily(
    model_type="t5",
    architecture="T5ForConditionalGeneration",
    keys={
        "vocab_size": ("vocab_size", 32128),
        "dim": ("d_model", 512),
        "layers": ("num_layers", 6),
        "decoder_layers": ("num_decoder_layers", None),
        "heads": ("num_heads", 8),
        "head_dim": ("d_kv", 64),
        "ffn": ("d_ff", 2048),
        "activation": ("feed_forward_proj", "relu"),
        "buckets": ("relative_attention_num_buckets", 32),
        "reach": ("relative_attention_max_distance", 128),
        "dropout": ("dropout_rate", 0.1),
        "eps": ("layer_norm_epsilon", 1e-6),
        "start_id": ("decoder_start_token_id", 0),
    },
    same={},
    expected={"is_encoder_decoder": True},
    activations={"relu": "relu", "gated-gelu": "geglu_tanh", "gelu": "gelu", "gelu_new": "gelu_tanh"},
    prefix="{side}.",
    block="block.{i}.layer.",
    attention=("q", "k", "v", "o"),
    inner={
        False: {
            "norm1": "0.layer_norm",
            "attention": "0.SelfAttention",
            "norm2": "1.layer_norm",
            "feed_forward.up": "1.DenseReluDense.wi",
            "feed_forward.down": "1.DenseReluDense.wo",
        },
        True: {
            "norm1": "0.layer_norm",
            "attention": "0.SelfAttention",
            "norm_cross": "1.layer_norm",
            "cross": "1.EncDecAttention",
            "norm2": "2.layer_norm",
            "feed_forward.up": "2.DenseReluDense.wi",
            "feed_forward.down": "2.DenseReluDense.wo",
        },
    },
    outside={"norm": "final_layer_norm", "distances.table": "block.0.layer.0.SelfAttention.relative_attention_bias"},
    gated=("_0", "_1"),
    words="shared.weight",
)
_BART_BLOCK = {
    "norm1": "self_attn_layer_norm",
    "attention": "self_attn",
    "norm2": "final_layer_norm",
    "feed_forward.up": "fc1",
    "feed_forward.down": "fc2",
}
BART = Seq2SeqFamily(
    model_type="bart",
    architecture="BartForConditionalGeneration",
    keys={
        "vocab_size": ("vocab_size", 50265),
        "dim": ("d_model", 1024),
        "layers": ("encoder_layers", 12),
        "decoder_layers": ("decoder_layers", 12),
        "heads": ("encoder_attention_heads", 16),
        "ffn": ("encoder_ffn_dim", 4096),
        "activation": ("activation_function", "gelu"),
        "max_length": ("max_position_embeddings", 1024),
        "dropout": ("dropout", 0.1),
        "start_id": ("decoder_start_token_id", 2),
    },
    same={"decoder_attention_heads": "heads", "decoder_ffn_dim": "ffn"},
    expected={"scale_embedding": False, "is_encoder_decoder": True, "tie_word_embeddings": True},
    activations={"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh"},
    prefix="model.{side}.",
    block="layers.{i}.",
    attention=("q_proj", "k_proj", "v_proj", "out_proj"),
    inner={
        False: _BART_BLOCK,
        True: _BART_BLOCK | {"norm_cross": "encoder_attn_layer_norm", "cross": "encoder_attn"},
    },
    outside={},
    gated=("", ""),
    words="model.shared.weight",
)
SEQ2SEQ_FAMILIES = {family.model_type: family for family in (T5, BART)}


def counterparts(encoder: EncoderDecoder, family: Seq2SeqFamily) -> Iterator[Counterpart]:
    """Every tensor of an encoder–decoder, as it is written in their file."""
    kinds = ("weight",) if family is T5 else ("weight", "bias")
    yield Counterpart("tokens.weight", (family.words,))
    if encoder.output is not None:
        yield Counterpart("output.weight", ("lm_head.weight",))
    for side in ("encoder", "decoder"):
        theirs, stack = family.prefix.format(side=side), encoder.get_submodule(side)
        for ours, name in family.outside.items():
            yield Counterpart(f"{side}.{ours}.weight", (f"{theirs}{name}.weight",))
        if family is BART:
            own = "" if side == "encoder" else "decoder_"
            yield Counterpart(f"{own}positions.weight", (f"{theirs}embed_positions.weight",))
            for kind in kinds:
                yield Counterpart(f"{own}embedding_norm.{kind}", (f"{theirs}layernorm_embedding.{kind}",))
        for i in range(len(stack.blocks)):  # type: ignore[arg-type]
            for kind in kinds:
                place, ours = theirs + family.block.format(i=i), f"{side}.blocks.{i}."
                for part, name in family.inner[side == "decoder"].items():
                    for own_name, names in _tensors(part, name, family, encoder.config["activation"]):
                        yield Counterpart(f"{ours}{own_name}.{kind}", tuple(f"{place}{n}.{kind}" for n in names))


def _tensors(part: str, name: str, family: Seq2SeqFamily, activation: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our names of a part of a block, each with theirs that are joined in it."""
    q, k, v, out = (f"{name}.{p}" for p in family.attention)
    if part == "attention":
        yield from (("attention.qkv", (q, k, v)), ("attention.out", (out,)))
    elif part == "cross":
        yield from (("cross.q", (q,)), ("cross.kv", (k, v)), ("cross.out", (out,)))
    elif part == "feed_forward.up" and activation in GATES:
        yield part, tuple(f"{name}{end}" for end in family.gated)
    else:
        yield part, (name,)


def load_seq2seq(folder: Path, family: Seq2SeqFamily, config: dict[str, Any]) -> EncoderDecoder:
    """Reads a model of one of the `SEQ2SEQ_FAMILIES`, with its tokenizer.

    Raises:
        UserError: it asks for something that ours does not do, or its files do not fit one another.
    """
    source = str(folder / "config.json")
    check_expected(family.expected, config, source)
    arguments = {ours: config.get(theirs, default) for ours, (theirs, default) in family.keys.items()}
    for theirs, ours in family.same.items():
        check_expected({theirs: arguments[ours]}, config, source)
    if (activation := str(arguments["activation"])) not in family.activations:
        can = ", ".join(family.activations)
        raise UserError(f"{source}: {family.keys['activation'][0]} is {activation!r}; only {can} can be read.")
    arguments |= {"activation": family.activations[activation], "shape": family.model_type}
    check_types(EncoderDecoder, arguments, source)
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    arguments["tied"] = family is BART or bool(scaled)
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        rank_zero_warn(f"{folder} has no tokenizer: the ids of another one mean nothing to these weights.")
    elif table_size(tokenizer) > arguments["vocab_size"]:
        raise UserError(f"{folder}: the tokenizer has {table_size(tokenizer)} entries, the weights fewer; take theirs.")
    file = read_tensors(folder)
    _settle_tied(file, family, arguments["tied"], folder)
    encoder: EncoderDecoder = build(EncoderDecoder, arguments, [t.shape for t in file.values()], source)
    wanted = list(counterparts(encoder, family))
    check_there([name for entry in wanted for name in entry.theirs], file, family.model_type, folder)
    weights = {entry.ours: entry.read(file) for entry in wanted}
    for name in [n for n in weights if n.endswith("positions.weight")]:
        encoder.heads[name.replace("positions.weight", BEFORE)] = weights[name][:OFFSET].clone()
        weights[name] = weights[name][OFFSET:]
    check_taken(file, family.model_type, folder)
    load_strictly(encoder, weights, str(folder))
    encoder.tokenizer = tokenizer
    return encoder


def _settle_tied(file: dict[str, Tensor], family: Seq2SeqFamily, tied: bool, folder: Path) -> None:
    """Takes what repeats the word embedding out of a file, or, where another table predicts, puts that in."""
    if family.words not in file:
        embedded = [n for n in file if n.endswith("embed_tokens.weight")]
        check_there(embedded[:1] or [family.words], file, family.model_type, folder)
        file[family.words] = file[embedded[0]]
    for name in [n for n in file if n.endswith(family.tied)]:
        if name == "lm_head.weight" and not tied:
            continue
        if not torch.equal(file.pop(name), file[family.words]):
            raise UserError(f"{folder}: {name} is not the word embedding, as config.json says.")
    if not tied:
        file.setdefault("lm_head.weight", file[family.words].clone())
    bias = file.pop("final_logits_bias", None)
    if bias is not None and bias.count_nonzero():
        raise UserError(f"{folder}: final_logits_bias is not zero; logits have no bias here.")
    unused = [n for n in file if n.endswith("EncDecAttention.relative_attention_bias.weight")]
    for name in unused:
        del file[name]
    tell_left(folder, unused)


def seq2seq_family(encoder: EncoderDecoder, name: str | None) -> Seq2SeqFamily:
    """The family an encoder–decoder has the shape of; raises UserError where it is not the one that is named."""
    family = SEQ2SEQ_FAMILIES[str(encoder.config["shape"])]
    if name not in (None, family.model_type):
        raise UserError(f"This encoder has the shape of {family.model_type}, not of {name}.")
    if encoder.config["activation"] not in family.activations.values():
        raise UserError(f"transformers' {family.model_type} has no activation {encoder.config['activation']}.")
    if family is BART and not encoder.config["tied"]:
        raise UserError("transformers' bart predicts by its word embedding; this encoder (tied: false) does not.")
    c = encoder.encoder.config
    if family is BART and (c.heads * c.head_dim != c.dim or c.eps != 1e-5):
        raise UserError("transformers' bart has heads of width dim / heads and eps 1e-5; this encoder has others.")
    return family


def write_seq2seq(encoder: EncoderDecoder, family: Seq2SeqFamily, folder: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files."""
    own = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    for name in [n for n in own if n.endswith("positions.weight")]:
        before = encoder.heads.get(name.replace("positions.weight", BEFORE), torch.zeros(OFFSET, encoder.dim))
        own[name] = torch.cat([before.cpu(), own[name]])
    weights: dict[str, Tensor] = {}
    for entry in counterparts(encoder, family):
        weights |= entry.write(own[entry.ours])
    if family is BART:
        weights["final_logits_bias"] = torch.zeros(1, encoder.tokens.num_embeddings)
    write_weights(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(encoder, family), indent=2), encoding="utf-8")
    if encoder.tokenizer is not None:
        write_tokenizer(encoder.tokenizer, folder, encoder.max_length, causal=False, segments=False)


def _config(encoder: EncoderDecoder, family: Seq2SeqFamily) -> dict[str, Any]:
    """What config.json says."""
    stack, tokenizer = encoder.encoder.config, encoder.tokenizer
    ours = encoder.config | {
        "decoder_layers": encoder.decoder.config.layers,
        "head_dim": stack.head_dim,
        "ffn": stack.ffn,
        "eps": stack.eps,
        "activation": next(t for t, o in family.activations.items() if o == encoder.config["activation"]),
    }
    ids = {"pad": 0, "end": 1} if family is T5 else {"pad": 1, "start": 0, "end": 2}
    for role in ("pad", "start", "end") if tokenizer else ():
        ids[role] = tokenizer.token_to_id(role_token(tokenizer, role) or "")
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{theirs: ours[name] for name, (theirs, _) in family.keys.items()},
        **{theirs: ours[name] for theirs, name in family.same.items()},
        **family.expected,
        "tie_word_embeddings": encoder.output is None,
        "pad_token_id": ids["pad"],
        "bos_token_id": ids.get("start"),
        "eos_token_id": ids["end"],
        "dtype": str(encoder.tokens.weight.dtype).removeprefix("torch."),
    }
