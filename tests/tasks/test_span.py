"""Span: the best pair of start and end over all windows of a question, scored as the official scripts do."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from string import punctuation
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.text import squad as squad_oracle

from ssl_suite.core.errors import UserError
from ssl_suite.data.text.questions.questions import Asked
from ssl_suite.tasks.answer_scores import best_threshold, exact, f1, normalize, score, segment
from ssl_suite.tasks.span import Span, join
from ssl_suite.tasks.spans import SpanTarget

WORDS = ["The", "a", "an", "cat", "Cat's", "dog,", "Zürich", "İstanbul", "(1990)", "U.S.", "—", "東京", "naïve", "then"]


class Data:
    """Questions 0, 1, 2 of which the first has two windows; a window's text is its number and places."""

    source_name = "questions.json"

    def __init__(self, answers: list[list[str]] | None) -> None:
        self.answers = answers

    def asked(self, split: str) -> Asked:
        return Asked(["a", "b", "c"], self.answers, [0, 0, 1, 2], lambda w, s, e: f"{w} from {s} to {e}")


def span(labels: tuple[str, ...] = ("answer",), **options: Any) -> Span:
    task = Span(**options)
    task.build(8, list(labels))
    return task


def target(*rows: tuple[int, int, int, int, int]) -> Tensor:
    return torch.tensor(rows)


def phrase(draw: random.Random, most: int = 6) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


# Scoring --------------------------------------------------------------------------------------------------------------


def test_english_scores_are_those_of_the_official_script() -> None:
    draw, compared = random.Random(0), 0
    for _ in range(300):
        said, right = phrase(draw), [phrase(draw) for _ in range(draw.randint(1, 3))]
        if not all(normalize(t) for t in [said, *right]):
            continue  # the scripts of 1.1 and 2.0 differ where nothing is left
        oracle = squad_oracle(
            [{"id": "q", "prediction_text": said}],
            [{"id": "q", "answers": {"text": right, "answer_start": [0] * len(right)}}],
        )
        wanted = (float(oracle["exact_match"]) / 100, float(oracle["f1"]) / 100)
        assert score(said, right) == pytest.approx(wanted, abs=1e-6)
        compared += 1
    assert compared > 200


@pytest.mark.parametrize(
    ("said", "right", "figures"),
    [
        ("the Eiffel Tower!", ["Eiffel tower"], (1, 1)),
        ("theory", ["ory"], (0, 0)),  # an article is a whole word
        ("", [], (1, 1)),
        ("something", [], (0, 0)),
        ("", ["something"], (0, 0)),
        ("the", ["a"], (1, 1)),  # nothing is left of either, as in the script of 2.0
        ("Saint Denis", ["Denis", "Saint Denis, Paris"], (0, 0.8)),
    ],
)
def test_known_scores(said: str, right: list[str], figures: tuple[float, float]) -> None:
    assert score(said, right) == pytest.approx(figures)


def longest_common_run(a: list[str], b: list[str]) -> int:
    """By trying all."""
    runs = [(i, j) for i in range(len(a)) for j in range(i + 1, len(a) + 1)]
    return max((j - i for i, j in runs for k in range(len(b)) if a[i:j] == b[k : k + j - i]), default=0)


def test_chinese_scores_count_the_longest_run_of_characters() -> None:
    assert segment("《光荣》Koei 1998年") == ["光", "荣", "koei", "1998", "年"]
    assert exact("《光荣》。", "光荣", "cmrc") == 1
    assert exact("the 光荣", "光荣", "cmrc") == 0  # an article is no article here
    assert f1("光荣和ω", "光荣与ω", "cmrc") == pytest.approx(2 * 2 / 8)
    draw = random.Random(0)
    for _ in range(200):
        said, right = ("".join(draw.choices("光荣和与年，a ", k=draw.randint(1, 8))) for _ in range(2))
        a, b = segment(said), segment(right)
        if a and b:
            assert f1(said, right, "cmrc") == pytest.approx(2 * longest_common_run(a, b) / (len(a) + len(b)))


