"""Splits with speakers of their own, whatever splits a source has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text


def films(folder: Path, speakers: int = 20) -> Path:
    for split, n in {"train": 60, "test": 20}.items():
        rows = [{"text": f"{split} {i}", "label": "pn"[i % 2], "who": f"s{i % speakers}"} for i in range(n)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def served(source: Path | str, **options: Any) -> Text:
    data = Text(str(source), tokenizer="char", apart="who", **options)
    data.serve(Request(target="class"))
    return data


def test_no_value_is_in_two_splits_and_no_row_is_lost(tmp_path: Path) -> None:
    data = served(films(tmp_path))
    who = {split: set(data.rows[split].column("who")) for split in ("train", "validation", "test")}
    assert {split: len(names) for split, names in who.items()} == {"train": 16, "validation": 2, "test": 2}
    assert len(set.union(*who.values())) == 20
    texts = [text for split in who for text in data.rows[split].column("text")]
    assert len(texts) == len(set(texts)) == 80
    assert {split: data.ids(split) for split in who} == {split: served(tmp_path).ids(split) for split in who}
    assert data.identity() != served(films(tmp_path, speakers=10)).identity()


def test_a_row_still_knows_its_file(tmp_path: Path) -> None:
    data = served(films(tmp_path))
    for split in data.splits():
        for i, text in enumerate(data.rows[split].column("text")):
            name, number = text.split()
            assert data.rows[split].where(i) == f"{tmp_path / name}.jsonl, row {int(number) + 1}"
    some = served(tmp_path, where={"label": "n"})
    for i, text in enumerate(some.rows["train"].column("text")):
        assert some.rows["train"].where(i).endswith(f"{text.split()[0]}.jsonl, row {int(text.split()[1]) + 1}")


def test_too_few_values_and_other_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'who' has 2 values, too few for three splits with others each"):
        served(films(tmp_path, speakers=2))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "a", "label": "p"}))
    with pytest.raises(UserError, match=r"test\.jsonl has no column 'who'"):
        served(tmp_path)
    films(tmp_path)
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": ["a"], "label": "p", "who": "s1"}))
    with pytest.raises(UserError, match=r"have other columns, so that data\.apart cannot deal them anew"):
        served(tmp_path)


def test_speakers_of_prompts_are_set_apart() -> None:
    data = Speech("samples:prompts", apart="speaker")
    data.serve(Request())
    speakers = {split: set(data.rows[split].column("speaker")) for split in data.splits()}
    assert sorted(map(len, speakers.values())) == [1, 1, 2]
    assert sum(data.size(split) for split in data.splits()) == 1903 + 253 + 382
