"""Plug-ins: packages that add methods, tasks, encoders or data under the entry-point group `ssl_suite.plugins`."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from importlib.metadata import EntryPoint, entry_points

GROUP = "ssl_suite.plugins"
BUILT_IN = ("encoders", "methods", "tasks", "data")
CALLBACKS = "core.probes"


def found() -> list[EntryPoint]:
    """The installed plug-ins, none of them imported."""
    return sorted(entry_points(group=GROUP), key=lambda e: e.name)


def load_built_in() -> None:
    """Imports every module of the suite that defines a class a recipe can name."""
    importlib.import_module(f"ssl_suite.{CALLBACKS}")
    for package in BUILT_IN:
        root = importlib.import_module(f"ssl_suite.{package}")
        for module in pkgutil.walk_packages(root.__path__, f"ssl_suite.{package}."):
            importlib.import_module(module.name)


def load_all() -> list[str]:
    """Imports the suite and its plug-ins, so that their classes are found by short name.

    Returns:
        Names of the plug-ins that loaded; a broken one is named in a warning and left out.
    """
    load_built_in()
    loaded = []
    for entry in found():
        try:
            entry.load()
        except Exception as error:  # whatever a third party's import raises
            warnings.warn(f"Plug-in {entry.name!r} ({entry.value}) is broken and left out: {error!r}", stacklevel=2)
            continue
        loaded.append(entry.name)
    return loaded
