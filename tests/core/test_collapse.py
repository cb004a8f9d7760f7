"""The signs of collapse at both ends of their scales."""

from __future__ import annotations

import pytest
import torch

from ssl_suite.core.collapse import collapse_signs


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
