"""The configuration of a BigBird, which names its attention in its own way."""

from __future__ import annotations

from typing import Any

from ssl_suite.core.errors import UserError

ATTENTION = {"block_sparse": "blocks", "original_full": "full"}
"""Theirs → ours."""


def flat_big_bird(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Attention under our name.

    Raises:
        UserError: it is of another kind.
    """
    kind = str(config.get("attention_type") or "block_sparse")
    if kind not in ATTENTION:
        raise UserError(f"{source}: attention_type is {kind!r}; only {', '.join(ATTENTION)} can be read.")
    return {**config, "attention_type": ATTENTION[kind]}


def nested_big_bird(config: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat_big_bird`."""
    theirs = {ours: name for name, ours in ATTENTION.items()}
    return {**config, "attention_type": theirs[config["attention_type"]], "sep_token_id": config["eos_token_id"]}
