"""Turns what the argument parser says into one sentence with the nearest valid name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ssl_suite.core.errors import UserError, nearest


def explain(error: BaseException, classes: Iterable[str], options: Iterable[str]) -> str:
    """Finds the mistake inside an error.

    Args:
        error: from the parser, or from building a class it was given.
        classes: short names a user may give.
        options: top-level options, without dashes.

    Returns:
        One sentence.
    """
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return str(cause)
    text = str(error)
    if found := _last(r"Expected a dot import path string: (\S+)", text) or _last(
        r"Given value: (\w+)$", text if "class_path" in text and "Problem with" not in text else ""
    ):
        return f"There is no class {found!r}.{nearest(found, classes)}"
    if match := re.findall(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return _wrong_option(".".join(match[-1]), text)
    if found := _last(r"Option '([\w.]+)' is not accepted", text):
        return _wrong_option(found, text)
    if found := _last(r"Subcommand '\w+' does not accept option '([\w.]+)'", text):
        return f"There is no option {found}.{nearest(found, options)}"
    if (found := _last(r"unrecognized arguments: --([\w.]+)=", text)) and _class_path(text):
        return _wrong_option(found, text)
    if found := _last(r"[Uu]nrecognized arguments: ([^\s=]+)", text):
        name = found.lstrip("-")
        return f"There is no option --{name}.{nearest(name, options)}"
    if found := _last(r"the following arguments are required: (.+)", text):
        return f"{_class_name(text)} needs {found}."
    if match := re.findall(r'Parser key "([\w.]+)":\s+(?:Expected an? )(.+?)\. Got value: (.+)', text):
        key, kind, value = match[-1]
        return f"{_owner(text)}{key} is {value!r}, but must be {_readable(kind)}."
    if match := re.findall(r"File does not exist: '?([^']+)'?", text):
        return f"There is no file {match[0]}."
    if match := re.findall(r"No action for key \"?([\w.]+)\"?|Key '?\"?([\w.]+)'?\"? is not expected", text):
        name = next(part for part in match[0] if part)
        return f"There is no option {name}.{nearest(name, options)}"
    return " ".join(text.split())[:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1].strip() if found else None


def _class_path(text: str) -> str:
    return _last(r"Problem with given class_path '([\w.]+)'", text) or ""


def _class_name(text: str) -> str:
    return _class_path(text).rpartition(".")[2] or "This command"


def _owner(text: str) -> str:
    name = _class_path(text).rpartition(".")[2]
    return f"{name}: " if name else ""


def _wrong_option(name: str, text: str) -> str:
    path = _class_path(text)
    known = sorted(parameters(path)) if path else []
    return f"{_class_name(text)} has no option {name!r}.{nearest(name, known)}"


def parameters(class_path: str) -> set[str]:
    """Constructor parameters of a class, those of dataclasses among them as `name.field`."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name, None)
    if cls is None:
        return set()
    found: set[str] = set()
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        found.add(parameter.name)
        default: Any = parameter.default
        if dataclasses.is_dataclass(default):
            found |= {f"{parameter.name}.{f.name}" for f in dataclasses.fields(default)}
    return found


def _readable(kind: str) -> str:
    if kind.startswith("typing.Literal"):
        return "one of " + kind.removeprefix("typing.Literal[").removesuffix("]").replace("'", "")
    return kind.replace("<class '", "").replace("'>", "")
