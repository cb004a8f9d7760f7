"""The loss in chunks is plain cross-entropy, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssl_suite.encoders import likelihood
from ssl_suite.methods.text.vocabulary import vocabulary_loss


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_equal_cross_entropy_for_any_chunk(
    rows: int, biased: bool, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(likelihood.CHUNK, "cpu", rows * 11)
    states, weight, targets = torch.randn(7, 5), torch.randn(11, 5), torch.randint(0, 11, (7,))
    bias = torch.randn(11) if biased else None
    leaves = [t.requires_grad_() for t in (states, weight, bias) if t is not None]
    shares = torch.tensor([0.0, 1, 2, 0.5, 3, 1, 7]) if weighted else None
    each = F.cross_entropy(F.linear(states, weight, bias), targets, reduction="none")
    wanted = (each if shares is None else each * shares).sum() / 7
    found = vocabulary_loss(states, weight, bias, targets, shares=shares) / 7
    torch.testing.assert_close(found, wanted)
    for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_no_rows_give_zero_and_zero_gradients() -> None:
    states, weight = torch.randn(0, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    loss = vocabulary_loss(states, weight, None, torch.zeros(0, dtype=torch.long))
    assert loss == 0
    loss.backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_mixed_precision_stays_near_and_gives_gradients_in_the_weights_precision() -> None:
    states, weight, targets = torch.randn(64, 32), torch.randn(50, 32) * 0.1, torch.randint(0, 50, (64,))
    states.requires_grad_(), weight.requires_grad_()
    wanted = F.cross_entropy(states @ weight.T, targets, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        found = vocabulary_loss(states, weight, None, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=0)
    a, b = torch.autograd.grad(found, [states, weight]), torch.autograd.grad(wanted, [states, weight])
    for mine, theirs in zip(a, b, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


def test_nothing_is_kept_without_gradient() -> None:
    weight = torch.randn(11, 5, requires_grad=True)
    with torch.no_grad():
        assert vocabulary_loss(torch.randn(3, 5), weight, None, torch.tensor([1, 2, 3])).grad_fn is None
