"""CKA against the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_suite.analysis.layers import linear_cka, unbiased_cka, unbiased_hsic
from ssl_suite.analysis.states import short_names, spread


def hsic_0(k: Tensor, ell: Tensor) -> Tensor:
    """tr(KHLH) / (n − 1)² (arXiv:1905.00414, equation 3)."""
    n = len(k)
    h = torch.eye(n) - torch.ones(n, n) / n
    return torch.trace(k @ h @ ell @ h) / (n - 1) ** 2


def hsic_1(k: Tensor, ell: Tensor) -> Tensor:
    """arXiv:2010.15327, equation 3, term by term."""
    n, ones = len(k), torch.ones(len(k))
    k, ell = k - k.diag().diag(), ell - ell.diag().diag()
    first = torch.trace(k @ ell)
    second = (ones @ k @ ones) * (ones @ ell @ ones) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (ones @ k @ ell @ ones)
    return (first + second - third) / (n * (n - 3))


@pytest.fixture
def states() -> list[Tensor]:
    """Three states of 40 examples, of unequal widths; the second is made of the first."""
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    return [x, x[:, :3] + 0.3 * torch.randn(40, 3), torch.randn(40, 9)]


def test_cka_is_hsic_over_its_own_roots(states: list[Tensor]) -> None:
    grams = [x @ x.T for x in states]
    biased, hsic = linear_cka(states), unbiased_hsic(states)
    for i, k in enumerate(grams):
        for j, ell in enumerate(grams):
            expected = hsic_0(k, ell) / (hsic_0(k, k) * hsic_0(ell, ell)).sqrt()
            torch.testing.assert_close(biased[i, j].float(), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(hsic[i, j].float(), hsic_1(k, ell), rtol=1e-4, atol=1e-4)


def test_batches_are_averaged_before_the_ratio(states: list[Tensor]) -> None:
    parts = [[x[:16] for x in states], [x[16:32] for x in states], [x[32:] for x in states]]
    hsic = torch.stack([unbiased_hsic(part) for part in parts]).mean(0)
    own = hsic.diagonal().sqrt()
    torch.testing.assert_close(unbiased_cka(states, batch=16), hsic / own[:, None] / own[None])
    longer = [torch.cat([x, x[:3]]) for x in states]  # a last batch of 3 says nothing without bias
    torch.testing.assert_close(unbiased_cka(longer, batch=20), unbiased_cka(states, batch=20))


def test_unrelated_states_of_many_features_are_unalike_only_without_bias() -> None:
    a, b = torch.randn(64, 400), torch.randn(64, 400)
    assert linear_cka([a, b])[0, 1] > 0.8
    assert abs(unbiased_cka([a, b])[0, 1]) < 0.1


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    x = torch.randn(50, 8)
    turned = 3 * x @ torch.linalg.qr(torch.randn(8, 8)).Q + 7
    for matrix in (linear_cka([x, turned]), unbiased_cka([x, turned])):
        torch.testing.assert_close(matrix, torch.ones(2, 2, dtype=torch.double), rtol=1e-4, atol=1e-4)


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["runs/a/encoder", "random:runs/a"]) == ["a", "random a"]
    assert short_names(["x/run", "y/run/encoder"]) == ["x/run", "y/run"]
    assert short_names(["hf:org/bert", "r/checkpoints/step-10.ckpt"]) == ["bert", "step-10"]
    assert spread(10, 4) == [0, 3, 6, 9]


def test_a_state_that_varies_by_rounding_alone_has_no_cka() -> None:
    torch.manual_seed(0)
    x, still = torch.randn(40, 6), torch.randn(6) * (1 + 1e-7 * torch.randn(40, 6))
    for matrix in (linear_cka([x, still]), unbiased_cka([x, still])):
        assert matrix.isnan().tolist() == [[False, True], [True, True]]
    moved = 1e-3 * x + torch.randn(6)
    assert unbiased_cka([x, moved])[0, 1] == pytest.approx(1, abs=1e-3)
