"""Plug-ins: packages that add methods, tasks, encoders or data under the entry-point group `ssl_suite.plugins`."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ssl_suite.names import Named, classes_in, modules_of

GROUP = "ssl_suite.plugins"
BUILT_IN = ("encoders", "methods", "tasks", "data")
CALLBACKS = ("core.probes", "core.milestones")


def found() -> list[EntryPoint]:
    """The installed plug-ins, none of them imported."""
    return sorted(entry_points(group=GROUP), key=lambda e: e.name)


@cache
def built_in() -> dict[Path, str]:
    """Files of the suite that define what a recipe can name → their modules."""
    parts = (*BUILT_IN, *CALLBACKS)
    return {path: name for part in parts for path, name in modules_of(f"ssl_suite.{part}").items()}


def usable() -> tuple[list[EntryPoint], dict[str, str]]:
    """The installed plug-ins whose names are their own, and of the others why they are left out.

    A short name means one class: the suite's before a plug-in's, and of two plug-ins the first's.
    """
    return _sorted_out(tuple(found()))


@cache
def _sorted_out(entries: tuple[EntryPoint, ...]) -> tuple[list[EntryPoint], dict[str, str]]:
    taken: dict[tuple[str, str], Named] = {}
    if entries:
        taken = {(c.kind, c.name): c for c in classes_in(built_in())}
    kept, left_out = [], {}
    for entry in entries:
        own = {(c.kind, c.name): c for c in classes_in(modules_of(entry.value.partition(":")[0]), built_in())}
        both = [(c, taken[key]) for key, c in own.items() if key in taken]
        if both:
            mine, first = both[0]
            left_out[entry.name] = (
                f"its {mine.path} has the name of {first.path}, which {mine.name} means; have one renamed, or write "
                f"{mine.path} in full"
            )
        else:
            kept.append(entry)
            taken |= own
    return kept, left_out


def load_built_in() -> None:
    """Imports every module of the suite that defines a class a recipe can name."""
    for name in CALLBACKS:
        importlib.import_module(f"ssl_suite.{name}")
    for package in BUILT_IN:
        root = importlib.import_module(f"ssl_suite.{package}")
        for module in pkgutil.walk_packages(root.__path__, f"ssl_suite.{package}."):
            importlib.import_module(module.name)


def load_all() -> list[str]:
    """Imports the suite and its plug-ins, so that their classes are found by short name.

    Returns:
        Names of the plug-ins that loaded; one that is broken, or whose names are taken, is left out with a warning.
    """
    load_built_in()
    entries, left_out = usable()
    for name, why in left_out.items():
        warnings.warn(f"Plug-in {name!r} is left out: {why}.", stacklevel=2)
    loaded = []
    for entry in entries:
        try:
            entry.load()
        except Exception as error:  # whatever a third party's import raises
            warnings.warn(f"Plug-in {entry.name!r} ({entry.value}) is broken and left out: {error!r}", stacklevel=2)
            continue
        loaded.append(entry.name)
    return loaded
