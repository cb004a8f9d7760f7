"""What modules inside a network put out, where the network itself returns something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def outputs_of(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects the outputs of `modules`, one a call, in the order of the calls; not those of compiled modules."""
    outputs: list[Tensor] = []

    def collect(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        outputs.append(output)

    handles = [module.register_forward_hook(collect) for module in dict.fromkeys(modules)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
