"""Tasks against the libraries that define their figures."""

from __future__ import annotations

import math
import random

import jiwer
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.core.task import Task
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.metrics import entities
from ssl_suite.tasks.regress import Regress
from ssl_suite.tasks.tag import Tag

LETTERS = list(" abcdef")


def built(task: Task, labels: list[str], dim: int = 8) -> Task:
    torch.manual_seed(0)
    task.build(dim, labels)
    return task


def scores(task: Task, batches: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    metrics = task.metrics()
    for output, mask, target in batches:
        task.update(metrics, output, mask, target)
    return {k: float(v) for k, v in metrics.compute().items()}


def spoken(text: str) -> Tensor:
    return torch.tensor([LETTERS.index(c) for c in text])


def heard(texts: list[str], length: int = 40) -> tuple[Tensor, Tensor]:
    """Outputs whose greedy decoding is the texts, at random speeds and with random padding, and their mask."""
    draw = random.Random(0)
    output = torch.zeros(len(texts), length, len(LETTERS) + 1)
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        frames: list[int] = []
        for c in text:
            symbol = LETTERS.index(c) + 1
            if frames and frames[-1] == symbol:
                frames.append(0)
            frames += [0] * draw.randint(0, 1) + [symbol] * draw.randint(1, 2)
        frames = frames[:length]
        mask[row, : len(frames)] = True
        output[row, torch.arange(len(frames)), torch.tensor(frames, dtype=torch.long)] = 5.0
        output[row, len(frames) :, 3] = 9.0  # what stands in the padding must not be heard
    return output, mask


# CTC ------------------------------------------------------------------------------------------------------------------


def naive_decode(row: Tensor, length: int) -> str:
    text, last = "", 0
    for best in row[:length].argmax(-1).tolist():
        if best not in (0, last):
            text += LETTERS[best - 1]
        last = best
    return text


def test_greedy_decoding_is_the_textbooks() -> None:
    task = built(CTC(), LETTERS)
    output = torch.randn(50, 30, len(LETTERS) + 1) + torch.tensor([1.0] + [0.0] * len(LETTERS))
    lengths = torch.randint(0, 31, (50,))
    mask = torch.arange(30)[None] < lengths[:, None]
    assert task.decode(output, mask) == [naive_decode(o, n) for o, n in zip(output, lengths.tolist(), strict=True)]


def test_error_rates_are_jiwers_over_all_texts_together() -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdef", k=draw.randint(1, 4))) for _ in range(12)]
    said = [" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(40)]
    guess = ["".join(c if draw.random() > 0.2 else draw.choice("abc ") for c in text).strip() for text in said]
    task, batches, answers = built(CTC(), LETTERS), [], []
    for start in range(0, 40, 7):
        output, mask = heard(guess[start : start + 7], 80)
        target = torch.nn.utils.rnn.pad_sequence(
            [spoken(t) for t in said[start : start + 7]], batch_first=True, padding_value=IGNORE
        )
        answers += task.decode(output, mask)
        batches.append((output, mask, target))
    assert answers == guess
    found = scores(task, batches)
    assert found["cer"] == pytest.approx(jiwer.cer(said, guess), abs=1e-6)
    assert found["wer"] == pytest.approx(jiwer.wer(said, guess), abs=1e-6)
    assert found["unfit"] == 0


def test_targets_that_no_alignment_fits_are_counted_and_cost_nothing() -> None:
    task = built(CTC(), LETTERS)
    target = torch.stack([spoken("aab"), spoken("abc"), spoken("aaa")])
    mask = torch.tensor([[True] * 3 + [False], [True] * 3 + [False], [True] * 4])  # aab needs 4 states, aaa 5
    output = torch.randn(3, 4, len(LETTERS) + 1)
    assert scores(task, [(output, mask, target)])["unfit"] == pytest.approx(2 / 3)
    fits = task.loss(output[1:2], mask[1:2], target[1:2])
    torch.testing.assert_close(task.loss(output, mask, target), fits / 3)


def test_the_loss_is_minus_log_of_the_sum_over_alignments() -> None:
    task = built(CTC(), LETTERS)
    output = torch.randn(1, 3, len(LETTERS) + 1)
    p = output[0].softmax(-1)
    a, b, blank = LETTERS.index("a") + 1, LETTERS.index("b") + 1, 0
    paths = [(a, a, b), (a, b, b), (a, blank, b), (blank, a, b), (a, b, blank)]
    total = sum(p[0, x] * p[1, y] * p[2, z] for x, y, z in paths)
    found = task.loss(output, torch.ones(1, 3, dtype=torch.bool), spoken("ab")[None])
    torch.testing.assert_close(found, -total.log() / 2)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    task = built(CTC(), LETTERS)
    output, mask = torch.randn(2, 12, len(LETTERS) + 1), torch.arange(12)[None] < torch.tensor([[12], [7]])
    target = torch.full((2, 5), IGNORE)
    target[0], target[1, :2] = spoken("abcde"), spoken("ab")
    other = output.clone()
    other[1, 7:] = 100 * torch.randn(5, len(LETTERS) + 1)
    torch.testing.assert_close(task.loss(output, mask, target), task.loss(other, mask, target))
    assert task.decode(output, mask) == task.decode(other, mask)
    longer = torch.nn.functional.pad(target, (0, 4), value=IGNORE)
    torch.testing.assert_close(task.loss(output, mask, target), task.loss(output, mask, longer))


def test_an_empty_target_gives_a_finite_loss() -> None:
    task = built(CTC(), LETTERS)
    target = torch.tensor([[IGNORE, IGNORE], [1, 2]])
    loss = task.loss(
        torch.randn(2, 5, len(LETTERS) + 1, requires_grad=True), torch.ones(2, 5, dtype=torch.bool), target
    )
    loss.backward()
    assert math.isfinite(loss)


# Classes and tags -----------------------------------------------------------------------------------------------------


def test_classify_scores_are_scikit_learns() -> None:
    task = built(Classify(), list("abcd"))
    batches = [(torch.randn(30, 4), torch.ones(30, 1), torch.randint(0, 4, (30,))) for _ in range(3)]
    truth = torch.cat([b[2] for b in batches])
    guess = torch.cat([b[0] for b in batches]).argmax(1)
    found = scores(task, batches)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert task.decode(batches[0][0], batches[0][1]) == ["abcd"[i] for i in guess[:30].tolist()]


def test_tag_scores_are_scikit_learns_over_the_tagged_positions() -> None:
    task = built(Tag(), list("abc"))
    batches = []
    for _ in range(3):
        target = torch.randint(0, 3, (5, 9))
        target[torch.rand(5, 9) < 0.4] = IGNORE
        batches.append((torch.randn(5, 9, 3), torch.ones(5, 9, dtype=torch.bool), target))
    truth = torch.cat([b[2].flatten() for b in batches])
    guess = torch.cat([b[0].argmax(-1).flatten() for b in batches])
    counted = truth != IGNORE
    found = scores(task, batches)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth[counted], guess[counted]))
    assert found["macro_f1"] == pytest.approx(f1_score(truth[counted], guess[counted], average="macro"))


