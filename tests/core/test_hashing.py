"""Hashes of files: the published algorithm, and every bit counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssl_suite.core.hashing import sha256


def test_a_files_hash_is_sha256_and_sees_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    content = bytes(range(256)) * 5000  # longer than one read
    path.write_bytes(content)
    first = sha256(path)
    assert first == hashlib.sha256(content).hexdigest()
    for bit in range(8):
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1 << bit]))
        assert sha256(path) != first
