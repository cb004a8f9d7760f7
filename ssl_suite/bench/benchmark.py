"""A benchmark: which encoders, judged on which tasks over which seeds, as a file says and a user narrows it down."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ssl_suite.bench.published import Published
from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.hashing import config_hash

Settings = dict[str, Any]
"""Option → value, as on the command line without dashes."""


@dataclass(frozen=True)
class Pretraining:
    """How an encoder is made, or where it is.

    Attributes:
        name: of the encoder in this benchmark.
        modality: which tasks it is judged on.
        config: recipes, composed in this order.
        set: options on top.
        source: an encoder folder or URI that is judged as it is, instead of a recipe.
        units: options of `prepare units`, which makes what `data.units` then names.
        tasks: names of those it is judged on; None: all of its modality.
        judged: options of those tasks for this encoder, over their own.
        schemes: ways to take it, instead of those of the tasks.
    """

    name: str
    modality: str
    config: list[str] = field(default_factory=list)
    set: Settings = field(default_factory=dict)
    source: str | None = None
    units: Settings = field(default_factory=dict)
    tasks: list[str] | None = None
    judged: Settings = field(default_factory=dict)
    schemes: list[str] | None = None

    def takes(self, task: TaskEntry) -> bool:
        """Whether it is judged on a task."""
        return self.modality == task.modality and (self.tasks is None or task.name in self.tasks)

    def own(self, task: TaskEntry) -> TaskEntry:
        """A task as this encoder is judged on it."""
        schemes = task.schemes if self.schemes is None else self.schemes
        return replace(task, set=task.set | self.judged, schemes=schemes)

    def folder(self, out: Path) -> Path:
        """Of the encoder, in the benchmark's."""
        return out / "pretrain" / slug(self.name) / "encoder"

    def unit_folder(self, out: Path) -> Path:
        """Of its units, in the benchmark's: another one for other options."""
        return out / "units" / f"{slug(self.name)}-{config_hash(self.units)[:6]}"


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
        seeds: how many of the benchmark's, where more would repeat the first; None: all.
    """

    name: str
    modality: str
    config: list[str]
    set: Settings = field(default_factory=dict)
    simple: Settings = field(default_factory=dict)
    schemes: list[str] = field(default_factory=list)
    run: Literal["fit", "test"] = "fit"
    seeds: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None:
            within(f"seeds of the task {self.name}", self.seeds, low=1, whole=True)


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
        published: tables of papers, which the report quotes.
    """

    name: str
    seeds: list[int]
    encoders: list[Pretraining]
    tasks: list[TaskEntry]
    exhibits: dict[str, str] = field(default_factory=dict)
    set: Settings = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)


