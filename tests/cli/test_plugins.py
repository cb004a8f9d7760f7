"""A package with an entry point adds a method, an encoder and a task under short names; a broken one is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_recipes import DATA, QUICK

from ssl_suite.bench.store import Store
from ssl_suite.core.folder import save_encoder, write_manifest
from ssl_suite.core.task import Task
from ssl_suite.encoders.simple import RawPixels
from ssl_suite.tasks.classify import Classify

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
    for key in (("methods", "Agree"), ("encoders", "TinyConv"), ("tasks", "SmoothClassify"), ("plugins", "example")):
        assert found[key] == "example"
    assert found["plugins", "broken"] == "broken"
    assert found["methods", "SimCLR"] == "ssl_suite"
    assert "Agree" in python(site, "-m", "ssl_suite", "list", "methods").stdout


def test_a_run_with_classes_of_a_plugin_and_a_broken_one_beside(
    site: Path, tmp_path: Path, sources: dict[str, str]
) -> None:
    data = [*DATA["image"], f"--data.source={sources['image']}", "--data.batch_size=16"]
    fit = ["fit", "--model=Agree", "--model.encoder=TinyConv", "--model.encoder.dim=8", *data, *QUICK]
    probe = ["fit", "--model=Finetune", f"--model.encoder={tmp_path / 'run/encoder'}", "--model.task=SmoothClassify"]
    commands = [
        [*fit, f"--out={tmp_path / 'run'}"],
        [*probe, *data, *QUICK, f"--out={tmp_path / 'probe'}", "--test_after=true"],
    ]
    code = f"from ssl_suite.cli import main; print([main(a) for a in {commands!r}])"
    done = python(site, "-c", code)
    assert done.stdout.splitlines()[-1] == "[0, 0]", done.stderr
    assert "Plug-in 'broken' (broken_plugin) is broken and left out" in done.stderr
    assert "a_module_that_nobody_has" in done.stderr
    config = json.loads((tmp_path / "run/encoder/config.json").read_text())
    assert config == {"class": "TinyConv", "arguments": {"dim": 8}, "preprocess": {"image_size": 16}}
    rows = Store(tmp_path / "probe/results.sqlite").rows()
    assert {(row.method, row.metric) for row in rows} == {("Agree", "accuracy"), ("Agree", "macro_f1")}


class Undecided(Classify):
    """A task that forgets how to answer."""

    decode = Task.decode


def test_an_incomplete_class_is_one_sentence(fails: Callable[..., str], sources: dict[str, str]) -> None:
    model = ["--model=Finetune", "--model.encoder=RawPixels", f"--model.task={__name__}.Undecided"]
    said = fails("fit", *model, *DATA["image"], f"--data.source={sources['image']}", *QUICK)
    assert said == "Undecided cannot be made: it does not define decode."


def test_without_the_plugin_its_encoder_is_named_as_unknown(fails: Callable[..., str], tmp_path: Path) -> None:
    save_encoder(RawPixels(), tmp_path)
    (tmp_path / "config.json").write_text('{"class": "TinyConv", "arguments": {}}')
    write_manifest(tmp_path)
    message = fails("embed", str(tmp_path), "samples:digits", f"--out={tmp_path / 'e.parquet'}")
    assert message.startswith("'TinyConv' is not an encoder class known here.")
