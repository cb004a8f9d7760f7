"""Tokenizers of Hugging Face folders: tokenizer.json, or the older vocabulary files through transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from ssl_suite.core.errors import UserError
from ssl_suite.encoders.hub.files import first_line
from ssl_suite.encoders.tokenizer import ROLES, load_tokenizer

VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *VOCABULARIES,
)
NAMES = {"pad_token": "pad", "cls_token": "start", "sep_token": "end", "mask_token": "mask"}
"""transformers' name of a role → ours."""


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, with neither padding nor truncation; None where it has no files of one.

    Raises:
        UserError: they are damaged, or need transformers and it is not installed.
    """
    if (folder / "tokenizer.json").exists():
        tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
    elif any((folder / name).exists() for name in VOCABULARIES):
        tokenizer = convert(folder)
    else:
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def convert(folder: Path) -> Tokenizer:
    """Builds the fast tokenizer of a folder that has only vocab.txt, vocab.json and merges.txt, or spiece.model."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(
            f"{folder} has no tokenizer.json; `pip install ssl_suite[hub]` brings what makes one from its vocabulary."
        ) from None
    try:
        return AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    except Exception as error:  # whatever a vocabulary file of another kind raises
        raise UserError(f"{folder}: no tokenizer can be made of its vocabulary files ({first_line(error)}).") from None


def table_size(tokenizer: Tokenizer) -> int:
    """Rows a word embedding needs for every id of the tokenizer."""
    return max(tokenizer.get_vocab().values()) + 1


def write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int, causal: bool, segments: bool) -> None:
    """Writes tokenizer.json and tokenizer_config.json, for transformers' AutoTokenizer.

    Of a causal encoder, a text is given without its end, so that `generate` goes on from it.
    """
    if causal:
        tokenizer = without_end(tokenizer)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    }
    for theirs, role in NAMES.items():
        if (name := role_token(tokenizer, role)) is not None:
            config[theirs] = name
    if causal:
        config["bos_token"], config["eos_token"] = config.pop("cls_token", None), config.pop("sep_token", None)
    if (unknown := getattr(tokenizer.model, "unk_token", None)) is not None:
        config["unk_token"] = unknown
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def without_end(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, but without the end token behind a text that it puts between start and end."""
    start, end = role_token(tokenizer, "start"), role_token(tokenizer, "end")
    added = tokenizer.encode("").tokens
    if start is None or end is None or added != [start, end]:
        return tokenizer
    other = Tokenizer.from_str(tokenizer.to_str())
    special = [(start, tokenizer.token_to_id(start))]
    other.post_processor = processors.TemplateProcessing(f"{start} $A", f"{start} $A $B", special)
    return other


def role_token(tokenizer: Tokenizer, role: str) -> str | None:
    """Name of the token that plays a role, if there is one."""
    return next((name for name in ROLES[role] if tokenizer.token_to_id(name) is not None), None)
