"""What pip installs: recipes travel with the package and are found from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one pack of samples, for what is built there leaves files behind."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    others = shutil.ignore_patterns("__pycache__", "brown", "corpus", "dna", "emoji", "prompts", "sentences")
    caches = shutil.ignore_patterns("__pycache__")
    for name in ("ssl_suite", "configs"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=lambda at, names: (others if at.endswith("samples") else caches)(at, names),
        )
    return folder


def run(code: str, where: Path, *options: str, path: str = "") -> str:
    command = [sys.executable, *options, "-c", code]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=where, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pip(where: Path, *arguments: str) -> None:
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *offline], cwd=where, check=True, timeout=300)


def test_a_recipe_runs_from_the_wheel_in_an_empty_folder(source: Path, tmp_path: Path) -> None:
    wheels, target, empty = tmp_path / "wheels", tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    pip(source, "wheel", "--no-build-isolation", "--wheel-dir", str(wheels), ".")
    [wheel] = wheels.glob("*.whl")
    recipes = {p.relative_to(ROOT / "configs").as_posix() for p in (ROOT / "configs").rglob("*.yaml")}
    with zipfile.ZipFile(wheel) as opened:
        inside = {n.removeprefix("ssl_suite/configs/") for n in opened.namelist() if n.startswith("ssl_suite/configs/")}
    assert inside == recipes
    pip(source, "install", "--target", str(target), str(wheel))
    fit = ["fit", "-c", "image/simclr", "-c", "configs/image/digits.yaml", "-c", "trainer/cpu", "--out", "run"]
    fit += ["--trainer.max_epochs=null", "--trainer.max_steps=1", "--trainer.limit_val_batches=1"]
    main = "from ssl_suite.cli import main; raise SystemExit(main({}))"
    run(main.format([*fit, "--data.batch_size=8", "--data.eval_batch_size=8"]), empty, path=str(target))
    assert (empty / "run/encoder/model.safetensors").exists()
    assert "image/simclr" in run(main.format(["list", "recipes"]), empty, path=str(target))
    printed = run(main.format(["config", "image/simclr"]), empty, path=str(target))
    assert yaml.safe_load(printed) == yaml.safe_load((ROOT / "configs/image/simclr.yaml").read_text())


def test_an_editable_install_finds_them_in_the_checkout(source: Path, tmp_path: Path) -> None:
    build = f"from setuptools.build_meta import build_editable; print(build_editable({str(tmp_path)!r}))"
    name = run(build, source).split()[-1]
    with zipfile.ZipFile(tmp_path / name) as opened:
        opened.extractall(tmp_path / "site")
    code = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); from ssl_suite.cli.recipes import find"
    place = run(f"{code}; print(find('image/simclr'))", tmp_path, "-S")  # without what is installed here
    assert place.strip() == str(source / "configs/image/simclr.yaml")
