"""Sources larger than memory: the same rows as of small ones, a copy that is made once, and little memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common import arrow as arrow_module
from ssl_suite.data.common import files as files_module
from ssl_suite.data.common import source as source_module
from ssl_suite.data.common.files import read_rows
from ssl_suite.data.common.source import Rows, open_source
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer

KINDS = ["parquet", "jsonl", "json", "csv", "tsv", "txt", "folder"]
TEXTS = [f"document {i}, " + "of words " * (i % 9) + "é" for i in range(200)]


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large, and a few rows fill the memory."""
    monkeypatch.setattr(source_module, "LARGE", 0)
    monkeypatch.setattr(arrow_module, "HELD", 500)
    monkeypatch.setattr(files_module, "PIECE", 7)


def write(place: Path, texts: list[str]) -> Path:
    if place.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_dict({"text": texts}).to_parquet(place)
    elif place.suffix == ".jsonl":
        place.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    elif place.suffix == ".json":
        place.write_text(json.dumps([{"text": text} for text in texts], indent=1), "utf-8")
    elif place.suffix == ".csv":
        place.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), "utf-8")
    elif place.suffix:
        place.write_text("text\n" * (place.suffix == ".tsv") + "\n".join(texts), "utf-8")
    else:
        place.mkdir(exist_ok=True)
        for i in range(0, len(texts), 50):
            write(place / f"{i:09}.txt", texts[i : i + 50])
    return place


def place_of(kind: str, folder: Path) -> Path:
    return folder / ("texts" if kind == "folder" else f"a.{kind}")


def opened(place: Path) -> Rows:
    return open_source(str(place), list_text)["train"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_mapped_and_read_again_once_they_change(kind: str, tmp_path: Path, mapped: None) -> None:
    place = write(place_of(kind, tmp_path), TEXTS)
    rows = opened(place)
    assert rows.table.cache_files
    assert list(rows.values("text")) == TEXTS
    assert list(rows.values("text", 199)) == TEXTS[199:]
    write(place, [*TEXTS, "one more"])
    assert list(opened(place).values("text")) == [*TEXTS, "one more"]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "parquet"])
def test_a_copy_is_made_once(kind: str, tmp_path: Path, mapped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write(place_of(kind, tmp_path), TEXTS)
    first = opened(place)
    monkeypatch.setattr(arrow_module, "_write", None)
    assert opened(place).fingerprint == first.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_token_files_do_not_depend_on_size(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    train_tokenizer(TEXTS, "wordpiece", 100).save(str(tmp_path / "tokenizer.json"))
    place = write(place_of(kind, tmp_path), TEXTS)

    def tokens() -> dict[str, bytes]:
        data = Text(str(place), tokenizer=str(tmp_path), max_length=16)
        data.serve(Request())
        return {split: data.token_path(split).read_bytes() for split in data.splits()}

    small = tokens()
    request.getfixturevalue("mapped")
    assert tokens() == small
    assert set(small) == {"train", "validation"}


def test_shards_are_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        write(tmp_path / f"train-0000{i}-of-00003.jsonl", TEXTS)
    monkeypatch.setattr(source_module, "LARGE", 2 * (tmp_path / "train-00000-of-00003.jsonl").stat().st_size)
    assert len(opened(tmp_path).table.cache_files) == 3


@pytest.mark.parametrize(
    ("later", "wanted"),
    [
        ({"text": "b", "n": 0.5}, [1.0] * 50 + [0.5]),
        ({"text": "b"}, [1] * 50 + [None]),
        ({"n": 2, "text": "b", "new": [1]}, [1] * 50 + [2]),
        ({"text": "b", "n": None}, [1] * 50 + [None]),
    ],
)
def test_later_rows_may_have_other_columns(
    later: dict[str, Any], wanted: list[Any], tmp_path: Path, mapped: None
) -> None:
    rows = [*({"text": "a" * 40, "n": 1} for _ in range(50)), later]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = opened(tmp_path / "a.jsonl")
    assert list(found.values("n")) == wanted
    assert list(found.values("text"))[-1] == "b"


def test_a_column_of_numbers_and_texts_is_refused(tmp_path: Path, mapped: None) -> None:
    rows = [*({"text": "a" * 40, "n": 1} for _ in range(50)), {"text": "b", "n": "two"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"a\.jsonl cannot be read as json"):
        opened(tmp_path / "a.jsonl")
    assert not list((tmp_path / "cache/tables").glob("*.arrow"))


def test_a_bad_line_is_named(tmp_path: Path, mapped: None) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "cut o\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not JSON"):
        opened(tmp_path / "a.jsonl")
    for name in ("b.jsonl", "b.csv"):
        (tmp_path / name).write_bytes(
            b'"text"\n"caf\xe9"\n' if "csv" in name else b'{"text": "good"}\n{"text": "\xe9"}'
        )
        with pytest.raises(UserError, match=rf"{name}, line 2 is not UTF-8"):
            opened(tmp_path / name)


# JSON lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    "rows", [[], [{"a": 12345}], [{"a": [1, {"b": ']},[ \\ " é'}]}, {}, {"a": None, "b": -1.5e-7, "c": True}]]
)
def test_a_list_is_read_in_pieces(rows: list[Any], piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "PIECE", piece)
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=2, ensure_ascii=False) + "\n",
        "\ufeff \n" + json.dumps(rows),
    ):
        (tmp_path / "a.json").write_text(text, "utf-8")
        assert read_rows(tmp_path / "a.json") == rows


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}', "neither a comma nor the list's end follows entry 1"),
        ('[{"a": 1} {"a": 2}]', "neither a comma nor the list's end follows entry 1"),
        ('[{"a": 1},]', "entry 2 is not JSON"),
        ('[{"a": 1}, {"a": tru}]', "entry 2 is not JSON"),
        ('[{"a": 1}, {"a": "b', r"entry 2 is not JSON \(Unterminated string"),
        ('[{"a": 1}, 7]', "entry 2 is not a JSON object"),
        ('[{"a": 1}] more', "something follows the end"),
        ("[", "entry 1 is not JSON"),
    ],
)
def test_a_broken_list_is_named(
    text: str, message: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "PIECE", piece)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json.* {message}"):
        read_rows(tmp_path / "a.json")


