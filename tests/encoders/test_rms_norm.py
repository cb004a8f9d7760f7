"""RMSNorm by hand is torch's, to the gradients."""

from __future__ import annotations

import torch
from torch import nn

from ssl_suite.encoders.rms_norm import RMSNorm


def test_output_and_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    own, torchs = RMSNorm(12, 1e-3), nn.RMSNorm(12, 1e-3)
    nn.init.normal_(own.weight)
    torchs.load_state_dict(own.state_dict())
    x = torch.randn(2, 5, 12, requires_grad=True)
    x.data[0, 0] = 0.0
    g = torch.randn(2, 5, 12)
    found = torch.autograd.grad(own(x), (x, own.weight), g)
    wanted = torch.autograd.grad(torchs(x), (x, torchs.weight), g)
    torch.testing.assert_close(own(x), torchs(x))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert own.double()(x.double()).dtype == torch.float64
