"""What the terminal shows: where a run ends, and one line of sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_recipes import DATA, ENCODERS

from ssl_suite.cli import main


@pytest.mark.parametrize(("ends", "shown"), [
    (["--trainer.max_epochs=2"], "Epoch 1/1"),
    (["--trainer.max_steps=3"], "Epoch 1, to step 3"),
])  # fmt: skip
def test_the_bar_says_where_a_run_ends(
    ends: list[str],
    shown: str,
    sources: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = ["--model=SimCLR", f"--model.encoder={ENCODERS['image']}", *DATA["image"]]
    data = [f"--data.source={sources['image']}", "--data.batch_size=32", "--trainer.accelerator=cpu"]
    with caplog.at_level("INFO", "pytorch_lightning.utilities.rank_zero"):
        assert main(["fit", *model, *data, *ends, f"--out={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr()
    assert shown in said.out + said.err
    for noise in ("FLOPs", "/-2"):
        assert noise not in said.out + said.err
    sizes = [message for message in caplog.messages if "parameters are trained" in message]
    assert len(sizes) == 1
    assert sizes[0].startswith("SimCLR: ")