def test_the_loss_of_tags_is_a_mean_over_the_tagged_positions() -> None:
    task = built(Tag(), list("abc"))
    output, target = torch.randn(2, 4, 3), torch.tensor([[0, IGNORE, 2, IGNORE], [IGNORE, 1, IGNORE, IGNORE]])
    wanted = -output.log_softmax(-1)[[0, 0, 1], [0, 2, 1], [0, 2, 1]].mean()
    torch.testing.assert_close(task.loss(output, torch.ones(2, 4, dtype=torch.bool), target), wanted)
    nothing = task.loss(output, torch.ones(2, 4, dtype=torch.bool), torch.full((2, 4), IGNORE))
    assert nothing == 0


def test_tags_are_decoded_at_real_positions_only() -> None:
    task = built(Tag(), list("abc"))
    output = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2]]), 3).float()
    assert task.decode(output, torch.tensor([[True, True, False]])) == [["a", "b"]]


# Values ---------------------------------------------------------------------------------------------------------------


def test_regress_scores_are_scipys() -> None:
    task = built(Regress(), [])
    batches = [(torch.randn(20), torch.ones(20, 1), torch.randint(0, 5, (20,)).float()) for _ in range(3)]
    guess, truth = (torch.cat([b[i] for b in batches]).numpy() for i in (0, 2))
    found = scores(task, batches)
    assert found["pearson"] == pytest.approx(stats.pearsonr(guess, truth).statistic, abs=1e-5)
    assert found["spearman"] == pytest.approx(stats.spearmanr(guess, truth).statistic, abs=1e-5)
    assert found["mse"] == pytest.approx(np.square(guess - truth).mean(), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_constant_predictions_do_not_crash() -> None:
    found = scores(built(Regress(), []), [(torch.full((9,), 2.0), torch.ones(9, 1), torch.arange(9.0))])
    assert found["mse"] == pytest.approx(np.square(2 - np.arange(9)).mean())


@pytest.mark.parametrize(
    "task",
    [
        Classify(), Classify(hidden=16, dropout=0.1), Classify(projection=5), Regress(), Regress(hidden=4),
        Tag(hidden=3), CTC(hidden=3), CTC(projection=3), CTC(projection=3, blstms=2, width=4, dropout=0.1),
        CTC(blstms=1, width=4, hidden=3),
    ],
)  # fmt: skip
def test_heads_fit_any_features(task: Task) -> None:
    built(task, ["a", "b", "c"])
    length = 5 if task.sequence else 1
    output = task(torch.randn(2, length, 8), torch.ones(2, length, dtype=torch.bool))
    classes = {"class": (3,), "value": (), "tags": (5, 3), "characters": (5, 4)}[task.target]
    assert output.shape == (2, *classes)
    assert len(task.decode(output, torch.ones(2, length, dtype=torch.bool))) == 2


def test_superbs_head_takes_the_mean_between_its_two_layers() -> None:
    task = built(Classify(projection=5), list("abc"))
    first, last = (layer for layer in task.modules() if isinstance(layer, torch.nn.Linear))
    assert [first.out_features, last.in_features] == [5, 5]
    frames = torch.randn(7, 8)
    pooled = frames.mean(0, keepdim=True)[None]
    torch.testing.assert_close(task(pooled, torch.ones(1, 1))[0], last(first(frames).mean(0)))


def test_nothing_of_the_padding_reaches_a_character_through_blstms() -> None:
    task = built(CTC(projection=3, blstms=2, width=4), LETTERS)
    features, mask = torch.randn(2, 12, 8), torch.arange(12)[None] < torch.tensor([[12], [7]])
    torch.testing.assert_close(task(features, mask)[1:, :7], task(features[1:, :7], mask[1:, :7]))


# GLUE's metrics and entities ------------------------------------------------------------------------------------------


def test_glues_metrics_are_scikit_learns() -> None:
    task = built(Classify(metrics=["f1", "matthews", "accuracy"]), ["0", "1"])
    assert task.main == "f1"
    batches = [(torch.randn(30, 2), torch.ones(30, 1), torch.randint(0, 2, (30,))) for _ in range(3)]
    truth = torch.cat([b[2] for b in batches])
    guess = torch.cat([b[0] for b in batches]).argmax(1)
    found = scores(task, batches)
    assert found["f1"] == pytest.approx(f1_score(truth, guess))  # of the positive class, not the mean of both
    assert found["f1"] != pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-3)
    assert found["matthews"] == pytest.approx(matthews_corrcoef(truth, guess), abs=1e-6)
    assert set(found) == {"f1", "matthews", "accuracy"}


