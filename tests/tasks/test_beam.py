"""Beam search against all alignments; n-gram models against back-off by hand; files that are none."""

from __future__ import annotations

import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_suite.core.errors import UserError
from ssl_suite.tasks.beam import Beam, Search
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.ngram import NEVER, read_arpa

ARPA = r"""
\data\
ngram 1=6
ngram 2=4
ngram 3=1

\1-grams:
-99	<s>	-0.3
-1.2	</s>
-2.0	<unk>
-0.7	a	-0.2
-0.9	ab	-0.4
-1.1	b

\2-grams:
-0.2	<s> a	-0.1
-0.5	a b
-0.6	ab a	-0.25
-0.4	b </s>

\3-grams:
-0.05	<s> a b

\end\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return path


def test_a_word_that_was_not_seen_after_others_is_backed_off(arpa: Path, tmp_path: Path) -> None:
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.encode()))
    for model in (read_arpa(arpa), read_arpa(tmp_path / "lm.arpa.gz")):
        assert model.order == 3
        wanted = {
            (("<s>",), "a"): -0.2,
            (("<s>", "a"), "b"): -0.05,
            (("ab", "a"), "b"): -0.25 - 0.5,
            (("<s>", "a"), "a"): -0.1 - 0.2 - 0.7,
            (("b",), "ab"): -0.9,
            (("ab", "a"), "zebra"): -0.25 - 0.2 - 2.0,
            (("a", "b"), "</s>"): -0.4,
        }
        for (history, word), log10 in wanted.items():
            assert model.score(history, word)[0] == pytest.approx(log10 * math.log(10)), (history, word)
        assert model.score(("<s>", "a"), "b")[1] == ("a", "b")
        assert model.score(("a", "b"), "zebra")[1] == ("b", "<unk>")


def test_a_model_of_single_words_has_no_history(tmp_path: Path) -> None:
    (tmp_path / "u.arpa").write_text("\\data\\\n\\1-grams:\n-0.5 a\n-1 </s>\n\\end\\\n")
    model = read_arpa(tmp_path / "u.arpa")
    assert model.start == ()
    assert model.score((), "a") == (pytest.approx(-0.5 * math.log(10)), ())
    assert model.score((), "b")[0] == pytest.approx(NEVER * math.log(10))


@pytest.mark.parametrize(("text", "sentence"), [
    ("hello\n", "is no whole ARPA file"),
    (ARPA.replace("-0.7\ta\t-0.2", "-0.7\ta b c d"), "line 11: .* is no n-gram of 1 words"),
    (ARPA.replace("-0.5\ta b", "a b"), "line 17: 'a b' is no n-gram of 2 words"),
    (ARPA.replace("\\end\\", ""), "no line"),
    ("\\end\\\n", "holds no n-gram"),
])  # fmt: skip
def test_a_file_that_is_none_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_arpa(tmp_path / "lm.arpa")


def all_texts(probabilities: np.ndarray, labels: str) -> dict[str, float]:
    """Every text with the sum over its alignments."""
    found: dict[str, float] = {}
    for path in itertools.product(range(len(labels) + 1), repeat=len(probabilities)):
        merged = [output for output, _ in itertools.groupby(path)]
        text = "".join(labels[output - 1] for output in merged if output)
        found[text] = found.get(text, 0.0) + float(
            np.prod([row[o] for row, o in zip(probabilities, path, strict=True)])
        )
    return found


@pytest.mark.parametrize("lm", [False, True])
def test_a_wide_beam_finds_the_best_of_all_texts(lm: bool, arpa: Path) -> None:
    model, labels, differ = read_arpa(arpa), "ab ", 0
    for seed in range(12):
        draws = np.random.default_rng(seed)
        probabilities = draws.dirichlet([0.5] * 4, size=6)
        scores = {text: math.log(p) for text, p in all_texts(probabilities, labels).items() if p > 0}
        plain = max(scores, key=scores.__getitem__)
        if lm:
            for text in scores:
                words, history = text.split(), model.start
                for word in [*words, "</s>"]:
                    gained, history = model.score(history, word)
                    scores[text] += 0.8 * gained
                scores[text] += 0.3 * len(words)
        wanted = max(scores, key=scores.__getitem__)
        differ += wanted != plain
        beam = Beam(10_000, str(arpa) if lm else None, weight=0.8, bonus=0.3, least=0.0)
        assert "".join(labels[i] for i in Search(beam, list(labels))(probabilities)) == wanted
    assert (differ > 3) == lm, "the model changes some answers"


def test_without_a_space_a_label_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "p.arpa").write_text(
        "\\data\\\n\\1-grams:\n-99 <s> 0\n-1 </s>\n-1 AA 0\n-1 B 0\n\\2-grams:\n-0.01 <s> B\n-3 <s> AA\n\\end\\\n"
    )
    probabilities = np.array([[0.1, 0.6, 0.3]])  # AA is heard, B is likelier said
    assert Search(Beam(5), ["AA", "B"])(probabilities) == [0]
    assert Search(Beam(5, str(tmp_path / "p.arpa")), ["AA", "B"])(probabilities) == [1]


def test_ctc_answers_by_its_beam_in_real_states_alone(arpa: Path) -> None:
    task = CTC(beam=Beam(20, str(arpa), weight=3.0, bonus=0.0))
    task.build(4, ["a", "b", " "])
    output = torch.full((2, 5, 4), -9.0)
    for state, label in enumerate([1, 3, 2, 2, 1]):
        output[:, state, label] = 0.0
    output[0, 2, 1] = 0.1  # "a a", by a hair likelier than "a b" for the states alone
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    greedy = CTC()
    greedy.build(4, task.labels)
    assert greedy.decode(output, mask) == ["a a", "a ba"]
    assert task.decode(output, mask)[0] == "a b"
    assert task.decode(output[:1, :3], mask[:1, :3]) == task.decode(output, mask)[:1]


def test_options_that_do_not_fit_are_one_sentence(arpa: Path) -> None:
    with pytest.raises(UserError, match=r"beam\.lm needs texts to choose from: task\.beam\.width of 2 or more"):
        Beam(lm=str(arpa))
    with pytest.raises(UserError, match=r"none of its words .* is of the labels; are they in capitals"):
        CTC(beam=Beam(5, str(arpa))).build(4, ["A", "B", " "])
    with pytest.raises(UserError, match=r"words \([^<]*\.\.\.\) is of the labels; no text has a space: it must hold"):
        CTC(beam=Beam(5, str(arpa))).build(4, ["A", "B"])
    with pytest.raises(UserError, match="does not exist"):
        CTC(beam=Beam(5, "nowhere.arpa")).build(4, ["a"])
