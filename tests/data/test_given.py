"""ssl_suite.embed: what people have in memory, embedded as the data modules would embed a data set of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny import tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from torchaudio.functional import resample

import ssl_suite
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.data.embeddings import data_for, embeddings
from ssl_suite.encoders.simple import Fbank
from ssl_suite.encoders.tokenizer import train_tokenizer

TEXTS = ["a cat sat", "the dog ran far away over green hills", "a", "some small houses"]


@pytest.fixture(params=["text", "image", "speech"])
def modality(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(modality: str) -> Encoder:
    """Of 12 pixels, as if it had learned from such images."""
    made: dict[str, Callable[[], Encoder]] = {
        "text": tiny_text_encoder, "image": tiny_image_encoder, "speech": tiny_speech_encoder
    }  # fmt: skip
    encoder = made[modality]()
    encoder.preprocess = {"image_size": 12} if modality == "image" else {}
    encoder.tokenizer = train_tokenizer(TEXTS, "char", 100) if modality == "text" else None
    return encoder


@pytest.fixture
def paths(tmp_path: Path, picture: Callable[..., Path], sound: Callable[..., Path]) -> dict[str, list[Path]]:
    """Pictures of other sizes, one with a palette; sounds of two rates, one of two channels."""
    pictures = [picture(tmp_path / f"p/{i}.png", 60 * i, (20 + i, 12), "P" if i == 2 else "RGB") for i in range(4)]
    sounds = [sound(tmp_path / f"s/{i}.wav", 0.2 + 0.1 * i, 8000 if i == 1 else 16000, 1 + (i == 3)) for i in range(4)]
    return {"image": pictures, "speech": sounds}


@pytest.fixture
def source(modality: str, tmp_path: Path, paths: dict[str, list[Path]]) -> str:
    """The same as a data set."""
    if modality != "text":
        return str(paths[modality][0].parent)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return str(tmp_path / "a.jsonl")


def inputs_of(modality: str, paths: dict[str, list[Path]]) -> list[Any]:
    if modality == "image":
        return [Image.open(path) for path in paths[modality]]
    return [soundfile.read(path, dtype="float32") for path in paths[modality][:3]] if modality == "speech" else TEXTS


def test_embeddings_are_those_of_a_data_set_to_the_last_bit(
    encoder: Encoder, modality: str, source: str, paths: dict[str, list[Path]]
) -> None:
    _, wanted = embeddings(encoder, data_for(encoder, source, batch_size=3), "train")
    given = TEXTS if modality == "text" else paths[modality]
    found = ssl_suite.embed(encoder.train(), given, batch_size=3)
    assert found.dtype == np.float32
    assert found.shape == (4, encoder.dim)
    assert np.array_equal(found, wanted.numpy())
    assert encoder.training


def test_decoded_inputs_are_their_files_to_the_last_bit(
    encoder: Encoder, modality: str, paths: dict[str, list[Path]]
) -> None:
    decoded = inputs_of(modality, paths)
    given = TEXTS if modality == "text" else paths[modality][: len(decoded)]
    assert np.array_equal(ssl_suite.embed(encoder, decoded), ssl_suite.embed(encoder, map(str, given)))


def test_one_is_what_it_is_among_others(encoder: Encoder, modality: str, paths: dict[str, list[Path]]) -> None:
    given = inputs_of(modality, paths)
    alone = np.concatenate([ssl_suite.embed(encoder, [one]) for one in given])
    np.testing.assert_allclose(ssl_suite.embed(encoder, given), alone, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(ssl_suite.embed(encoder, given, batch_size=1), alone, atol=1e-6)


def test_a_folder_says_all_that_is_needed(
    encoder: Encoder, modality: str, tmp_path: Path, paths: dict[str, list[Path]]
) -> None:
    given = inputs_of(modality, paths)
    folder = save_encoder(encoder, tmp_path / "encoder")
    found = ssl_suite.embed(folder, given)
    if not torch.cuda.is_available():
        assert np.array_equal(found, ssl_suite.embed(encoder, given))
        assert np.array_equal(found, ssl_suite.embed(ssl_suite.load(folder), given))


def test_readouts_and_sizes_are_chosen(paths: dict[str, list[Path]]) -> None:
    encoder = tiny_image_encoder().eval()
    with pytest.raises(UserError, match="does not say of which size its images are; give an image_size"):
        ssl_suite.embed(encoder, paths["image"])
    small, large = (ssl_suite.embed(encoder, paths["image"], image_size=size) for size in (12, 24))
    assert small.shape == large.shape
    assert not np.allclose(small, large, atol=1e-3)
    first = ssl_suite.embed(encoder, paths["image"], "layer:1", image_size=12)
    assert first.shape == (4, encoder.widths[1])
    assert not encoder.training


def test_speech_of_any_rate_is_resampled() -> None:
    encoder, wave = tiny_speech_encoder(), (0.1 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    again = resample(torch.from_numpy(wave), 8000, 16000).numpy()
    assert np.array_equal(ssl_suite.embed(encoder, [(wave, 8000)]), ssl_suite.embed(encoder, [(again, 16000)]))
    whole = (wave * 32767).astype(np.int16)
    same = [(whole, 16000), (torch.from_numpy(whole), 16000), (whole.astype(np.float64) / 32768, 16000)]
    found = ssl_suite.embed(encoder, same, batch_size=1)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


PICTURE, WAVE = Image.new("RGB", (8, 8)), (np.zeros(800, np.float32), 16000)


@pytest.mark.parametrize(
    ("modality", "inputs", "said"),
    [
        ("text", "a cat", "The inputs are one str; this encoder reads text: a list of strings"),
        ("image", PICTURE, "The inputs are one Image; this encoder reads images"),
        ("speech", WAVE[0], "The inputs are one ndarray; this encoder reads speech"),
        ("text", [], "There are no inputs"),
        ("text", ["a", PICTURE], r"inputs\[1\] is of the type Image; this encoder reads text"),
        ("image", [WAVE], r"inputs\[0\] is of the type tuple; this encoder reads images"),
        ("speech", [PICTURE], r"inputs\[0\] is of the type Image; this encoder reads speech"),
        ("image", ["a cat"], r"inputs\[0\]: there is no file 'a cat'; this encoder reads images"),
        ("speech", ["a.wav"], r"inputs\[0\]: there is no file 'a\.wav'"),
        ("speech", [WAVE[0]], r"inputs\[0\] is of the type ndarray; this encoder reads speech: a list of \(wave"),
        ("speech", [(WAVE[0], 0)], r"inputs\[0\]: the rate is 0, but must be a whole number"),
        ("speech", [(np.zeros((2, 800)), 16000)], r"shape \(2, 800\) and float64; give one channel"),
        ("speech", [WAVE, (np.full(800, np.nan), 16000)], r"inputs\[1\] holds samples that are no numbers"),
        ("speech", [(np.zeros(0), 16000)], r"inputs\[0\] has no samples"),
    ],
    indirect=["modality"],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(encoder: Encoder, inputs: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ssl_suite.embed(encoder, inputs)


@pytest.mark.parametrize("name", ["image", "speech"])
def test_a_file_that_is_neither_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    encoder = tiny_image_encoder() if name == "image" else tiny_speech_encoder()
    with pytest.raises(UserError, match=r"notes\.png is not (an image of a known format|readable audio)"):
        ssl_suite.embed(encoder, [tmp_path / "notes.png"], image_size=12)


def test_text_needs_the_tokenizer_it_was_learned_with() -> None:
    with pytest.raises(UserError, match="TextEncoder has no tokenizer"):
        ssl_suite.embed(tiny_text_encoder(), ["a"])


def test_the_public_names_are_the_bases() -> None:
    assert all(hasattr(ssl_suite, name) for name in ssl_suite.__all__)
    assert ssl_suite.Encoder is Encoder
    with pytest.raises(AttributeError, match="no attribute 'Encode'"):
        _ = ssl_suite.Encode


def test_whole_numbers_are_samples_of_their_own_depth_or_refused() -> None:
    wave = (np.sin(np.arange(8000) / 9) * 30000).astype(np.int16)
    wanted = ssl_suite.embed(Fbank(), [(wave, 16000)])
    np.testing.assert_array_equal(ssl_suite.embed(Fbank(), [(wave.astype(">i2"), 16000)]), wanted)
    np.testing.assert_allclose(ssl_suite.embed(Fbank(), [(wave / 32768, 16000)]), wanted, atol=1e-4)
    for other in (wave.astype(np.int64), wave.tolist(), (wave // 256).astype(np.int8)):
        with pytest.raises(UserError, match=r"the wave is of .*int(8|64); give one channel.*int16 or int32"):
            ssl_suite.embed(Fbank(), [(other, 16000)])


def test_a_rate_without_a_short_filter_is_refused() -> None:
    with pytest.raises(UserError, match="16,001 samples a second, which no short filter makes 16,000"):
        ssl_suite.embed(Fbank(), [(np.zeros(16001, np.float32), 16001)])
    for rate in (True, 10**10):
        with pytest.raises(UserError, match="must be a whole number of samples"):
            ssl_suite.embed(Fbank(), [(np.zeros(16001, np.float32), rate)])


def test_weights_that_no_task_has_taught_weigh_nothing() -> None:
    with pytest.raises(UserError, match="weighted_sum has weights only once a task has learnt them"):
        ssl_suite.embed(Fbank(), [(np.zeros(16000, np.float32), 16000)], readout="weighted_sum")
