"""Mean and deviation, a part at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_suite.core import moments
from ssl_suite.core.moments import Moments


def test_they_are_those_of_all_rows_far_from_zero() -> None:
    values = torch.randn(10_001, 2, 3) * 1e-2 + torch.tensor([1e4, 0.0, -3.0])
    wide = values.double().numpy()
    found = Moments.join([Moments.of(part) for part in values.split([1, 9000, 0, 1000])])
    assert found.count == 10_001
    np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.deviation, wide.std(0), rtol=1e-9)
    np.testing.assert_allclose(found.size[:, 0], np.sqrt(np.square(wide).mean((0, 2))), rtol=1e-12)


def test_parts_of_any_size_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(100, 1, 4)
    whole = Moments.of(values)
    monkeypatch.setattr(moments, "WIDE", 30)
    torch.testing.assert_close(Moments.of(values).squares, whole.squares, rtol=1e-13, atol=0)
