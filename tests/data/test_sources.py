"""Every kind of source gives the same rows."""

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
from tiny import all_targets

from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_documents
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text

Maker = Callable[..., Path]
CLASS = Request(target="class")
ROWS = [{"text": f"sentence number {i}", "label": "odd" if i % 2 else "even"} for i in range(30)]


def served(data: DataModule, request: Request = Request()) -> Any:
    data.serve(request)
    return data


# Images ---------------------------------------------------------------------------------------------------------------


def test_subfolders_are_classes(tmp_path: Path, pictures: Maker) -> None:
    data = served(Images(str(pictures(tmp_path)), image_size=8), CLASS)
    assert data.labels == ["cat", "dog"]
    assert data.size("train") + data.size("validation") == 20
    for split in data.splits():
        for i, name in enumerate(data.ids(split)):
            assert data.labels[data.target(split, i)] == name.split("/")[0]


def test_a_flat_folder_has_no_labels(tmp_path: Path, picture: Maker) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    data = served(Images(str(tmp_path), image_size=8))
    assert data.ids("train") == ["0.png", "1.png", "2.png"]
    with pytest.raises(UserError, match="no column 'label'"):
        Images(str(tmp_path)).serve(CLASS)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_folders_named_after_splits(name: str, tmp_path: Path, pictures: Maker) -> None:
    for split, n in (("train", 12), (name, 2), ("test", 3)):
        pictures(tmp_path / split, n)
    data = served(Images(str(tmp_path), image_size=8), CLASS)
    assert {s: data.size(s) for s in data.splits()} == {"train": 24, "validation": 4, "test": 6}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_table_of_image_files(kind: str, tmp_path: Path, picture: Maker) -> None:
    rows = [{"file_name": f"images/{i}.png", "label": f"c{i % 2}"} for i in range(4)]
    for row in rows:
        picture(tmp_path / row["file_name"])
    write_table(tmp_path / f"train.{kind}", rows)
    write_table(tmp_path / f"test.{kind}", rows[:2])
    whole = served(Images(str(tmp_path), image_size=8), CLASS)
    assert (whole.size("train"), whole.size("test"), whole.labels) == (4, 2, ["c0", "c1"])
    single = served(Images(str(tmp_path / f"train.{kind}"), image_size=8), CLASS)
    assert single.ids("train") == [row["file_name"] for row in rows]
    assert len(next(iter(single.eval_dataloader("train")))) == 4


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = Image.new("L", (8, 8), 77)
    grey.save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "c.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / "d.png")
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "e.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "f.jpg", quality=100)
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "g.png")
    clear = Image.new("P", (8, 8), 0)
    clear.putpalette([9, 9, 9] * 256)
    clear.save(tmp_path / "h.png", transparency=0)
    data = served(Images(str(tmp_path), image_size=8))
    found = {n: data.read("train", i, 0).image for i, n in enumerate(data.ids("train"))}
    wanted = {
        "a.png": (77, 77, 77), "b.png": (10, 200, 30), "c.png": (255, 255, 255), "d.png": (255, 0, 0),
        "e.png": (255, 255, 255), "f.jpg": (0, 0, 0), "g.png": (128, 128, 128), "h.png": (255, 255, 255),
    }  # fmt: skip
    for name, colour in wanted.items():
        assert found[name].shape == (3, 8, 8), name
        assert found[name].dtype == torch.uint8
        torch.testing.assert_close(found[name][:, 4, 4].int(), torch.tensor(colour).int(), atol=2, rtol=0, msg=name)


def test_images_are_resized_by_the_shorter_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # a white square in the middle of a wide black image
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = served(Images(str(tmp_path), image_size=10)).read("train", 0, 0).image
    assert image.shape == (3, 10, 10)
    assert image[:, 2:-2, 2:-2].float().mean() > 250


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_tables_of_text(kind: str, tmp_path: Path) -> None:
    write_table(tmp_path / f"train.{kind}", ROWS)
    write_table(tmp_path / f"dev.{kind}", ROWS[:4])
    data = served(Text(str(tmp_path)), CLASS)
    assert data.labels == ["even", "odd"]
    assert data.rows["train"].column("text") == [row["text"] for row in ROWS]
    assert data.size("validation") == 4
    alone = served(Text(str(tmp_path / f"train.{kind}")), CLASS)
    assert alone.size("train") + alone.size("validation") == 30


def test_tsv_keeps_quotes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"half a quote\tx\nplain\ty\n')
    data = served(Text(str(tmp_path / "a.tsv")), CLASS)
    assert data.rows["train"].column("text") == ['"half a quote', "plain"]


def test_csv_with_a_byte_order_mark_long_fields_and_na(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufefftext,label\n" + "word " * 50_000 + ",NA\nplain,null\n", "utf-8")
    data = served(Text(str(tmp_path / "a.csv"), pack=False), CLASS)
    assert data.labels == ["NA", "null"]


def test_rows_of_jsonl_may_lack_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert "label" in served(Text(str(tmp_path / "a.jsonl"), pack=False)).rows["train"].columns


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "deep/a.txt").write_text("first paragraph\nstill the first\n\nsecond paragraph\n")
    data = served(Text(str(tmp_path), pack=False))
    assert data.rows["train"].column("text") == ["one", "two", "first paragraph\nstill the first", "second paragraph"]


