"""What a text run needs beforehand: a tokenizer that is trained once, token files that are built once."""

from __future__ import annotations

import json
import platform
import time
from functools import partial
from itertools import islice
from pathlib import Path

import tokenizers

import ssl_suite
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import write_text
from ssl_suite.core.folder import TOKENIZER
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import Kind, tokenizer_hash, train_tokenizer
from ssl_suite.encoders.vocabulary import Again

SAMPLE = "Self-supervised learning needs no labels: 1,024 naïve guesses teach it."
PROVENANCE = "tokenizer_provenance.json"


def prepare_tokenizer(
    source: str, column: str, kind: Kind, vocab_size: int, cased: bool | None, out: Path
) -> list[str]:
    """Trains a tokenizer on the training split of any source that Text reads.

    Args:
        source: see `Text`.
        column: of the text.
        kind: wordpiece, bpe, unigram, char or byte.
        vocab_size: at most this many entries.
        cased: keep capitals and accents; None: all kinds but wordpiece do.
        out: folder for `tokenizer.json` and where it comes from; `data.tokenizer` takes it.

    Returns:
        lines of a summary.

    Raises:
        UserError: the source cannot be read, or `out` holds a tokenizer already.
    """
    if (out / TOKENIZER).exists():
        raise UserError(f"{out} already holds a tokenizer; choose another --out or delete it.")
    data = Text(source, column, tokenizer=kind, vocab_size=vocab_size)
    data.open()
    begun = time.perf_counter()
    trained = train_tokenizer(Again(partial(data.texts, "train")), kind, vocab_size, cased)
    seconds = time.perf_counter() - begun
    write_text(out / TOKENIZER, trained.to_str(pretty=True))
    rows = data.rows["train"]
    provenance = {
        "source": source,
        "column": column,
        "fingerprint": rows.fingerprint,
        "documents": len(rows),
        "kind": kind,
        "vocab_size": vocab_size,
        "cased": cased,
        "entries": trained.get_vocab_size(),
        "sha256": tokenizer_hash(trained).hex(),
        "versions": {
            "ssl_suite": ssl_suite.__version__,
            "tokenizers": tokenizers.__version__,
            "python": platform.python_version(),
        },
    }
    write_text(out / PROVENANCE, json.dumps(provenance, indent=1))
    split = "validation" if data.has("validation") else "train"
    return [
        f"{out / TOKENIZER}: {kind}, {trained.get_vocab_size()} entries, from {len(rows)} documents in {seconds:.1f} s",
        f"  {SAMPLE}",
        "  → " + " ".join(trained.encode(SAMPLE, add_special_tokens=False).tokens),
        f"  {measure(trained, data, split)}",
    ]


def measure(tokenizer: tokenizers.Tokenizer, data: Text, split: str, most: int = 2000) -> str:
    """How a tokenizer cuts the first documents of a split."""
    texts = list(islice(data.texts(split), most))
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    tokens = max(1, sum(len(e.ids) for e in encoded))
    unknown_id = tokenizer.token_to_id("[UNK]")
    unknown = 0 if unknown_id is None else sum(e.ids.count(unknown_id) for e in encoded)
    characters, words = sum(len(t) for t in texts), max(1, sum(len(t.split()) for t in texts))
    return (
        f"on {len(texts)} documents of {split}: {characters / tokens:.2f} characters a token, "
        f"{tokens / words:.2f} tokens a word, {unknown / tokens:.3%} [UNK]"
    )


def prepare_tokens(source: str, column: str, tokenizer: str, vocab_size: int, cased: bool | None) -> list[str]:
    """Builds the token files that Text would build before training, from the same source, column and tokenizer.

    Args:
        source: see `Text`.
        column: of the text.
        tokenizer: a tokenizer.json, a folder with one, an encoder folder, or a kind to train.
        vocab_size: of a tokenizer to train.
        cased: of a tokenizer to train, see `Text`.

    Returns:
        lines of a summary.

    Raises:
        UserError: source or tokenizer cannot be read, or a row holds no text.
    """
    any_length = 2  # all have the same file
    data = Text(source, column, tokenizer=tokenizer, vocab_size=vocab_size, cased=cased, max_length=any_length)
    begun = time.perf_counter()
    data.serve(Request())
    seconds = time.perf_counter() - begun
    lines = []
    for split in data.splits():
        path, file = data.token_path(split), data.token_file(split)
        count = len(file.tokens)
        lines.append(
            f"{path}: {split}, {file.documents:,} documents, {file.text_bytes / 1e6:,.1f} MB of text, "
            f"{count:,} tokens, {path.stat().st_size / max(1, count):.2f} bytes a token"
        )
    return [*lines, f"in {seconds:.1f} s; training on {source} with this tokenizer takes these files as they are"]
