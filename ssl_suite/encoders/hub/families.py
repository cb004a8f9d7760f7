"""Families of the Hugging Face hub: for each a table of configuration keys and one of weight names, used both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssl_suite.encoders.hub.big_bird import flat_big_bird, nested_big_bird
from ssl_suite.encoders.hub.modernbert import flat_modernbert, nested_modernbert

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python": "gelu"}
"""Theirs → ours; transformers' other names are not in these families."""

Names = dict[str, str]
"""Ours → theirs, of modules (each with a weight and a bias) or of single tensors."""


@dataclass(frozen=True)
class Family:
    """How an architecture is written in a Hugging Face folder.

    Args:
        model_type: its name in config.json.
        prefix: of the trunk's names in a file that also holds a head.
        keys: our argument → their key and the value that a config.json without it means.
        fixed: our arguments that are the same in the whole family.
        expected: their key → the one value we can express.
        tensors: single tensors of the trunk.
        modules: modules of the trunk outside its blocks.
        block: name of block {i}.
        inner: modules of a block.
        qkv: names of the query, key and value projections in a block, or of the one that holds all three.
        transposed: weights of a block's linear layers are (in, out), as in GPT-2's Conv1D.
        heads: each head's modules, and its vocabulary's bias; named as the methods name them, see `Encoder.heads`.
            A head is there whole or not at all, and the first to claim a name has it.
        tied: names that repeat another's weights; never written.
        architectures: (our head, transformers' class), the first whose head is there names the file's model.
        dropouts: their further dropout rates; ours is one.
        activation: the only one allowed where a head has its own, whatever the config says.
        mapped: whether embeddings are mapped to the trunk's width; None for either.
        biased: whether linear layers and norms have biases; a vocabulary's own bias is apart.
        flat: makes their configuration one of `keys`, where some value of ours is not under a key of its own.
        nested: makes a configuration of `keys` theirs again.
    """

    model_type: str
    prefix: str
    keys: dict[str, tuple[str, Any]]
    fixed: dict[str, Any]
    expected: dict[str, Any]
    tensors: Names
    modules: Names
    block: str
    inner: Names
    qkv: tuple[str, ...]
    heads: dict[str, Names]
    tied: Names
    architectures: tuple[tuple[str, str], ...]
    dropouts: tuple[str, ...] = ("attention_probs_dropout_prob",)
    transposed: bool = False
    activation: str | None = None
    mapped: bool | None = False
    biased: bool = True
    flat: Callable[[dict[str, Any], str], dict[str, Any]] = lambda config, source: config
    nested: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config


