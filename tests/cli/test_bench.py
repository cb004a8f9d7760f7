"""What a benchmark runs, what it need not run again, and what it says of what it cannot run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from ssl_suite.bench import runner
from ssl_suite.bench.attempts import attempts
from ssl_suite.bench.benchmark import jobs, load_benchmark
from ssl_suite.bench.outcome_files import read_outcomes
from ssl_suite.bench.store import Result, Store
from ssl_suite.cli import fit, main
from ssl_suite.cli.suite import SuiteCLI
from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import Interrupted, UserError
from ssl_suite.core.files import locked
from ssl_suite.core.folder import fingerprint, save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.methods.text.masked_lm import MaskedLM

BENCH = """\
name: small
seeds: [0, 1]
set: {trainer.accelerator: cpu, trainer.max_epochs: 1, data.batch_size: 16, data.max_length: 32}
tasks:
  sentences:
    modality: text
    config: [RECIPE]
    set: {trainer.check_val_every_n_epoch: 1}
    simple: {model.encoder: BagOfWords, model.encoder.vocab_size: 400, data.vocab_size: 400}
  other: {modality: text, config: [RECIPE]}
"""
RECIPE = """\
model: {class_path: Finetune, init_args: {task: Classify, optim: {lr: 1.0e-2}}}
data: Text
"""


@pytest.fixture
def encoders(pretrained: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Two encoders of one method and shape, in folders of one name."""
    made = {}
    for i, owner in enumerate(("a", "b")):
        encoder = load_encoder(pretrained["text"] / "encoder")
        with torch.no_grad():
            encoder.tokens.weight += 0.5 * i  # type: ignore[union-attr, operator]
        made[owner] = save_encoder(encoder, tmp_path / owner / "mine/encoder", {"method": "MaskedLM"})
    return made


