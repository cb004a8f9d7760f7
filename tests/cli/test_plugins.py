"""A package adds classes under short names, which serve from pretraining to the report; a broken one is left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cli_recipes import DATA, QUICK

from ssl_suite.bench.store import Store
from ssl_suite.core.folder import save_encoder, write_manifest
from ssl_suite.core.task import Task
from ssl_suite.encoders.simple import RawPixels
from ssl_suite.tasks.classify import Classify

RECIPE = "{model: {class_path: Finetune, init_args: {task: Classify}}, data: Stripes, trainer: {max_epochs: 2}}"
BENCH = """
name: stripes
seeds: [0]
set: {trainer.accelerator: cpu, data.batch_size: 8}
encoders:
  mine: {modality: image, source: ENCODER}
tasks:
  stripes: {modality: image, config: [RECIPE]}
"""
EXAMPLE = Path(__file__).parents[1] / "plugin_example"


def install(site: Path, name: str, entry: str) -> None:
    """What pip leaves of a package beside its code."""
    info = site / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[ssl_suite.plugins]\n{entry}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for packages with the example and a broken plug-in in it."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["ssl_suite.plugins"].items()
    install(folder, project["name"], f"{name} = {module}")
    (folder / module).symlink_to(EXAMPLE / module)
    install(folder, "broken-plugin", "broken = broken_plugin")
    (folder / "broken_plugin.py").write_text("import a_module_that_nobody_has\n")
    return folder


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_list_shows_what_plugins_bring_and_from_where(site: Path) -> None:
    done = python(site, "-m", "ssl_suite", "list", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = {(e["kind"], e["name"]): e["origin"] for e in json.loads(done.stdout)}
    for key in (
        ("methods", "Inpaint"),
        ("encoders", "Patches"),
        ("tasks", "Direction"),
        ("data", "Stripes"),
        ("plugins", "example"),
    ):
        assert found[key] == "example"
    assert found["plugins", "broken"] == "broken"
    assert found["methods", "SimCLR"] == "ssl_suite"
    assert "Inpaint" in python(site, "-m", "ssl_suite", "list", "methods").stdout


def run(site: Path, *commands: list[str]) -> str:
    """Runs commands one after the other in a process that has the plug-ins; returns what they say beside."""
    code = f"from ssl_suite.cli import main; print([main(a) for a in {list(commands)!r}])"
    done = python(site, "-c", code)
    assert done.stdout.splitlines()[-1] == str([0] * len(commands)), done.stderr
    return done.stderr


def test_a_run_with_classes_of_a_plugin_and_a_broken_one_beside(
    site: Path, tmp_path: Path, sources: dict[str, str]
) -> None:
    data = [*DATA["image"], f"--data.source={sources['image']}", "--data.batch_size=16", *QUICK]
    fit = ["fit", "--model=Inpaint", "--model.encoder=Patches", "--model.encoder.dim=8", *data]
    probe = ["fit", "--model=Finetune", f"--model.encoder={tmp_path / 'run/encoder'}", "--model.task=Classify", *data]
    out = [f"--out={tmp_path / name}" for name in ("run", "probe")]
    said = run(site, [*fit, out[0]], [*probe, out[1], "--test_after=true"])
    assert "Plug-in 'broken' (broken_plugin) is broken and left out" in said
    assert "a_module_that_nobody_has" in said
    config = json.loads((tmp_path / "run/encoder/config.json").read_text())
    assert config == {
        "class": "ssl_suite_example.Patches",
        "arguments": {"dim": 8, "patch": 4},
        "preprocess": {"image_size": 16},
    }
    rows = Store(tmp_path / "probe/results.sqlite").rows()
    assert {(row.method, row.metric) for row in rows} == {("Inpaint", "accuracy"), ("Inpaint", "macro_f1")}


def test_a_task_of_a_plugin_with_a_target_of_its_own(site: Path, tmp_path: Path, image_folder: str) -> None:
    """The angle of bright pictures is 45 degrees, that of dark ones 135."""
    for split in ("train", "validation", "test"):
        place = tmp_path / "data" / split
        shutil.copytree(Path(image_folder) / split, place)
        files = sorted(path.relative_to(place) for path in place.rglob("*.png"))
        rows = [f"{file},{45 if file.parts[0] == 'light' else 135}" for file in files]
        (place / "metadata.csv").write_text("\n".join(["file_name,angle", *rows]))
    data = ["--data=Images", f"--data.source={tmp_path / 'data'}", "--data.image_size=4", "--data.target=angle"]
    judge = ["--model=Finetune", "--model.encoder=RawPixels", "--model.encoder.size=1", "--model.task=Direction"]
    options = [*judge, *data, *QUICK, "--trainer.max_epochs=200", "--model.optim.lr=0.1", f"--out={tmp_path / 'run'}"]
    predict = ["predict", *options, f"--ckpt_path={tmp_path / 'run/checkpoints/best.ckpt'}"]
    run(site, ["fit", *options, "--test_after=true"], predict)
    (row,) = Store(tmp_path / "run/results.sqlite").rows()
    assert (row.metric, row.direction, row.main) == ("error", "min", True)
    assert row.value < 10
    answers = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    wrong = [abs(a["prediction"] - (45 if "light" in a["id"] else 135)) for a in answers]
    assert sum(wrong) / len(wrong) == pytest.approx(row.value, abs=0.05)  # the arc cosine of nearly 1


ALONE = """
import torch
from ssl_suite.core.batch import SpeechBatch
from ssl_suite_example import Spectra

