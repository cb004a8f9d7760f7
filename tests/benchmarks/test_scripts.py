"""Each benchmark script runs both sides and prints its figures; how fast they are is not tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPARSE = [f"blocks-{length}" for length in (512, 1024, 2048, 4096, 8192)]
SPARSE += ["window-4096", "step-blocks-4096", "step-local-4096"]


@pytest.mark.parametrize(
    ("script", "cases", "needs"),
    [
        ("text", ["masked-lm", "causal-lm"], ["transformers", "accelerate"]),
        ("seq2seq", ["t5", "bart"], ["transformers", "accelerate"]),
        ("mixed_length", ["padding", "trainer-padding", "trainer-buckets"], ["transformers", "accelerate"]),
        ("sparse", SPARSE, []),
        ("experts", ["block-256", "block-512"], []),
        ("tokenise", ["first-run", "second-run", "disk"], ["transformers"]),
        ("cola", ["cola"], ["transformers", "accelerate"]),
        ("image", ["simclr", "augmentation", "cutting"], []),
        ("visible", ["vit", "speech-trunk", "data2vec-step"], []),
        ("speech", ["wav2vec2", "hubert", "apc", "log-mel"], ["transformers"]),
        ("pretraining_speech", ["wav2vec2", "hubert", "best-rq", "downstream"], ["transformers"]),
        ("verification", ["equal-error-rate"], ["scipy"]),
        ("query_by_example", ["prompts", "quesst"], ["scipy", "dtw"]),
    ],
)
def test_script_prints_a_ratio_for_each_case(script: str, cases: list[str], needs: list[str]) -> None:
    for package in needs:
        pytest.importorskip(
            package, reason=f"the peer's side of {script}.py needs {package}: pip install ssl_suite[bench]"
        )
    options = ["--tiny", "--rounds", "1", "--steps", "2", "--clock", "cpu", "--format", "json"]
    done = subprocess.run([sys.executable, f"{script}.py", *options], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout.splitlines()[-1])
    assert [r["key"] for r in out["results"]] == cases
    for r in out["results"]:
        assert r["ratio"] == pytest.approx(r["ours"] / r["peer"])
        assert r["ratio"] > 0


def test_shakespeare_scores_both_sides(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the peer's side needs transformers: pip install ssl_suite[bench]")
    text = tmp_path / "input.txt"
    text.write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n" * 200)
    options = ["--text", str(text), "--steps", "2", "--curve", str(tmp_path / "curve.svg")]
    done = subprocess.run([sys.executable, "shakespeare.py", *options], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nanoGPT's recipe" in done.stdout
    assert re.search(r"nanoGPT's recipe .* \d+ s, 1.00", done.stdout)  # its own loss, at its own time
    assert (tmp_path / "curve.svg").read_text().count("seed 0") >= 1


def test_features_are_written_and_learned_from() -> None:
    options = ["--tiny", "--format", "json"]
    done = subprocess.run([sys.executable, "features.py", *options], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["GB"] == pytest.approx(12 * 50 * 2 * 32 * 4 / 1e9)
    assert figures["features / loop"] > 0


def test_byol_judges_both_sides_and_what_they_must_beat(image_folder: str) -> None:
    options = [
        "--tiny",
        "--seeds",
        "1",
        "--probes",
        "2",
        "--labels",
        "10",
        "--source",
        image_folder,
        "--format",
        "json",
    ]
    done = subprocess.run([sys.executable, "byol.py", *options], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout.splitlines()[-1])["results"]
    assert list(result["accuracy"]) == ["raw pixels", "random weights", "ours", "lightly"]
    assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in result["accuracy"].values())
