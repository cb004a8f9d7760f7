"""The work of a benchmark: what is done stays done while all that determines it is the same; the rest is run."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from rich.console import Console

from ssl_suite import __version__
from ssl_suite.bench.attempts import attempt, attempts, quiet
from ssl_suite.bench.benchmark import Benchmark, Job, Pretraining, Settings, TaskEntry, command, jobs
from ssl_suite.bench.commands import CommandLine, Resolved
from ssl_suite.bench.identity import data_hash, model_name, recipe_hash, shape_name
from ssl_suite.bench.record import PROTOCOL_VERSION
from ssl_suite.bench.store import Result, Store
from ssl_suite.core.checkpoint import LAST
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import PROVENANCE, fingerprint, save_encoder
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.load import load_encoder
from ssl_suite.core.module import encoder_shape, weights_hash
from ssl_suite.core.reading import read_json
from ssl_suite.core.runs import CHECKPOINTS

QUIET: Settings = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}


@dataclass(frozen=True)
class Identity:
    """What determines a job's number beside its seed, as columns of `Result`; `encoder` is what tables call it."""

    encoder: str
    weights: str
    data_hash: str
    recipe: str


class Work:
    """Pretrains and judges.

    Making one reads every recipe and opens every task's data, so that mistakes are found before anything is trained.

    Args:
        benchmark: the selected part.
        out: folder for everything.
        console: for progress.
        through: runs the command lines.
        jobs: runs of tasks at a time.

    Attributes:
        made: the encoders that are there to be judged.
        failures: a sentence for each run that failed.
    """

    def __init__(self, benchmark: Benchmark, out: Path, console: Console, through: CommandLine, jobs: int = 1) -> None:
        self.benchmark, self.out, self.console, self.through, self.jobs = benchmark, out, console, through, jobs
        self.made: list[Pretraining] = []
        self.failures: list[str] = []
        self.recipes = {e.name: self._resolve(self._pretraining(e)) for e in benchmark.encoders if e.source is None}
        self.tasks: dict[str, Known] = {}
        for task in benchmark.tasks:
            for entry in benchmark.encoders:
                if entry.takes(task):
                    self._known(entry.own(task))
        self.encoders: dict[str, tuple[str, str]] = {}

    def pretrain(self) -> None:
        """Makes the encoders that are not there, or whose recipe or source has changed."""
        everyone = self.benchmark.encoders
        for number, entry in enumerate(everyone, 1):
            title = f"Pretraining {number}/{len(everyone)}: {entry.name}"
            folder = entry.folder(self.out)
            if self._is_made(entry):
                self.console.print(f"{title}: done before, kept ({folder.parent})")
            elif entry.source is not None:
                self.console.print(f"{title.replace('Pretraining', 'Encoder')}: given, {entry.source}")
                _keep(entry, folder)
            else:
                arguments = self._pretraining(entry) + command([], self._goes_on(entry))[1:]
                self.console.rule(title)
                self.console.print(f"ssl-suite {shlex.join(arguments)}", style="dim", soft_wrap=True)
                pretrain = partial(self.through.run, arguments)
                units = partial(_make_units, entry, entry.unit_folder(self.out))
                if error := attempt(units, folder.parent) or attempt(pretrain, folder.parent):
                    self._fail(folder.parent, error)
                    continue
            self.made.append(entry)

    def judge(self) -> None:
        """Runs every job that has no result of the same identity, and keeps why where one gives none."""
        store = Store(self.out / "results.sqlite")
        everything = list(jobs(replace(self.benchmark, encoders=self.made), self.out))
        wanted = [(job, self._identity(job)) for job in everything]
        left = [(c, i) for c, i in wanted if not any(_is_of(row, c, i) for row in store.rows(run=str(c.folder)))]
        self.console.rule(f"Judging: {len(wanted)} runs, {len(wanted) - len(left)} done before")
        commands = [self._judging(job) for job, _ in left]
        runs = [
            (partial(self.through.run, c), self.out / job.folder) for c, (job, _) in zip(commands, left, strict=True)
        ]
        for number, (place, error) in enumerate(attempts(runs, self.jobs), 1):
            (job, identity), folder = left[place], str(left[place][0].folder)
            if error:
                self._fail(Path(folder), error)
                store.add([_failed(job, identity, commands[place], error)], instead_of=folder)
                continue
            main = [row for row in store.rows(run=folder) if row.main]
            said = f"{main[0].metric} {main[0].value:.3f}" if main else "no result"
            title = f"[{number:>3}/{len(left)}] {job.task.name}: {job.label}"
            self.console.print(f"{title}, seed {job.seed}: {said}", markup=False, highlight=False)

    def _pretraining(self, entry: Pretraining) -> list[str]:
        units: Settings = {"data.units": entry.unit_folder(self.out)} if entry.units else {}
        return command(entry.config, entry.set, units, {"out": entry.folder(self.out).parent})

    def _goes_on(self, entry: Pretraining) -> Settings:
        """Options by which an interrupted run of the same recipe is resumed; any other begins anew."""
        run = entry.folder(self.out).parent
        last, config = run / CHECKPOINTS / LAST, run / "config.yaml"
        if last.is_file() and config.is_file():
            try:
                before = self._resolve(command([str(config)]))
            except UserError:  # of another version
                return {"overwrite": True}
            if config_hash(before.dumped()) == config_hash(self.recipes[entry.name].dumped()):
                return {"ckpt_path": last}
        return {"overwrite": True}

    def _judging(self, job: Job) -> list[str]:
        fixed: Settings = {"seed_everything": job.seed, "out": self.out / job.folder, "overwrite": True}
        fixed |= {"test_after": True} if job.task.run == "fit" else {}
        fixed |= {"results": self.out / "results.sqlite", "task_name": job.task.name}
        return command(job.task.config, job.task.set, job.settings, QUIET, fixed, run=job.task.run)

    def _is_made(self, entry: Pretraining) -> bool:
        path = entry.folder(self.out) / PROVENANCE
        if not path.exists():
            return False
        known = read_json(path, "an encoder folder")
        if entry.source is not None:
            return known.get("weights") == fingerprint(load_encoder(entry.source))
        return known.get("config_hash") == config_hash(self.recipes[entry.name].dumped())

    def _identity(self, job: Job) -> Identity:
        known = self._known(job.task)
        if job.source is None:
            return Identity(*known.baseline, known.data_hash, known.simple_recipe)
        if job.source not in self.encoders:
            encoder = load_encoder(job.source)
            self.encoders[job.source] = (
                shape_name(encoder, encoder_shape(encoder)), weights_hash(encoder, job.source)
            )  # fmt: skip
        return Identity(*self.encoders[job.source], known.data_hash, known.recipe)

    def _known(self, task: TaskEntry) -> Known:
        key = config_hash({"name": task.name, "set": task.set})
        if key not in self.tasks:
            self.tasks[key] = Known(task, self._resolve)
        return self.tasks[key]

    def _resolve(self, arguments: list[str]) -> Resolved:
        with quiet():
            return self.through.resolve(arguments)

    def _fail(self, place: Path, error: str) -> None:
        self.failures.append(f"{place}: {error}")
        self.console.print(f"{place} gave no result: {error}", style="red", markup=False, highlight=False)


