"""Results for tests, as `record` writes them; tests import it as `results`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssl_suite.bench.store import Result

RESULT = Result(
    modality="image", name="SimCLR", method="SimCLR", role="ssl", encoder="ImageEncoder", weights="w0", task="digits",
    data="samples:digits", data_hash="d0", fold=0, split="test", metric="accuracy", main=True, direction="max",
    value=0.91, validation=0.9, seed=0, labels=1000, protocol="probe@1", recipe="3f9a", checkpoint="", seconds=12.5,
    run="image/simclr-0", command="ssl-suite fit -c x.yaml", created="2026-03-02T10:00:00+00:00", version="0.1.0",
    online=False, error="",
)  # fmt: skip


def over_seeds(values: Sequence[float], **other: object) -> list[Result]:
    """A result a seed."""
    return [replace(RESULT, value=value, seed=seed, **other) for seed, value in enumerate(values)]  # type: ignore[arg-type]


def untrained(values: Sequence[float], **other: object) -> list[Result]:
    """The same encoder with random weights."""
    same = {"name": "random", "method": "random", "role": "random", "weights": "random-0"}
    return over_seeds(values, **{**same, **other})
