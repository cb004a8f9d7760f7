"""scripts/build_verses.py: verses stay whole over the splits, shares and pairs, and a file must be the expected one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

LANGUAGES = ["en", "zh"]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import build_verses

    return build_verses


@pytest.fixture
def package(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two chapters of 60 verses; the last two of each chapter say the same."""
    (tmp_path / "dist").mkdir()
    hashes = {}
    for language in LANGUAGES:
        verses = [{"id": i, "translation": f"{language}  {min(i, 59)}\n of {{}}"} for i in range(1, 61)]
        chapters = [
            {"id": c, "verses": [v | {"translation": v["translation"].format(c)} for v in verses]} for c in (1, 2)
        ]
        path = tmp_path / "dist" / f"quran_{language}.json"
        path.write_text(json.dumps(chapters), "utf-8")
        hashes[language] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(build, "HASHES", hashes)
    return tmp_path


def test_no_verse_is_in_two_splits_and_each_is_there_in_all_languages(build: Any, package: Path) -> None:
    made = build.split(package, LANGUAGES)
    assert [len(rows) for rows in made.values()] == pytest.approx([216, 12, 12], abs=6)
    assert sum(map(len, made.values())) == 240
    where = {(row["verse"], row["language"]): name for name, rows in made.items() for row in rows}
    assert len(where) == 240
    for verse in {verse for verse, _ in where}:
        assert where[verse, "en"] == where[verse, "zh"]
    assert where["1:59", "en"] == where["1:60", "en"]  # which say the same
    assert {row["text"] for rows in made.values() for row in rows} >= {"en 7 of 1", "zh 59 of 2"}


def test_a_smaller_share_is_part_of_a_greater_and_pairs_are_translations(build: Any, package: Path) -> None:
    made = build.split(package, LANGUAGES)
    few, some = ({row["id"] for row in build.share(made["train"], of)} for of in (16, 4))
    assert few < some < {row["id"] for row in made["train"]}
    assert {name.removesuffix("-en").removesuffix("-zh") for name in few} == {n[:-3] for n in few if n.endswith("en")}
    long = [{"verse": "9:9", "language": language, "text": language * 101} for language in LANGUAGES]
    lines = build.pairs([*made["test"], *long], "en", "zh").splitlines()
    assert len(lines) == 1 + len(made["test"]) // 2
    assert all(one.split()[1:] == other.split()[1:] for one, other in (line.split("\t") for line in lines[1:]))


def test_another_file_than_expected_is_refused(build: Any, package: Path) -> None:
    (package / "dist/quran_zh.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"quran_zh\.json is not the file that was expected"):
        build.split(package, LANGUAGES)
