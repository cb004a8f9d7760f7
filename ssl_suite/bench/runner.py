"""Runs a benchmark: pretrain each encoder, judge it on each task over seeds beside its baselines, then report.

Every cell is a command line a user could have typed; it is what the results store keeps beside the number.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from ssl_suite.bench.store import Result, Store, format_table
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.plugins import load_all

Settings = dict[str, Any]
"""Option → value, as on the command line without dashes."""

QUIET: Settings = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}


@dataclass(frozen=True)
class Pretraining:
    """How an encoder is made, or where it is.

    Attributes:
        name: of the encoder in this benchmark.
        modality: which tasks it is judged on.
        config: recipes, composed in this order.
        set: options on top.
        source: an encoder folder or URI that is judged as it is, instead of a recipe.
    """

    name: str
    modality: str
    config: list[str] = field(default_factory=list)
    set: Settings = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True)
class TaskEntry:
    """A task every encoder of its modality is judged on.

    Attributes:
        name: as shown.
        modality: of its data.
        config: recipes, composed in this order.
        set: options on top.
        simple: options that make the simple baseline.
        schemes: more ways to take each encoder, each a row of its own: `reemb` judges `reemb:FOLDER` too.
        run: `fit` trains on the task, then tests; `test` only tests (in-context evaluation).
    """

    name: str
    modality: str
    config: list[str]
    set: Settings = field(default_factory=dict)
    simple: Settings = field(default_factory=dict)
    schemes: list[str] = field(default_factory=list)
    run: Literal["fit", "test"] = "fit"


@dataclass(frozen=True)
class Benchmark:
    """A named table of encoders and tasks.

    Attributes:
        name: also names the default folder of its runs.
        seeds: of the heads, and of the random encoders.
        encoders: what is compared.
        tasks: on what.
        exhibits: embedded packs whose samples the report shows, by modality.
        set: options of all tasks, under each one's own.
    """

    name: str
    seeds: list[int]
    encoders: list[Pretraining]
    tasks: list[TaskEntry]
    exhibits: dict[str, str] = field(default_factory=dict)
    set: Settings = field(default_factory=dict)


def load_benchmark(path: Path) -> Benchmark:
    """Reads a benchmark.

    Raises:
        UserError: no such file, or a key that does not belong.
    """
    if not path.exists():
        raise UserError(f"There is no benchmark {path}.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        encoders = [Pretraining(name, **entry) for name, entry in (raw.pop("encoders", None) or {}).items()]
        tasks = [TaskEntry(name, **entry) for name, entry in raw.pop("tasks").items()]
        return Benchmark(encoders=encoders, tasks=tasks, **raw)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a benchmark: {error}.") from None


@dataclass(frozen=True)
class Cell:
    """One run of a task: which encoder, which seed."""

    task: TaskEntry
    label: str
    seed: int
    settings: Settings


def cells(benchmark: Benchmark, out: Path) -> Iterator[Cell]:
    """Every probe of the benchmark, baselines first; encoders of one shape share their random row."""
    from ssl_suite.core.folder import CONFIG

    for task in benchmark.tasks:
        encoders = [e for e in benchmark.encoders if e.modality == task.modality]
        for seed in benchmark.seeds:
            if task.simple:
                yield Cell(task, "simple", seed, task.simple)
            shapes: set[str] = set()
            for encoder in encoders:
                folder = out / "pretrain" / encoder.name / "encoder"
                shape = (folder / CONFIG).read_text(encoding="utf-8")
                if shape not in shapes:
                    random = {"model.encoder": f"random:{folder}", "role": "random"}  # fine-tuned too, where all are
                    yield Cell(task, f"random-{encoder.name}", seed, random)
                shapes.add(shape)
                for scheme in task.schemes:
                    yield Cell(task, f"{scheme}-{encoder.name}", seed, {"model.encoder": f"{scheme}:{folder}"})
                yield Cell(task, encoder.name, seed, {"model.encoder": str(folder)})


def command(config: list[str], *settings: Settings, run: str = "fit") -> list[str]:
    """The arguments after `ssl-suite`."""
    arguments = [run]
    for recipe in config:
        arguments += ["-c", recipe]
    merged: Settings = {}
    for part in settings:
        merged |= part
    for name, value in merged.items():
        arguments += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return arguments


def given(source: str) -> Pretraining:
    """An encoder that exists, named after its folder (or the run's folder it lies in) or by its URI.

    Raises:
        UserError: there is none.
    """
    from ssl_suite.core.folder import load_encoder

    path = Path(source)
    name = (path.parent.name if path.name == "encoder" else path.name) if path.is_dir() else source
    return Pretraining(name or source, load_encoder(source).modality, source=source)


def run_benchmark(
    path: Path,
    out: Path | None,
    only: list[str] | None,
    seeds: list[int] | None,
    encoders: list[str] | None = None,
    settings: Settings | None = None,
    only_tasks: list[str] | None = None,
) -> Path:
    """Runs what is not done yet, prints the table and writes the report.

    Args:
        path: of the benchmark.
        out: folder for everything; default: runs/NAME.
        only: names of the encoders to keep.
        seeds: instead of the benchmark's.
        encoders: folders or URIs of encoders to judge beside the benchmark's own.
        settings: options of all tasks, over the benchmark's own: where the data are, say.
        only_tasks: names of the tasks to keep.

    Returns:
        The report.
    """
    from ssl_suite.bench.exhibits import write_exhibits
    from ssl_suite.bench.report import build_report

    load_all()
    benchmark = load_benchmark(path)
    everyone = [*benchmark.encoders, *map(given, encoders or [])]
    names = [e.name for e in everyone]
    if not names:
        raise UserError(f"{path} has no encoders of its own; name some: --encoders FOLDER-OR-URI ...")
    for name in only or []:
        if name not in names:
            raise UserError(f"{path} has no encoder {name!r}.{nearest(name, names)}")
    known = [t.name for t in benchmark.tasks]
    for name in only_tasks or []:
        if name not in known:
            raise UserError(f"{path} has no task {name!r}.{nearest(name, known)}")
    chosen = [e for e in everyone if only is None or e.name in only]
    modalities = {e.modality for e in chosen}
    over = settings or {}
    tasks = [
        replace(t, set=benchmark.set | t.set | over)
        for t in benchmark.tasks
        if t.modality in modalities and t.name in (only_tasks or known)
    ]
    benchmark = replace(benchmark, seeds=seeds or benchmark.seeds, encoders=chosen, tasks=tasks)
    out = out or Path("runs") / benchmark.name
    console, started = Console(), time.time()
    _pretrain(benchmark, out, console)
    _judge(benchmark, out, console)
    with console.status("Exhibits and report"):
        write_exhibits(benchmark, out)
        report = build_report(out)
    console.print(format_table(main_metrics(Store(out / "results.sqlite").rows(split="test"))))
    console.print(f"{time.time() - started:.0f} s. Report: {report}")
    return report


def main_metrics(rows: list[Result]) -> list[Result]:
    """Of each task the metric that was recorded first; the report and `ssl-suite results` show all."""
    main: dict[str, str] = {}
    for row in rows:
        main.setdefault(row.task, row.metric)
    return [row for row in rows if row.metric == main[row.task]]


def _pretrain(benchmark: Benchmark, out: Path, console: Console) -> None:
    from ssl_suite.lightning_cli import run

    for number, entry in enumerate(benchmark.encoders, 1):
        folder = out / "pretrain" / entry.name
        title = f"Pretraining {number}/{len(benchmark.encoders)}: {entry.name}"
        if (folder / "encoder").exists():
            console.print(f"{title}: done before, kept ({folder})")
            continue
        if entry.source is not None:
            console.print(f"{title}: {entry.source}")
            _keep(entry, folder)
            continue
        arguments = command(entry.config, entry.set, {"out": folder, "overwrite": True})
        console.rule(title)
        console.print(f"ssl-suite {shlex.join(arguments)}", style="dim", soft_wrap=True)
        run(arguments)


def _keep(entry: Pretraining, folder: Path) -> None:
    """Copies a given encoder into the benchmark's folder, where its random twin finds its shape."""
    from ssl_suite.core.folder import PROVENANCE, load_encoder, read_json, save_encoder

    assert entry.source is not None
    path = Path(entry.source) / PROVENANCE
    known = read_json(path, "an encoder folder") if path.exists() else {}
    save_encoder(
        load_encoder(entry.source), folder / "encoder", {**known, "method": entry.name, "source": entry.source}
    )


def _judge(benchmark: Benchmark, out: Path, console: Console) -> None:
    from ssl_suite.lightning_cli import run

    store = Store(out / "results.sqlite")
    done = {row.run for row in store.rows()}
    everything = list(cells(benchmark, out))
    console.rule(f"Judging: {len(everything)} runs")
    for number, cell in enumerate(everything, 1):
        folder = out / "tasks" / _slug(cell.task.name) / f"{_slug(cell.label)}-seed{cell.seed}"
        if str(folder.relative_to(out)) in done:
            continue
        fixed = {"seed_everything": cell.seed, "out": folder, "overwrite": True}
        fixed |= {"test_after": True} if cell.task.run == "fit" else {}
        fixed |= {"results": out / "results.sqlite", "task_name": cell.task.name}
        with _silence():
            cli = run(command(cell.task.config, cell.task.set, cell.settings, QUIET, fixed, run=cell.task.run))
        main = cli.model.main
        value = float(cli.trainer.callback_metrics[f"test/{main}"])
        console.print(
            f"[{number:>3}/{len(everything)}] {cell.task.name}: {cell.label}, seed {cell.seed}: {main} {value:.3f}"
        )


class _silence:
    """Keeps Lightning's notes about each of many short runs off the terminal."""

    NAMES = ("pytorch_lightning", "lightning_fabric")

    def __enter__(self) -> None:
        self.levels = {name: logging.getLogger(name).level for name in self.NAMES}
        for name in self.NAMES:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
