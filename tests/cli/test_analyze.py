"""`ssl-suite analyze`: encoders and data in; rows and a page out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_suite.analysis.states import Items, named_encoders
from ssl_suite.cli import main
from ssl_suite.core.collapse import collapse_signs


@pytest.mark.parametrize("modality", ["text", "image", "speech"])
def test_layers_and_rank_of_any_modality(
    modality: str,
    pretrained: dict[str, Path],
    sources: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(pretrained[modality])
    options = [run, f"random:{run}", "--data", sources[modality], "--count", "24"]
    assert main(["analyze", "layers", *options, "--out", str(tmp_path / "layers")]) == 0
    assert "CKA" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "layers/rows.csv").open()))
    own = [r for r in rows if r["measure"] == "cka" and r["encoder"] == r["other"] and r["layer"] == r["other_layer"]]
    assert len(own) >= 4
    assert all(float(r["value"]) == pytest.approx(1, abs=1e-5) for r in own if r["value"] != "nan")
    assert main(["analyze", "rank", *options, "--out", str(tmp_path / "rank")]) == 0
    kept = json.loads((tmp_path / "rank/rows.json").read_text())
    (last,) = named_encoders([run]).values()
    signs = collapse_signs(Items(sources[modality], wanted=24).states(last)[-1])
    ranks = [r["value"] for r in kept["rows"] if r["measure"] == "effective_rank" and r["encoder"] == Path(run).name]
    assert ranks[-1] == pytest.approx(float(signs["effective_rank"]), rel=1e-4)
    for name in ("layers", "rank"):
        page = (tmp_path / name / "report.html").read_text()
        assert "<svg" in page
        assert "http" not in page.split("<body>")[1].replace("http-equiv", "")


def test_positions_are_the_frames_and_the_means_are_of_them(
    pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    (encoder,) = named_encoders([str(pretrained["speech"])]).values()
    one = Items(sources["speech"], wanted=4, batch_size=1)
    together = Items(sources["speech"], wanted=4, batch_size=4)
    for alone, padded in zip(one.states(encoder), together.states(encoder), strict=True):
        torch.testing.assert_close(alone, padded, rtol=1e-3, atol=1e-4)
    frames = together.states(encoder, positions=True)
    assert len(frames[0]) == len(one.states(encoder, positions=True)[0]) > 4


def test_what_cannot_be_compared_is_one_sentence(
    pretrained: dict[str, Path], sources: dict[str, str], fails: Callable[..., str], tmp_path: Path
) -> None:
    run = str(pretrained["text"])
    data = ["--data", sources["text"], "--out", str(tmp_path / "out")]
    assert "named twice" in fails("analyze", "layers", run, run, *data)
    assert "has no tset split" in fails("analyze", "layers", run, *data, "--split", "tset")
    assert "at least 4" in fails("analyze", "rank", run, *data, "--count", "2")
    (tmp_path / "r.yaml").write_text("contu: 24\n")
    assert "has no option 'contu'. Did you mean count?" in fails(
        "analyze", "rank", run, "-c", str(tmp_path / "r.yaml"), *data
    )
    assert not (tmp_path / "out").exists()


def test_a_recipe_gives_options_and_the_command_line_the_last_word(
    pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"encoders: ['{pretrained['text']}']\ndata: '{sources['text']}'\ncount: 9\n")
    assert main(["analyze", "rank", "-c", str(recipe), "--out", str(tmp_path / "a")]) == 0
    assert main(["analyze", "rank", "-c", str(recipe), "--count", "7", "--out", str(tmp_path / "b")]) == 0
    most = [json.loads((tmp_path / x / "rows.json").read_text())["rows"][2]["value"] for x in "ab"]
    assert most == [9, 7]