@pytest.mark.parametrize(
    ("guess", "truth"), [([1, 1, 1, 1], [0, 1, 1, 0]), ([1, 1, 1], [1, 1, 1]), ([0, 0], [1, 1]), ([0, 1, 1], [1, 1, 1])]
)
def test_matthews_of_a_constant_is_zero(guess: list[int], truth: list[int]) -> None:
    task = built(Classify(metrics=["matthews"]), ["0", "1"])
    output = torch.nn.functional.one_hot(torch.tensor(guess), 2).float()
    found = scores(task, [(output, torch.ones(len(guess), 1), torch.tensor(truth))])
    assert found["matthews"] == matthews_corrcoef(truth, guess) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [2.0, 0.1, 3.3333, 0.0])
def test_correlations_of_a_constant_are_zero(value: float) -> None:
    sizes = [128] * 11 + [92]  # STS-B's dev split: running sums leave a trace of rounding
    batches = [(torch.full((n,), value), torch.ones(n, 1), torch.rand(n) * 5) for n in sizes]
    found = scores(built(Regress(), []), batches)
    assert found["pearson"] == found["spearman"] == 0


@pytest.mark.filterwarnings("ignore")
def test_correlations_of_no_number_are_none() -> None:
    guess = torch.arange(9.0).index_fill(0, torch.tensor([4]), torch.nan)
    found = scores(built(Regress(), []), [(guess, torch.ones(9, 1), torch.arange(9.0))])
    assert math.isnan(found["pearson"])


