"""Encoder folders: the same bits back, one sentence for each kind of damage, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
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

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import FILES, HASHED, fingerprint, save_encoder, write_manifest
from ssl_suite.core.load import load_encoder, schemes
from ssl_suite.encoders.simple import BagOfWords, Fbank, RawPixels
from ssl_suite.encoders.tokenizer import train_tokenizer

PLAIN = ["config.json", "manifest.json", "model.safetensors", "provenance.json"]
"""Files of an encoder without tokenizer and heads."""

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
    assert files_below(tmp_path) == [f"e/{name}" for name in PLAIN]
    assert json.loads((tmp_path / "e" / "provenance.json").read_text()) == {"method": "none"}


def test_tokenizer_travels_with_its_encoder(tmp_path: Path) -> None:
    encoder = tiny_text_encoder()
    encoder.tokenizer = train_tokenizer(["some text"], "byte")
    save_encoder(encoder, tmp_path / "e")
    loaded = load_encoder(tmp_path / "e")
    assert loaded.tokenizer.encode("so: ü").ids == encoder.tokenizer.encode("so: ü").ids
    assert fingerprint(loaded) == fingerprint(encoder)
    (tmp_path / "e" / "tokenizer.json").write_text("{")
    write_manifest(tmp_path / "e")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        load_encoder(tmp_path / "e")


def test_random_uri_builds_the_same_encoder_with_other_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    encoder = tiny_text_encoder()
    save_encoder(encoder, tmp_path / "e")
    random = load_encoder(f"random:{tmp_path / 'e'}")
    assert random.config == encoder.config
    assert not torch.equal(random.tokens.weight, encoder.tokens.weight)


@pytest.mark.parametrize("uri", ["random:{}", "random:here:{}", "reemb:{}"])
def test_random_weights_are_those_of_the_runs_seed(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schemes, "here", load_encoder)
    torch.manual_seed(5)
    uri = uri.format(save_encoder(tiny_text_encoder(), tmp_path / "e"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    first, stream = load_encoder(uri), torch.get_rng_state()
    torch.manual_seed(99)
    assert fingerprint(load_encoder(uri)) == fingerprint(first)
    if uri.startswith("random:/"):
        torch.set_rng_state(stream)
        load_encoder(uri)
        assert torch.equal(torch.get_rng_state(), stream)  # a run's own draws do not depend on it
    other = []
    for seed in ("0", "1", "2", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        other.append(fingerprint(load_encoder(uri)))
    assert other[0] == fingerprint(first)
    assert other[1] == other[3]
    assert len(set(other)) == 3


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_encoder(tiny_text_encoder(), tmp_path / "enc")


def test_weights_that_do_not_fit_are_listed(saved: Path) -> None:
    weights = load_file(str(saved / "model.safetensors"))
    del weights["trunk.norm.bias"]
    weights["extra"] = torch.ones(1)
    weights["tokens.weight"] = torch.ones(3, 3)
    save_file(weights, str(saved / "model.safetensors"))
    write_manifest(saved)
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
        ("config.json", b"[" * 100_000, r"config\.json is damaged"),
        ("config.json", b"[]", r"config\.json must hold a JSON object"),
        ("config.json", b'{"class": "TextEncodr"}', "Did you mean TextEncoder"),
        ("config.json", b'{"class": "os.system"}', "not an encoder class"),
        ("config.json", b'{"class": "TextEncoder", "arguments": []}', r"config\.json: arguments .* JSON objects"),
        ("config.json", None, r"it has no config\.json"),
        ("provenance.json", b"7", r"provenance\.json must hold a JSON object"),
        ("provenance.json", b'{"method": ["a"]}', r"provenance\.json: method is \['a'\], but must be a word"),
        ("model.safetensors", b"junk", r"model\.safetensors cannot be read"),
        ("model.safetensors", b"", r"model\.safetensors cannot be read"),
        ("model.safetensors", None, r"does not name the files of an encoder"),
        ("tokenizer.json", b'{"version": "1.0"}', r"tokenizer\.json is damaged"),
    ],
)
@pytest.mark.parametrize("source", ["{}", "random:{}"])
def test_damage_is_named_with_its_file(saved: Path, file: str, content: bytes | None, match: str, source: str) -> None:
    (saved / file).unlink() if content is None else (saved / file).write_bytes(content)
    write_manifest(saved)
    with pytest.raises(UserError, match=match):
        load_encoder(source.format(saved))


def test_truncated_weights_are_refused(saved: Path) -> None:
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[: len(data) // 2])
    write_manifest(saved)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load_encoder(saved)


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A folder with every file an encoder can have."""
    encoder = tiny_text_encoder()
    encoder.tokenizer = train_tokenizer(["some text"], "byte")
    encoder.heads = {"head.weight": torch.ones(2, 2)}
    return save_encoder(encoder, tmp_path / "complete", {"method": "none"})


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("source", ["{}", "random:{}"])
def test_what_was_saved_and_is_missing_is_named(complete: Path, name: str, source: str) -> None:
    """A tokenizer that got lost would be trained anew on a task's data, and its ids mean other words."""
    load_encoder(complete)
    (complete / name).unlink()
    with pytest.raises(
        UserError, match=rf"{name}.*copy the folder again" if name != "config.json" else "has no config"
    ):
        load_encoder(source.format(complete))


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("name", sorted(HASHED))
def test_a_flipped_bit_is_found(complete: Path, name: str, bit: int) -> None:
    data = bytearray((complete / name).read_bytes())
    data[len(data) * (2 * bit + 1) // 16] ^= 1 << bit
    (complete / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} (is not the file that was saved|is damaged)"):
        load_encoder(complete)


def test_a_file_that_was_added_is_not_read(saved: Path) -> None:
    train_tokenizer(["some text"], "byte").save(str(saved / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer\.json was not there when the encoder was saved"):
        load_encoder(saved)


@pytest.mark.parametrize("manifest", [{}, {"sha256": 1}, {"sha256": {}}, {"sha256": {"../x": "y"}}])
def test_a_manifest_of_something_else_is_refused(saved: Path, manifest: dict[str, Any]) -> None:
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json does not name the files of an encoder"):
        load_encoder(saved)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(complete: Path, name: str, kind: str) -> None:
    path = complete / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=rf"{name} is not a file but a folder, a pipe or a device"):
        load_encoder(complete)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("positions", "x", r"positions is 'x', but TextEncoder takes Literal\['learned', 'rotary', 'none'\]"),
        ("causal", "maybe", "causal is 'maybe', but TextEncoder takes bool"),
        ("causal", 1, "causal is 1, but TextEncoder takes bool"),
        ("eps", -1, "eps is -1, but must be a number above 0"),
        ("eps", float("nan"), "eps is nan, but TextEncoder takes float"),
        ("dropout", float("inf"), "dropout is inf"),
        ("dropout", 1.5, "dropout is 1.5, but must be a number at least 0 and below 1"),
        ("layers", 1e8, "layers is 100000000.0, but TextEncoder takes int"),
        ("layers", 10**8, "layers is 100000000, but must be a whole number at least 0 and at most 10000"),
        ("layers", 10**4, "far larger encoder than its weights"),
        ("layers", 10**30, "layers is 10+, but TextEncoder takes int"),
        ("layers", -1, "layers is -1"),
        ("layers", True, "layers is True, but TextEncoder takes int"),
        ("dim", 10**9, "far larger encoder than its weights"),
        ("dim", 0, "dim is 0"),
        ("dim", -16, "dim is -16"),
        ("dim", "16", "dim is '16', but TextEncoder takes int"),
        ("dim", None, "dim is None, but TextEncoder takes int"),
        ("dim", [16], r"dim is \[16\], but TextEncoder takes int"),
        ("heads", 3, r"heads \(3\) must divide dim \(16\)"),
        ("heads", 0, "heads is 0"),
        ("vocab_size", 10**12, "far larger encoder than its weights"),
        ("vocab_size", 0, "vocab_size is 0"),
        ("vocab_size", 100, r"other shape \['tokens.weight'\]"),
        ("max_length", -3, "max_length is -3"),
        ("segments", -1, "segments is -1"),
        ("ffn", 0, "ffn is 0"),
        ("embedding_dim", "wide", r"embedding_dim is 'wide', but TextEncoder takes int \| None"),
        ("width", 3, "does not fit TextEncoder: .*width"),
    ],
)
def test_a_value_that_is_none_is_named(saved: Path, name: str, value: Any, match: str) -> None:
    """Whoever writes a config.json can write its hash too."""
    config = json.loads((saved / "config.json").read_text())
    config["arguments"][name] = value
    (saved / "config.json").write_text(json.dumps(config))
    write_manifest(saved)
    with pytest.raises(UserError, match=rf"(config\.json|model\.safetensors).*{match}") as caught:
        load_encoder(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.fill_(torch.nan), "holds numbers that are not finite"),
        (lambda w: w.index_fill(0, torch.tensor(3), torch.inf), "holds numbers that are not finite"),
        (lambda w: w.double() + 1e300, "holds numbers that are not finite"),
        (lambda w: w.to(torch.int8), "is of int8, but must be of floating-point numbers"),
        (lambda w: w.bool(), "is of bool, but must be of floating-point numbers"),
        (lambda w: w.to(torch.float8_e4m3fn), "is of float8_e4m3fn, but must be"),
    ],
    ids=["nan", "inf", "overflow", "int8", "bool", "float8"],
)
def test_weights_that_are_no_numbers_are_named(saved: Path, change: Any, match: str) -> None:
    path = saved / "model.safetensors"
    weights = load_file(str(path))
    first = next(iter(weights))
    save_file({**weights, first: change(weights[first])}, str(path))
    write_manifest(saved)
    with pytest.raises(UserError, match=rf"model\.safetensors: {first} {match}"):
        load_encoder(saved)


