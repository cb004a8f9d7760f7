"""SUPERB from the command line: every task's options are understood, and what is missing is its corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TASKS = yaml.safe_load((ROOT / "configs/bench/superb.yaml").read_text())["tasks"]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_wants_its_corpus_alone(
    task: str, pretrained: dict[str, Path], tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cpu = ["--set", "trainer.accelerator=cpu", "trainer.precision=32-true"] * (TASKS[task].get("run") != "test")
    encoder = f"--encoders={pretrained['speech']}"
    said = fails(
        "bench", "-c", "bench/superb", f"--tasks={task}", encoder, "--seeds=0", f"--out={tmp_path / 'out'}", *cpu
    )
    assert f"there is no {TASKS[task]['set']['data.source'].partition(':')[2]}" in said
