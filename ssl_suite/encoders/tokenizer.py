"""Tokenizers: trained with the `tokenizers` library, kept beside the encoder they belong to."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ssl_suite.core.errors import UserError
from ssl_suite.encoders.vocabulary import learn_characters, learn_unigram, learn_wordpiece

Kind = Literal["wordpiece", "bpe", "unigram", "char", "byte"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROLES = {
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "start": ("[CLS]", "<s>", "<|endoftext|>"),
    "end": ("[SEP]", "</s>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What a special token is called in BERT's, RoBERTa's and GPT-2's vocabularies."""


def token_id(tokenizer: Tokenizer, role: Literal["pad", "start", "end", "mask"]) -> int:
    """Returns the id of the token that plays `role`."""
    for name in ROLES[role]:
        if (found := tokenizer.token_to_id(name)) is not None:
            return found
    raise UserError(f"The tokenizer has no {role} token ({' or '.join(ROLES[role])}); train one with it.")


def roles_of(tokenizer: Tokenizer) -> list[str]:
    """The roles for which a tokenizer has a token."""
    return [r for r, names in ROLES.items() if any(tokenizer.token_to_id(name) is not None for name in names)]


def unknown_token(tokenizer: Tokenizer) -> str | None:
    """The token that stands for what the vocabulary does not have; None for one that has everything (bytes)."""
    return next((name for name in ("[UNK]", "<unk>") if tokenizer.token_to_id(name) is not None), None)


def special_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that are never masked, predicted or drawn."""
    return sorted(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special)


def tokenizer_hash(tokenizer: Tokenizer) -> bytes:
    """SHA-256 of what a tokenizer does to a text; cutting and padding, which are the data's choice, do not count."""
    what = json.loads(tokenizer.to_str(), parse_float=lambda x: f"{float(x):.9g}")  # a file may lose the last digit
    what |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(what).encode()).digest()


def word_starts(tokenizer: Tokenizer) -> list[bool]:
    """Whether each entry of the vocabulary begins a word.

    WordPiece marks what continues a word (`##`); byte-level BPE (`Ġ`), Unigram (`▁`) and characters (a space) mark what
    begins one, and punctuation begins one too.
    """
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size())]
    if model["type"] in ("WordPiece", "WordLevel"):
        prefix = model.get("continuing_subword_prefix") or "##"
        return [model["type"] == "WordLevel" or not token.startswith(prefix) for token in tokens]
    return [token[:1] in {"Ġ", "Ċ", "ĉ", "▁", *string.whitespace, *string.punctuation} for token in tokens]


def train_tokenizer(
    texts: Iterable[str], kind: Kind = "wordpiece", vocab_size: int = 8192, cased: bool | None = None
) -> Tokenizer:
    """Trains a tokenizer with BERT's special tokens at ids 0 to 4; the same texts give the same one, see `vocabulary`.

    Args:
        texts: the corpus; kept in memory if it can be read only once.
        kind: wordpiece, bpe (byte level, as GPT-2), unigram, char, or byte.
        vocab_size: at most this many entries, special tokens included.
        cased: keep capitals and accents; None: wordpiece drops them, as BERT uncased, and the other kinds keep them.
    """
    special = list(SPECIAL)
    if cased is None:
        cased = kind != "wordpiece"
    texts = list(texts) if isinstance(texts, Iterator) else texts
    tokenizer = Tokenizer(models.BPE())
    if not cased:
        steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        tokenizer.normalizer = normalizers.Sequence(steps)
    if kind == "wordpiece":
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.model = learn_wordpiece(tokenizer, texts, vocab_size, special)
    elif kind == "unigram":
        tokenizer.normalizer = normalizers.NFKC() if cased else tokenizer.normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.model = learn_unigram(tokenizer, texts, vocab_size, special)
    elif kind == "char":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        tokenizer.model = learn_characters(tokenizer, texts, vocab_size, special)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=len(special) + 256 if kind == "byte" else vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(special)
    start, end = token_id(tokenizer, "start"), token_id(tokenizer, "end")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", end), ("[CLS]", start))
    return tokenizer


def load_tokenizer(path: str) -> Tokenizer:
    """Reads a tokenizer.json, or the one inside an encoder folder."""
    from pathlib import Path

    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{file} is not a tokenizer file ({error}).") from None
