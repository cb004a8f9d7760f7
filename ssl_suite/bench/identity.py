"""What determines a result, apart from the seed: recipe, weights and data; known before a run as well as after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.module import Evaluation

# Names and outputs, what only shows, and what other columns of a result say better: the encoder's weights and the data.
APART = {
    "": ("role", "task_name", "name", "split", "test_after"),
    "model": ("encoder", "encoders", "room"),
    "data": ("source", "num_workers"),
    "trainer": ("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler", "barebones"),
}


def recipe_hash(config: Mapping[str, Any]) -> str:
    """Hash of a resolved configuration without what `APART` lists, the seed and the paths of outputs.

    Args:
        config: as Lightning's parser dumps it; model and data are {class_path, init_args}.
    """
    kept = {k: v for k, v in config.items() if k not in APART[""]}
    for part in ("model", "data", "trainer"):
        section = kept.get(part)
        if not isinstance(section, Mapping):
            continue
        options = section.get("init_args", section)
        options = {k: v for k, v in options.items() if k not in APART[part]}
        kept[part] = {"class_path": section.get("class_path"), "options": options}
    return config_hash(kept)


def data_hash(data: DataModule) -> str:
    """Hash of the rows of all splits."""
    return hashlib.sha256(data.identity().encode()).hexdigest()[:16]


def model_name(model: Evaluation) -> str:
    """How results call what a model's encoders share with their untrained twins."""
    return "+".join(map(shape_name, model.encoders.values(), model.shape.split("+")))


def shape_name(encoder: Encoder, shape: str) -> str:
    """How results call what an encoder shares with its untrained twin."""
    causal = "-causal" if encoder.config.get("causal") else ""
    return f"{type(encoder).__name__}{causal}-{shape[:8]}"
