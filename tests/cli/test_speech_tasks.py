"""Verification, diarization, separation and enhancement from the command line, by their recipes, on real voices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from cli_recipes import QUICK
from pyannote.database.util import load_rttm

from ssl_suite.bench.outcome_files import read_outcomes
from ssl_suite.bench.store import Store
from ssl_suite.cli import main
from ssl_suite.core.load import load_encoder

SMALL = {
    "verify": ["--model.task.width=8", "--model.task.last=12"],
    "diarize": ["--model.task.hidden=8", "--data.anew=false"],
    "diarize as SUPERB's script": ["--model.task.hidden=8", "--model.task.protocol=compat"],
    "separate": ["--model.task.hidden=8", "--model.task.layers=1"],
    "separate from noise": ["--model.task.hidden=8", "--model.task.layers=1", "--model.task.voices=[clean]",
                            "--data.voices=1", "--data.noise=pink", "--data.batch_size=16"],
}  # fmt: skip
FIGURES = {
    "verify": {"eer", "min_dcf"},
    "diarize": {"der", "miss", "false_alarm", "confusion"},
    "separate": {"si_sdri", "si_sdr"},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_leaves_results_with_their_outcomes(
    name: str, tmp_path: Path, pretrained: dict[str, Path], small: Callable[[str], str]
) -> None:
    recipe = name.split()[0]
    arguments = ["fit", "-c", f"speech/{recipe}", f"--model.encoder={pretrained['speech']}/encoder", *SMALL[name]]
    options = [f"--data.source={small('prompts')}", "--trainer.check_val_every_n_epoch=1", f"--out={tmp_path}/run"]
    assert main([*arguments, *QUICK, *options, "--test_after=true"]) == 0
    rows = Store(tmp_path / "run/results.sqlite").rows()
    assert {row.metric for row in rows} == FIGURES[recipe]
    assert {row.protocol for row in rows} == {"probe compat@1" if "SUPERB" in name else "probe@1"}
    assert all(row.direction == ("max" if "sdr" in row.metric else "min") for row in rows)
    (main_row,) = (row for row in rows if row.main)
    kept = read_outcomes(tmp_path / "run", main_row)
    assert kept is not None, "the outcomes of single rows make up the number"
    assert len(kept.ids) == 24
    shares = json.loads((tmp_path / "run/layers.json").read_text())["shares"]
    assert len(shares) == load_encoder(pretrained["speech"] / "encoder").num_states
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert len(set(shares)) == len(shares), "they were learned"
    if name not in ("diarize", "separate"):
        return
    checkpoint = f"--ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    assert main(["predict", *arguments[1:], options[0], checkpoint, f"--out={tmp_path}/said", *QUICK[:3]]) == 0
    if name == "separate":
        files = sorted((tmp_path / "said/separated").iterdir())
        assert len(files) == 48
        voices = [soundfile.read(file)[0] for file in files[:2]]
        assert voices[0].shape == voices[1].shape
        assert abs(voices[0]).max() > 0
        return
    turns = load_rttm(tmp_path / "said/predictions.rttm")
    assert 1 <= len(turns) <= 24
    assert all(turn.end <= 16 for said in turns.values() for turn in said.itersegments())


def test_verification_without_training_leaves_results(
    tmp_path: Path, pretrained: dict[str, Path], small: Callable[[str], str]
) -> None:
    model = ["--model=Similarity", f"--model.encoder={pretrained['speech']}/encoder"]
    data = ["--data=Speech", f"--data.source={small('prompts')}", "--data.target=speaker"]
    assert main(["test", *model, *data, "--trainer.accelerator=cpu", f"--out={tmp_path}/run"]) == 0
    rows = Store(tmp_path / "run/results.sqlite").rows()
    assert {(row.metric, row.protocol, row.role) for row in rows} == {
        (metric, "training-free@1", "ssl") for metric in FIGURES["verify"]
    }
    (main_row,) = (row for row in rows if row.main)
    kept = read_outcomes(tmp_path / "run", main_row)
    assert kept is not None
    assert len(kept.ids) == 24
