"""Recipes, the YAML files under configs/: finding one by name, and reading it without harm."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.names import recipe_folder
from ssl_suite.plugins import usable

if TYPE_CHECKING:
    from yaml import Node

MOST_BYTES, MOST_VALUES = 1_000_000, 100_000
"""What no recipe comes near; beyond, a file is something else, or made to exhaust the reader."""

WANTED = {"class_path": "be the name of a class (`ssl-suite list`)", "init_args": "hold names and values"}


def folders() -> dict[Path, str]:
    """Where recipes are looked for after the user's own files → the package they come from."""
    places = {recipe_folder(): "ssl_suite"}
    for entry in usable()[0]:
        try:
            spec = importlib.util.find_spec(entry.value.partition(":")[0])
        except (ImportError, ValueError):
            continue
        for folder in (spec.submodule_search_locations or []) if spec else []:
            places[Path(folder) / "configs"] = entry.name
    return places


def recipes() -> Iterator[tuple[str, Path, str]]:
    """Name (`image/simclr`), file and package of every recipe there is."""
    for folder, origin in folders().items():
        for path in sorted(folder.rglob("*.yaml")):
            yield path.relative_to(folder).with_suffix("").as_posix(), path, origin


def find(name: str) -> Path:
    """A user's file, else the suite's recipe, else a plug-in's: `image/simclr` or `configs/image/simclr.yaml`.

    Raises:
        UserError: there is none, or it is no ordinary file.
    """
    path = Path(name)
    if name and path.is_file():
        return path
    wanted = name.removeprefix("configs/").removesuffix(".yaml").removesuffix(".yml")
    for known, place, _ in recipes():
        if known == wanted:
            return place
    if name and path.exists():
        raise UserError(f"{name} is {'a folder' if path.is_dir() else 'a pipe or device'}, not a config file.")
    raise UserError(f"There is no config file or recipe {name!r}.{_hint(wanted)}")


def _hint(wanted: str) -> str:
    known = [name for name, _, _ in recipes()]
    same = [name for name in known if name.rpartition("/")[2] == wanted.rpartition("/")[2]]
    close = f" Did you mean {same[0]}?" if len(same) == 1 else nearest(wanted, known)
    return close if 0 < len(close) < 100 else " `ssl-suite list recipes` shows what there is."


def read(path: Path) -> dict[str, Any]:
    """Reads a recipe.

    Raises:
        UserError: it is no YAML, holds no names and values, contains itself, or is as large as no recipe is.
    """
    import yaml

    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than any recipe; name the right file.")
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None and count(tree, {}) > MOST_VALUES:
            raise UserError(f"{path} repeats itself to more than {MOST_VALUES:,} values (YAML anchors); write it out.")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line} is not YAML ({getattr(error, 'problem', error)}); mend it.") from None
    except RecursionError:
        raise UserError(f"{path} contains itself (a YAML anchor inside its own value), or nests too deep.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    if not isinstance(config, dict | None):
        raise UserError(f"{path} must hold names and values (model: ..., data: ...), not {type(config).__name__}.")
    for name, wrong in misfits(config or {}):
        raise UserError(f"{path}: {name} is {wrong!r:.80}, but must {WANTED[name.rpartition('.')[2]]}.")
    return config or {}


def misfits(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each `class_path` and `init_args` below a value that is of another kind than these are, with its place."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        name = f"{place}.{key}" if place else str(key)
        if (key == "class_path" and not isinstance(inner, str)) or (
            key == "init_args" and not isinstance(inner, dict | None)
        ):
            yield name, inner
        yield from misfits(inner, name)


def count(node: Node, done: dict[int, int]) -> int:
    """Values below a node with every alias written out; a value that holds itself ends in a RecursionError."""
    if id(node) not in done:
        children = node.value if isinstance(node.value, list) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        done[id(node)] = 1 + sum(count(child, done) for child in flat)
    return done[id(node)]
