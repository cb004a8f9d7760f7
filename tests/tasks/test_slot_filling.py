"""Slot filling: transcripts with marks, their characters and marks as labels, and SUPERB's two figures."""

from __future__ import annotations

import jiwer
import pytest
import torch
from test_targets import figures, targets

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.marked import Marked
from ssl_suite.data.speech.layouts.snips import marked
from ssl_suite.tasks.slot_filling import SlotFilling, f1, slots

SAID = "Play <artist>West Bam</artist> on <service>Google, Music</service>!"


def test_marks_are_labels_of_their_own_and_words_between_them_are_normalised() -> None:
    found = targets(Marked.name, train=[SAID])
    (labels,) = found.values("train")
    assert "".join(labels) == "play <artist>west bam</artist> on <service>google music</service>"
    assert labels[5] == "<artist>"
    assert found.labels[-4:] == ["</artist>", "</service>", "<artist>", "<service>"]
    assert [found.labels[i] for i in found["train", 0]] == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("play <artist>bam", r"row 1: <artist> in .* is never closed; write </artist>"),
        ("play bam</artist>", r"row 1: </artist> in .* stands where no slot can; write <artist>…</artist>"),
        ("<a>play <b>bam</b></a>", r"row 1: <b> in .* stands where no slot can"),
        ("?!", r"row 1: .* has no words"),
    ],
)
def test_marks_that_do_not_belong_together_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        targets(Marked.name, train=[text])


def test_tags_become_marks() -> None:
    words, tags = ["a", "b", "c", "d", "e"], ["B-x", "B-x", "I-x", "O", "B-y"]
    assert marked(words, tags) == "<x>a</x> <x>b c</x> d <y>e</y>"


def test_the_f1_is_of_the_kinds_of_slot() -> None:
    """By hand: one of two kinds is found, and one is there that should not be."""
    assert f1(slots("<a>x</a> <b>y</b>"), slots("<a>z</a> <c>y</c>")) == pytest.approx(0.5)
    assert f1(slots("<a>x</a>"), slots("<a>x</a> <c>y</c>")) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert (f1({}, {}), f1({}, slots("<a>x</a>")), f1(slots("<a>x</a>"), {})) == (1.0, 0.0, 0.0)


def test_figures_are_those_of_superb() -> None:
    """The nearest of several values counts; a slot that is missing is wrong in all its characters."""
    references = ["<a>cat</a> <a>dog</a> <b>on</b>", "go <c>west</c>", "stay"]
    answers = ["<a>dig</a> <b>an</b>", "go west", "stay"]
    found = targets(Marked.name, train=[*references, *answers])
    ids = [[found.labels.index(part) + 1 for part in row] for row in found.values("train")[3:]]
    task = SlotFilling()
    scores = figures(task, targets(Marked.name, train=[*references, *answers], test=references), "test", ids)
    pairs = [("cat", "dig"), ("dog", "dig"), ("on", "an"), ("west", "")]
    assert scores["slot_cer"] == pytest.approx(jiwer.cer([a for a, _ in pairs], [b for _, b in pairs]))
    assert scores["slot_f1"] == pytest.approx((1.0 + 0.0 + 1.0) / 3)
    assert (task.main, task.direction) == ("slot_f1", "max")


def test_it_learns_to_mark() -> None:
    torch.manual_seed(0)
    found = targets(Marked.name, train=["a <s>b</s>", "b a"])
    task = SlotFilling()
    task.build(8, found.labels)
    features = torch.randn(2, 12, 8)
    mask = torch.ones(2, 12, dtype=torch.bool)
    target = torch.nn.utils.rnn.pad_sequence([found["train", i] for i in range(2)], True, -100)
    optimizer = torch.optim.Adam(task.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(task(features, mask), mask, target).backward()
        optimizer.step()
    assert task.decode(task(features, mask), mask) == ["a <s>b</s>", "b a"]
    assert task.outcomes(task(features, mask), mask, target) == [(1.0, 1.0), (1.0, 1.0)]
