"""docs/lecture.md: every command of the page runs, in seconds; its table counts what the recipes build."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_recipes import CONFIGS

from ssl_suite.bench.benchmark import Settings, command
from ssl_suite.cli import main
from ssl_suite.cli.fit import resolve
from ssl_suite.cli.recipes import find
from ssl_suite.core.plan import on_meta, sizes

ROOT = CONFIGS.parent
PAGE = (ROOT / "docs/lecture.md").read_text(encoding="utf-8")
FAST: Settings = {"trainer.accelerator": "cpu", "trainer.enable_progress_bar": False}
FEW: Settings = {
    "trainer.max_epochs": None, "trainer.max_steps": 1, "trainer.val_check_interval": 1,
    "trainer.check_val_every_n_epoch": None, "data.batch_size": 4,
}  # fmt: skip
TRIAL: Settings = {"trainer.limit_val_batches": 1}
"""Of what leaves no result."""
SMALL: dict[str, Settings] = {
    "text": {"model.encoder.vocab_size": 500, "data.vocab_size": 500, "data.max_length": 32},
    "image": {"model.encoder.width": 4, "data.image_size": 16},
    "speech": {"model.encoder.mels": 20, "model.encoder.dim": 16},
}
"""Options of encoders, by modality."""


def table(heading: str) -> list[list[str]]:
    """Cells of the rows below a heading that begins so."""
    lines = PAGE[PAGE.index(f"| {heading}") :].splitlines()[2:]
    rows = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def codes(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


SLIDES = {row[0]: codes(row[1]) for row in table("slide")}
COMMANDS = list(dict.fromkeys(code for found in SLIDES.values() for code in found))
SYSTEMS = table("system")


@pytest.mark.parametrize("slide", SLIDES)
def test_a_slide_has_commands_and_nothing_else_in_their_place(slide: str) -> None:
    assert SLIDES[slide]
    assert all(code.startswith(("ssl-suite ", "scripts/")) for code in SLIDES[slide])


class Walk:
    """Runs commands of the page in one folder, each once, those first whose runs another needs.

    Args:
        folder: to run in.
        small: writes a pack's first rows as a folder.
    """

    def __init__(self, folder: Path, small: Callable[[str], str]) -> None:
        self.folder, self.small, self.done = folder, small, list[str]()

    def __call__(self, code: str) -> None:
        if code in self.done:
            return
        self.done.append(code)
        words = shlex.split(code)
        makes = words[words.index("--out") + 1] if "--out" in words else None
        for run in (word for word in words if word.startswith("runs/") and word != makes):
            self(next(other for other in COMMANDS if f"--out {run}" in other))
        if words[0].startswith("scripts/"):
            (line,) = re.findall(r"ssl-suite (bench.*?) --out", (ROOT / words[0]).read_text(encoding="utf-8"))
            words = ["ssl-suite", *shlex.split(line), "--only", "MaskedLM"]
        if makes is None and words[1] not in ("generate", "plan"):
            words += ["--out", f"out/{len(self.done)}"]
        arguments = getattr(self, words[1])(words[1:])
        if "trainer/tensor_parallel" in arguments:  # its processes are started from the command line's
            done = subprocess.run([sys.executable, "-m", "ssl_suite", *arguments], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert main(arguments) == 0

    def fit(self, words: list[str]) -> list[str]:
        size = {} if "--model.encoder" in words else SMALL["text"]
        return [*words, *command([], FAST | FEW | TRIAL | size | self.options(words[1:]))[1:]]

    def options(self, recipe: list[str], known: Settings | None = None) -> Settings:
        """The first rows of a recipe's pack, and few labels where it would take many."""
        settings = resolve(["fit", *recipe, *command([], known or {})[1:], "--overwrite", "true"]).settings
        data, options = settings.data.init_args, {}
        if pack := re.search(r"samples:(\w+)", data.get("source") or ""):
            options["data.source"] = data.source.replace(pack[0], self.small(pack[1]))
        if (data.get("labels") or 0) > 8:
            options["data.labels"] = 8
        return options

    def generate(self, words: list[str]) -> list[str]:
        return [*words, "--length", "3"]

    def plan(self, words: list[str]) -> list[str]:
        return words

    def bench(self, words: list[str]) -> list[str]:
        """With one seed, the first encoder or those asked for, and the first task of its modality."""
        name, bench, path = self.recipe(words)
        wanted = words[words.index("--only") + 1 : words.index("--out")] if "--only" in words else []
        everyone = bench.get("encoders") or {}
        encoders = {n: everyone[n] for n in wanted or list(everyone)[:1]}
        modality = next((entry["modality"] for entry in encoders.values()), "text")
        tasks = dict([item for item in bench["tasks"].items() if item[1]["modality"] == modality][:1])
        for entry in encoders.values():
            options = entry.get("set", {}) | FAST | FEW | TRIAL | SMALL[modality]
            entry["set"] = options | self.options(configs(entry["config"]), options)
        for entry in tasks.values():
            options = entry.get("set", {}) | ({} if entry.get("run") == "test" else FAST | FEW)
            entry["set"] = bench.get("set", {}) | options | self.options(configs(entry["config"]), options)
        bench |= {"seeds": [0], "encoders": encoders, "tasks": tasks, "exhibits": {}}
        path.write_text(yaml.safe_dump(bench), encoding="utf-8")
        return ["1" if word == "2" else str(path) if word == name else word for word in words]  # a job at a time

    def analyze(self, words: list[str]) -> list[str]:
        """With one seed, few steps, items and words."""
        if "-c" not in words:
            return words
        name, recipe, path = self.recipe(words)
        for part in (part for part in ("set", "other_set") if part in recipe):
            recipes = configs(recipe[part.replace("set", "recipe")])
            options = recipe[part] | FAST | FEW | TRIAL | {"trainer.max_steps": 2}
            options |= SMALL["text"] if "embryology" in words else {}
            recipe[part] = options | self.options(recipes, options)
        few = {"seeds": [0], "count": 8, "grid": 3, "words": 20, "most": 2}
        recipe |= {key: value for key, value in few.items() if key in recipe}
        for probe in recipe.get("probes", {}).values():
            probe |= {"train": 10, "test": 10}
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return [str(path) if word == name else word for word in words]

    def recipe(self, words: list[str]) -> tuple[str, dict[str, Any], Path]:
        """What `-c` names, what is in it, and a file for what stands in its place."""
        name = words[words.index("-c") + 1]
        return name, yaml.safe_load(find(name).read_text(encoding="utf-8")), self.folder / f"{len(self.done)}.yaml"


