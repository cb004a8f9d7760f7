"""A corpus tokenised once into one memory-mapped file, used again as long as text and tokenizer are the same."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import replacing
from ssl_suite.encoders.tokenizer import token_id

MAGIC, VERSION = b"SSLTOKEN", 1
HEADER = struct.Struct("<8sIIQ32s")
"""Magic, version, bytes a token, number of tokens, SHA-256 of the tokenizer."""


def tokenizer_hash(tokenizer: Tokenizer) -> bytes:
    return hashlib.sha256(tokenizer.to_str().encode()).digest()


def write_tokens(texts: Iterator[str], tokenizer: Tokenizer, path: Path, chunk: int = 1000) -> None:
    """Tokenises documents, each followed by the end token, in parallel chunks.

    Args:
        texts: documents.
        tokenizer: its Rust threads share a chunk.
        path: written under a temporary name first.
        chunk: documents at a time.
    """
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 65536 else np.uint32)
    end, total = token_id(tokenizer, "end"), 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER.size))
        for batch in _chunks(texts, chunk):
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.asarray([*encoding.ids, end], dtype)
                total += len(ids)
                file.write(ids.tobytes())
        file.seek(0)
        file.write(HEADER.pack(MAGIC, VERSION, dtype.itemsize, total, tokenizer_hash(tokenizer)))


def _chunks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def read_tokens(path: Path, tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Maps a token file into memory.

    Raises:
        UserError: it is no token file, is cut short, or was made with another tokenizer.
    """
    try:
        with path.open("rb") as file:
            magic, version, width, count, made_with = HEADER.unpack(file.read(HEADER.size))
    except (OSError, struct.error) as error:
        raise UserError(f"{path} is not a token file ({error}); delete it to have it made again.") from None
    if magic != MAGIC or version != VERSION or width not in (2, 4):
        raise UserError(f"{path} is not a token file of version {VERSION}; delete it to have it made again.")
    if path.stat().st_size != HEADER.size + count * width:
        raise UserError(f"{path} is cut short; delete it to have it made again.")
    if made_with != tokenizer_hash(tokenizer):
        raise UserError(f"{path} was made with another tokenizer; delete it to have it made again.")
    return np.memmap(path, np.uint16 if width == 2 else np.uint32, "r", HEADER.size, (count,))
