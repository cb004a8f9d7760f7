"""Figures where there is nothing to be right or wrong about: nobody speaks, no two are of one identity."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_suite.tasks.diarize import rates
from ssl_suite.tasks.separate import Separate
from ssl_suite.tasks.verify import Vectors, Verify


@pytest.mark.parametrize("errors", [(0, 0, 0, 0), (0, 7, 0, 0), (2, 1, 3, 40)])
def test_a_rate_is_pyannotes_with_speech_and_without(errors: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("pyannote.metrics.diarization", reason="pip install ssl_suite[dev]")
    names = ("missed detection", "false alarm", "confusion", "total")
    peer = metrics.DiarizationErrorRate().compute_metric(dict(zip(names, map(float, errors), strict=True)))
    assert float(rates(torch.tensor(errors))) == pytest.approx(peer)


@pytest.mark.parametrize("identity", [[0, 1, 2], [1, 1], [0]])
def test_a_split_without_trials_of_both_kinds_has_no_rate(identity: list[int]) -> None:
    task, n = Verify("linear", 8), len(identity)
    data: Any = SimpleNamespace(size=lambda split: n, source_name="voices")
    metrics = task.metrics()
    vectors = Vectors(torch.randn(n, 8), torch.zeros(n, 4), torch.arange(n))
    task.update(metrics, vectors, torch.ones(n, 1), torch.tensor(identity))
    assert task.compute(metrics, data, "test")["eer"].isnan()


@pytest.mark.parametrize(("same", "lacking"), [(1, "two identities"), (0, "one identity")])
def test_a_list_without_trials_of_both_kinds_says_so_before_training(tmp_path: Path, same: int, lacking: str) -> None:
    (tmp_path / "trials.txt").write_text(f"{same} a.wav b.wav\n{same} b.wav c.wav\n", encoding="utf-8")
    task = Verify("linear", 8, trials=str(tmp_path / "trials.txt"))
    data: Any = SimpleNamespace(
        has=lambda split: True, ids=lambda split: ["a.wav", "b.wav", "c.wav"], source_name="voices"
    )
    with pytest.warns(UserWarning, match=f"trials.txt has no trial of {lacking}, so there is no error rate"):
        task.meet(data)


def test_voices_of_recordings_of_like_names_are_all_written() -> None:
    names = ["a/b", "a_b", "c"]
    data: Any = SimpleNamespace(ids=lambda split: names, request=True, preprocess=lambda request: {"sample_rate": 8000})
    rows = [(i, {"a": [0.1] * (i + 1), "b": [0.2] * (i + 1)}) for i in range(3)]
    files = Separate(hidden=2).files(rows, data, "test")
    assert sorted(files) == [f"separated/{name}-{voice}.wav" for name in ("a_b-1", "a_b", "c") for voice in "ab"]