def configs(names: list[str]) -> list[str]:
    return [word for name in names for word in ("-c", name)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, small: Callable[[str], str]) -> Iterator[Walk]:
    """In a folder with the data that a reader brings: GLUE's files, and a list of translations."""
    folder = tmp_path_factory.mktemp("walk")
    for task in ("CoLA", "RTE"):
        (folder / "glue_data" / task).mkdir(parents=True)
        for split in ("train", "dev"):
            rows = [f"{i}\t{i % 2}\t*\ta sentence of number {i}" for i in range(20)]
            if task == "RTE":
                pairs = (f"{i}\tone of {i}\tother of {i}\t{('not_' * (i % 2))}entailment" for i in range(20))
                rows = ["index\tsentence1\tsentence2\tlabel", *pairs]
            (folder / "glue_data" / task / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"the {w} is here\tel {w} {w}\n" for w in "abcdefgh"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Walk(folder, small)


@pytest.mark.parametrize("code", COMMANDS)
def test_a_command_of_the_page_runs(code: str, walk: Walk) -> None:
    walk(code)


def test_recipes_of_the_published_size_are_there() -> None:
    named = [code for row in table("slide") for code in codes(row[2]) if "/" in code]
    assert len(named) > 20
    assert [name for name in named if not (CONFIGS / f"{name}.yaml").is_file()] == []


@pytest.mark.parametrize("row", SYSTEMS, ids=lambda row: row[0])
def test_a_system_has_the_parameters_that_the_table_prints(row: list[str]) -> None:
    (recipe,) = codes(row[1])
    if recipe.startswith("bench/"):
        assert (CONFIGS / f"{recipe}.yaml").is_file()
        return
    run = resolve(["fit", "-c", *shlex.split(recipe)])
    assert f"{sizes(on_meta(lambda: run.make('model'))).weights:,}" == row[4]