# Memory ---------------------------------------------------------------------------------------------------------------

WATCHED = """
import json, sys, threading, time
from pathlib import Path
from ssl_suite.data.common import arrow, source
from ssl_suite.data.text.text import Text
import datasets, pyarrow

def held():  # MB of memory of its own; of a mapped file the system keeps what fits
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1e3

def watch():
    while True:
        peaks.append(held())
        time.sleep(0.005)

arrow.HELD, source.LARGE = 1 << 20, 1 << 20
for place in sys.argv[2], sys.argv[1]:  # the small one first: what comes once comes before
    peaks = [before := held()]
    threading.Thread(target=watch, daemon=True).start()
    data = Text(place)
    data.open()
    texts = sum(len(text) for split in data.rows for text in data.texts(split))
print(json.dumps([texts, max(peaks) - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["folder", "json", "jsonl", "csv"])
def test_memory_is_bounded(kind: str, tmp_path: Path) -> None:
    """60 MB of text; held in memory they would be twice that or more, as objects and as columns."""
    texts = [f"{i} " + "of many words " * 100 for i in range(42_000)]
    (tmp_path / "small").mkdir()
    small = write(place_of(kind, tmp_path / "small"), texts[:2000])
    place = write(place_of(kind, tmp_path), texts)
    found = subprocess.run(
        [sys.executable, "-c", WATCHED, str(place), str(small)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    read, peak = json.loads(found.stdout.splitlines()[-1])
    assert read > 0.99 * sum(map(len, texts))
    assert peak < 40


# Hub ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Prepares a data set of one large column, as `load_dataset` does: always in the same place."""
    import datasets

    def prepare(texts: list[str]) -> None:
        def rows() -> Iterator[dict[str, str]]:
            yield from ({"text": text} for text in texts)

        shutil.rmtree(tmp_path / "hub", ignore_errors=True)
        made = datasets.Dataset.from_generator(rows, cache_dir=str(tmp_path / "hub"), fingerprint="revision")
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict({"train": made}))

    return prepare


def test_large_columns_of_the_hub_have_a_key_of_their_own(
    hub: Callable[[list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "STAMPED", 0)
    hub(["one", "two"])
    first = open_source("hf:a/b")["train"].fingerprint
    assert open_source("hf:a/b")["train"].fingerprint == first
    hub(["one", "TWO"])
    assert open_source("hf:a/b")["train"].fingerprint != first