torch.manual_seed(0)
encoder, wave, lengths = Spectra().eval(), torch.randn(3, 16000), torch.tensor([16000, 7001, 300])
wave = wave * (torch.arange(16000) < lengths[:, None])
together = encoder(SpeechBatch(torch.arange(3), torch.arange(3), None, wave, lengths))
for row, n in enumerate(lengths.tolist()):
    one = slice(row, row + 1)
    alone = encoder(SpeechBatch(torch.arange(1), torch.arange(1), None, wave[one, :n], lengths[one]))
    assert len(alone.states) == encoder.num_states == 3
    for a, b in zip(alone.states, together.states, strict=True):
        assert torch.allclose(a[0], b[row, : a.shape[1]], atol=1e-5)
        assert together.mask[row].sum() == a.shape[1]
"""


def test_an_upstream_and_a_task_of_a_plugin_on_real_voices(
    site: Path, tmp_path: Path, small: Callable[[str], str]
) -> None:
    recipe = ["-c", "speech/diarize", "--model.encoder.class_path=Spectra", "--model.task=Overlap", *QUICK]
    data = [f"--data.source={small('prompts')}", "--model.mode=finetune", "--trainer.max_epochs=8"]
    more = ["--model.optim.lr=0.01", "--trainer.check_val_every_n_epoch=8", "--data.mix.overlap=[0.4, 0.8]"]
    run(site, ["fit", *recipe, *data, *more, f"--out={tmp_path / 'run'}", "--test_after=true"])
    (row,) = Store(tmp_path / "run/results.sqlite").rows()
    assert (row.metric, row.direction) == ("f1", "max")
    assert row.value > 0.1  # before training it says nowhere, which is 0
    done = python(site, "-c", ALONE)
    assert done.returncode == 0, done.stderr


def test_each_example_is_a_page() -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in (EXAMPLE / "ssl_suite_example").glob("*.py")}
    names = ("data", "encoder", "method", "overlap", "task", "upstream")
    assert set(lengths) == {"__init__.py", *(f"{name}.py" for name in names)}
    assert max(lengths.values()) <= 40


def test_what_is_said_of_the_examples_is_in_them() -> None:
    said = (EXAMPLE.parents[1] / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", said, re.DOTALL)
    files = [p.read_text() for p in EXAMPLE.rglob("*") if p.suffix in (".py", ".toml")]
    assert len(blocks) == 7
    assert [block for block in blocks if not any(block in file for file in files)] == []
    links = re.findall(r"\]\(([\w/.]+)\)", said)
    assert [link for link in links if not (EXAMPLE.parents[1] / link).exists()] == []


def test_data_of_a_plugin_from_pretraining_to_the_report(site: Path, tmp_path: Path) -> None:
    """With nothing but what `DataModule` asks of it."""
    data = ["--data=Stripes", "--data.batch_size=8", *QUICK]
    judge = ["--model=Finetune", f"--model.encoder={tmp_path / 'a/encoder'}", "--model.task=Classify", *data]
    trained = f"--ckpt_path={tmp_path / 'b/checkpoints/best.ckpt'}"
    recipe, bench = tmp_path / "recipe.yaml", tmp_path / "bench.yaml"
    recipe.write_text(RECIPE)
    bench.write_text(BENCH.replace("ENCODER", str(tmp_path / "a/encoder")).replace("RECIPE", str(recipe)))
    said = run(
        site,
        ["fit", "--model=Inpaint", "--model.encoder=Patches", *data, f"--out={tmp_path / 'a'}"],
        ["fit", *judge, f"--out={tmp_path / 'b'}"],
        ["test", *judge, trained, f"--out={tmp_path / 'b'}"],
        ["predict", *judge, trained, f"--out={tmp_path / 'b'}"],
        ["bench", "-c", str(bench), f"--out={tmp_path / 'bench'}"],
        ["report", str(tmp_path / "bench")],
    )
    assert "Traceback" not in said
    rows = [row for row in Store(tmp_path / "b/results.sqlite").rows() if row.main]
    assert [(row.task, row.data, row.labels, row.method) for row in rows] == [("Stripes", "Stripes", 16, "Inpaint")]
    answers = [json.loads(line) for line in (tmp_path / "b/predictions.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [str(i) for i in range(16)]
    right = [answer["prediction"] == ("across", "along")[i % 2] for i, answer in enumerate(answers)]
    assert rows[0].value == pytest.approx(sum(right) / 16)
    rows = Store(tmp_path / "bench/results.sqlite").rows()
    assert {(row.name, row.task, row.error) for row in rows} == {("mine", "stripes", ""), ("random", "stripes", "")}
    assert "stripes" in (tmp_path / "bench/report.html").read_text()


@pytest.fixture(scope="module")
def clashing(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same place, with two more: one has a method of the suite's name, the other an encoder of the example's."""
    folder = tmp_path_factory.mktemp("clashing") / "site"
    shutil.copytree(site, folder, symlinks=True)
    source = (EXAMPLE / "ssl_suite_example/method.py").read_text().replace("class Inpaint", "class SimCLR")
    for name, text in (("mine", source), ("zebra", (EXAMPLE / "ssl_suite_example/encoder.py").read_text())):
        install(folder, name, f"{name} = my_{name}")
        (folder / f"my_{name}.py").write_text(text)
    return folder


