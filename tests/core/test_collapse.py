"""The signs of collapse at both ends of their scales."""

from __future__ import annotations

import pytest
import torch

from ssl_suite.core.collapse import collapse_signs, singular_values


def test_equal_features_have_no_spread() -> None:
    signs = collapse_signs(torch.randn(1, 32).expand(64, 32))
    assert signs["feature_std"] < 1e-3
    assert torch.isfinite(signs["effective_rank"])


def test_isotropic_features_fill_the_sphere() -> None:
    signs = collapse_signs(torch.randn(1000, 32))
    assert signs["feature_std"] == pytest.approx(1, abs=0.05)
    assert signs["effective_rank"] == pytest.approx(32, rel=0.05)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_features_of_rank_k_have_effective_rank_k(k: int) -> None:
    directions = torch.linalg.qr(torch.randn(32, k)).Q
    signs = collapse_signs(torch.randn(1000, k) @ directions.T)
    assert signs["effective_rank"] == pytest.approx(k, rel=0.05)


@pytest.mark.parametrize("shape", [(60, 32), (32, 60), (40, 40)])
@pytest.mark.parametrize("rank", [1, 5, 32])
def test_singular_values_are_those_of_the_decomposition(shape: tuple[int, int], rank: int) -> None:
    """Of low rank too, where the square root of a rounding error would be no small number."""
    matrix = torch.randn(shape[0], rank) @ torch.randn(rank, shape[1])
    wanted = torch.linalg.svdvals(matrix.double()).flip(0)
    torch.testing.assert_close(singular_values(matrix), wanted, atol=1e-6 * float(wanted.max()), rtol=1e-6)
