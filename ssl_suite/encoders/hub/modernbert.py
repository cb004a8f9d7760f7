"""The configuration of a ModernBERT, whose layers and rotary positions are of two kinds."""

from __future__ import annotations

from typing import Any

from ssl_suite.core.errors import UserError

BASES = {"full_attention": ("global_rope_theta", 160000.0), "sliding_attention": ("local_rope_theta", 10000.0)}
"""For each kind of layer the key of its rotary base in older files, and the value without one."""


def flat_modernbert(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Window, order of layers and rotary bases of a ModernBERT under keys of their own.

    Raises:
        UserError: the local layers are not all but every nth, or rotary positions are scaled.
    """
    every = int(config.get("global_attn_every_n_layers") or 3)
    kinds = config.get("layer_types") or []
    if kinds:
        whole = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        every = whole[1] if len(whole) > 1 else len(kinds)
        if whole != list(range(0, len(kinds), every)):
            raise UserError(f"{source}: layer_types must be full attention in every nth layer, from the first.")
    thetas = {}
    for kind, (key, default) in BASES.items():
        rope = (config.get("rope_parameters") or {}).get(kind) or {}
        if rope.get("rope_type", "default") != "default":
            raise UserError(f"{source}: rope_type is {rope['rope_type']!r}; only 'default' can be read.")
        thetas[key] = float(rope.get("rope_theta") or config.get(key) or default)
    half = int(config.get("local_attention") or 128) // 2
    return {**config, "global_attn_every_n_layers": every, "half_window": half, **thetas}


def nested_modernbert(config: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat_modernbert`."""
    config = {**config, "cls_token_id": config["bos_token_id"], "sep_token_id": config["eos_token_id"]}
    every, layers = config["global_attn_every_n_layers"], config["num_hidden_layers"]
    config["layer_types"] = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    config["local_attention"] = 2 * config.pop("half_window")
    config["rope_parameters"] = {
        kind: {"rope_type": "default", "rope_theta": config[key]} for kind, (key, _) in BASES.items()
    }
    return config
