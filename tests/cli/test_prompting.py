"""In-context evaluation and re-embedded encoders from the command line and in a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cli_recipes import DATA, QUICK

from ssl_suite.bench.benchmark import command, jobs, load_benchmark
from ssl_suite.bench.runner import run_benchmark
from ssl_suite.bench.store import Store
from ssl_suite.cli import fit, main

ROOT = Path(__file__).parents[2]
SHAPE = "{vocab_size: 400, dim: 16, layers: 1, heads: 2, causal: true, max_length: 96}"
ENCODER = f"{{class_path: TextEncoder, init_args: {SHAPE}}}"


@pytest.fixture(scope="module")
def gpt(sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "gpt"
    options = ["--model=CausalLM", f"--model.encoder={ENCODER}", "--model.optim.name=muon", *DATA["text"], *QUICK]
    assert main(["fit", *options, f"--data.source={sources['text']}", f"--out={out}"]) == 0
    return out / "encoder"


def test_recipe_puts_both_accuracies_and_the_shots_into_the_results(
    gpt: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    results = tmp_path / "results.sqlite"
    recipe = ["test", "-c", str(ROOT / "configs/text/in_context.yaml"), *QUICK[:3], "--data.max_length=96"]
    for name, encoder in (("ssl", str(gpt)), ("random", f"random:{gpt}")):
        out = tmp_path / name
        more = [f"--model.encoder={encoder}", f"--data.source={sources['text']}", "--data.shots=1", f"--out={out}"]
        assert main([*recipe, *more, f"--results={results}"]) == 0
    rows = Store(results).rows()
    assert {(r.role, r.method, r.metric) for r in rows} == {
        (role, method, metric)
        for role, method in (("ssl", "CausalLM"), ("random", "random"))
        for metric in ("accuracy", "accuracy_norm")
    }
    assert {(r.protocol, r.labels, r.direction) for r in rows} == {("1-shot@1", 1, "max")}
    assert all(0 <= r.value <= 1 for r in rows)


def test_predictions_are_the_words_of_the_template(gpt: Path, sources: dict[str, str], tmp_path: Path) -> None:
    recipe = ["predict", "-c", str(ROOT / "configs/text/in_context.yaml"), *QUICK[:3], "--data.max_length=96"]
    assert main([*recipe, f"--model.encoder={gpt}", f"--data.source={sources['text']}", f"--out={tmp_path}"]) == 0
    rows = [yaml.safe_load(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    assert {row["prediction"] for row in rows} <= {"great", "terrible"}


def test_training_in_context_is_refused(gpt: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    recipe = ["fit", "-c", str(ROOT / "configs/text/in_context.yaml"), *QUICK, "--data.max_length=96"]
    assert "use `ssl-suite test`" in fails(*recipe, f"--model.encoder={gpt}", f"--out={tmp_path / 'run'}")


def test_a_benchmark_may_only_test_and_may_take_an_encoder_in_more_ways(
    gpt: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    source = {"data.source": sources["text"]}
    text = {"modality": "text"}
    prompts = {"config": [str(ROOT / "configs/text/in_context.yaml")], "set": {**source, "data.max_length": 96}}
    probe = {"config": [str(ROOT / "configs/text/classify.yaml")], "set": {**source, "trainer.max_epochs": 1}}
    path = tmp_path / "bench.yaml"
    tasks = {"prompt": {**text, **prompts, "run": "test"}, "probe": {**text, **probe, "schemes": ["reemb"]}}
    path.write_text(
        yaml.safe_dump({"name": "b", "seeds": [0], "encoders": {"GPT": {**text, "source": str(gpt)}}, "tasks": tasks})
    )
    run_benchmark(path, fit, tmp_path, None, None)
    rows = Store(tmp_path / "results.sqlite").rows(metric="accuracy")
    assert {(r.task, r.method, r.role, r.protocol) for r in rows} == {
        ("prompt", "CausalLM", "ssl", "0-shot@1"),
        ("prompt", "random", "random", "0-shot@1"),
        ("probe", "CausalLM", "ssl", "probe@1"),
        ("probe", "CausalLM re-emb", "ssl", "probe@1"),
        ("probe", "random", "random", "probe@1"),
    }
    assert {r.name for r in rows} == {"GPT", "GPT reemb", "random"}
    runs = {c.task.name: command(c.task.config, run=c.task.run)[0] for c in jobs(load_benchmark(path), tmp_path)}
    assert runs == {"prompt": "test", "probe": "fit"}


def test_texts_of_ones_own_are_scored_without_a_training_split(
    gpt: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a few words of text\n" * 12)
    score = ["test", "--model=Perplexity", f"--model.encoder={gpt}", "--data=Documents", "--data.max_length=32"]
    score += [*QUICK[:3], f"--out={tmp_path / 'run'}"]
    assert "data.source is missing" in fails(*score)
    assert main([*score, f"--data.test={tmp_path / 'texts'}"]) == 0
    assert {r.metric for r in Store(tmp_path / "run/results.sqlite").rows()} >= {"bits_per_byte"}
