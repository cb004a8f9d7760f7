"""From T5's recipe to an encoder, and from that to texts that are said and scored."""

from __future__ import annotations

import json
from pathlib import Path

from cli_recipes import QUICK

from ssl_suite.bench.store import Store
from ssl_suite.cli import main
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders.encoder_decoder import EncoderDecoder


def test_t5_is_pretrained_and_fine_tuned_text_to_text(sources: dict[str, str], tmp_path: Path) -> None:
    quick = [option for option in QUICK if "max_epochs" not in option]
    small = ["--model.encoder.vocab_size=500", "--model.encoder.dim=16", "--data.vocab_size=500", "--data.batch_size=8"]
    few = ["--trainer.max_steps=3", "--trainer.val_check_interval=2", f"--data.source={sources['text']}"]
    run = tmp_path / "t5"
    assert main(["fit", "-c", "text/t5", "-c", "text/seq2seq_small", *quick, *small, *few, f"--out={run}"]) == 0
    encoder = load_encoder(run)
    assert isinstance(encoder, EncoderDecoder)
    assert encoder.tokenizer.get_vocab_size() <= 500
    assert encoder.tokenizer.token_to_id("<extra_id_99>") is not None

    options = [f"--model.encoder={run}", f"--data.source={sources['text']}", "--model.metrics=[exact_match,rougeL]"]
    out = tmp_path / "said"
    arguments = ["-c", "text/text_to_text", *options, "--data.batch_size=8"]
    assert main(["fit", *arguments, *QUICK, f"--out={out}", "--test_after=true"]) == 0
    rows = {row.metric: row for row in Store(out / "results.sqlite").rows()}
    assert set(rows) == {"exact_match", "rougeL"}
    assert rows["exact_match"].main
    assert rows["exact_match"].method == "Seq2Seq"
    assert rows["exact_match"].chosen_on > 0  # of the weights that were best on validation
    best = out / "checkpoints" / "best.ckpt"
    predict = [*QUICK, f"--ckpt_path={best}", f"--out={tmp_path / 'answers'}"]
    assert main(["predict", *arguments, *predict]) == 0
    lines = (tmp_path / "answers" / "predictions.jsonl").read_text().splitlines()
    assert all(isinstance(json.loads(line)["prediction"], str) for line in lines)
