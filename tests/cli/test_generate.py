"""generate: prompts continued from the command line, the same for the same seed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_recipes import DATA, QUICK

from ssl_suite.cli import main
from ssl_suite.core.batch import TextBatch
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.methods.text.causal_lm import CausalLM

SHAPE = "{vocab_size: 400, dim: 16, layers: 1, heads: 2, causal: true, max_length: 64}"


@pytest.fixture(scope="module")
def gpt(sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("runs") / "gpt"
    encoder = f"{{class_path: TextEncoder, init_args: {SHAPE}}}"
    options = ["--model=CausalLM", f"--model.encoder={encoder}", *DATA["text"], *QUICK]
    assert main(["fit", *options, f"--data.source={sources['text']}", f"--out={out}"]) == 0
    return str(out / "encoder")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_prompt_is_continued_as_python_would(gpt: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    options = ["--length=8", "--count=2", "--seed=5", "--top_k=20", "--format=json"]
    assert main(["generate", gpt, "the film", "a plot", *options]) == 0
    model = CausalLM(load_encoder(gpt))
    wanted = [(p, model.generate(p, 8, 0.8, 20, 1.0, s)) for p in ("the film", "a plot") for s in (5, 6)]
    assert [(row["prompt"], row["text"]) for row in lines(capsys)] == wanted


def test_prompts_may_come_from_stdin(
    gpt: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the film\n\na plot\n"))
    assert main(["generate", gpt, "--length=4", "--format=json"]) == 0
    assert [row["prompt"] for row in lines(capsys)] == ["the film", "a plot"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--temperature=-1", "temperature is -1.0, but must be a number at least 0"),
        ("--length=0", "length is 0"),
        ("--top_k=-2", "top_k is -2"),
        ("--top_p=0", "top_p is 0.0, but must be a number above 0 and at most 1"),
        ("--count=0", "--count is 0"),
        ("--beams=4", "--beams is for an encoder-decoder"),
    ],
)
def test_a_wrong_option_is_one_sentence(gpt: str, option: str, said: str, fails: Callable[..., str]) -> None:
    assert said in fails("generate", gpt, "the film", option)


def test_an_encoder_that_sees_the_future_is_refused(pretrained: dict[str, Path], fails: Callable[..., str]) -> None:
    said = fails("generate", str(pretrained["text"] / "encoder"), "the film")
    assert "sees both sides of a token and continues nothing; generate takes a causal encoder" in said


def test_an_encoder_decoder_says_what_is_missing_along_beams(
    sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = "{class_path: EncoderDecoder, init_args: {vocab_size: 600, dim: 16, layers: 1, heads: 2}}"
    options = ["--model=Seq2Seq", f"--model.encoder={encoder}", "--data=Text", "--data.vocab_size=600", *QUICK]
    options += ["--data.max_length=32", f"--data.source={sources['text']}", f"--out={tmp_path / 't5'}"]
    assert main(["fit", *options]) == 0
    made = load_encoder(tmp_path / "t5" / "encoder")
    assert isinstance(made, EncoderDecoder)
    capsys.readouterr()
    prompts = ["the <extra_id_0> film", "a"]
    assert main(["generate", str(tmp_path / "t5"), *prompts, "--length=6", "--beams=3", "--format=json"]) == 0
    rows = [made.tokenizer.encode(text).ids for text in prompts]
    assert made.tokenizer.token_to_id("<extra_id_0>") in rows[0]
    batches = [torch.tensor([row]) for row in rows]
    ids = [made.generate(TextBatch(b[:, 0], b[:, 0], None, b, b >= 0, dense=True), 6, 3)[0] for b in batches]
    wanted = [made.tokenizer.decode(row, skip_special_tokens=False) for row in ids]
    assert [row["text"] for row in lines(capsys)] == wanted
    assert main(["generate", str(tmp_path / "t5"), "a", "--top_p=0.5"]) == 2
    assert "draws nothing; leave --top_p out" in capsys.readouterr().err