def _make_units(entry: Pretraining, out: Path) -> None:
    """As `ssl-suite prepare units`, which finds what is made already."""
    if not entry.units:
        return
    from ssl_suite.data.speech.prepare import Recipe, prepare_units

    try:
        recipe = Recipe(**entry.units)
    except TypeError as error:
        raise UserError(f"The units of {entry.name} are made by options of `prepare units`: {error}.") from None
    prepare_units(recipe, out, labels=None, batch_seconds=120.0, workers=0)


class Known:
    """What is known of a task before it is run.

    Args:
        task: with all its options.
        resolve: reads a command line.
    """

    def __init__(self, task: TaskEntry, resolve: Callable[[list[str]], Resolved]) -> None:
        self.task, self.resolve = task, resolve
        read = self._read({"model.encoder": "an encoder folder"})
        self.recipe, self.data_hash = recipe_hash(read.dumped()), data_hash(read.make("data"))
        self.simple = self._read(task.simple) if task.simple else None
        self.simple_recipe = recipe_hash(self.simple.dumped()) if self.simple else ""

    @cached_property
    def baseline(self) -> tuple[str, str]:
        """What results call the simple baseline's encoder, and its hash."""
        assert self.simple is not None
        model = self.simple.make("model")
        return model_name(model), model.weights

    def _read(self, settings: Settings) -> Resolved:
        """As `Work` runs it; where things go, and which seed is drawn, does not matter."""
        fixed = {"overwrite": True} | ({"test_after": True} if self.task.run == "fit" else {})
        return self.resolve(command(self.task.config, self.task.set, settings, QUIET, fixed, run=self.task.run))


def _is_of(row: Result, job: Job, identity: Identity) -> bool:
    """Whether a row is the main result of a job as it would come out now."""
    now = (identity.encoder, identity.weights, identity.data_hash, identity.recipe, job.seed, PROTOCOL_VERSION)
    version = row.protocol.rpartition("@")[2]
    then = (row.encoder, row.weights, row.data_hash, row.recipe, row.seed, int(version) if version.isdigit() else -1)
    return row.main and not row.error and then == now and (job.name is None or row.name == job.name)


def _failed(job: Job, identity: Identity, arguments: list[str], error: str) -> Result:
    """The row of a job that gave no number."""
    return Result(
        modality=job.task.modality, name=job.name or job.role, method="", role=job.role, encoder=identity.encoder,
        weights=identity.weights, task=job.task.name, data="", data_hash=identity.data_hash, fold=0, split="test",
        metric="", main=False, direction="max", value=math.nan, validation=math.nan, seed=job.seed, labels=0,
        protocol="", recipe=identity.recipe, checkpoint="", seconds=0.0, run=str(job.folder),
        command=f"ssl-suite {shlex.join(arguments)}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), version=__version__, error=error,
    )  # fmt: skip


def _keep(entry: Pretraining, folder: Path) -> None:
    """Copies a given encoder into the benchmark's folder, where its random twin finds its shape."""
    assert entry.source is not None
    encoder, path = load_encoder(entry.source), Path(entry.source) / PROVENANCE
    known = read_json(path, "an encoder folder") if path.exists() else {"method": entry.name}
    save_encoder(
        encoder, folder, {**known, "name": entry.name, "source": entry.source, "weights": fingerprint(encoder)}
    )
