"""An encoder of text or speech → a Hugging Face folder that transformers loads: `ssl-suite export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import replacing
from ssl_suite.core.weights import write_weights
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.hub.families import (
    ALBERT,
    BERT,
    BIG_BIRD,
    ELECTRA,
    FAMILIES,
    GPT2,
    MODERNBERT,
    POSITIONS_BEFORE,
    ROBERTA,
    Family,
    head_counterparts,
    trunk_counterparts,
)
from ssl_suite.encoders.hub.seq2seq import Seq2SeqFamily, seq2seq_family, write_seq2seq
from ssl_suite.encoders.hub.speech import SPEECH_FAMILIES, speech_family, write_speech
from ssl_suite.encoders.hub.tokenizer import role_token, table_size, write_tokenizer
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import ROLES, token_id

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}
"""Ours → theirs."""
PLAIN = {"shared": False, "attention": "full", "bias": True, "rms_norm": False}
"""What a family is that does not say otherwise."""


def export_encoder(encoder: Encoder, folder: Path, family: str | None = None) -> Family | Seq2SeqFamily:
    """Writes config.json, model.safetensors, and the tokenizer's files or the preprocessor's.

    Args:
        encoder: one that one of the `FAMILIES`, `SEQ2SEQ_FAMILIES` or `SPEECH_FAMILIES` can express.
        folder: to write; must be new or empty.
        family: bert, roberta, albert, big_bird, electra, modernbert or gpt2; t5 or bart; wav2vec2, hubert, wavlm or
            data2vec-audio; by default what the encoder looks like.

    Returns:
        The family it was written as.

    Raises:
        UserError: no family expresses the encoder, or the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; export into a new folder.")
    if isinstance(encoder, EncoderDecoder):
        pair = seq2seq_family(encoder, family)
        with replacing(folder, ours=lambda _: False) as temporary:
            temporary.mkdir()
            write_seq2seq(encoder, pair, temporary)
        return pair
    if not isinstance(encoder, TextEncoder | SpeechEncoder):
        kind = type(encoder).__name__
        raise UserError(f"Only encoders of text and waveforms are written for transformers; {kind} is neither.")
    known = FAMILIES if isinstance(encoder, TextEncoder) else SPEECH_FAMILIES
    if family is not None and family not in known:
        raise UserError(f"{family} is no family of {encoder.modality} encoders; those are {', '.join(known)}.")
    if isinstance(encoder, SpeechEncoder):
        chosen = speech_family(encoder, family)
        with replacing(folder, ours=lambda _: False) as temporary:
            temporary.mkdir()
            write_speech(encoder, chosen, temporary)
        return chosen
    chosen = family_of(encoder) if family is None else FAMILIES[family]
    check_expressible(encoder, chosen)
    with replacing(folder, ours=lambda _: False) as temporary:
        temporary.mkdir()
        write_text(encoder, chosen, temporary)
    return chosen


