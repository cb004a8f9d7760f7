"""Recipes: which file a name stands for, and files that are none: one sentence each, and never a hang."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cli_recipes import QUICK

from ssl_suite.cli import main, recipes
from ssl_suite.cli.catalog import select
from ssl_suite.core.errors import UserError
from ssl_suite.names import recipe_folder

Fails = Callable[..., str]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipes of a plug-in, beside the suite's; and an empty working folder."""
    folder, here = tmp_path / "plugin/configs", tmp_path / "here"
    for name in ("image/simclr", "image/mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text("# A plug-in's.\ntrainer: {max_epochs: 3}\n")
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(recipes, "folders", lambda: {recipe_folder(): "ssl_suite", folder: "theirs"})
    return folder


@pytest.mark.parametrize(
    "name", ["image/simclr", "image/simclr.yaml", "configs/image/simclr.yaml", "configs/image/simclr"]
)
def test_a_users_file_comes_first_then_the_suites_then_a_plugins(name: str, plugin: Path) -> None:
    assert recipes.find(name) == recipe_folder() / "image/simclr.yaml"
    assert recipes.find(name.replace("simclr", "mine")) == plugin / "image/mine.yaml"
    own = Path(name)
    own.parent.mkdir(parents=True)
    own.write_text("trainer: {}\n")
    assert recipes.find(name) == own


def test_list_and_config_show_them(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = {(e.name, e.origin): e.summary for e in select("recipes")}
    assert listed["image/mine", "theirs"] == "A plug-in's."
    assert "SimCLR" in listed["image/simclr", "ssl_suite"]
    assert all(listed.values())
    assert {e.name for e in select("benchmarks")} >= {"bench/quickstart", "bench/text"}
    assert main(["config", "image/mine"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"trainer": {"max_epochs": 3}}


@pytest.mark.parametrize(("name", "sentence"), [
    ("image/simcrl", "There is no config file or recipe 'image/simcrl'. Did you mean image/simclr?"),
    ("simclr", "There is no config file or recipe 'simclr'. Did you mean image/simclr?"),
    ("quickstart.yaml", "There is no config file or recipe 'quickstart.yaml'. Did you mean bench/quickstart?"),
    ("", "There is no config file or recipe ''. `ssl-suite list recipes` shows what there is."),
])  # fmt: skip
def test_a_recipe_that_is_not_there(name: str, sentence: str, fails: Fails) -> None:
    for command in (["fit", "-c", name], ["fit", f"--config={name}"], ["bench", "-c", name], ["config", name]):
        assert fails(*command) == sentence


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(c)}: &{chr(c)} [{', '.join([f'*{chr(c - 1)}'] * 10)}]\n" for c in range(ord("b"), ord("l"))
)
FILES = [
    ("model: &m {class_path: SimCLR, init_args: *m}\n", "contains itself (a YAML anchor inside its own value)"),
    ("a: &a [*a]\n", "contains itself (a YAML anchor inside its own value)"),
    (BOMB, "repeats itself to more than 100,000 values (YAML anchors); write it out."),
    ("[" * 5000, "nests too deep"),
    ("#" * 1_000_001, "has 1,000,001 bytes, more than any recipe; name the right file."),
    ("model: {class_path: SimCLR\n", ", line 2 is not YAML"),
    ("model: *nobody\n", ", line 1 is not YAML (found undefined alias 'nobody')"),
    ("just words\n", "must hold names and values (model: ..., data: ...), not str."),
    ("- model\n", "must hold names and values (model: ..., data: ...), not list."),
    ("model: !!python/object/apply:os.system [exit]\n", "is not YAML"),
    ("model: {class_path: 3}\n", "model.class_path is 3, but must be the name of a class (`ssl-suite list`)."),
    ("model: {class_path: SimCLR, init_args: 3}\n", "model.init_args is 3, but must hold names and values."),
    ("model: {init_args: {encoder: {class_path: [A]}}}\n", "model.init_args.encoder.class_path is ['A'], but must be"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), FILES, ids=[sentence[:30] for _, sentence in FILES])
def test_a_file_that_is_no_recipe(text: str, sentence: str, fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    message = fails("fit", "-c", str(path), f"--out={tmp_path / 'run'}")
    assert message.startswith(str(path))
    assert sentence in message
    assert not (tmp_path / "run").exists()


def test_anchors_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert recipes.read(tmp_path / "c.yaml") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_bytes_that_are_no_text(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"model: \xff\xfe\x00")
    assert f"{tmp_path / 'c.yaml'} is not YAML" in fails("fit", "-c", str(tmp_path / "c.yaml"))


def test_a_pipe_or_a_folder_is_refused_without_reading(fails: Fails, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for command in ("fit", "bench"):
        assert fails(command, "-c", f"{tmp_path}/pipe") == f"{tmp_path}/pipe is a pipe or device, not a config file."
        assert fails(command, "-c", str(tmp_path)) == f"{tmp_path} is a folder, not a config file."


def test_the_recorded_command_names_the_recipe_as_it_was_typed(
    tmp_path: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "-c", "image/simclr", "-c", "image/digits", f"--data.source={sources['image']}", "--out=run"]
    quick = [*QUICK, "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--data.batch_size=8"]
    assert main([*fit, *quick]) == 0
    provenance = yaml.safe_load((tmp_path / "run/encoder/provenance.json").read_text())
    assert provenance["command"].startswith("ssl-suite fit -c image/simclr -c image/digits --data.source=")


def test_read_raises_what_the_command_line_prints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        recipes.read(tmp_path / "nothing.yaml")
