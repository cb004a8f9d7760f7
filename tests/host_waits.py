"""Counts the operations at which the host waits for a GPU, while they run on a CPU: a test needs no GPU to see them.

What copies between devices, but is nothing where both are the host, is known by the call that asks for it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ALWAYS = frozenset((
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "multinomial", "_ctc_loss",
    "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive",
    "_linalg_check_errors", "_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq",
))  # fmt: skip
"""By the name of the operation."""
INDEXING = frozenset(("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"))
TO_HOST = frozenset((Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__array__))
FROM_NUMBERS = frozenset((torch.tensor, torch.as_tensor, Tensor.new_tensor))
"""Copies from memory that is not pinned."""


def waits(name: str, overload: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one operation waits; sizes that depend on data (indexing by a mask) do, setting them to a number not."""
    if name in INDEXING:
        masks = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        return masks and not (len(args) > 2 and args[2].numel() == 1)
    if name == "repeat_interleave":
        return overload == "Tensor" and kwargs.get("output_size") is None
    return name in ALWAYS


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name, overload = func._schema.name.split("::")[1], func._schema.overload_name
        if waits(name, overload, args, kwargs or {}):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in TO_HOST or (func in FROM_NUMBERS and not isinstance(args[-1], Tensor)):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class HostWaits:
    """Within its block, lists in `found` every operation at which the host would wait."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._modes = _Operations(self.found), _Calls(self.found)

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, at)
