"""Which files and folders of a source are its splits and classes, and what is said of the others."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.layout import split_of
from ssl_suite.data.common.manifest import Media
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech import reading, speech
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.questions.questions import Questions
from ssl_suite.data.text.text import Text

Maker = Callable[..., Path]
CLASS = Request(target="class")


def table(path: Path, n: int, mark: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"sentence {i} of {path.name}{mark}{'ab'[i % 2]}" for i in range(n)]
    path.write_text("\n".join([f"text{mark}label", *rows]) + "\n")
    return path


def served(data: Any, request: Request = CLASS) -> Any:
    data.serve(request)
    return data


def sizes(data: Any) -> dict[str, int]:
    return {split: data.size(split) for split in data.splits()}


def images(folder: Path, **options: Any) -> Images:
    return Images(str(folder), image_size=8, **options)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"), ("dev.jsonl", "validation"), ("val.parquet", "validation"), ("test.tsv.gz", "test"),
        ("valid.txt", "validation"), ("train-00000-of-00005.parquet", "train"),
        ("validation-00001-of-00002-0123456789abcdef.parquet", "validation"), ("dev-v1.1.json", "validation"),
        ("train-v2.0.json", "train"), ("cmrc2018_train.json", "train"), ("DRCD_training.json", "train"),
        ("en_ewt-ud-dev.conllu", "validation"), ("train_with_dev.csv", None), ("test_predictions.csv", None),
        ("train-2.csv", None), ("my-train.csv", None), ("train.old.csv", None), ("trains.csv", None),
        ("en_ewt-ud-dev.csv", None), ("old-dev-v1.1.json", None), ("readme.txt", None),
    ],
)  # fmt: skip
def test_a_split_is_a_file_of_exactly_that_name(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split


def test_similar_names_are_named_and_not_used(tmp_path: Path) -> None:
    for name, n in (("train.csv", 40), ("train_with_dev.csv", 50), ("dev.csv", 10), ("test_predictions.csv", 10)):
        table(tmp_path / name, n)
    with pytest.warns(UserWarning, match=r"not used: test_predictions.csv, train_with_dev.csv\. A split is"):
        data = served(Text(str(tmp_path)))
    assert sizes(data) == {"train": 40, "validation": 10}
    assert all("of train.csv" in text for text in data.rows["train"].column("text"))


def test_one_split_in_two_files_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", 20)
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 1}\n' * 20)
    with pytest.raises(UserError, match=r"both train.csv and train.jsonl for the split train; keep one of them"):
        served(Text(str(tmp_path)))
    data = served(Text(str(tmp_path), train=str(tmp_path / "train.csv")))
    assert data.size("train") + data.size("validation") == 20
    (tmp_path / "train.jsonl").unlink()
    for name in ("dev.csv", "val.csv"):
        table(tmp_path / name, 4)
    with pytest.raises(UserError, match=r"both dev.csv and val.csv for the split validation"):
        served(Text(str(tmp_path)))


def test_shards_are_one_split_and_rows_are_named_by_their_file(tmp_path: Path) -> None:
    for i in range(3):
        table(tmp_path / f"train-0000{i}-of-00003.csv", 4)
    rows = served(Text(str(tmp_path), pack=False)).rows["train"]
    numbered = dict(zip(rows.numbers.tolist(), (rows.where(i) for i in range(len(rows))), strict=True))
    assert numbered[0].endswith("train-00000-of-00003.csv, row 1")
    assert numbered[7].endswith("train-00001-of-00003.csv, row 4")
    (tmp_path / "train-00002-of-00003.csv").unlink()
    with pytest.warns(UserWarning, match="of the 3 files of the split train only 2 are there"):
        served(Text(str(tmp_path), pack=False))


def test_shards_of_other_types_are_one_sentence(tmp_path: Path) -> None:
    table(tmp_path / "train-00000-of-00002.csv", 4)
    (tmp_path / "train-00001-of-00002.csv").write_text("other\n1\n")
    with pytest.raises(UserError, match=r"train-00001-of-00002.csv, row 1: 'label'"):
        served(Text(str(tmp_path)))
    for i, label in enumerate((1, "x")):
        (tmp_path / f"dev-0000{i}-of-00002.jsonl").write_text(json.dumps({"text": "a", "label": label}))
    with pytest.raises(UserError, match="have other columns"):
        served(Text(str(tmp_path)))


def test_csv_and_jsonl_with_whole_numbers_as_labels(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 10)
    (tmp_path / "dev.jsonl").write_text('{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n' * 2)
    data = served(Text(str(tmp_path)))
    assert data.labels == ["0", "1"]
    assert [int(data.target("validation", i)) for i in range(4)] == [1, 0, 1, 0]


def squad(version: str, answers: list[dict[str, Any]]) -> str:
    qa = {"id": "q1", "question": "Where?", "answers": answers, "is_impossible": not answers}
    paragraphs = [{"context": "In Paris it rains.", "qas": [qa]}]
    return json.dumps({"version": version, "data": [{"title": "t", "paragraphs": paragraphs}]})


def test_two_versions_of_squad_in_one_folder(tmp_path: Path) -> None:
    for version, answers in (("1.1", [{"text": "Paris", "answer_start": 3}]), ("2.0", [])):
        (tmp_path / f"train-v{version}.json").write_text(squad(version, answers))
    with pytest.raises(UserError, match=r"both train-v1.1.json and train-v2.0.json for the split train"):
        Questions(str(tmp_path)).serve(Request(target="span"))
    data = Questions(str(tmp_path), train=str(tmp_path / "train-v1.1.json"), tokenizer="char")
    assert sizes(served(data, Request(target="span"))) == {"train": 1}


def test_an_id_that_is_twice_in_two_files_names_the_second(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"train-0000{i}-of-00002.json").write_text(squad("1.1", [{"text": "Paris", "answer_start": 3}]))
    with pytest.raises(UserError, match=r"train-00001-of-00002.json, row 1: id 'q1' is also that of .*00000.*, row 1;"):
        Questions(str(tmp_path)).serve(Request(target="span"))


# Folders of text ------------------------------------------------------------------------------------------------------


def test_copies_and_hidden_files_are_no_text(tmp_path: Path) -> None:
    text = "one document here.\n\nanother one there.\n"
    for name in ("a.txt", ".ipynb_checkpoints/a-checkpoint.txt", "__MACOSX/a.txt", "deep/.hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "._a.txt").write_bytes(b"\0\5\x16\7" + b"\xff" * 78)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "not used")
        rows = served(Text(str(tmp_path), pack=False), Request()).rows["train"]
    assert rows.column("text") == ["one document here.", "another one there."]
    table(tmp_path / "rows.csv", 3)
    with pytest.warns(UserWarning, match=r"not used: rows\.csv\."):
        assert served(Text(str(tmp_path), pack=False), Request()).size("train") == 2


def test_text_files_named_after_splits(tmp_path: Path) -> None:
    for name in ("train", "valid", "test", "notes"):
        (tmp_path / f"{name}.txt").write_text(f"{name} one\n{name} two\n")
    with pytest.warns(UserWarning, match=r"not used: notes\.txt"):
        data = served(Text(str(tmp_path), pack=False), Request())
    assert data.rows["test"].column("text") == ["test one", "test two"]
    assert sizes(data) == {"train": 2, "validation": 2, "test": 2}


def test_text_folders_named_after_splits(tmp_path: Path) -> None:
    for name in ("train", "test", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(f"{name} one\n{name} two\n")
    with pytest.warns(UserWarning, match=r"not used: notes\."):
        data = served(Text(str(tmp_path), pack=False), Request())
    assert sizes(data) == {"train": 2, "test": 2}


# Classes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("control", "test"), ("val", "x")])
def test_classes_called_like_splits(names: tuple[str, ...], tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path, 4, names)
    for request in (Request(), CLASS):
        with pytest.raises(UserError, match=r"mixes splits \(\w+\) and other folders \(.*move them into .*train;"):
            served(images(tmp_path), request)
    pictures(tmp_path / "moved/train", 4, names)
    assert served(images(tmp_path / "moved")).labels == sorted(names)


def test_folders_without_pictures_beside_splits_are_no_classes(tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path / "train", 4)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/readme.md").write_text("none")
    assert served(images(tmp_path)).labels == ["cat", "dog"]


def test_two_folders_of_one_split_are_refused(tmp_path: Path, pictures: Maker) -> None:
    for split in ("train", "val", "dev"):
        pictures(tmp_path / split, 4)
    with pytest.raises(UserError, match="both dev and val for the split validation"):
        served(images(tmp_path))


def test_a_linked_class_is_followed(tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path / "data/train", 4)
    shutil.move(tmp_path / "data/train/dog", tmp_path / "elsewhere")
    (tmp_path / "data/train/dog").symlink_to(tmp_path / "elsewhere")
    data = served(images(tmp_path / "data"))
    assert (data.labels, data.size("train")) == (["cat", "dog"], 8)
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "data/train")
    with pytest.raises(UserError, match="dog/again is a link to a folder that it lies in"):
        served(images(tmp_path / "data"))
    (tmp_path / "elsewhere/again").unlink()
    (tmp_path / "data/train/bird").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="bird is a link to something that is not there"):
        served(images(tmp_path / "data"))


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, pictures: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, 4)
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"dog cannot be read \(Permission denied\)"):
        served(images(tmp_path))


def test_what_systems_leave_behind_is_no_class(tmp_path: Path, pictures: Maker, picture: Maker) -> None:
    pictures(tmp_path / "train", 4)
    picture(tmp_path / "train/.ipynb_checkpoints/000-checkpoint.png")
    for folder in ("@eaDir", "lost+found", "$RECYCLE.BIN"):
        picture(tmp_path / "train" / folder / "000.png")
    for name in ("__MACOSX/cat/._000.png", "cat/._000.png", "cat/Thumbs.db"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(b"\0\5\x16\7" + b"\0" * 78)
    data = served(images(tmp_path))
    assert (data.labels, data.size("train")) == (["cat", "dog"], 8)


def test_a_stray_file_is_named_and_labels_stay(tmp_path: Path, pictures: Maker, picture: Maker) -> None:
    pictures(tmp_path / "train", 4)
    picture(tmp_path / "train/overview.png")
    picture(tmp_path / "cover.png")
    stray = r"train: left out, beside the folders that are classes: overview\.png"
    with pytest.warns(UserWarning, match=stray), pytest.warns(UserWarning, match=r"not used: cover\.png"):
        data = served(images(tmp_path))
    assert (data.labels, data.size("train")) == (["cat", "dog"], 8)


def test_a_few_files_in_a_subfolder_make_no_classes(tmp_path: Path, picture: Maker) -> None:
    for name in ("a.png", "b.png", "more/c.png"):
        picture(tmp_path / name)
    assert served(images(tmp_path), Request()).ids("train") == ["a.png", "b.png", "more/c.png"]


def test_splits_further_down(tmp_path: Path, pictures: Maker) -> None:
    for split, n in (("train", 8), ("val", 4)):
        pictures(tmp_path / "a/images" / split, n)
    data = served(images(tmp_path / "a"))
    assert (data.labels, sizes(data)) == (["cat", "dog"], {"train": 16, "validation": 8})
    shutil.copytree(tmp_path / "a", tmp_path / "far/a")
    assert sizes(served(images(tmp_path / "far"))) == {"train": 16, "validation": 8}
    shutil.copytree(tmp_path / "a/images", tmp_path / "a/sketches")
    with pytest.raises(UserError, match=r"has splits inside images, sketches: name the one"):
        served(images(tmp_path / "a"))
    table(tmp_path / "b/data/train.csv", 12)
    table(tmp_path / "b/data/test.csv", 3)
    assert served(Text(str(tmp_path / "b"))).size("test") == 3


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png"])
def test_names_that_are_not_utf8(name: bytes, tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path / "train", 4)
    try:
        odd = Path(os.fsdecode(os.fsencode(tmp_path / "train/cat") + b"/" + name))
        odd.parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "train/cat/00.png", odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(UserError, match=r"caf\\xe9.*: the file's name is not UTF-8; rename it\."):
        served(images(tmp_path))


def test_other_extensions_are_counted_and_named(
    tmp_path: Path, sound: Maker, picture: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_extra = Media("audio", reading.EXTENSIONS, reading.CONTAINERS)
    monkeypatch.setattr(speech, "list_audio", without_the_extra)
    for name in ("b.m4a", "c.aac", "d.wma", "e.wma"):
        (tmp_path / name).write_bytes(b"\0" * 400)
    with pytest.raises(UserError, match=r"holds no audio files .*; it has 1 \.aac, 1 \.m4a, 2 \.wma"):
        served(Speech(str(tmp_path)), Request())
    sound(tmp_path / "a.wav")
    with pytest.warns(UserWarning, match=r"passed over 1 \.aac, 1 \.m4a, 2 \.wma"):
        assert served(Speech(str(tmp_path)), Request()).ids("train") == ["a.wav"]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.AVIF").touch()
    picture(tmp_path / "pictures/b.png")
    with pytest.warns(UserWarning, match=r"passed over 1 \.avif"):
        served(images(tmp_path / "pictures"), Request())


# Given splits ---------------------------------------------------------------------------------------------------------


def test_splits_given_beside_the_source(tmp_path: Path) -> None:
    for name, n in (("train.csv", 40), ("test.csv", 5), ("other.csv", 7)):
        table(tmp_path / name, n)
    data = served(Text(str(tmp_path / "train.csv"), test=str(tmp_path / "other.csv")))
    assert (data.size("train") + data.size("validation"), data.size("test")) == (40, 7)
    with pytest.warns(UserWarning, match="not used: other.csv"):
        whole = served(Text(str(tmp_path), test=str(tmp_path / "other.csv"), validation=str(tmp_path / "test.csv")))
    assert sizes(whole) == {"train": 40, "validation": 5, "test": 7}
    with pytest.raises(UserError, match="No data at"):
        served(Text(str(tmp_path), test=str(tmp_path / "nowhere.csv")))
    for empty in ("", " "):
        with pytest.raises(UserError, match=r"data\.test is empty"):
            Text(str(tmp_path), test=empty)
        with pytest.raises(UserError, match=r"data\.source is empty"):
            Text(empty)


def test_a_folder_given_as_a_split(tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path / "mine", 10)
    pictures(tmp_path / "others", 3)
    data = served(images(tmp_path / "mine", test=str(tmp_path / "others")))
    assert (data.size("train") + data.size("validation"), data.size("test")) == (20, 6)


def test_a_source_with_a_test_split_alone(tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path / "test", 8)
    data = served(images(tmp_path), Request(target="class", labels=["dog", "cat"]))
    assert sizes(data) == {"test": 16}
    assert [int(data.target("test", i)) for i in (0, 15)] == [1, 0]


# What the files are keyed by ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_files_named_by_a_table_are_in_its_fingerprint(kind: str, tmp_path: Path, sound: Maker) -> None:
    for i in range(4):
        sound(tmp_path / f"wavs/{i}.wav", pitch=200 + 400 * (i % 2))
    rows = [{"file_name": f"../wavs/{i}.wav", "label": "ab"[i % 2]} for i in range(4)]
    (tmp_path / "lists").mkdir()
    lines = [json.dumps(row) for row in rows]
    if kind == "csv":
        lines = ["file_name,label", *(",".join(row.values()) for row in rows)]
    (tmp_path / f"lists/train.{kind}").write_text("\n".join(lines) + "\n")

    def fingerprint() -> str:
        return str(served(Speech(str(tmp_path / "lists"))).fingerprint("train"))

    before = fingerprint()
    assert fingerprint() == before
    sound(tmp_path / "wavs/2.wav", pitch=300)
    assert fingerprint() != before


def test_the_input_column_is_in_the_fingerprint(tmp_path: Path, picture: Maker) -> None:
    from datasets import Dataset

    data = picture(tmp_path / "a.png").read_bytes()
    rows = [{"image": {"bytes": data, "path": None}, "mask": {"bytes": data, "path": None}}]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    prints = {served(Images(str(tmp_path / "t.parquet"), column=c), Request()).fingerprint("train") for c in rows[0]}
    assert len(prints) == 2
