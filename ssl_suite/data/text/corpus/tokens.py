"""A corpus tokenised once into one memory-mapped file, used again as long as text and tokenizer are the same."""

from __future__ import annotations

import errno
import os
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssl_suite.core.errors import UserError
from ssl_suite.encoders.tokenizer import token_id, tokenizer_hash

MAGIC, VERSION = b"SSLTOKEN", 2
HEADER = struct.Struct("<8sIIQQQ32s")
CHUNK = 1 << 20
"""Characters that are tokenised together: enough for every thread, and little memory."""


class Header(NamedTuple):
    """The first bytes of a token file.

    Attributes:
        magic: `MAGIC`.
        version: `VERSION`.
        width: bytes a token: 2 for vocabularies up to 65,536, else 4.
        tokens: in all, with the end token that closes each document.
        documents: in all.
        text_bytes: of the documents in UTF-8, as they were before any normalisation.
        tokenizer: its SHA-256.
    """

    magic: bytes
    version: int
    width: int
    tokens: int
    documents: int
    text_bytes: int
    tokenizer: bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return HEADER.size + self.tokens * self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.width == 2 else np.uint32)


@dataclass(eq=False)
class TokenFile:
    """An open token file.

    Attributes:
        tokens: (N,) all documents, one after the other, each closed by the end token; mapped, not read.
        documents: how many.
        text_bytes: of their text in UTF-8.
        end: id of the end token.
    """

    tokens: NDArray[np.unsignedinteger]
    documents: int
    text_bytes: int
    end: int

    def ends(self, step: int = 1 << 24) -> NDArray[np.int64]:
        """(documents,) place of each document's end token; found by reading the file once, so nothing is stored."""
        pieces = [np.flatnonzero(self.tokens[i : i + step] == self.end) + i for i in range(0, len(self.tokens), step)]
        places = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
        if len(places) != self.documents:
            raise UserError(
                f"The text contains the tokenizer's end token {len(places) - self.documents} times, so that its "
                "documents cannot be told apart; take a tokenizer that does not read it in a text."
            )
        return places


def write_tokens(
    texts: Callable[[int], Iterator[str]],
    documents: int | None,
    tokenizer: Tokenizer,
    path: Path,
    every: float = 5.0,
) -> None:
    """Tokenises documents, each followed by the end token; goes on where an interrupted call stopped.

    What is done stands in a `.part` file whose header counts only what has reached the disk; the file gets its name
    when it is whole. A second process that wants the same file waits for the first, and then finds it made.

    Args:
        texts: k → the documents from the k-th on, in the same order every time.
        documents: how many there are, for the progress bar; None if nobody knows.
        tokenizer: its threads share a chunk, and work on the next one while this one is stored.
        path: of the finished file.
        every: seconds between two marks from which an interrupted call can go on.

    Raises:
        UserError: a document is bad, or the disk is full.
    """
    from rich.console import Console
    from rich.progress import Progress

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return
        console = Console(stderr=True)
        bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        try:
            with _Part(path.with_suffix(".part"), tokenizer) as part, bar:
                shown = bar.add_task("Tokenising", total=documents, completed=part.header.documents)
                marked = time.monotonic()
                for chunk in _encoded(_chunks(texts(part.header.documents)), tokenizer):
                    part.append(*chunk)
                    bar.advance(shown, len(chunk[0]))
                    if time.monotonic() - marked >= every:
                        part.mark()
                        marked = time.monotonic()
                part.mark()
        except UserError:  # a text that will have changed, and its key with it, before the next try
            path.with_suffix(".part").unlink(missing_ok=True)
            raise
        except OSError as error:
            why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise UserError(f"Could not write {path}: {why}. The next run continues from there.") from error
        path.with_suffix(".part").replace(path)


class _Part:
    """A token file in the making."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        width = 2 if tokenizer.get_vocab_size() <= 65536 else 4
        self.end = token_id(tokenizer, "end")
        new = Header(MAGIC, VERSION, width, 0, 0, 0, tokenizer_hash(tokenizer))
        found = _header(path) if path.exists() else None
        same = found is not None and found._replace(tokens=0, documents=0, text_bytes=0) == new
        self.header = found if found and same and path.stat().st_size >= found.size else new
        self.file = path.open("r+b" if self.header is found else "w+b")
        self.file.truncate(self.header.size)
        self.file.seek(self.header.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def append(self, texts: list[str], ids: list[list[int]]) -> None:
        """Writes a chunk of documents."""
        joined = array("H" if self.header.width == 2 else "I")
        for document in ids:
            joined.extend(document)
            joined.append(self.end)
        self.file.write(joined)
        h = self.header
        size = sum(len(text.encode()) for text in texts)
        self.header = h._replace(
            tokens=h.tokens + len(joined), documents=h.documents + len(texts), text_bytes=h.text_bytes + size
        )

    def mark(self) -> None:
        """Counts what was written, once it is on the disk."""
        self._sync()
        self.file.seek(0)
        self.file.write(HEADER.pack(*self.header))
        self._sync()
        self.file.seek(self.header.size)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def _chunks(texts: Iterator[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Groups documents of together `size` characters or, with the last one, more."""
    chunk: list[str] = []
    held = 0
    for text in texts:
        chunk.append(text)
        held += len(text)
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _encoded(chunks: Iterator[list[str]], tokenizer: Tokenizer) -> Iterator[tuple[list[str], list[list[int]]]]:
    """Tokenises one chunk ahead: the library lets go of Python's lock meanwhile."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True  # "[SEP]" inside a document is text, not the end of it
    try:
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for chunk in chunks:
                following = chunk, pool.submit(tokenizer.encode_batch_fast, chunk, add_special_tokens=False)
                if ahead is not None:
                    yield ahead[0], [e.ids for e in ahead[1].result()]
                ahead = following
            if ahead is not None:
                yield ahead[0], [e.ids for e in ahead[1].result()]
    finally:
        tokenizer.encode_special_tokens = before


def _header(path: Path) -> Header | None:
    """What stands in the first bytes, or None if that is no header."""
    with path.open("rb") as file:
        data = file.read(HEADER.size)
    return Header(*HEADER.unpack(data)) if len(data) == HEADER.size else None


def read_tokens(path: Path, tokenizer: Tokenizer) -> TokenFile:
    """Maps a token file into memory.

    Raises:
        UserError: it is no token file, is cut short, or was made with another tokenizer.
    """
    header = _header(path)
    if header is None or (header.magic, header.version) != (MAGIC, VERSION) or header.width not in (2, 4):
        raise UserError(f"{path} is not a token file of version {VERSION}; delete it to have it made again.")
    if path.stat().st_size != header.size:
        raise UserError(f"{path} is cut short; delete it to have it made again.")
    if header.tokenizer != tokenizer_hash(tokenizer):
        raise UserError(f"{path} was made with another tokenizer; delete it to have it made again.")
    shape = (header.tokens,)
    mapped = np.memmap(path, header.dtype, "r", HEADER.size, shape) if header.tokens else np.empty(0, header.dtype)
    return TokenFile(mapped, header.documents, header.text_bytes, token_id(tokenizer, "end"))
