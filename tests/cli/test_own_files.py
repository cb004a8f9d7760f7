"""A user's own files, from the command line: splits beside the source, a test split alone, tables without a header."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cli_recipes import QUICK
from PIL import Image

from ssl_suite.bench.store import Store
from ssl_suite.cli import main


def pictures(folder: Path, n: int) -> Path:
    """Dark cats and bright dogs."""
    for value, name in ((40, "cat"), (200, "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.full((8, 8, 3), value + i, np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_checkpoint_scores_a_folder_of_a_test_split_and_a_folder_that_is_one(
    tmp_path: Path, pretrained: dict[str, Path], fails: Callable[..., str]
) -> None:
    pictures(tmp_path / "data/train", 12)
    pictures(tmp_path / "new/test", 6)
    probe = ["--model=Finetune", f"--model.encoder={pretrained['image'] / 'encoder'}", "--model.task=Classify"]
    probe += ["--data=Images", "--data.image_size=8", "--data.batch_size=4", *QUICK]
    assert main(["fit", *probe, f"--data.source={tmp_path / 'data'}", f"--out={tmp_path / 'run'}"]) == 0
    trained = [*probe, f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"]
    values = []
    for number, source in enumerate(
        (
            [f"--data.source={tmp_path / 'new'}"],
            [f"--data.source={tmp_path / 'data'}", f"--data.test={tmp_path / 'new/test'}"],
        )
    ):
        out = tmp_path / f"scored{number}"
        assert main(["test", *trained, *source, f"--out={out}"]) == 0
        values.append([(r.metric, r.value) for r in Store(out / "results.sqlite").rows()])
    assert values[0] == values[1]
    out = f"--out={tmp_path / 'no'}"
    said = fails("validate", *trained, f"--data.source={tmp_path / 'new'}", out)
    assert said.endswith("has no validation split; it has: test; name one with --data.validation.")
    said = fails("test", *trained, f"--data.source={tmp_path / 'new/test'}", out)
    assert said.endswith("has no test split; it has: train, validation; name one with --data.test.")


def test_sts_b_without_a_header(tmp_path: Path, pretrained: dict[str, Path]) -> None:
    words = ["good", "bad", "fine", "poor", "lovely", "ugly"]
    lines = [f"news\tx\t2012\t{i:04}\t{i % 6}.000\t{words[i % 6]} day\t{words[i % 5]} day\n" for i in range(24)]
    (tmp_path / "train.tsv").write_text("".join(lines))
    rate = ["fit", "--model=Finetune", f"--model.encoder={pretrained['text'] / 'encoder'}", "--model.task=Regress"]
    columns = ["--data.column=5", "--data.pair=6", "--data.target=4", "--data.header=false"]
    source = ["--data=Text", f"--data.source={tmp_path}", "--data.max_length=16", *columns]
    assert main([*rate, *source, *QUICK, f"--out={tmp_path / 'run'}"]) == 0
    (tmp_path / "data.yaml").write_text(
        json.dumps({"data": {"class_path": "Text", "init_args": {"column": "5", "target": "4", "header": False}}})
    )
    config = ["-c", str(tmp_path / "data.yaml"), f"--data.source={tmp_path}", "--data.max_length=16"]
    assert main([*rate, *config, *QUICK, f"--out={tmp_path / 'again'}"]) == 0


def test_rows_too_few_to_hold_one_out_are_trained_on_and_the_last_weights_are_kept(tmp_path: Path) -> None:
    """No figure of a validation that there is none of is waited for."""
    pictures(tmp_path / "data", 3)
    probe = ["fit", "-c", "image/probe", "--model.encoder=RawPixels", f"--data.source={tmp_path / 'data'}"]
    options = ["--data.image_size=8", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
    assert main([*probe, *options, f"--out={tmp_path / 'run'}"]) == 0
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["last.ckpt"]