def load_benchmark(path: Path) -> Benchmark:
    """Reads a benchmark.

    Raises:
        UserError: no such file, or a key that does not belong.
    """
    if not path.is_file():
        raise UserError(f"There is no benchmark {path}.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        encoders = [Pretraining(name, **entry) for name, entry in (raw.pop("encoders", None) or {}).items()]
        tasks = [TaskEntry(name, **entry) for name, entry in raw.pop("tasks").items()]
        quoted = [Published(source, **entry) for source, entry in (raw.pop("published", None) or {}).items()]
        return Benchmark(encoders=encoders, tasks=tasks, published=quoted, **raw)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a benchmark: {error}.") from None


@dataclass(frozen=True)
class Job:
    """One run of a task: which encoder, which seed.

    Attributes:
        task: that is run.
        label: of the encoder or baseline; names the run's folder.
        seed: of the run.
        settings: options of the encoder or baseline.
        role: as in `Result`.
        source: where the encoder comes from; None for a simple baseline.
    """

    task: TaskEntry
    label: str
    seed: int
    settings: Settings
    role: str
    source: str | None = None

    @property
    def folder(self) -> Path:
        """Of the run, in the benchmark's."""
        return Path("tasks") / slug(self.task.name) / f"{slug(self.label)}-seed{self.seed}"

    @property
    def name(self) -> str | None:
        """What results call the encoder; None for a baseline."""
        return self.label if self.role == "ssl" else None


def jobs(benchmark: Benchmark, out: Path) -> Iterator[Job]:
    """Every run of the tasks, baselines first; random weights are shared by encoders of one shape and tokenizer."""
    for task in benchmark.tasks:
        encoders = [e for e in benchmark.encoders if e.takes(task)]
        for seed in benchmark.seeds[: task.seeds]:
            if task.simple:
                yield Job(task, "simple", seed, task.simple, "simple")
            shapes: set[tuple[str, str]] = set()
            for encoder in encoders:
                folder, own = encoder.folder(out), encoder.own(task)
                if (shape := (folder_shape(folder), config_hash(own.set))) not in shapes:
                    random = {"model.encoder": f"random:{folder}", "role": "random"}  # fine-tuned too, where all are
                    yield Job(own, f"random-{encoder.name}", seed, random, "random", f"random:{folder}")
                shapes.add(shape)
                for scheme in own.schemes:
                    source = f"{scheme}:{folder}"
                    label = f"{encoder.name} {scheme}"
                    yield Job(own, label, seed, {"model.encoder": source, "name": label}, "ssl", source)
                source = str(folder)
                yield Job(own, encoder.name, seed, {"model.encoder": source, "name": encoder.name}, "ssl", source)


def folder_shape(folder: Path) -> str:
    """What an encoder folder shares with its untrained twin."""
    from ssl_suite.core.folder import CONFIG, TOKENIZER

    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    if (folder / TOKENIZER).exists():
        digest.update((folder / TOKENIZER).read_bytes())
    return digest.hexdigest()


def command(config: list[str], *settings: Settings, run: str = "fit") -> list[str]:
    """The arguments after `ssl-suite`."""
    arguments = [run]
    for recipe in config:
        arguments += ["-c", recipe]
    merged: Settings = {}
    for part in settings:
        merged |= part
    for name, value in merged.items():
        arguments += [
            f"--{name}",
            "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value),
        ]
    return arguments


def given(sources: Sequence[str], taken: Collection[str] = ()) -> list[Pretraining]:
    """Encoders that exist, named after their folders (or the run's folder each lies in), or by their URIs.

    Args:
        sources: folders and URIs.
        taken: names that others have; as many parts of a path are used as it takes to be told from them.

    Raises:
        UserError: there is no such encoder, or one is named twice.
    """
    from ssl_suite.core.load import load_encoder

    paths = [Path(source).absolute() if Path(source).is_dir() else None for source in sources]
    parts = [[source] if p is None else list(p.parent.parts if p.name == "encoder" else p.parts)
             for source, p in zip(sources, paths, strict=True)]  # fmt: skip
    found = []
    for source, own in zip(sources, parts, strict=True):
        others = [tuple(other) for other in parts if other is not own]
        if tuple(own) in others:
            raise UserError(f"--encoders names {source} twice.")
        names = [("/".join(own[-n:]), n) for n in range(1, len(own) + 1)]
        alone = (name for name, n in names if name not in taken and not any(o[-n:] == tuple(own[-n:]) for o in others))
        found.append(Pretraining(next(alone, source), load_encoder(source).modality, source=source))
    return found


def select(
    benchmark: Benchmark,
    path: Path,
    only: list[str] | None,
    seeds: list[int] | None,
    encoders: list[str],
    settings: Settings,
    only_tasks: list[str] | None,
) -> Benchmark:
    """The part of a benchmark that is asked for.

    Args:
        benchmark: as its file says.
        path: of that file.
        only: names of the encoders to keep.
        seeds: instead of the benchmark's.
        encoders: folders or URIs of encoders to judge beside the benchmark's own.
        settings: options of all tasks, over the benchmark's own.
        only_tasks: names of the tasks to keep.

    Raises:
        UserError: nothing is left, or something is asked for that is not there.
    """
    everyone = [*benchmark.encoders, *given(encoders, [e.name for e in benchmark.encoders])]
    names, known = [e.name for e in everyone], [t.name for t in benchmark.tasks]
    if not names:
        raise UserError(f"{path} has no encoders of its own; name some: --encoders FOLDER-OR-URI ...")
    for what, wanted, there in (("encoder", only, names), ("task", only_tasks, known)):
        for name in wanted or []:
            if name not in there:
                raise UserError(f"{path} has no {what} {name!r}.{nearest(name, there)}")
        if len({slug(name) for name in there}) < len(there):
            raise UserError(f"{path} has two {what}s whose names give the same folder; rename one: {', '.join(there)}.")
    for encoder in benchmark.encoders:
        if missing := next((name for name in encoder.tasks or [] if name not in known), None):
            raise UserError(
                f"{path}: {encoder.name} is judged on {missing!r}, which is no task.{nearest(missing, known)}"
            )
    seeds = benchmark.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(s, int) and 0 <= s < 2**32 for s in seeds):
        raise UserError(f"Seeds are whole numbers from 0 to 2³² − 1, each once, not {seeds}.")
    tasks = [t for t in benchmark.tasks if t.name in (only_tasks or known)]
    chosen = [e for e in everyone if (only is None or e.name in only) and any(e.takes(t) for t in tasks)]
    if not chosen:
        raise UserError(f"{path}: none of the encoders that are asked for has a task of its modality; name others.")
    judged = [t for t in tasks if any(e.takes(t) for e in chosen)]
    judged = [replace(t, set=benchmark.set | t.set | settings) for t in judged]
    return replace(benchmark, seeds=seeds, encoders=chosen, tasks=judged)


def slug(name: str) -> str:
    """A name as that of a folder."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "-"
