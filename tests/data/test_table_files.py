"""Tables in other forms than the plain one: separators, no header, packed; and values nobody would write."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common import source as source_module
from ssl_suite.data.common.files import each_row
from ssl_suite.data.image.images import Images
from ssl_suite.data.text.text import Text

Maker = Callable[..., Path]
CLASS, VALUE = Request(target="class"), Request(target="value")


def served(data: Any, request: Request = CLASS) -> Any:
    data.serve(request)
    return data


def complaint(data: Any, request: Request = CLASS) -> str:
    with pytest.raises(UserError) as caught:  # noqa: PT012
        data.serve(request)
        for batch in data.eval_dataloader("train"):
            data.finish(batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("mark", [";", "|", "\t", r"\t"])
def test_delimiters(mark: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "LARGE", 0 if large else 10**6)
    written = mark.replace(r"\t", "\t")
    path = tmp_path / "a.csv"
    path.write_text(f"text{written}label\n" + f"good, fine{written}x\nbad{written}y\n" * 5)
    data = served(Text(str(path), delimiter=mark))
    texts = data.rows["train"].column("text") + data.rows["validation"].column("text")
    assert sorted(set(texts)) == ["bad", "good, fine"]
    assert "--data.delimiter" in complaint(Text(str(path)))
    with pytest.raises(UserError, match="delimiter must be one character"):
        Text(str(path), delimiter="; ")


def test_sts_b_in_its_own_layout_has_no_header(tmp_path: Path) -> None:
    lines = [f'news\tx\t2012\t{i:04d}\t{i / 4:.3f}\ta "first {i}\tsecond {i}\n' for i in range(20)]
    (tmp_path / "train.tsv").write_text("".join(lines))
    assert "--data.header false" in complaint(Text(str(tmp_path), target="4"), VALUE)
    data = served(Text(str(tmp_path), column="5", pair="6", target="4", header=False), VALUE)
    assert data.size("train") + data.size("validation") == 20
    assert data.rows["train"].column("5")[0] == 'a "first 0'
    names = ["genre", "file", "year", "number", "score", "first", "second"]
    named = served(Text(str(tmp_path), column="first", pair="second", target="score", header=names), VALUE)
    assert named.rows["train"].column("second") == data.rows["train"].column("6")
    assert [float(named.target("train", i)) for i in range(3)] == [float(data.target("train", i)) for i in range(3)]


@pytest.mark.parametrize("name", ["train.csv.gz", "train.tsv.gz", "train.jsonl.gz", "train.json.gz", "train.conll.gz"])
def test_packed_tables(name: str, tmp_path: Path) -> None:
    mark = "\t" if "tsv" in name else ","
    text = {
        "jsonl": '{"text": "good", "label": "x"}\n{"text": "bad", "label": "y"}\n',
        "json": '[{"text": "good", "label": "x"}, {"text": "bad", "label": "y"}]',
        "conll": "good x\nbad y\n",
    }.get(name.split(".")[1], f"text{mark}label\ngood{mark}x\nbad{mark}y\n")
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    if "conll" in name:
        data = served(Text(str(tmp_path), column="tokens", target="tags"), Request(target="tags"))
        assert data.rows["train"].column("tokens") == [["good", "bad"]]
        return
    for source in (tmp_path, tmp_path / name):
        assert served(Text(str(source))).rows["train"].column("text") == ["good", "bad"]


def test_packed_texts_and_broken_packs(tmp_path: Path) -> None:
    packed = gzip.compress(b"one\ntwo\n" * 100)
    (tmp_path / "a.txt.gz").write_bytes(packed)
    rows = served(Text(str(tmp_path), pack=False), Request()).rows
    assert sum(len(part) for part in rows.values()) == 200
    for damaged in (packed[:-12], b"no gzip"):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        assert "a.txt.gz is not a whole gzip file" in complaint(Text(str(tmp_path), pack=False), Request())


@pytest.mark.parametrize(("name", "place"), [("a.jsonl", "line 2"), ("a.json", "entry 2")])
def test_a_json_name_that_is_given_twice(name: str, place: str, tmp_path: Path) -> None:
    rows = ['{"text": "one"}', '{"text": "good", "text": "bad"}']
    (tmp_path / name).write_text("\n".join(rows) if name.endswith("l") else f"[{', '.join(rows)}]")
    with pytest.raises(UserError, match=rf"{place} is not JSON \('text' is given twice\)"):
        list(each_row(tmp_path / name))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,text,label\n" + "good,other,1\n" * 9)
    assert "train.csv has two columns 'text'; give each a name of its own" in complaint(Text(str(tmp_path)))
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "t.parquet")
    assert "t.parquet" in complaint(Text(str(tmp_path / "t.parquet")))


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",text,label,\n0,good,x,\n1,bad,y,\n")
    assert served(Text(str(tmp_path / "a.csv"))).rows["train"].columns == ["text", "label"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "[" * 100_000),
        ("a.json", "[" * 100_000),
        ("a.json", '[{"text": ' + "9" * 5000 + "}]"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}"),
        ("a.jsonl", '{"text": "a", "n": 99999999999999999999999999}'),
        ("a.jsonl", '{"text": "a", "n": 1}\n{"text": "b", "n": "two"}'),
        ("a.jsonl", r'{"text": "\ud800"}'),
        ("a.csv", "text\n\0\0\n" + '"'),
        ("a.parquet", "PAR1" + "\0" * 40 + "PAR1"),
        ("a.parquet", ""),
    ],
)
def test_hostile_files_are_one_sentence(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert name in complaint(Text(str(tmp_path / name)), Request())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "row 2 holds"),
        ({"bytes": None, "path": None}, "row 2 holds"),
        ({"bytes": b"", "path": None}, "row 2 is not an image"),
        ({"bytes": None, "path": "/dev/zero"}, "/dev/zero does not exist"),
        ({"bytes": None, "path": "nowhere.png"}, "nowhere.png does not exist"),
    ],
)
def test_hostile_values_of_an_image_column(value: Any, message: str, tmp_path: Path, picture: Maker) -> None:
    good = {"bytes": picture(tmp_path / "a.png").read_bytes(), "path": "a.png"}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array([good, value], kind)}), tmp_path / "t.parquet")
    place = str(tmp_path / "t.parquet")
    assert message in complaint(Images(place, image_size=8), Request())
    data = served(Images(place, image_size=8, on_error="skip"), Request())
    assert [batch.index.tolist() for batch in data.eval_dataloader("train")] == [[0]]


def test_an_image_column_of_something_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.png", "b.png"]}), tmp_path / "t.parquet")
    assert "t.parquet, row 1 holds 'a.png'" in complaint(Images(str(tmp_path / "t.parquet"), image_size=8), Request())


def test_text_in_parquet_that_is_not_utf8(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xe9\xff")]
    )
    pq.write_table(pa.table({"text": text, "label": ["x"]}), tmp_path / "t.parquet")
    assert "t.parquet, rows 1 to 1: one holds text that is not UTF-8" in complaint(Text(str(tmp_path / "t.parquet")))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of Unix")
def test_pipes_are_refused_and_not_waited_for(tmp_path: Path, picture: Maker) -> None:
    os.mkfifo(tmp_path / "a.csv")
    assert "a.csv is neither a file nor a folder" in complaint(Text(str(tmp_path / "a.csv")))
    assert "/dev/null is neither a file nor a folder" in complaint(Images("/dev/null"))
    picture(tmp_path / "pictures/a.png")
    os.mkfifo(tmp_path / "pictures/b.png")
    assert served(Images(str(tmp_path / "pictures"), image_size=8), Request()).ids("train") == ["a.png"]
    (tmp_path / "pictures/metadata.csv").write_text("file_name\na.png\nb.png\n")
    assert "there is no file 'b.png'" in complaint(Images(str(tmp_path / "pictures"), image_size=8), Request())


def test_numbers_without_a_name_are_no_other_class(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y"])})
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": "c", "label": -1}]
    Dataset.from_list(rows, kinds).to_parquet(tmp_path / "t.parquet")
    data = Text(str(tmp_path / "t.parquet"), where={"label": "y"}, pack=False)
    data.open()
    assert data.rows["train"].column("text") == ["b"]


# Orientation ----------------------------------------------------------------------------------------------------------


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left is the top
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    Image.fromarray(np.dstack([ramp] * 3)).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    def image(**options: Any) -> Any:
        data = served(Images(str(tmp_path), image_size=64, **options), Request())
        return data.read("train", 0, 0).image[0].float(), data.fingerprint("train")

    (turned, first), (stored, second) = image(), image(orient=False)
    assert turned[60].mean() > 200 > 50 > turned[3].mean()
    assert stored[:, 60].mean() > 200 > 50 > stored[:, 3].mean()
    assert first != second