def test_heads_that_are_no_numbers_are_named(complete: Path) -> None:
    save_file({"head.weight": torch.full((2, 2), torch.nan)}, str(complete / "heads.safetensors"))
    write_manifest(complete)
    with pytest.raises(UserError, match=r"heads\.safetensors: head.weight holds numbers that are not finite"):
        load_encoder(complete)


def test_half_precision_weights_are_read_and_counters_keep_their_type(tmp_path: Path) -> None:
    encoder = tiny_image_encoder()
    folder = save_encoder(encoder, tmp_path / "e")
    weights = load_file(str(folder / "model.safetensors"))
    half = {n: w.bfloat16() if w.is_floating_point() else w for n, w in weights.items()}
    save_file(half, str(folder / "model.safetensors"))
    write_manifest(folder)
    torch.testing.assert_close(load_encoder(folder).net.conv1.weight, half["net.conv1.weight"].float())
    save_file({n: w.float() for n, w in weights.items()}, str(folder / "model.safetensors"))
    write_manifest(folder)
    with pytest.raises(UserError, match="num_batches_tracked is of float32, but must be of int64"):
        load_encoder(folder)


def test_a_tokenizer_that_counts_beyond_the_word_vectors_is_refused(saved: Path) -> None:
    train_tokenizer(["words and more words " + chr(i) for i in range(300, 700)], "char").save(
        str(saved / "tokenizer.json")
    )
    write_manifest(saved)
    with pytest.raises(UserError, match=r"its tokenizer counts to .* only 270 word vectors"):
        load_encoder(saved)


