"""Convolutions of frames in rows are torch's, their gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_suite.encoders.strided import _Products, convolve


def both(convolution: nn.Conv1d, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of ours, and of torch's."""
    wanted = [x, *convolution.parameters()]
    ours, theirs = convolve(x, convolution), convolution(x.mT).mT
    assert type(ours.grad_fn).__name__ == f"{_Products.__name__}Backward"
    out = torch.randn_like(theirs).exp()
    mine, torchs = (torch.autograd.grad((y * out).sum(), wanted) for y in (ours, theirs))
    return [ours, *mine], [theirs, *torchs]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (7, 3), (4, 1), (2, 5)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("length", [10, 23, 64])
def test_output_and_gradients_are_those_of_conv1d(kernel: int, stride: int, bias: bool, length: int) -> None:
    convolution = nn.Conv1d(5, 7, kernel, stride, bias=bias).double()
    x = torch.randn(3, length, 5, dtype=torch.double, requires_grad=True)
    for ours, theirs in zip(*both(convolution, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_at_the_published_width_it_is_as_exact_as_conv1d() -> None:
    convolution = nn.Conv1d(512, 512, 3, 2, bias=False)
    x = torch.randn(2, 101, 512, requires_grad=True)
    for ours, theirs in zip(*both(convolution, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.detach().abs().max()), rtol=1e-5)


def test_frames_may_lie_in_columns_and_weights_may_be_frozen() -> None:
    convolution = nn.Conv1d(4, 6, 3, 2).requires_grad_(False)
    x = torch.randn(2, 4, 11, requires_grad=True)
    ours, theirs = convolve(x.mT, convolution), convolution(x).mT
    torch.testing.assert_close(ours, theirs)
    for mine, torchs in zip(*(torch.autograd.grad(y.square().sum(), x) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, torchs)


def test_half_precision_is_torchs_own() -> None:
    convolution, x = nn.Conv1d(4, 6, 3, 2), torch.randn(2, 11, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolve(x, convolution).dtype == torch.bfloat16
        assert torch.equal(convolve(x, convolution), convolution(x.mT).mT)


def test_its_flops_are_counted() -> None:
    convolution, x = nn.Conv1d(4, 6, 3, 2), torch.randn(2, 11, 4, requires_grad=True)
    counted = []
    for call in (convolve, lambda x, c: c(x.mT)):
        with FlopCounterMode(display=False) as counter:
            call(x, convolution).sum().backward()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] == 3 * 2 * 2 * 5 * 6 * 3 * 4