def write_text(encoder: TextEncoder, family: Family, folder: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files."""
    vocabulary = encoder.tokens.num_embeddings
    if family is GPT2 and encoder.tokenizer is not None and (size := table_size(encoder.tokenizer)) < vocabulary:
        rank_zero_info(f"The last {vocabulary - size} rows of the word embedding belong to no token and are cut.")
        vocabulary = size
    heads = [h for h in family.heads if all(e.ours in encoder.heads for e in head_counterparts(family, h))]
    weights = write_names(encoder, family, heads, vocabulary)
    write_weights(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.dumps(write_config(encoder, family, heads, vocabulary), indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")
    if encoder.tokenizer is not None:
        segments = family not in (ROBERTA, GPT2, MODERNBERT)
        write_tokenizer(encoder.tokenizer, folder, encoder.max_length, family is GPT2, segments)


def family_of(encoder: TextEncoder) -> Family:
    """The family whose shape an encoder has; RoBERTa, which differs from BERT by its tokens only, is known by them."""
    config = encoder.trunk.config
    if config.causal:
        return GPT2
    if config.attention != "full":
        return MODERNBERT if config.attention == "local" else BIG_BIRD
    if config.shared:
        return ALBERT
    if encoder.project is not None or "discriminator.dense.weight" in encoder.heads:
        return ELECTRA
    named_so = encoder.tokenizer is not None and role_token(encoder.tokenizer, "start") == "<s>"
    return ROBERTA if named_so or POSITIONS_BEFORE in encoder.heads else BERT


def check_expressible(encoder: TextEncoder, family: Family) -> None:
    """Raises UserError naming all that a family cannot say of this encoder."""
    trunk = encoder.trunk.config
    has = vars(trunk) | {"embedding_norm": not isinstance(encoder.embedding_norm, nn.Identity)}
    wanted = PLAIN | {"embedding_norm": trunk.norm == "post"} | family.fixed
    wrong = [f"{k}: {has[k]} (not {v})" for k, v in wanted.items() if has[k] != v and k not in family.keys]
    if family is BIG_BIRD and trunk.attention == "local":
        wrong.append("attention: local")
    activations = [family.activation] if family.activation else ACTIVATIONS
    if "activation" not in family.fixed and trunk.activation not in activations:
        wrong.append(f"activation: {trunk.activation}")
    width = encoder.config.get("embedding_dim")
    if family.mapped not in (None, width is not None) or (family is ELECTRA and width == encoder.dim):
        wrong.append(f"embedding_dim: {width}")
    if encoder.segments is not None and "segments.weight" not in family.tensors:
        wrong.append("segments (it has none)")
    if wrong:
        raise UserError(f"transformers' {family.model_type} cannot express this encoder: {'; '.join(wrong)}.")


def positions_before(encoder: TextEncoder) -> Tensor:
    """Rows of RoBERTa's position table before its first token's: those that came with it, else zeros."""
    if (kept := encoder.heads.get(POSITIONS_BEFORE)) is not None:
        return kept
    pad = 1 if encoder.tokenizer is None else token_id(encoder.tokenizer, "pad")
    return torch.zeros(pad + 1, encoder.tokens.embedding_dim)


def write_names(encoder: TextEncoder, family: Family, heads: list[str], vocabulary: int) -> dict[str, Tensor]:
    """Every weight under the family's name; what is tied to the word embedding is not written twice."""
    weights = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    weights["tokens.weight"] = weights["tokens.weight"][:vocabulary]
    if "segments.weight" not in weights:  # the family adds one; adding zero changes nothing
        weights["segments.weight"] = torch.zeros(segment_types(encoder, family), encoder.tokens.embedding_dim)
    if family is ROBERTA:
        weights["positions.weight"] = torch.cat([positions_before(encoder).cpu(), weights["positions.weight"]])
    trunk: dict[str, Tensor] = {}
    for entry in trunk_counterparts(family, len(encoder.trunk.blocks)):
        if entry.ours in weights:
            trunk |= entry.write(weights[entry.ours])
    above: dict[str, Tensor] = {}
    for head in heads:
        for entry in head_counterparts(family, head):
            (trunk if entry.theirs[0].startswith("pooler.") else above).update(entry.write(encoder.heads[entry.ours]))
    prefix = family.prefix if above or family is GPT2 else ""
    return {f"{prefix}{name}": tensor for name, tensor in trunk.items()} | above


def segment_types(encoder: TextEncoder, family: Family) -> int:
    if encoder.segments is not None:
        return encoder.segments.num_embeddings
    return 1 if family is ROBERTA else 2


def write_config(encoder: TextEncoder, family: Family, heads: list[str], vocabulary: int) -> dict[str, Any]:
    """What config.json says."""
    trunk = encoder.trunk.config
    ours = vars(trunk) | {
        "vocab_size": vocabulary,
        "max_length": encoder.max_length,
        "ffn": trunk.hidden,
        "segments": segment_types(encoder, family),
        "activation": ACTIVATIONS.get(trunk.activation, "gelu"),
        "embedding_dim": encoder.tokens.embedding_dim,
    }
    tokenizer = encoder.tokenizer
    ids = {role: tokenizer.token_to_id(role_token(tokenizer, role) or "") for role in ROLES} if tokenizer else {}
    config = {
        "architectures": [next(name for head, name in family.architectures if not head or head in heads)],
        "model_type": family.model_type,
        **{theirs: ours[name] for name, (theirs, _) in family.keys.items()},
        **dict.fromkeys(family.dropouts, trunk.dropout),
        **family.expected,
        "pad_token_id": ids.get("pad", 0),
        "bos_token_id": ids.get("start"),
        "eos_token_id": ids.get("end"),
        "dtype": str(encoder.tokens.weight.dtype).removeprefix("torch."),
    }
    if family is ROBERTA:
        before = len(positions_before(encoder))
        config["max_position_embeddings"] += before
        config["pad_token_id"] = before - 1
    return family.nested(config)
