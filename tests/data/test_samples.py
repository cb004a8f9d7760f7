"""The embedded sample packs are what their manifest says, can be read, and keep their splits apart."""

import hashlib
import io
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, Image, load_dataset
from PIL import Image as Picture

import ssl_suite

SAMPLES = Path(ssl_suite.__file__).parent / "data/samples"
PACKS = json.loads((SAMPLES / "MANIFEST.json").read_text("utf-8"))["packs"]
SPLITS = ("train", "validation", "test")
TAGS = {"NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", "X", "."}


@pytest.fixture(scope="module", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory):
    """Keep what `load_dataset` caches out of the home directory."""
    read.folder = str(tmp_path_factory.mktemp("datasets"))
    yield
    read_pack.cache_clear()


def read(name: str) -> dict[str, Dataset]:
    """Read a pack's splits, leaving images and audio encoded."""
    return read_pack(name, read.folder)


@cache
def read_pack(name: str, folder: str) -> dict[str, Dataset]:
    files = {split: str(SAMPLES / PACKS[name]["splits"][split]["file"]) for split in SPLITS}
    pack = load_dataset("parquet", data_files=files, cache_dir=folder)
    for column, feature in pack["train"].features.items():
        if isinstance(feature, Image | Audio):
            pack = pack.cast_column(column, type(feature)(decode=False))
    return pack


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def assert_kept_apart(name: str, key: Callable[[dict], str], columns: list[str]) -> None:
    seen = [{key(row) for row in part.select_columns(columns)} for part in read(name).values()]
    assert not (seen[0] & seen[1])
    assert not (seen[0] & seen[2])
    assert not (seen[1] & seen[2])


@pytest.mark.parametrize("name", PACKS)
def test_files_have_the_size_and_hash_of_the_manifest(name: str):
    for split in PACKS[name]["splits"].values():
        data = (SAMPLES / split["file"]).read_bytes()
        assert len(data) == split["bytes"]
        assert hashlib.sha256(data).hexdigest() == split["sha256"]


def test_everything_together_stays_under_25_megabytes():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 25e6


@pytest.mark.parametrize("name", PACKS)
def test_every_pack_names_its_sources_and_a_licence_whose_text_is_there(name: str):
    pack = PACKS[name]
    assert pack["description"]
    assert pack["licence"]
    assert pack["licence_files"]
    assert all({"client", "name", "version"} == set(source) for source in pack["sources"])
    assert all((SAMPLES / file).stat().st_size > 200 for file in pack["licence_files"])


@pytest.mark.parametrize("name", PACKS)
def test_rows_and_columns_are_those_of_the_manifest(name: str):
    for split, part in read(name).items():
        assert len(part) == PACKS[name]["splits"][split]["rows"] > 0
        assert part.column_names == list(PACKS[name]["columns"])


@pytest.mark.parametrize("name", PACKS)
def test_ids_are_unique_over_all_splits(name: str):
    ids = [one for part in read(name).values() for one in part["id"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", PACKS)
def test_every_class_is_trained_on_and_no_label_is_out_of_range(name: str):
    for column, feature in read(name)["train"].features.items():
        if isinstance(feature, ClassLabel):
            classes = set(range(feature.num_classes))
            assert set(read(name)["train"][column]) == classes
            assert all(set(part[column]) <= classes for part in read(name).values())


def test_emoji_of_one_base_are_in_one_split():
    assert_kept_apart("emoji", lambda row: row["base"], ["base"])


def test_documents_of_the_tagged_corpus_are_in_one_split():
    assert_kept_apart("brown", lambda row: row["document"], ["document"])


@pytest.mark.parametrize("name", ["corpus", "sentences", "dna"])
def test_texts_are_in_one_split(name: str):
    assert_kept_apart(name, lambda row: words(row["text"]), ["text"])


def test_what_is_said_in_one_language_is_in_one_split():
    assert_kept_apart("prompts", lambda row: f"{row['language']} {words(row['text'])}", ["language", "text"])


def test_documents_to_pretrain_on_hold_none_that_tagging_is_evaluated_on():
    pretrained = {one.removeprefix("brown-") for part in read("corpus").values() for one in part["id"]}
    assert pretrained.isdisjoint({*read("brown")["validation"]["document"], *read("brown")["test"]["document"]})


@pytest.mark.parametrize(("name", "mode", "side"), [("digits", "L", 28), ("emoji", "RGBA", 64)])
def test_images_decode(name: str, mode: str, side: int):
    for part in read(name).values():
        for row in part.select(range(0, len(part), 100)):
            picture = Picture.open(io.BytesIO(row["image"]["bytes"]))
            assert picture.size == (side, side)
            assert picture.convert(mode).getextrema() != Picture.new(mode, (side, side)).getextrema()


def test_digits_of_different_splits_are_different_pictures():
    assert_kept_apart("digits", lambda row: row["image"]["bytes"], ["image"])


def test_prompts_decode_to_speech_of_the_stated_length():
    for part in read("prompts").values():
        for row in part.select(range(0, len(part), 25)):
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            assert rate == (16000 if part.features["language"].int2str(row["language"]) == "en" else 8000)
            assert abs(len(samples) / rate - row["seconds"]) < 0.01
            assert np.sqrt(np.mean(samples**2)) > 0.02


def test_every_token_has_one_of_the_twelve_universal_tags():
    names = read("brown")["train"].features["tags"].feature.names
    assert set(names) == TAGS
    for part in read("brown").values():
        assert all(len(row["tokens"]) == len(row["tags"]) > 0 for row in part.select_columns(["tokens", "tags"]))


def test_ratings_have_the_sign_of_their_label():
    for part in read("sentences").values():
        assert all((row["rating"] > 0) == (row["label"] == 1) and abs(row["rating"]) <= 4 for row in part)


def test_introns_begin_with_gt_and_end_with_ag():
    junctions = [(row["text"], row["label"]) for part in read("dna").values() for row in part]
    assert all(set(text) <= set("ACGT") and len(text) == 60 for text, _ in junctions)
    assert np.mean([text[30:32] == "GT" for text, label in junctions if label == 1]) > 0.98
    assert np.mean([text[28:30] == "AG" for text, label in junctions if label == 2]) > 0.98
