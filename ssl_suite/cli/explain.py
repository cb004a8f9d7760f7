"""Turns what the argument parser says into one sentence with the nearest valid name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ssl_suite.core.errors import UserError, nearest


def explain(error: BaseException, classes: Mapping[str, type], options: Iterable[str]) -> str:
    """Finds the mistake inside an error.

    Args:
        error: from the parser, or from building a class it was given.
        classes: what a user may give, by its short name.
        options: top-level options, without dashes.

    Returns:
        One sentence.
    """
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MemoryError | RuntimeError) and (said := of_machine(cause)):
            return said
    text = str(error)
    if said := _incomplete(text, classes):
        return said
    if twice := re.search(r"Multiple subclasses with name (\w+)\..*ambiguity: (.+)\.$", text, re.MULTILINE):
        return f"{twice[1]} is the name of several classes; write one in full: {twice[2].replace(', ', ' or ')}."
    whole = [name for name, cls in classes.items() if not inspect.isabstract(cls)]
    if found := _last(r"Expected a dot import path string: (\S+)", text) or _last(
        r"Given value: (\w+)$", text if "class_path" in text and "Problem with" not in text else ""
    ):
        return f"There is no class {found!r}.{nearest(found, whole) or ' `ssl-suite list` shows what there is.'}"
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
        return f"There is no {'option ' if found[:1] == '-' else ''}{found}.{nearest(name, options)}"
    if found := _last(r"the following arguments are required: (.+)", text):
        return f"{_class_name(text)} needs {found}."
    if match := re.findall(r'Parser key "([\w.]+)":\s+(?:Expected an? )(.+?)\. Got value: (.+)', text):
        key, kind, value = match[-1]
        return f"{_owner(text)}{key} is {value!r}, but must be {_readable(kind)}."
    if choice := _union(text):
        return choice
    if match := re.findall(r"File does not exist: '?([^']+)'?", text):
        return f"There is no file {match[0]}."
    if match := re.findall(r"No action for key \"?([\w.]+)\"?|Key '?\"?([\w.]+)'?\"? is not expected", text):
        name = next(part for part in match[0] if part)
        return f"There is no option {name}.{nearest(name, options)}"
    return _innermost(text)


def _incomplete(text: str, classes: Mapping[str, Any]) -> str | None:
    """Of a class that was named, but is only a base or leaves out a part of one: which part."""
    for path in re.findall(r"(?:Given value|import path string): ([\w.]+)$", text, re.MULTILINE):
        cls = classes.get(path.rpartition(".")[2])
        if cls is not None and inspect.isabstract(cls):
            return f"{cls.__name__} cannot be made: it does not define {', '.join(sorted(cls.__abstractmethods__))}."
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1].strip() if found else None


def _union(text: str) -> str | None:
    """Of the innermost option that takes several kinds of value: which, what was given, and what it may be."""
    keys = list(re.finditer(r'Parser key "([\w.]+)":', text))
    inner = text[keys[-1].end() :] if keys else ""
    kinds, value = re.search(r"Subtypes: \[(.+)\]", inner), re.search(r"Given value: (.*)", inner)
    if not kinds or not value:
        return None
    if nested := re.match(r'"?NestedArg\(key=\'([\w.]+)\'', value[1].strip()):
        return _wrong_option(nested[1], text)
    parts = re.findall(r"<class '([\w.]+)'>|typing\.Literal\[([^\]]+)\]|([\w.]+\[[^\]]*\]+)", kinds[1])
    names = [name for kind, choices, other in parts for name in [*choices.replace("'", "").split(", "), kind, other]]
    plain = [name if "[" in name else name.rpartition(".")[2] for name in dict.fromkeys(names)]
    *first, last = [name for name in plain if name not in ("", "NoneType")]
    wanted = f"{', '.join(first)} or {last}" if first else last
    if last in ("TrainModule", "DataModule"):
        wanted = "the name of a class (`ssl-suite list`), or class_path and init_args"
    return f"{_owner(text)}{keys[-1][1]} is {value[1].strip()!r}, but must be {wanted}."


def _innermost(text: str) -> str:
    """The most indented line that says something, with the option or class it is about."""
    frame = ("Parser key", "Problem with", "Does not validate", "Subtypes:", "Errors:", "Expected a", "Given value")
    lines = [line for line in text.splitlines() if line.strip()]
    saying = [line for line in lines if not line.strip(" -").startswith(frame)] or lines
    deepest = max(saying, key=lambda line: len(line) - len(line.lstrip(" -")))
    key = _last(r'Parser key "([\w.]+)":', text)
    said = f"{_owner(text)}{f'{key}: ' if key else ''}{' '.join(deepest.strip(' -').split())}"
    return said if len(said) < 400 else f"{said[:200]} ... {said[-190:]}"


def of_lightning(error: BaseException) -> str | None:
    """What Lightning itself says of the trainer's options; None for any other error."""
    inner = error.__traceback__
    while inner is not None and inner.tb_next is not None:
        inner = inner.tb_next
    where = inner.tb_frame.f_globals.get("__name__", "") if inner else ""
    kinds = ("MisconfigurationException", "ValueError", "TypeError", "ModuleNotFoundError")
    if type(error).__name__ not in kinds or not where.startswith(("pytorch_lightning.", "lightning_fabric.")):
        return None
    return " ".join(str(error).split())


def of_machine(error: BaseException) -> str | None:
    """What the machine lacks, a disk, memory or a home folder; None for an error that is ours."""
    text = str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else " ".join(text.split())
    if "Could not determine home directory" in text:
        return "There is no home folder to keep tokenizers and features in; name one: SSL_SUITE_CACHE=FOLDER."
    if "DataLoader worker" in text and "killed" in text:
        return "A loader process was killed, most likely for memory; lower --data.num_workers or --data.batch_size."
    if isinstance(error, MemoryError) or re.search(r"out of memory|not enough memory|can't allocate memory", text):
        return "There is not enough memory; lower --data.batch_size, the size of the inputs or that of the model."
    return None


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


def class_of(class_path: str) -> Any:
    """The class that a resolved `class_path` names."""
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def parameters(class_path: str) -> set[str]:
    """Constructor parameters of a class, those of dataclasses among them as `name.field`."""
    try:
        cls = class_of(class_path)
    except (ImportError, AttributeError, ValueError):
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
