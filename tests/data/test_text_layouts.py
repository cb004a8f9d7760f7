"""Official layouts of proteins and DNA, each on a tiny tree in exactly that layout, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer

PROTEINS = {"train": ["GSSQETIEVEDEE", "TTIHVGDLTLKYD"] * 6, "valid": ["MSKGEELFTG"], "test": ["GSSSKTQYEY", "DEVVKR"]}
SCORES = {"stability": "stability_score", "fluorescence": "log_fluorescence"}


def write(folder: Path, task: str) -> None:
    """As TAPE's: the score is a list of one number."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, texts in PROTEINS.items():
        rows = [
            {"id": f"{split}-{i}.pdb", "primary": text, "protein_length": len(text), SCORES[task]: [i - 0.5]}
            for i, text in enumerate(texts)
        ]
        (folder / f"{task}_{split}.json").write_text(json.dumps(rows))


def served(source: str, target: Any, **options: Any) -> Text:
    words = train_tokenizer(["we you he she they saw her him not all that is are was were been had has have do did "
                             "would could should"] * 20, "wordpiece", 200)  # fmt: skip
    data = Text(source, symbols="ACDEFGHIKLMNPQRSTVWY", **options)
    data.serve(Request(target=target, tokenizer=words))
    return data


@pytest.mark.parametrize("task", ["stability", "fluorescence"])
@pytest.mark.parametrize("below", [True, False], ids=["root", "folder"])
def test_tape_gives_one_score_a_protein(task: str, below: bool, tmp_path: Path) -> None:
    write(tmp_path / task, task)
    data = served(f"tape/{task}:{tmp_path if below else tmp_path / task}", "value")
    assert {split: data.size(split) for split in data.splits()} == {"train": 12, "validation": 1, "test": 2}
    assert data.rows["test"].column("text") == PROTEINS["test"]
    assert data.ids("validation") == ["valid-0.pdb"]
    assert [float(data.target("train", i)) for i in (0, 11)] == [-0.5, 10.5]


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "stability_train.lmdb").mkdir()
    with pytest.raises(UserError, match=r"train.lmdb holds pickles, .* put TAPE's raw stability_train.json beside it"):
        served(f"tape/stability:{tmp_path}", "value")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"primary": "ACD", "stability_score": [0.1, 0.2]}], r"stability_train.json, row 1: TAPE's rows have"),
        ([{"primary": "ACD", "stability_score": [1]}, {"primary": "ACD"}], r"row 2: TAPE's rows have `primary`"),
        ([{"primary": "ACD", "stability_score": ["high"]}], r"row 1: TAPE's rows have `primary`"),
        (None, r"stability_train.json is not there, so this is no folder of TAPE"),
    ],
)
def test_what_is_not_tapes_is_named(rows: Any, said: str, tmp_path: Path) -> None:
    if rows is not None:
        (tmp_path / "stability_train.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=said):
        served(f"tape/stability:{tmp_path}", "value")


DEEPLOC = """>Q9H400 Cell.membrane-M test
MGLPVSWAPP
ALWVLG
>Q5I0E9 Cell.membrane-M
MEVLEEPAPG
>P63033 Cytoplasm-Nucleus-U
MMKTLSSGNC
>Q9NR71 Endoplasmic.reticulum-S
MAKRTFSNLE
"""


def test_deeploc_has_its_own_test_set_and_ten_places(tmp_path: Path) -> None:
    (tmp_path / "deeploc_data.fasta").write_text(DEEPLOC)
    with pytest.warns(UserWarning, match="1 proteins of both Cytoplasm and Nucleus are left out"):
        data = served(f"deeploc:{tmp_path}", "class")
    assert data.rows["test"].column("text") == ["MGLPVSWAPPALWVLG"]
    assert data.ids("train") == ["Q5I0E9", "Q9NR71"]
    assert data.labels == ["Cell.membrane", "Endoplasmic.reticulum"]
    assert data.rows["train"].column("membrane") == ["M", "S"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (">Q9H400 Nucleus\nMG\n", "line 1: DeepLoc has titles"),
        (">Q9H400 Nucleus-U exam\nMG\n", "and perhaps `test`, not 'Q9H400 Nucleus-U exam'"),
        (">Q9H400 Nucleus-U\n>Q5I0E9 Nucleus-U\nMG\n", "line 1: no sequence follows"),
        ("MGLP\n", "line 1: a FASTA file begins with"),
    ],
)
def test_what_is_not_deeplocs_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "deeploc_data.fasta").write_text(text)
    with pytest.raises(UserError, match=said):
        served(f"deeploc:{tmp_path}", "class")


def nucleosomes(path: Path, rows: int = 30) -> None:
    path.write_text("".join(f">iYAL{i:03}W_{i}\n{'ACGT'[i % 4] * 500}\n{i % 2}\n" for i in range(rows)))


@pytest.mark.parametrize(("mark", "file"), [("H3", "H3.txt"), ("H4", "dataset02.txt"), ("H3K9ac", "dataset04.txt")])
def test_nucleosomes_are_dealt_into_splits(mark: str, file: str, tmp_path: Path) -> None:
    nucleosomes(tmp_path / file)
    data = served(f"nucleosome/{mark}:{tmp_path}", "class", apart="id")
    assert data.labels == ["0", "1"]
    assert {split: data.size(split) for split in data.splits()} == {"train": 24, "validation": 3, "test": 3}
    for split in data.splits():
        for i, name in enumerate(data.ids(split)):
            number = int(name.rpartition("_")[2])
            assert data.rows[split].column("text")[i] == "ACGT"[number % 4] * 500
            assert int(data.target(split, i)) == number % 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nucleosome:{}", "wants one of H3, H4"),
        ("nucleosome/H5:{}", "no part 'H5'"),
        ("nucleosome/H4:{}", "neither H4.txt nor dataset02.txt"),
        ("nucleosome/H3:{}", "line 4: below the title come a sequence and a line of 0 or 1, not 'ACGT'"),
    ],
)
def test_what_is_no_file_of_nucleosomes_is_named(source: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "H3.txt").write_text(">a\nACGT\n1\n>b\nACGT\n")
    with pytest.raises(UserError, match=said):
        served(source.format(tmp_path), "class")


def test_words_are_spelled_over_a_whole_layout(tmp_path: Path) -> None:
    write(tmp_path, "stability")
    data = served(f"tape/stability:{tmp_path}", "value")
    tokenizer: Tokenizer = data.tokenizer  # type: ignore[assignment]
    item = data.read("test", 1, 0)
    words = tokenizer.decode(item.ids.tolist()).split()
    assert len(words) == len("DEVVKR")
    assert words[2] == words[3]
    assert len(set(words)) == len(set("DEVKR"))