@dataclass(frozen=True)
class Counterpart:
    """One tensor of ours and the tensors of theirs that it is made of, joined along the output dimension."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False

    def read(self, file: dict[str, Tensor]) -> Tensor:
        """Takes their tensors out of `file`."""
        parts = [file.pop(name) for name in self.theirs]
        return torch.cat([part.T if self.transposed else part for part in parts])

    def write(self, tensor: Tensor) -> dict[str, Tensor]:
        parts = tensor.chunk(len(self.theirs))
        return {n: part.T if self.transposed else part for n, part in zip(self.theirs, parts, strict=True)}


def trunk_counterparts(family: Family, layers: int) -> Iterator[Counterpart]:
    """Every tensor of a trunk of so many distinct blocks."""
    for ours, theirs in family.tensors.items():
        yield Counterpart(ours, (theirs,))
    for ours, theirs in family.modules.items():
        yield from _both(ours, theirs, biased=family.biased)
    for i in range(layers):
        block = family.block.format(i=i)
        for kind in ("weight", "bias")[: 1 + family.biased]:
            names = tuple(f"{block}.{name}.{kind}" for name in family.qkv)
            yield Counterpart(f"trunk.blocks.{i}.attention.qkv.{kind}", names, family.transposed and kind == "weight")
        for ours, theirs in family.inner.items():
            linear = not ours.startswith("norm")
            transposed = family.transposed and linear
            yield from _both(f"trunk.blocks.{i}.{ours}", f"{block}.{theirs}", transposed, family.biased)


def head_counterparts(family: Family, head: str) -> list[Counterpart]:
    """Every tensor of one head."""
    entries: list[Counterpart] = []
    for ours, theirs in family.heads[head].items():
        both = _both(f"{head}.{ours}", theirs, biased=family.biased)
        entries += [Counterpart(f"{head}.bias", (theirs,))] if ours == "bias" else both
    return entries


def _both(ours: str, theirs: str, transposed: bool = False, biased: bool = True) -> Iterator[Counterpart]:
    yield Counterpart(f"{ours}.weight", (f"{theirs}.weight",), transposed)
    if biased:
        yield Counterpart(f"{ours}.bias", (f"{theirs}.bias",))


BERT_KEYS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "dim": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "max_length": ("max_position_embeddings", 512),
    "ffn": ("intermediate_size", 3072),
    "dropout": ("hidden_dropout_prob", 0.1),
    "eps": ("layer_norm_eps", 1e-12),
    "segments": ("type_vocab_size", 2),
    "activation": ("hidden_act", "gelu"),
}
BERT_FIXED = {"causal": False, "norm": "post", "positions": "learned"}
BERT_EXPECTED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
}
EMBEDDINGS = {
    "tokens.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "segments.weight": "embeddings.token_type_embeddings.weight",
}
BERT_BLOCK = {
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "norm2": "output.LayerNorm",
}
BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
WORDS = EMBEDDINGS["tokens.weight"]

BERT = Family(
    model_type="bert",
    prefix="bert.",
    keys=BERT_KEYS,
    fixed=BERT_FIXED,
    expected=BERT_EXPECTED,
    tensors=EMBEDDINGS,
    modules={"embedding_norm": "embeddings.LayerNorm"},
    block="encoder.layer.{i}",
    inner=BERT_BLOCK,
    qkv=BERT_QKV,
    heads={
        "head": {
            "dense": "cls.predictions.transform.dense",
            "norm": "cls.predictions.transform.LayerNorm",
            "bias": "cls.predictions.bias",
        },
        "pair_head": {"dense": "pooler.dense", "out": "cls.seq_relationship"},
        "pooler": {"dense": "pooler.dense"},
    },
    tied={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
    architectures=(("pair_head", "BertForPreTraining"), ("head", "BertForMaskedLM"), ("", "BertModel")),
)

ROBERTA = Family(
    model_type="roberta",
    prefix="roberta.",
    keys=BERT_KEYS | {"vocab_size": ("vocab_size", 50265)},
    fixed=BERT_FIXED,
    expected=BERT_EXPECTED,
    tensors=EMBEDDINGS,
    modules={"embedding_norm": "embeddings.LayerNorm"},
    block="encoder.layer.{i}",
    inner=BERT_BLOCK,
    qkv=BERT_QKV,
    heads={
        "head": {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
        "pooler": {"dense": "pooler.dense"},
    },
    tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
    architectures=(("head", "RobertaForMaskedLM"), ("", "RobertaModel")),
    activation="gelu",
)
"""Its positions count from pad_token_id + 1; the rows before that are kept as `positions.before`."""

ALBERT = Family(
    model_type="albert",
    prefix="albert.",
    keys=BERT_KEYS
    | {
        "vocab_size": ("vocab_size", 30000),
        "dim": ("hidden_size", 4096),
        "heads": ("num_attention_heads", 64),
        "ffn": ("intermediate_size", 16384),
        "dropout": ("hidden_dropout_prob", 0.0),
        "activation": ("hidden_act", "gelu_new"),
        "embedding_dim": ("embedding_size", 128),
    },
    fixed=BERT_FIXED | {"shared": True},
    expected=BERT_EXPECTED | {"num_hidden_groups": 1, "inner_group_num": 1},
    tensors=EMBEDDINGS,
    modules={"embedding_norm": "embeddings.LayerNorm", "project": "encoder.embedding_hidden_mapping_in"},
    block="encoder.albert_layer_groups.{i}.albert_layers.0",
    inner={
        "attention.out": "attention.dense",
        "norm1": "attention.LayerNorm",
        "feed_forward.up": "ffn",
        "feed_forward.down": "ffn_output",
        "norm2": "full_layer_layer_norm",
    },
    qkv=("attention.query", "attention.key", "attention.value"),
    heads={
        "head": {"dense": "predictions.dense", "norm": "predictions.LayerNorm", "bias": "predictions.bias"},
        "pair_head": {"dense": "pooler", "out": "sop_classifier.classifier"},
        "pooler": {"dense": "pooler"},
    },
    tied={"predictions.decoder.weight": WORDS, "predictions.decoder.bias": "predictions.bias"},
    architectures=(("pair_head", "AlbertForPreTraining"), ("head", "AlbertForMaskedLM"), ("", "AlbertModel")),
    mapped=True,
)

BIG_BIRD = replace(
    BERT,
    model_type="big_bird",
    keys=BERT_KEYS
    | {
        "vocab_size": ("vocab_size", 50358),
        "max_length": ("max_position_embeddings", 4096),
        "activation": ("hidden_act", "gelu_new"),
        "attention": ("attention_type", "blocks"),
        "window": ("block_size", 64),
        "random_blocks": ("num_random_blocks", 3),
    },
    expected=BERT_EXPECTED | {"use_bias": True, "rescale_embeddings": False},
    heads={
        "head": BERT.heads["head"],
        "pair_head": {"dense": "pooler", "out": "cls.seq_relationship"},
        "pooler": {"dense": "pooler"},
    },
    architectures=(("pair_head", "BigBirdForPreTraining"), ("head", "BigBirdForMaskedLM"), ("", "BigBirdModel")),
    flat=flat_big_bird,
    nested=nested_big_bird,
)
"""States are transformers' own (1e-4) under full attention and of rows of at most 5 + r blocks.