def mlqa_tokens(text: str, articles: str) -> list[str]:
    """Written out as MLQA's evaluation script goes: by character, for the language whose articles are given."""
    marks = {c for c in text if unicodedata.category(c).startswith("P")}.union(punctuation)
    kept = "".join(character for character in text.lower() if character not in marks)
    found, rest = [], ""
    for character in re.sub(articles, " ", kept) if articles else kept:
        if "\u4e00" <= character <= "\u9fa5":
            found += [*rest.split(), character]
            rest = ""
        else:
            rest += character
    return found + rest.split()


def test_mlqas_scores_are_a_bag_of_characters_in_chinese_and_of_words_in_english() -> None:
    assert exact("《光荣》。", "光荣", "mlqa") == exact("The “Seine”, 777 km", "seine 777 km", "mlqa") == 1
    assert f1("荣光", "光荣和", "mlqa") == pytest.approx(4 / 5)  # in any order
    draw = random.Random(0)
    for letters, articles in (
        ("光荣和与年，。《b 1", ""),
        (["the ", "a ", "an", "seine ", "777", " km", "—", "’s ", "$"], r"\b(a|an|the)\b"),
    ):
        for _ in range(300):
            said, right = ("".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(2))
            a, b = mlqa_tokens(said, articles), mlqa_tokens(right, articles)
            common = sum((Counter(a) & Counter(b)).values())
            assert exact(said, right, "mlqa") == (a == b)
            if a and b:
                assert f1(said, right, "mlqa") == pytest.approx(2 * common / (len(a) + len(b)))


def test_best_threshold_is_the_best_of_all() -> None:
    draw = random.Random(0)
    for _ in range(200):
        n = draw.randint(1, 8)
        odds = [float(draw.randint(-3, 3)) for _ in range(n)]
        answered, silent = ([draw.choice([0.0, 0.5, 1.0]) for _ in range(n)] for _ in range(2))

        def mean(threshold: float) -> float:
            return sum(a if o <= threshold else s for o, a, s in zip(odds, answered, silent, strict=True)) / n  # noqa: B023

        best, threshold = best_threshold(odds, answered, silent)
        assert best == pytest.approx(mean(threshold))
        assert best == pytest.approx(max(mean(t / 2) for t in range(-9, 9)))


# Search ---------------------------------------------------------------------------------------------------------------


def test_search_finds_the_best_allowed_pair_and_nothing_else() -> None:
    task = span(max_tokens=4, n_best=20)
    torch.manual_seed(0)
    output = torch.randn(50, 15, 2)
    output[:, :3] += 20  # the question's positions
    output[:, 13:] += 20  # what follows the context
    places, scores = task.search(output, SpanTarget(*target(*[(0, 0, 3, 12, i) for i in range(50)]).unbind(1)))
    for i, (window, start, end) in enumerate(places.tolist()):
        pairs = {
            (s, e): float(output[i, s, 0] + output[i, e, 1]) for s in range(3, 13) for e in range(s, min(s + 4, 13))
        }
        assert window == i
        assert (start, end) == max(pairs, key=pairs.__getitem__)
        assert scores[i].tolist() == pytest.approx([pairs[start, end], float(output[i, 0].sum())], abs=1e-5)


def test_a_narrow_search_that_fits_nowhere_answers_nothing() -> None:
    output = torch.zeros(1, 10, 2)
    output[0, 8, 0] = output[0, 3, 1] = 5.0
    places, scores = span(n_best=1).search(output, SpanTarget(*target((0, 0, 2, 9, 2)).unbind(1)))
    assert join(Data(None).asked("test"), places, scores)[0].text == ""


def test_windows_are_joined_whatever_their_order() -> None:
    places = torch.tensor([[0, 3, 4], [1, 5, 6], [2, 7, 7], [3, 8, 9]])
    scores = torch.tensor([[1.0, 4.0], [3.0, 2.0], [0.0, 9.0], [5.0, -5.0]])
    for order in ([0, 1, 2, 3], [3, 1, 2, 0]):
        answers = join(Data(None).asked("test"), places[order], scores[order])
        assert [(a.question, a.text, a.odds) for a in answers] == [
            (0, "1 from 5 to 6", -1.0),  # best span over windows against the least "no answer"
            (1, "2 from 7 to 7", 9.0),
            (2, "3 from 8 to 9", -10.0),
        ]


# Learning and figures -------------------------------------------------------------------------------------------------


