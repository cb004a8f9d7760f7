"""Hashes: of a configuration, so that a number can be traced to what made it, and of a file, so that damage shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

NOT_SETTINGS = ("out", "ckpt_path", "seed_everything", "config", "overwrite", "results", "default_root_dir", "logger")
"""Where things go and which seed was drawn do not change what was computed."""


def config_hash(config: dict[str, Any]) -> str:
    """Returns 12 hex digits of the configuration without paths of outputs and seeds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in NOT_SETTINGS}
        return [strip(v) for v in value] if isinstance(value, (list, tuple)) else value

    return hashlib.sha256(json.dumps(strip(config), sort_keys=True, default=str).encode()).hexdigest()[:12]


def sha256(path: Path) -> str:
    """Returns 64 hex digits of a file's bytes, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