def test_f1_of_more_than_two_labels_is_refused() -> None:
    with pytest.raises(UserError, match="for 3 labels ask macro_f1"):
        Classify(metrics=["f1"]).build(4, ["a", "b", "c"])


IOB = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
IOBES = ["O", *(f"{place}-{kind}" for kind in ("PER", "LOC") for place in "BIES")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("labels", [IOB, IOBES], ids=["IOB", "IOBES"])
def test_entity_f1_is_seqevals(labels: list[str]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    draw, task, batches = random.Random(0), built(Tag(metrics=["entity_f1"]), labels), []
    said: list[list[str]] = []
    truth: list[list[str]] = []
    for _ in range(20):
        target = torch.full((6, 15), IGNORE)
        answer = torch.randint(0, len(labels), (6, 15))
        mask = torch.zeros(6, 15, dtype=torch.bool)
        for row in range(6):
            length = draw.randint(1, 14)
            mask[row, :length] = True
            at = sorted(draw.sample(range(length), draw.randint(1, length)))  # first pieces
            tags = torch.tensor([draw.choice([0, 0, *range(len(labels))]) for _ in at])
            target[row, at] = tags
            keep = torch.rand(len(at)) < 0.7
            answer[row, at] = torch.where(keep, tags, answer[row, at])
            truth.append([labels[t] for t in tags.tolist()])
            said.append([labels[t] for t in answer[row, at].tolist()])
        batches.append((torch.nn.functional.one_hot(answer, len(labels)).float(), mask, target))
    found = scores(task, batches)
    assert 0.1 < found["entity_f1"] < 0.9
    assert found["entity_f1"] == pytest.approx(seqeval.f1_score(truth, said), abs=1e-6)
    assert found["entity_precision"] == pytest.approx(seqeval.precision_score(truth, said), abs=1e-6)
    assert found["entity_recall"] == pytest.approx(seqeval.recall_score(truth, said), abs=1e-6)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("I-PER I-PER O", {("PER", 0, 2)}),  # IOB1
        ("I-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("S-PER E-PER B-LOC E-LOC", {("PER", 0, 1), ("PER", 1, 2), ("LOC", 2, 4)}),
        ("O O", set()),
    ],
)
def test_entities_of_every_scheme(tags: str, wanted: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == wanted


def test_entities_are_reported_for_their_labels_and_refused_for_others() -> None:
    assert "entity_f1" in built(Tag(), IOB).metrics()
    assert "entity_f1" not in built(Tag(), ["NOUN", "VERB"]).metrics()
    with pytest.raises(UserError, match="entity_f1 needs labels such as O, B-PER"):
        Tag(metrics=["entity_f1"]).build(4, ["NOUN", "VERB"])


def test_words_that_were_cut_off_cost_no_loss_and_count_as_wrong() -> None:
    task = built(Tag(metrics=["accuracy", "macro_f1", "entity_f1"]), IOB)
    output = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [1, 0, 0]]), 5).float()
    mask = torch.tensor([[True] * 3, [True, False, False]])
    target = torch.tensor([[IGNORE, 1, 2, 2, 1], [1, IGNORE, IGNORE, IGNORE, IGNORE]])
    found = scores(task, [(output, mask, target)])
    assert found["accuracy"] == pytest.approx(3 / 5)
    said, true = [1, 2, 5, 5, 1], [1, 2, 2, 1, 1]  # 5: no label, so no other loses precision
    assert found["macro_f1"] == pytest.approx(f1_score(true, said, labels=[1, 2], average="macro"))
    assert found["entity_f1"] == pytest.approx(2 * 1 / (2 + 3))  # the first is longer than what was seen of it
    torch.testing.assert_close(task.loss(output, mask, target), task.loss(output, mask, target[:, :3]))
