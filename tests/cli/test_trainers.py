"""Recipes of configs/trainer on two processes of a CPU, as their comments say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cli_recipes import DATA, ENCODERS, QUICK

from ssl_suite.core.folder import load_encoder

RECIPES = Path(__file__).parents[2] / "configs/trainer"


def test_ddp_with_synchronised_batch_norms(sources: dict[str, str], tmp_path: Path) -> None:
    command = [
        "fit", f"--config={RECIPES / 'ddp.yaml'}", "--model=SimCLR", f"--model.encoder={ENCODERS['image']}",
        *DATA["image"], f"--data.source={sources['image']}", "--data.batch_size=8", *QUICK, "--trainer.devices=2",
        "--trainer.limit_train_batches=2", f"--out={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ssl_suite", *command],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    encoder = load_encoder(tmp_path / "run/encoder")
    assert int(encoder.net.bn1.num_batches_tracked) == 2
