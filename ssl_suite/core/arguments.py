"""A constructor's arguments that come from a file: their types, and how much they may build."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from reprlib import repr as shortened
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ssl_suite.core.errors import UserError

SLACK = 4
"""Parameters that a constructor may make for each one that is stored: some are replaced or tied on the way."""


def check_types(cls: type, arguments: Mapping[str, Any], source: str) -> None:
    """Raises UserError for a value that is not of the type its argument is annotated with.

    Args:
        cls: whose constructor will get them; what it annotates with another class is left to it.
        arguments: name → value, as read from a file.
        source: what a message calls the file.
    """
    try:
        hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    except NameError:  # a name that only a type checker imports
        return
    for name, value in arguments.items():
        if name in hints and not fits(value, hints[name]):
            wanted = inspect.formatannotation(hints[name]).replace("typing.", "").replace("NoneType", "None")
            raise UserError(f"{source}: {name} is {shortened(value)}, but {cls.__name__} takes {wanted}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of an annotated type; True for what it is not, and no number is infinite."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if origin in (list, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, list | tuple) else inner
        return (
            isinstance(value, list | tuple)
            and len(value) == len(kinds)
            and all(fits(item, kind) for item, kind in zip(value, kinds, strict=True))
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if hint is float:
        return fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    return True


@contextmanager
def no_larger_than(stored: Sequence[Sequence[int]], source: str) -> Iterator[None]:
    """Stops a constructor that goes on making parameters when what is stored is long exceeded.

    Args:
        stored: shapes of the tensors that will be loaded into what is built.
        source: what a message calls the file that describes it.
    """
    tensors, elements = SLACK * len(stored) + 1000, SLACK * sum(math.prod(shape) for shape in stored) + 1_000_000

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, elements
        if parameter is None:
            return
        tensors, elements = tensors - 1, elements - parameter.numel()
        if tensors < 0 or elements < 0:
            raise UserError(f"{source} describes a far larger encoder than its weights are of; copy the folder again.")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def build(cls: type[nn.Module], arguments: Mapping[str, Any], stored: Sequence[Sequence[int]], source: str) -> Any:
    """Calls a constructor with arguments from a file, after a rehearsal that takes no memory.

    Args:
        cls: what to build.
        arguments: name → value.
        stored: shapes of its weights on disk.
        source: what a message calls the file.

    Raises:
        UserError: an argument is unknown, of a wrong type or out of range, or too much would be built.
    """
    check_types(cls, arguments, source)
    try:
        with no_larger_than(stored, source):
            try:
                with torch.random.fork_rng(devices=[]), torch.device("meta"):
                    cls(**arguments)
            except (
                NotImplementedError,
                RuntimeError,
            ):  # what it computes needs real memory: it is counted all the same
                pass
            return cls(**arguments)
    except UserError as error:
        raise error if source in str(error) else UserError(f"{source}: {error}") from None
    except Exception as error:  # whatever libraries raise at values they cannot use
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{source} does not fit {cls.__name__}: {why.rstrip('.')}.") from None