def test_loss_is_over_the_context_and_no_answer_alone() -> None:
    task, output, mask = span(), torch.randn(2, 8, 2), torch.ones(2, 8, dtype=torch.bool)
    where = target((4, 5, 3, 6, 0), (0, 0, 2, 7, 1))
    loss = task.loss(output, mask, where)
    first = [0, 3, 4, 5, 6]
    second = [0, 2, 3, 4, 5, 6, 7]
    parts = [
        F.cross_entropy(output[i, allowed, k][None], torch.tensor([allowed.index(int(where[i, k]))]))
        for i, allowed in enumerate([first, second])
        for k in range(2)
    ]
    torch.testing.assert_close(loss, torch.stack(parts).mean())
    changed = output.clone()
    changed[0, [1, 2, 7]] = 100.0
    changed[1, 1] = -50.0
    assert task.loss(changed, mask, where) == loss


def outputs(*wanted: tuple[int, int, float]) -> Tensor:
    """Windows whose best span and score of "no answer" are these."""
    output = torch.zeros(len(wanted), 12, 2)
    for row, (start, end, null) in enumerate(wanted):
        output[row, start, 0] = output[row, end, 1] = 3.0
        output[row, 0] = null / 2
    return output


def evaluated(task: Span, golds: list[list[str]] | None, split: str) -> dict[str, float]:
    metrics, mask = task.metrics(), torch.ones(2, 12, dtype=torch.bool)
    output = outputs((3, 4, 9.0), (5, 6, 1.0), (2, 2, 7.0), (8, 9, 8.0))
    where = target(*[(0, 0, 2, 11, i) for i in range(4)])
    for batch in ([2, 1], [0, 3]):  # the windows of question 0 come in two batches
        task.update(metrics, output[batch], mask, where[batch])
    return {k: float(v) for k, v in task.compute(metrics, Data(golds), split).items()}  # type: ignore[arg-type]


def test_every_question_counts_once_over_its_windows() -> None:
    figures = evaluated(span(), [["0 from 3 to 4"], ["2 from 2 to 2"], ["nothing like it"]], "test")
    assert figures == pytest.approx({"exact_match": 2 / 3, "f1": 2 / 3})


def test_the_threshold_is_tuned_on_validation_and_used_on_test() -> None:
    task = span(("answer", "no answer"))
    golds = [["1 from 5 to 6", "x"], ["2 from 2 to 2"], []]  # odds −5, 1 and 2; the first is answered wrongly
    found = evaluated(task, golds, "validation")
    assert found["best_f1_threshold"] == 1.5  # at 0: a wrong answer and two silences
    assert found["exact_match"] == found["best_exact_match"] == pytest.approx(2 / 3)
    assert found["f1"] == found["best_f1"]  # what selects models is what this very checkpoint will score
    assert found["no_answer_exact_match"] == 1
    assert found["has_answer_exact_match"] == 0.5
    tested = evaluated(task, golds, "test")
    assert tested["exact_match"] == pytest.approx(2 / 3)
    assert not [name for name in tested if name.startswith("best")]
    fixed = span(("answer", "no answer"), null_threshold=-100.0)
    fixed.load_state_dict(task.state_dict())  # a threshold that is given stands above a checkpoint's
    evaluated(fixed, golds, "validation")
    assert evaluated(fixed, golds, "test")["exact_match"] == pytest.approx(1 / 3)  # silent whatever validation says


def test_questions_without_known_answers_are_not_scored() -> None:
    with pytest.raises(UserError, match="no answers; use `predict`"):
        evaluated(span(), None, "test")
    with pytest.raises(UserError, match="--data Questions"):
        span().files([], object(), "test")  # type: ignore[arg-type]


def test_files_are_those_of_the_official_scripts() -> None:
    task = span(("answer", "no answer"))
    output, where = outputs((3, 4, 9.0), (5, 6, 1.0), (2, 2, 7.0), (8, 9, 4.0)), [(0, 0, 2, 11, i) for i in range(4)]
    rows = list(enumerate(task.predict(output, output[..., 0] == 0, target(*where))))
    assert task.files(rows, Data(None), "test") == {  # type: ignore[arg-type]
        "predictions.json": {"a": "0 from 3 to 4", "b": "", "c": "3 from 8 to 9"},
        "null_odds.json": {"a": -5.0, "b": 1.0, "c": -2.0},
    }
    assert list(span().files(rows, Data(None), "test")) == ["predictions.json"]  # type: ignore[arg-type]