@pytest.fixture
def bench(
    encoders: dict[str, Path], sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[list[Result], str]]:
    """Runs the small benchmark on both encoders and its own copy of the data; returns the results and what it said."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "small.yaml").write_text(BENCH.replace("RECIPE", str(tmp_path / "recipe.yaml")))
    shutil.copytree(sources["text"], tmp_path / "data")

    def run(*more: str, task: str = "sentences", code: int = 0) -> tuple[list[Result], str]:
        options = ["-c", str(tmp_path / "small.yaml"), "--encoders", *map(str, encoders.values()), "--tasks", task]
        options += ["--out", str(tmp_path / "out"), "--set", f"data.source={tmp_path / 'data'}", *more]
        capsys.readouterr()
        assert main(["bench", *options]) == code
        said = capsys.readouterr()
        return Store(tmp_path / "out/results.sqlite").rows(metric=["accuracy", ""]), said.out + said.err

    return run


def ran(said: str) -> int:
    """How many runs a benchmark did not find done before."""
    total, done = said.partition("Judging: ")[2].split(" done before")[0].split(" runs, ")
    return int(total) - int(done)


def test_two_encoders_of_one_method_shape_and_folder_name_are_two_rows(
    bench: Callable[..., tuple[list[Result], str]], tmp_path: Path
) -> None:
    rows, said = bench()
    assert ran(said) == len(rows) == 8
    assert {(row.name, row.role) for row in rows} == {
        ("a/mine", "ssl"), ("b/mine", "ssl"), ("random", "random"), ("bag of words", "simple")
    }  # fmt: skip
    assert {row.seed for row in rows} == {0, 1}
    assert len({row.weights for row in rows if row.role == "ssl"}) == 2
    assert len({row.encoder for row in rows if row.role != "simple"}) == 1, "they share their random weights"
    assert all(read_outcomes(tmp_path / "out" / row.run, row) for row in rows)
    for name in ("a/mine", "b/mine"):
        assert name in said
        assert name in (tmp_path / "out/report.html").read_text()


def test_what_is_unchanged_is_done_before_and_what_changed_supersedes(
    bench: Callable[..., tuple[list[Result], str]], encoders: dict[str, Path], tmp_path: Path
) -> None:
    first, _ = bench("--seeds", "0")
    again, said = bench("--seeds", "0")
    assert ran(said) == 0
    assert again == first

    more, said = bench("--seeds", "0", "3")
    assert ran(said) == 4
    assert {row.seed for row in more} == {0, 3}

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# a comment changes nothing\n" + recipe.read_text())
    assert ran(bench("--seeds", "0")[1]) == 0
    recipe.write_text(recipe.read_text().replace("1.0e-2", "1.0e-3"))
    edited, said = bench("--seeds", "0")
    assert ran(said) == 4
    assert len(edited) == len(more), "an old row is superseded, not kept beside"
    assert {row.recipe for row in edited if row.seed == 0}.isdisjoint(row.recipe for row in first)

    fewer, said = bench("--seeds", "0", "--set", "data.labels=10")
    assert ran(said) == 4
    assert {row.labels for row in fewer if row.seed == 0} == {10}

    bench("--seeds", "0")
    encoder = load_encoder(encoders["a"])
    with torch.no_grad():
        encoder.tokens.weight += 1.0  # type: ignore[union-attr, operator]
    save_encoder(encoder, encoders["a"], {"method": "MaskedLM"})
    retrained, said = bench("--seeds", "0")
    assert ran(said) == 1
    assert len(retrained) == len(more)

    path = tmp_path / "data/test.parquet"
    pq.write_table(pq.read_table(path).slice(0, 20), path)
    changed, said = bench("--seeds", "0")
    assert ran(said) == 4
    assert {row.data_hash for row in changed if row.seed == 0}.isdisjoint(row.data_hash for row in first)


def test_a_run_that_fails_is_a_row_and_does_not_stop_the_others(
    bench: Callable[..., tuple[list[Result], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit.run

    def fragile(arguments: list[str]) -> SuiteCLI:
        if str(tmp_path / "out/tasks/sentences/a-mine-seed1") in arguments:
            raise UserError("The loss became nan at step 3.")
        if str(tmp_path / "out/tasks/sentences/b-mine-seed1") in arguments:
            raise RuntimeError("a fault of ours")
        return whole(arguments)

    monkeypatch.setattr(fit, "run", fragile)
    rows, said = bench(code=2)
    assert len(rows) == 8
    assert {row.run: row.error for row in rows if row.error} == {
        "tasks/sentences/a-mine-seed1": "The loss became nan at step 3.",
        "tasks/sentences/b-mine-seed1": f"RuntimeError: a fault of ours (see {tmp_path}/out/tasks/sentences/"
        "b-mine-seed1/error.txt)",
    }
    assert "Traceback" in (tmp_path / "out/tasks/sentences/b-mine-seed1/error.txt").read_text()
    assert "2 runs gave no result; the first: tasks/sentences/a-mine-seed1: The loss became nan" in said
    assert "The loss became nan at step 3." in (tmp_path / "out/report.html").read_text()
    monkeypatch.setattr(fit, "run", whole)
    mended, said = bench()
    assert ran(said) == 2
    assert not any(row.error for row in mended)


def test_two_runs_at_a_time_give_what_one_after_another_does(
    bench: Callable[..., tuple[list[Result], str]], tmp_path: Path
) -> None:
    def values(rows: list[Result]) -> dict[str, float]:
        return {row.run: row.value for row in rows}

    single, _ = bench("--jobs", "1")
    shutil.rmtree(tmp_path / "out")
    double, said = bench("--jobs", "2")
    assert ran(said) == 8
    assert values(double) == pytest.approx(values(single), abs=1e-6)  # the sums of other threads are rounded otherwise
    assert ran(bench("--jobs", "2")[1]) == 0


def test_a_task_may_take_the_first_of_the_seeds_alone(tmp_path: Path) -> None:
    simple = "modality: text, config: [r], simple: {model.encoder: BagOfWords}"
    text = f"name: x\nseeds: [4, 5]\ntasks:\n  all: {{{simple}}}\n  one: {{{simple}, seeds: 1}}\n"
    (tmp_path / "b.yaml").write_text(text)
    benchmark = load_benchmark(tmp_path / "b.yaml")
    assert [(job.task.name, job.seed) for job in jobs(benchmark, tmp_path)] == [("all", 4), ("all", 5), ("one", 4)]
    (tmp_path / "b.yaml").write_text(text.replace("seeds: 1", "seeds: 0"))
    with pytest.raises(UserError, match="seeds of the task one is 0, but must be a whole number at least 1"):
        load_benchmark(tmp_path / "b.yaml")


def test_a_run_that_fails_in_a_process_of_its_own_is_told(tmp_path: Path) -> None:
    runs = [(partial(missing, "x"), tmp_path), (partial(int, "3"), tmp_path), (partial(int, "y"), tmp_path)]
    ended = dict(attempts(runs, jobs=2))
    assert (ended[0], ended[1]) == ("No x.", "")
    assert ended[2].startswith("ValueError: invalid literal")
    assert "Traceback" in (tmp_path / "error.txt").read_text()
    with pytest.raises(Interrupted, match="Stopped by SIGTERM; go on later"):
        list(attempts([(stopped, tmp_path)], jobs=2))
    with pytest.raises(UserError, match="lower --jobs"):
        list(attempts([(partial(os._exit, 9), tmp_path)], jobs=2))


def missing(name: str) -> None:
    raise UserError(f"No {name}.")


def stopped() -> None:
    raise Interrupted(signal.SIGTERM, "go on later.")


def test_a_signal_stops_the_benchmark_and_is_no_failed_run(
    bench: Callable[..., tuple[list[Result], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit.run

    def stopped(arguments: list[str]) -> SuiteCLI:
        if any("random-a-mine-seed0" in argument for argument in arguments):
            raise Interrupted(signal.SIGTERM, "go on later.")
        return whole(arguments)

    monkeypatch.setattr(fit, "run", stopped)
    rows, said = bench(code=128 + signal.SIGTERM)
    assert "Stopped by SIGTERM" in said
    assert [row.role for row in rows] == ["simple"]


@pytest.mark.parametrize(("more", "sentence"), [
    (["--seeds", "0", "0"], "Seeds are whole numbers from 0 to 2³² − 1, each once, not [0, 0]."),
    (["--seeds", "-1"], "Seeds are whole numbers from 0 to 2³² − 1, each once, not [-1]."),
    (["--only", "a/mein"], "has no encoder 'a/mein'. Did you mean a/mine?"),
    (["--set", "data.source=nowhere"], "No data at 'nowhere'."),
    (["--set", "model.optim.rl=1"], "has no option 'optim.rl'. Did you mean optim.lr?"),
    (["--set", "data.labels=0"], "data.labels is 0, but must be a whole number at least 1."),
])  # fmt: skip
def test_mistakes_are_found_before_anything_is_trained(
    more: list[str], sentence: str, bench: Callable[..., tuple[list[Result], str]], tmp_path: Path
) -> None:
    rows, said = bench(*more, code=2)
    assert sentence in said
    assert not rows
    assert not (tmp_path / "out/pretrain").exists()


def test_what_a_benchmark_lacks_is_said(
    fails: Callable[..., str], bench: Callable[..., tuple[list[Result], str]], encoders: dict[str, Path], tmp_path: Path
) -> None:
    path = str(tmp_path / "small.yaml")
    assert "has no encoders of its own; name some: --encoders" in fails("bench", "-c", path)
    assert "--set wants NAME=VALUE, not 'x'" in fails("bench", "-c", path, "--set", "x")
    twice = [str(encoders["a"]), str(encoders["a"].parent)]
    assert "has no task 'sentence'. Did you mean sentences?" in bench(task="sentence", code=2)[1]
    assert "names" in fails("bench", "-c", path, "--encoders", twice[0], twice[0])


def test_two_benchmarks_do_not_work_in_one_folder(
    bench: Callable[..., tuple[list[Result], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_suite.core.files.PATIENCE", 0.0)
    with locked(tmp_path / "out"):
        _, said = bench(code=2)
    assert "Another process is writing to" in said


def test_results_of_what_is_not_there(
    bench: Callable[..., tuple[list[Result], str]], fails: Callable[..., str], tmp_path: Path
) -> None:
    bench("--seeds", "0", "--only", "a/mine")
    file = tmp_path / "out/results.sqlite"
    assert fails("results", str(file), "--task", "nope") == f"{file} has no task 'nope'; it has sentences."
    assert fails("results", str(file), "--name", "c") == f"{file} has no name 'c'; it has a/mine, bag of words, random."
    asked = ["--name", "random", "--role", "ssl"]
    assert "has no results with name random, role ssl together." in fails("results", str(file), *asked)


def test_an_edited_pretraining_recipe_pretrains_again(sources: dict[str, str], tmp_path: Path) -> None:
    recipe = tmp_path / "pretrain.yaml"
    recipe.write_text(
        "model: {class_path: MaskedLM, init_args: {rate: 0.15, encoder: {class_path: TextEncoder, init_args: "
        "{vocab_size: 400, dim: 16, layers: 1, heads: 2, max_length: 32}}}}\n"
        f"data: {{class_path: Text, init_args: {{source: {sources['text']}, vocab_size: 400, max_length: 32}}}}\n"
        "trainer: {accelerator: cpu, max_steps: 2, enable_progress_bar: false}\n"
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    path = tmp_path / "small.yaml"
    encoder = f"encoders: {{Mine: {{modality: text, config: [{recipe}]}}}}\n"
    path.write_text(BENCH.replace("RECIPE", str(tmp_path / "recipe.yaml")) + encoder)

    def weights() -> tuple[str, str]:
        runner.run_benchmark(
            path, fit, tmp_path / "out", None, [0], settings={"data.source": sources["text"]}, only_tasks=["other"]
        )
        (row,) = Store(tmp_path / "out/results.sqlite").rows(role="ssl", main=True)
        return row.weights, row.created

    first = weights()
    assert weights() == first
    recipe.write_text(recipe.read_text().replace("0.15", "0.3"))
    assert weights()[0] != first[0]


def test_an_interrupted_pretraining_goes_on_where_it_was(
    sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trainer.max_steps": 3, "trainer.accelerator": "cpu", "data.source": sources["text"]}
    options |= {"data.vocab_size": 400, "data.max_length": 32, "data.batch_size": 2, "model.rate": 0.3}
    encoder = "{class_path: TextEncoder, init_args: {vocab_size: 400, dim: 16, layers: 1, heads: 2, max_length: 32}}"
    recipe, probe, path = (tmp_path / f"{name}.yaml" for name in ("pretrain", "recipe", "small"))
    recipe.write_text(f"model: {{class_path: MaskedLM, init_args: {{encoder: {encoder}}}}}\ndata: Text\n")
    probe.write_text(RECIPE)

    def run(folder: str, code: int = 0) -> str:
        made = {"modality": "text", "config": [str(recipe)], "set": options}
        path.write_text(BENCH.replace("RECIPE", str(probe)) + yaml.safe_dump({"encoders": {"Mine": made}}))
        asked = ["-c", str(path), "--out", str(tmp_path / folder), "--tasks", "other", "--seeds", "0"]
        assert main(["bench", *asked, "--set", f"data.source={sources['text']}"]) == code
        encoder = tmp_path / folder / "pretrain/Mine/encoder"
        return fingerprint(load_encoder(str(encoder))) if code == 0 else ""

    steps: list[int] = []
    step = MaskedLM.training_step

    def interrupted(module: MaskedLM, batch: TextBatch, *rest: Any) -> Any:
        steps.append(module.trainer.global_step)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, batch, *rest)

    whole = run("whole")
    monkeypatch.setattr(MaskedLM, "training_step", interrupted)
    run("cut", 128 + signal.SIGTERM)
    assert run("cut") == whole
    assert steps == [0, 1, 2]


def test_units_are_made_before_an_encoder_learns_them(sources: dict[str, str], tmp_path: Path) -> None:
    encoder = "{class_path: SpeechEncoder, init_args: {stack: 2, trunk: transformer, dim: 16, layers: 1, heads: 2}}"
    hubert, probe, path = (tmp_path / f"{name}.yaml" for name in ("hubert", "probe", "bench"))
    hubert.write_text(f"model: {{class_path: HuBERT, init_args: {{encoder: {encoder}}}}}\ndata: Speech\n")
    probe.write_text("model: {class_path: Finetune, init_args: {task: Classify}}\ndata: Speech\n")
    options = {"data.source": sources["speech"], "trainer.max_epochs": 1, "trainer.accelerator": "cpu"}
    made = {"config": [str(hubert)], "set": options, "units": {"source": sources["speech"], "units": 4}}
    task = {"config": [str(probe)], "set": options | {"data.target": "language"}}
    benchmark = {"name": "units", "seeds": [0], "encoders": {"HuBERT": made}, "tasks": {"language": task}}
    for entry in (made, task):
        entry["modality"] = "speech"
    path.write_text(yaml.safe_dump(benchmark))
    assert main(["bench", "-c", str(path), "--out", str(tmp_path / "out")]) == 0
    (units,) = (tmp_path / "out/units").iterdir()
    assert (units / "train.safetensors").is_file()
    assert str(units) in (tmp_path / "out/pretrain/HuBERT/config.yaml").read_text()
    assert "HuBERT" in {row.method for row in Store(tmp_path / "out/results.sqlite").rows()}
    made["units"] = {"clusters": 4}
    path.write_text(yaml.safe_dump(benchmark))
    assert main(["bench", "-c", str(path), "--out", str(tmp_path / "out")]) != 0


def test_processes_end_with_the_benchmark_their_last_run_ended_too(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    benchmark = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path)
    numbers = [int(wait_for(tmp_path / name)) for name in ("a", "b")]
    benchmark.kill()
    benchmark.wait()
    assert [wait_for(tmp_path / f"{name} ended") for name in ("a", "b")] == ["yes", "yes"]
    for _ in range(100):
        if not any(running(number) for number in numbers):
            break
        time.sleep(0.1)
    assert not any(running(number) for number in numbers)
    assert not (tmp_path / "c").exists()  # no run is begun after it


SLOW = """\
import os
import signal
import subprocess
import sys
import time
import time
from functools import partial
from pathlib import Path

from ssl_suite.bench.attempts import attempts
from ssl_suite.bench.benchmark import jobs, load_benchmark


def slow(name):
    signal.signal(signal.SIGTERM, lambda *_: None)
    Path(f"{name} new").write_text(str(os.getpid()))
    os.replace(f"{name} new", name)
    time.sleep(2)
    Path(f"{name} ended").write_text("yes")


if __name__ == "__main__":
    list(attempts([(partial(slow, name), Path()) for name in "abcd"], jobs=2))
"""


def wait_for(path: Path) -> str:
    """What is in a file once it is there."""
    for _ in range(600):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.1)
    raise AssertionError(f"{path.name} never came")


def running(number: int) -> bool:
    """Whether a process is there; one that nobody has asked about since it ended is not."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