@pytest.mark.parametrize("name", ENCODERS)
def test_loading_draws_as_much_as_building_alone(name: str, tmp_path: Path) -> None:
    """The rehearsal takes no number from the stream, so that heads built later are the same."""
    torch.manual_seed(0)
    folder = save_encoder(ENCODERS[name](), tmp_path / "e")
    wanted = torch.get_rng_state()
    torch.manual_seed(0)
    load_encoder(folder)
    assert torch.equal(torch.get_rng_state(), wanted)


@pytest.mark.parametrize(
    "code",
    [
        "import ssl_suite; ssl_suite.load({!r})",
        "from ssl_suite.core.finetune import Finetune; from ssl_suite.tasks.classify import Classify; "
        "from ssl_suite.core.load import known_scheme; assert known_scheme('timm') and not known_scheme('tim'); "
        "Finetune({!r}, Classify())",
    ],
    ids=["class", "scheme"],
)
def test_a_fresh_python_knows_every_class_and_scheme(saved: Path, code: str) -> None:
    subprocess.run([sys.executable, "-c", code.format(str(saved))], check=True)


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

    monkeypatch.setattr("ssl_suite.core.weights.save_file", fail)
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
    assert files_below(saved) == PLAIN


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
    Encoder.registry.pop(f"{Tied.__module__}.{Tied.__qualname__}")
    shutil.rmtree(path)