def test_a_short_name_stays_what_it_was(clashing: Path, tmp_path: Path, sources: dict[str, str]) -> None:
    data = [*DATA["image"], f"--data.source={sources['image']}", "--data.batch_size=32", *QUICK]
    said = run(
        clashing,
        ["fit", "--model=SimCLR", "--model.encoder=Patches", *data, f"--out={tmp_path / 'ours'}"],
        ["fit", "--model=my_mine.SimCLR", "--model.encoder=Patches", *data, f"--out={tmp_path / 'theirs'}"],
    )
    assert (
        "Plug-in 'mine' is left out: its my_mine.SimCLR has the name of ssl_suite.methods.image.simclr.SimCLR, which "
        "SimCLR means; have one renamed, or write my_mine.SimCLR in full."
    ) in said
    assert "Plug-in 'zebra' is left out: its my_zebra.Patches has the name of ssl_suite_example.encoder.Patches" in said
    paths = [yaml.safe_load((tmp_path / run / "config.yaml").read_text()) for run in ("ours", "theirs")]
    assert [c["model"]["class_path"] for c in paths] == ["ssl_suite.methods.image.simclr.SimCLR", "my_mine.SimCLR"]


def test_a_name_that_has_become_two_is_one_sentence(clashing: Path) -> None:
    """The suite knows both once one of them was named in full."""
    code = "import my_mine; from ssl_suite.cli import main; main(['fit', '--model=SimCLR', '--data=Stripes'])"
    said = python(clashing, "-c", code).stderr.splitlines()[-1]
    assert said.startswith("ssl-suite: SimCLR is the name of several classes; write one in full: ")
    assert all(name in said for name in ("my_mine.SimCLR", "ssl_suite.methods.image.simclr.SimCLR"))


def test_list_says_which_plugin_is_left_out(clashing: Path) -> None:
    entries = json.loads(python(clashing, "-m", "ssl_suite", "list", "--format", "json").stdout)
    assert [e["origin"] for e in entries if e["name"] in ("SimCLR", "Patches")] == ["ssl_suite", "example"]
    left_out = {e["name"] for e in entries if e["kind"] == "plugins" and e["summary"].startswith("left out: its my_")}
    assert left_out == {"mine", "zebra"}


class Undecided(Classify):
    """A task that forgets how to answer."""

    decode = Task.decode


def test_an_incomplete_class_is_one_sentence(fails: Callable[..., str], sources: dict[str, str]) -> None:
    model = ["--model=Finetune", "--model.encoder=RawPixels", f"--model.task={__name__}.Undecided"]
    said = fails("fit", *model, *DATA["image"], f"--data.source={sources['image']}", *QUICK)
    assert said == "Undecided cannot be made: it does not define decode."


def test_without_the_plugin_its_encoder_is_named_as_unknown(fails: Callable[..., str], tmp_path: Path) -> None:
    save_encoder(RawPixels(), tmp_path)
    (tmp_path / "config.json").write_text('{"class": "ssl_suite_example.Patches", "arguments": {}}')
    write_manifest(tmp_path)
    message = fails("embed", str(tmp_path), "samples:digits", f"--out={tmp_path / 'e.parquet'}")
    assert message.startswith("'ssl_suite_example.Patches' is not an encoder class known here.")
