"""Recipes of configs/trainer: on two processes of a CPU, as their comments say, and on top of each modality's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_recipes import CONFIGS, DATA, ENCODERS, QUICK, printed

from ssl_suite.core.load import load_encoder


def test_ddp_with_synchronised_batch_norms(sources: dict[str, str], tmp_path: Path) -> None:
    command = [
        "fit", f"--config={CONFIGS / 'trainer/ddp.yaml'}", "--model=SimCLR", f"--model.encoder={ENCODERS['image']}",
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


@pytest.mark.parametrize("recipe", ["image/simclr.yaml", "image/probe.yaml", "speech/apc.yaml", "text/bert.yaml"])
def test_a_gpu_is_fed_by_workers_and_a_cpu_needs_none(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    host, gpu = (printed(capsys, recipe, f"trainer/{trainer}.yaml") for trainer in ("cpu", "gpu"))
    assert host["data"]["init_args"].pop("num_workers") == 0
    assert gpu["data"]["init_args"].pop("num_workers") == 8
    assert gpu["data"] == host["data"]
    assert gpu["model"] == host["model"]


def test_cudnn_tries_its_kernels_for_inputs_of_one_size_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """For speech it would try them anew at every length."""
    for recipe, wanted in (("image/simclr.yaml", True), ("speech/apc.yaml", None), ("text/bert.yaml", None)):
        assert printed(capsys, recipe, "trainer/gpu.yaml")["trainer"]["benchmark"] is wanted


def test_matrices_are_shared_by_the_groups_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    strategy = printed(capsys, "text/bert.yaml", "trainer/tensor_parallel.yaml")["trainer"]["strategy"]
    assert strategy["init_args"] == {"zero": 3, "tensor_parallel": 2, "expert_parallel": False}
    strategy = printed(capsys, "text/switch.yaml", "trainer/expert_parallel.yaml")["trainer"]["strategy"]
    assert strategy["init_args"] == {"zero": 3, "tensor_parallel": 1, "expert_parallel": True}
