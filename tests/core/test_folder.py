"""Encoder folders: the same bits back, one sentence for each kind of damage, and nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import (
    files_below,
    image_batch,
    speech_batch,
    text_batch,
    tiny_image_encoder,
    tiny_speech_encoder,
    tiny_text_encoder,
)

import ssl_suite.core.folder as folder_module
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import fingerprint, load_encoder, save_encoder
from ssl_suite.encoders.simple import BagOfWords, Fbank, RawPixels
from ssl_suite.encoders.tokenizer import train_tokenizer

ENCODERS: dict[str, Any] = {
    "text": lambda: tiny_text_encoder(segments=2),
    "causal text": lambda: tiny_text_encoder(causal=True, positions="rotary", activation="swiglu", pool="last"),
    "post-norm text": lambda: tiny_text_encoder(norm="post"),
    "bag of words": lambda: BagOfWords(270, 8),
    "image": tiny_image_encoder,
    "pixels": lambda: RawPixels(4),
    "gru": tiny_speech_encoder,
    "waveform": lambda: tiny_speech_encoder(frontend="waveform", trunk="transformer"),
    "causal speech": lambda: tiny_speech_encoder(trunk="transformer", causal=True),
    "fbank": lambda: Fbank(12),
}


def some_batch(encoder: Encoder) -> Any:
    return {"text": lambda: text_batch([7, 3]), "image": image_batch, "speech": lambda: speech_batch([3000, 900])}[
        encoder.modality
    ]()


@pytest.mark.parametrize("name", ENCODERS)
def test_saved_encoder_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    encoder = ENCODERS[name]().eval()
    save_encoder(encoder, tmp_path / "e", {"method": "none"})
    loaded = load_encoder(tmp_path / "e").eval()
    assert type(loaded) is type(encoder)
    assert loaded.config == encoder.config
    assert fingerprint(loaded) == fingerprint(encoder)
    batch = some_batch(encoder)
    for a, b in zip(encoder(batch).states, loaded(batch).states, strict=True):
        assert torch.equal(a, b)
    assert files_below(tmp_path) == ["e/config.json", "e/model.safetensors", "e/provenance.json"]
    assert json.loads((tmp_path / "e" / "provenance.json").read_text()) == {"method": "none"}


def test_tokenizer_travels_with_its_encoder(tmp_path: Path) -> None:
    encoder = tiny_text_encoder()
    encoder.tokenizer = train_tokenizer(["some text"], "byte")
    save_encoder(encoder, tmp_path / "e")
    loaded = load_encoder(tmp_path / "e")
    assert loaded.tokenizer.encode("so: ü").ids == encoder.tokenizer.encode("so: ü").ids
    assert fingerprint(loaded) == fingerprint(encoder)
    (tmp_path / "e" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        load_encoder(tmp_path / "e")


def test_random_uri_builds_the_same_encoder_with_other_weights(tmp_path: Path) -> None:
    encoder = tiny_text_encoder()
    save_encoder(encoder, tmp_path / "e")
    random = load_encoder(f"random:{tmp_path / 'e'}")
    assert random.config == encoder.config
    assert not torch.equal(random.tokens.weight, encoder.tokens.weight)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_encoder(tiny_text_encoder(), tmp_path / "enc")


def test_weights_that_do_not_fit_are_listed(saved: Path) -> None:
    weights = load_file(str(saved / "model.safetensors"))
    del weights["trunk.norm.bias"]
    weights["extra"] = torch.ones(1)
    weights["tokens.weight"] = torch.ones(3, 3)
    save_file(weights, str(saved / "model.safetensors"))
    with pytest.raises(UserError) as caught:
        load_encoder(saved)
    for part in (
        "model.safetensors",
        "missing ['trunk.norm.bias']",
        "unexpected ['extra']",
        "other shape ['tokens.weight']",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("config.json", b"{ not json", r"config\.json is damaged"),
        ("config.json", b"\xff\xfe\x00", r"config\.json is damaged"),
        ("config.json", b"[]", r"config\.json must hold a JSON object"),
        (
            "config.json",
            b'{"class": "TextEncoder", "arguments": {"width": 3}}',
            r"config\.json does not fit TextEncoder.*width",
        ),
        ("config.json", b'{"class": "TextEncodr"}', "Did you mean TextEncoder"),
        ("config.json", b'{"class": "os.system"}', "not an encoder class"),
        ("model.safetensors", b"junk", r"model\.safetensors cannot be read"),
        ("model.safetensors", b"", r"model\.safetensors cannot be read"),
        ("model.safetensors", None, r"model\.safetensors cannot be read"),
        ("config.json", None, r"it has no config\.json"),
    ],
)
def test_damage_is_named_with_its_file(saved: Path, file: str, content: bytes | None, match: str) -> None:
    (saved / file).unlink() if content is None else (saved / file).write_bytes(content)
    with pytest.raises(UserError, match=match):
        load_encoder(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load_encoder(saved)


def test_what_is_no_folder_and_no_uri_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"random:.*Did you mean TextEncoder"):
        load_encoder("TextEncodr")
    with pytest.raises(UserError, match="No encoder folder"):
        load_encoder("runs/nowhere/encoder")


FULL = [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device (os error 28)")]


@pytest.mark.parametrize("error", FULL, ids=["OSError", "SafetensorError"])
def test_a_full_disk_leaves_the_old_folder_and_nothing_else(
    saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {f: (saved / f).read_bytes() for f in files_below(saved)}

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(folder_module, "save_file", fail)
    for place in (saved, saved.parent / "other"):
        with pytest.raises(UserError, match="disk is full"):
            save_encoder(tiny_text_encoder(), place)
    assert {f: (saved / f).read_bytes() for f in files_below(saved)} == before
    assert [p.name for p in saved.parent.iterdir()] == ["enc"]


def test_a_failing_rename_puts_the_old_folder_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_below(saved)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match="Permission denied"):
        save_encoder(tiny_text_encoder(), saved)
    assert files_below(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["enc"]


def test_saving_over_an_encoder_folder_replaces_all_of_it(saved: Path) -> None:
    (saved / "heads.safetensors").write_text("stale")
    save_encoder(tiny_text_encoder(), saved)
    assert files_below(saved) == ["config.json", "model.safetensors", "provenance.json"]


def test_a_folder_with_anything_else_in_it_is_never_replaced(saved: Path, tmp_path: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"mine")
    before = files_below(tmp_path)
    for place in (saved, tmp_path / "pictures"):
        with pytest.raises(UserError, match="holds other files, which are not removed"):
            save_encoder(tiny_text_encoder(), place)
    assert files_below(tmp_path) == before


def test_nothing_in_a_folder_is_a_pickle(saved: Path) -> None:
    for file in files_below(saved):
        data = (saved / file).read_bytes()
        assert not data.startswith((b"\x80", b"PK"))


def test_fingerprint_follows_weights_configuration_and_precision() -> None:
    torch.manual_seed(0)
    a = tiny_text_encoder()
    first = fingerprint(a)
    with torch.no_grad():
        a.tokens.weight[0, 0] += 1e-3
    assert fingerprint(a) != first
    assert len(fingerprint(a.to(torch.bfloat16))) == 16


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    class Tied(BagOfWords):
        def __init__(self) -> None:
            super().__init__(270, 8)
            self.twin = torch.nn.Linear(8, 270, bias=False)
            self.twin.weight = self.tokens.weight

    path = save_encoder(Tied(), tmp_path / "tied")
    assert "twin.weight" not in load_file(str(path / "model.safetensors"))
    loaded = load_encoder(path)
    assert loaded.twin.weight is loaded.tokens.weight  # type: ignore[union-attr]
    Encoder.registry.pop("Tied")
    shutil.rmtree(path)