Of longer rows they are where the r drawn blocks are the same, and these cannot be: transformers draws by numpy's
generator while it trains, others at each length, and reads the first block r times more instead when it does not. Its
last block, which all read, is the batch's, ours each row's own; and it reads rows of up to 5 + 2r blocks in full.
"""

ELECTRA = Family(
    model_type="electra",
    prefix="electra.",
    keys=BERT_KEYS
    | {
        "dim": ("hidden_size", 256),
        "heads": ("num_attention_heads", 4),
        "ffn": ("intermediate_size", 1024),
        "embedding_dim": ("embedding_size", 128),
    },
    fixed=BERT_FIXED,
    expected=BERT_EXPECTED,
    tensors=EMBEDDINGS,
    modules={"embedding_norm": "embeddings.LayerNorm", "project": "embeddings_project"},
    block="encoder.layer.{i}",
    inner=BERT_BLOCK,
    qkv=BERT_QKV,
    heads={
        "discriminator": {
            "dense": "discriminator_predictions.dense",
            "out": "discriminator_predictions.dense_prediction",
        },
        "head": {
            "dense": "generator_predictions.dense",
            "norm": "generator_predictions.LayerNorm",
            "bias": "generator_lm_head.bias",
        },
    },
    tied={"generator_lm_head.weight": WORDS},
    architectures=(("discriminator", "ElectraForPreTraining"), ("head", "ElectraForMaskedLM"), ("", "ElectraModel")),
    activation="gelu",
    mapped=None,
)

GPT2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    keys={
        "vocab_size": ("vocab_size", 50257),
        "dim": ("n_embd", 768),
        "layers": ("n_layer", 12),
        "heads": ("n_head", 12),
        "max_length": ("n_positions", 1024),
        "ffn": ("n_inner", None),
        "dropout": ("resid_pdrop", 0.1),
        "eps": ("layer_norm_epsilon", 1e-5),
        "activation": ("activation_function", "gelu_new"),
    },
    fixed={"causal": True, "norm": "pre", "positions": "learned"},
    expected={
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    tensors={"tokens.weight": "wte.weight", "positions.weight": "wpe.weight"},
    modules={"trunk.norm": "ln_f"},
    block="h.{i}",
    inner={
        "attention.out": "attn.c_proj",
        "norm1": "ln_1",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
        "norm2": "ln_2",
    },
    qkv=("attn.c_attn",),
    heads={},
    tied={"lm_head.weight": "wte.weight"},
    architectures=(("", "GPT2LMHeadModel"),),
    dropouts=("embd_pdrop", "attn_pdrop"),
    transposed=True,
)

MODERNBERT = Family(
    model_type="modernbert",
    prefix="model.",
    keys={
        "vocab_size": ("vocab_size", 50368),
        "dim": ("hidden_size", 768),
        "layers": ("num_hidden_layers", 22),
        "heads": ("num_attention_heads", 12),
        "max_length": ("max_position_embeddings", 8192),
        "ffn": ("intermediate_size", 1152),
        "dropout": ("mlp_dropout", 0.0),
        "eps": ("norm_eps", 1e-5),
        "activation": ("hidden_activation", "gelu"),
        "window": ("half_window", 64),
        "global_every": ("global_attn_every_n_layers", 3),
        "rotary_base": ("global_rope_theta", 160000.0),
        "local_rotary_base": ("local_rope_theta", 1e4),
    },
    fixed={
        "causal": False,
        "norm": "pre",
        "positions": "rotary",
        "activation": "geglu",
        "attention": "local",
        "bias": False,
        "embedding_norm": True,
    },
    expected={
        "attention_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "decoder_bias": True,
        "classifier_bias": False,
        "classifier_activation": "gelu",
        "tie_word_embeddings": True,
    },
    tensors={"tokens.weight": "embeddings.tok_embeddings.weight"},
    modules={"embedding_norm": "embeddings.norm", "trunk.norm": "final_norm"},
    block="layers.{i}",
    inner={
        "attention.out": "attn.Wo",
        "norm1": "attn_norm",
        "feed_forward.up": "mlp.Wi",
        "feed_forward.down": "mlp.Wo",
        "norm2": "mlp_norm",
    },
    qkv=("attn.Wqkv",),
    heads={"head": {"dense": "head.dense", "norm": "head.norm", "bias": "decoder.bias"}},
    tied={"decoder.weight": "embeddings.tok_embeddings.weight"},
    architectures=(("head", "ModernBertForMaskedLM"), ("", "ModernBertModel")),
    dropouts=("attention_dropout", "embedding_dropout"),
    activation="gelu",
    biased=False,
    flat=flat_modernbert,
    nested=nested_modernbert,
)
"""Its first block has no norm before the attention: that of the embeddings stands for it."""

FAMILIES = {family.model_type: family for family in (BERT, ROBERTA, ALBERT, BIG_BIRD, ELECTRA, GPT2, MODERNBERT)}
POSITIONS_BEFORE = "positions.before"
"""Rows of RoBERTa's position table that no token uses: kept with the heads, so that a file comes back whole."""
