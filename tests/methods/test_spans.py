"""Spans: how many there are, where they begin, what they hide; each as wav2vec 2.0's authors draw them."""

from __future__ import annotations

from math import comb

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.methods.speech.spans import Spans


def seeds(n: int, epoch: int = 0) -> Tensor:
    return torch.tensor([item_seed(0, epoch, i) for i in range(n)])


def drawn(spans: Spans, frames: int, n: int = 4000, padding: int = 0) -> Tensor:
    """(n, frames + padding) draws for recordings of one length."""
    return spans.draw(lengths_to_mask(torch.full((n,), frames), frames + padding), seeds(n))


def share_hidden(frame: int, frames: int, length: int, number: int) -> float:
    """How probably one of `number` spans, begun without replacement in [0, frames − length), covers a frame."""
    room = max(frames - length, number + 1)
    covering = len(range(max(0, frame - length + 1), min(frame, room - 1) + 1))
    return 1 - comb(room - covering, number) / comb(room, number)


@pytest.mark.parametrize(("frames", "rate", "length", "least"), [(40, 0.5, 5, 2), (23, 0.8, 10, 1), (12, 0.65, 10, 2)])
def test_each_frame_is_hidden_as_often_as_starts_without_replacement_say(
    frames: int, rate: float, length: int, least: int
) -> None:
    hidden = drawn(Spans(rate, length, least), frames, n=20000).double().mean(0)
    few, more = divmod(rate * frames / length, 1)
    numbers = {max(least, int(few)): 1 - more, max(least, int(few) + 1): more}
    if len(numbers) == 1:
        numbers = dict.fromkeys(numbers, 1.0)
    expected = torch.tensor(
        [sum(p * share_hidden(t, frames, length, n) for n, p in numbers.items()) for t in range(frames)],
        dtype=torch.float64,
    )
    deviation = (expected * (1 - expected) / 20000).sqrt()
    assert ((hidden - expected).abs() <= 4.5 * deviation + 1e-12).all()


def test_every_pair_of_starts_is_as_likely_as_any_other() -> None:
    hidden = drawn(Spans(0.5, 1, 1), 7, n=30000)  # spans of one frame: what is hidden is where they begin
    assert not hidden[:, 6].any()
    three = hidden[hidden.sum(1) == 3]
    patterns = (three.long() * 2 ** torch.arange(7)).sum(1).unique(return_counts=True)[1]
    assert len(patterns) == comb(6, 3)
    assert chisquare(patterns.numpy()).pvalue > 1e-3
    more = (hidden.sum(1) == 4).double().mean()  # 0.5 · 7 = 3.5
    assert abs(more - 0.5) < 4.5 * (0.25 / 30000) ** 0.5
    assert hidden.sum(1).unique().tolist() == [3, 4]


def test_published_rate_hides_49_percent_of_a_long_recording() -> None:
    hidden = drawn(Spans(), 780, n=500)  # 15.6 s
    assert hidden.double().mean().item() == pytest.approx(0.49, abs=0.01)


def test_padding_changes_nothing_and_is_never_hidden() -> None:
    spans = Spans(0.65, 10, 2)
    alone = [spans.draw(torch.ones(1, t, dtype=torch.bool), seeds(4)[i : i + 1]) for i, t in enumerate((90, 31, 12, 2))]
    together = spans.draw(lengths_to_mask(torch.tensor([90, 31, 12, 2]), 120), seeds(4))
    for row, single in zip(together, alone, strict=True):
        assert torch.equal(row[: single.shape[1]], single[0])
        assert not row[single.shape[1] :].any()


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 9, 10, 11])
def test_recordings_shorter_than_a_span_are_masked_too(frames: int) -> None:
    hidden = drawn(Spans(0.65, 10, 2), frames, n=200, padding=4)
    assert hidden.any(1).all()
    assert not hidden[:, frames:].any()
    assert frames < 4 or not hidden[:, 0].all()  # not always from the first frame on


def test_even_rows_hide_what_the_barest_row_hides_at_random_among_their_own() -> None:
    mask = lengths_to_mask(torch.tensor([100, 60, 100, 80]), 100)
    whole, even = Spans(0.65).draw(mask, seeds(4)), Spans(0.65, even=True).draw(mask, seeds(4))
    assert not (even & ~whole).any()
    assert even.sum(1).tolist() == [int(whole.sum(1).min())] * 4
    kept = torch.stack([Spans(0.65, even=True).draw(mask, seeds(4, e)) for e in range(400)])
    asked = torch.stack([Spans(0.65).draw(mask, seeds(4, e)) for e in range(400)])
    share = kept[:, 0, :80].sum(0) / asked[:, 0, :80].sum(0)  # of the frames that were hidden, how many stay so
    assert share.max() - share.min() < 0.35


def test_seeds_alone_decide() -> None:
    mask = torch.ones(3, 200, dtype=torch.bool)
    assert torch.equal(Spans().draw(mask, seeds(3)), Spans().draw(mask, seeds(3)))
    assert not torch.equal(Spans().draw(mask, seeds(3)), Spans().draw(mask, seeds(3, epoch=1)))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"rate": 0.0}, "spans.rate"), ({"length": 0}, "spans.length"), ({"least": -1}, "spans.least")],
)
def test_options_out_of_range_are_named(options: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Spans(**options)  # type: ignore[arg-type]