def test_where_keeps_rows_by_label_name() -> None:
    data = served(Speech("samples:prompts", target="text", where={"language": "en"}), Request(target="characters"))
    names = data.rows["train"].label_names("language")
    assert {names[v] for v in data.rows["train"].column("language")} == {"en"}


# Speech ---------------------------------------------------------------------------------------------------------------


def test_a_folder_of_audio(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.flac", 0.25)
    data = served(Speech(str(tmp_path)))
    assert data.ids("train") == ["a.wav", "b.flac"]
    assert data.lengths("train") == [0.5, 0.25]
    batch = next(iter(data.eval_dataloader("train")))
    assert batch.lengths.tolist() == [8000, 4000]
    assert (batch.wave[1, 4000:] == 0).all()


def test_a_folder_of_audio_with_metadata(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "clips/a.wav")
    sound(tmp_path / "clips/b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text,speaker\nclips/b.wav,HELLO there!,x\nclips/a.wav,Bye.,y\n")
    data = served(Speech(str(tmp_path), target="text"), Request(target="characters"))
    assert data.ids("train") == ["clips/b.wav", "clips/a.wav"]
    assert ["".join(data.labels[c] for c in data.target("train", i)) for i in range(2)] == ["hello there", "bye"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_audio_is_resampled_to_16_khz(rate: int, tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", seconds=1.0, rate=rate, pitch=1000)
    wave = served(Speech(str(tmp_path))).read("train", 0, 0).wave
    assert len(wave) == 16000
    inner = wave[1000:-1000]
    spectrum = torch.fft.rfft(inner).abs()
    assert abs(spectrum.argmax().item() * 16000 / len(inner) - 1000) < 2
    assert inner.abs().max() == pytest.approx(0.5, abs=0.02)


def test_stereo_is_averaged(tmp_path: Path) -> None:
    left, right = np.full(8000, 0.5), np.full(8000, -0.1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    wave = served(Speech(str(tmp_path))).read("train", 0, 0).wave
    torch.testing.assert_close(wave, torch.full((8000,), 0.2))


# Hub ------------------------------------------------------------------------------------------------------------------


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None) -> Any:
        asked.append((name, config))
        table = datasets.Dataset.from_list(ROWS)
        return datasets.DatasetDict({"train": table, "dev": table.select(range(3)), "unsupervised": table})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = served(Text("hf:nyu-mll/glue/sst2"), CLASS)
    assert asked == [("nyu-mll/glue", "sst2")]
    assert {s: data.size(s) for s in data.splits()} == {"train": 30, "validation": 3}
    served(Text("hf:imdb"), CLASS)
    assert asked[1] == ("imdb", None)


def test_a_hub_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, config: str | None) -> Any:
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\n(offline)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match="'nobody/nothing' could not be loaded: Couldn't reach") as caught:
        Text("hf:nobody/nothing").serve(CLASS)
    assert "\n" not in str(caught.value)


# Splits, labels -------------------------------------------------------------------------------------------------------


def test_the_held_out_rows_are_the_same_every_time_and_apart(tmp_path: Path) -> None:
    write_table(tmp_path / "a.jsonl", [{"id": str(i), "text": "x"} for i in range(500)])
    first, second = (served(Text(str(tmp_path / "a.jsonl"), pack=False)) for _ in range(2))
    assert first.ids("validation") == second.ids("validation")
    assert not set(first.ids("train")) & set(first.ids("validation"))
    assert len(set(first.ids("train")) | set(first.ids("validation"))) == 500
    assert 25 <= first.size("validation") <= 75


def test_rows_keep_their_number_when_others_are_held_out(tmp_path: Path) -> None:
    write_table(tmp_path / "a.jsonl", [{"id": str(i), "text": "x"} for i in range(100)])
    data = served(Text(str(tmp_path / "a.jsonl"), pack=False))
    for split in data.splits():
        for i, name in enumerate(data.ids(split)):
            assert data.rows[split].where(i).endswith(f"row {int(name) + 1}")


def test_a_budget_of_labels_is_balanced_and_follows_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(seed: int) -> list[str]:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        data = served(Images("samples:digits", labels=50, image_size=8), CLASS)
        counts = all_targets(data, "train").bincount(minlength=10)
        assert counts.tolist() == [5] * 10
        assert data.size("validation") == 1000
        return data.ids("train")

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        path.write_text("\n".join([mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]) + "\n")


# Text files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one\ntwo\n\n", ["one", "two"]),
        ("one\n  indented\n\ntwo\n", ["one\n  indented", "two"]),
        ("one\r\nmore\r\n\r\ntwo\r\n", ["one\nmore", "two"]),
        ("\n\n one \ntwo", ["one", "two"]),
        ("\ufeffone\n \ntwo", ["one", "two"]),
        ("\n \n", []),
    ],
)
def test_documents_of_a_text_file(text: str, documents: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert list(read_documents(tmp_path / "a.txt")) == documents
