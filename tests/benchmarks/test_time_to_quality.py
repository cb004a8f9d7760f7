"""The benchmark of time to quality scores both sides on the same masks and keeps its runs; speed is not tested."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_both_sides_are_scored_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the peer's side needs transformers: pip install ssl_suite[bench]")
    pytest.importorskip("accelerate", reason="the peer's side needs accelerate: pip install ssl_suite[bench]")
    runs, curve = tmp_path / "runs.json", tmp_path / "curve.svg"
    options = ["--tiny", "--minutes", "0.01", "--lr", "1e-3", "--runs", str(runs), "--curve", str(curve)]
    command = [sys.executable, "time_to_quality.py", *options]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = json.loads(runs.read_text())
    assert list(kept) == ["ours, seed 0", "run_mlm at 0.001, seed 0"]
    ours, theirs = kept.values()
    assert ours["parameters"] <= theirs["parameters"]
    for run in (ours, theirs):
        seconds, losses = zip(*run["curve"], strict=True)
        assert len(losses) >= 12
        assert list(seconds) == sorted(seconds)
        assert losses[-1] < losses[0] < math.log(512) + 1
    assert curve.read_text().count("seed 0") == 2
    again = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)  # nothing is left to do
    assert again.returncode == 0, again.stderr
    assert json.loads(runs.read_text()) == kept
    assert "run_mlm at 0.001" in again.stdout
