"""FLOPs of a training step and of the machine, for the model FLOPs utilisation."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12, "T4": 65e12}
"""Dense bf16/fp16 FLOP/s by the makers' data sheets."""


SHARDED = ("FSDP2", "FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
"""Strategies under which a step cannot be taken outside their own hooks."""


def grouped_flops(a: torch.Size, b: torch.Size, *args: Any, **kwargs: Any) -> int:
    """FLOPs of a grouped product of (N, K) by (G, K, M), or of (K, N) by (N, M): each row meets one group."""
    return 2 * a[0] * a[1] * b[-1]


def flop_counter() -> FlopCounterMode:
    """torch's counter, which also knows the grouped products of experts."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_flops})


def step_flops(module: Any, batch: Any) -> float | None:
    """FLOPs of one step of `module` on this batch, forward and backward, by torch's counter.

    Takes the step once for counting and puts buffers (running statistics, queues) back, so training is unchanged. Only
    methods are counted (`step`); None where the kernels are not known to the counter, or weights are sharded.
    """
    if not hasattr(module, "step") or type(module.trainer.strategy).__name__ in SHARDED:
        return None
    kept = {name: b.clone() for name, b in module.named_buffers()}
    counter = flop_counter()
    weights = [p for p in module.parameters() if p.requires_grad]
    precision = module.trainer.precision_plugin.forward_context()
    with contextlib.suppress(NotImplementedError), precision, counter:
        torch.autograd.grad(module.step(batch).total(), weights, allow_unused=True)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])
    return counter.get_total_flops() or None


@functools.cache
def peak_flops(device: torch.device) -> float | None:
    """Peak FLOP/s: the data sheet's for a known GPU, for a CPU the best of a few fp32 matrix products."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for key, peak in PEAK.items() if key in name), None)
    if device.type != "cpu":
        return None
    n, best, begin = 1024, float("inf"), time.perf_counter()
    a, b = torch.ones(n, n), torch.ones(n, n)
    while time.perf_counter() - begin < 0.3:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best
