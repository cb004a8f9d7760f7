"""Tokenizers trained for a run, kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from filelock import FileLock
from tokenizers import Tokenizer

from ssl_suite.core.features import default_cache
from ssl_suite.core.files import write_text
from ssl_suite.encoders.tokenizer import Kind, load_tokenizer, train_tokenizer
from ssl_suite.encoders.vocabulary import LEARNING


def learned_tokenizer(
    texts: Iterable[str], fingerprint: str, kind: Kind, vocab_size: int, cased: bool | None
) -> Tokenizer:
    """See `train_tokenizer`; trained once for texts of one fingerprint and these options."""
    key = f"{LEARNING}|{fingerprint}|{kind}|{vocab_size}|{cased}"
    path = default_cache() / "tokenizers" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # processes of one run must not each train their own
        if not path.exists():
            trained = train_tokenizer(texts, kind, vocab_size, cased)
            write_text(path, trained.to_str(pretty=True))  # the library's own `save` says nothing of a full disk
    return load_tokenizer(str(path))
