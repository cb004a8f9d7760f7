"""Strided convolutions over time that keep frames in rows, (B, T, C), as the layers around them have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def convolve(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """(B, T, C) → (B, T', O), as `convolution(x.mT).mT`.

    On a CPU, in full precision, as products of matrices: those run at the machine's speed, and no frame is ever
    transposed, which cost a third of a step.
    """
    products = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    if not products or x.dtype != convolution.weight.dtype:
        return convolution(x.mT).mT
    return _Products.apply(x, convolution.weight, convolution.bias, convolution.stride[0])


class _Products(torch.autograd.Function):
    """y_t = Σ_j W_j x_{ts + j}: taps are taken `stride` s at a time, so that their windows do not overlap.

    Such windows are rows of a matrix that lies in memory already, and may be written to as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        x, taps = x.contiguous(), weight.permute(2, 1, 0).flatten(0, 1)  # (B, T, C), (K·C, O)
        y = x.new_empty(len(x), (x.shape[1] - weight.shape[2]) // stride + 1, len(weight))
        if bias is not None:
            y.copy_(bias)
        for row, out in zip(x, y, strict=True):
            for windows, part in _windows(row, weight.shape[2], stride, len(out)):
                torch.addmm(out, windows, taps[part], beta=int(part.start > 0 or bias is not None), out=out)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), dy, (frames, biases) = ctx.saved_tensors, dy.contiguous(), (0, 2)
        taps = weight.permute(2, 1, 0).flatten(0, 1)
        dx, d_taps = torch.zeros_like(x) if ctx.needs_input_grad[frames] else None, torch.zeros_like(taps)
        for i, d in enumerate(dy):
            for windows, part in _windows(x[i], weight.shape[2], ctx.stride, len(d)):
                torch.addmm(d_taps[part], windows.T, d, out=d_taps[part])
            for windows, part in () if dx is None else _windows(dx[i], weight.shape[2], ctx.stride, len(d)):
                torch.addmm(windows, d, taps[part].T, out=windows)
        d_weight = d_taps.unflatten(0, (weight.shape[2], -1)).permute(2, 1, 0)
        return dx, d_weight, dy.sum((0, 1)) if ctx.needs_input_grad[biases] else None, None


def _windows(x: Tensor, kernel: int, stride: int, number: int) -> Iterator[tuple[Tensor, slice]]:
    """(T, C) → for each `stride` taps, and those left: (number, taps · C) of x, and which rows of the weight."""
    width = x.shape[1]
    for first in range(0, kernel, stride):
        part = slice(first * width, min(first + stride, kernel) * width)
        yield x.flatten()[part.start :].unfold(0, part.stop - part.start, stride * width)[:number], part
