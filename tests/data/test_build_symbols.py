"""scripts/build_symbols.py: melodies as steps, pieces whose files forbid it left out, relatives in one split."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import build_symbols
    finally:
        sys.path.remove(str(SCRIPTS))
    return build_symbols


def note(pitch: str, inside: str = "", voice: int = 1) -> str:
    step, alter, octave = pitch[0], {"#": 1, "b": -1}.get(pitch[1:-1], 0), pitch[-1]
    at = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    return f"<note>{inside}{at}<voice>{voice}</voice></note>"


def test_melody_is_that_of_the_first_voice_without_repeats_of_tied_notes(script: ModuleType) -> None:
    notes = [
        note("C4"), note("E4", "<chord/>"), note("C5"), note("D5", "<grace/>"), "<note><rest/><voice>1</voice></note>",
        note("Bb4", '<tie type="start"/>'), note("Bb4", '<tie type="stop"/>'), note("F2", voice=2), note("B4"),
        note("B4"), note("C2"),
    ]  # fmt: skip
    pitches = list(script.melody(ElementTree.fromstring(f"<part>{''.join(notes)}</part>")))
    assert pitches == [48, 60, 58, 59, 59, 24]
    assert script.letters(pitches) == "yknma"  # +12, -2, +1, 0, and -35 as an octave


@pytest.mark.parametrize(
    ("said", "permitted"),
    [
        ("", True),
        ("Allegro", True),
        ("PDF © 2004 Somebody</a><a>used by permission", True),
        ("PDF © 2004 Somebody", False),
        ("UT ORPHEUS EDIZIONI", False),
        ("Copyright ©", False),
        ("© 2014, Creative Commons License (CC-BY)", True),
    ],
)
def test_a_piece_with_a_notice_is_taken_only_where_that_permits_it(
    script: ModuleType, said: str, permitted: bool
) -> None:
    assert script.permits(ElementTree.fromstring(f"<score><a>{said}</a></score>")) is permitted


def test_peptides_are_kept_once_and_relatives_together(script: ModuleType, tmp_path: Path) -> None:
    rows = ["MGLWSKIKEVG, 1", "GLWSKIKEVG, 1", "GLWSKIKEAAA, 0", "KLWSKIKEAAAC, 1", "WWWWWWWWWW, 0", "WWWWWWWWWW, 1",
            "ACD, 1", "PPPPPPPPPPP, 0"]  # fmt: skip
    path = tmp_path / "peptides.csv"
    path.write_text("8,1,UniProt,AMP\n" + "\n".join(rows) + "\n")
    found = {row["text"]: row for row in script.peptide_rows([path])}
    assert {text: row["label"] for text, row in found.items()} == {
        "GLWSKIKEVG": "AMP", "GLWSKIKEAAA": "UniProt", "KLWSKIKEAAAC": "AMP", "PPPPPPPPPPP": "UniProt",
    }  # fmt: skip
    groups = [found[text]["group"] for text in ("GLWSKIKEVG", "GLWSKIKEAAA", "KLWSKIKEAAAC", "PPPPPPPPPPP")]
    assert groups[0] == groups[1] == groups[2] != groups[3]
