"""Fine-tuned in one language, tested in others (Hsu et al. 2019, arXiv:1909.09587, on reading comprehension)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_suite.analysis.findings import Exhibit, Findings, Row
from ssl_suite.analysis.landscape import Tuning
from ssl_suite.analysis.runs import check_seeds, made
from ssl_suite.analysis.states import described, named_encoders
from ssl_suite.bench.attempts import quiet
from ssl_suite.bench.benchmark import Settings, command, slug
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.stats import mean_interval, with_interval
from ssl_suite.bench.store import Store
from ssl_suite.bench.work import QUIET
from ssl_suite.core.checkpoint import BEST, LAST
from ssl_suite.core.errors import UserError
from ssl_suite.core.hashing import sha256

CHANCE, NONE = "chance", "no language"
UNTRAINED: Settings = {"trainer.max_epochs": None, "trainer.max_steps": 1, "model.optim.lr": 1e-12}
"""Of a run whose head stays as it was drawn."""


def zero_shot(
    sources: Sequence[str],
    task: Tuning,
    train: Mapping[str, str],
    test: Mapping[str, str],
    through: CommandLine,
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
) -> Findings:
    """Fine-tunes each encoder, and it with random weights, in each language of `train`; tests in all of `test`.

    Args:
        sources: encoders: folders, runs, checkpoints or URIs.
        task: what they are fine-tuned to; its options hold for the tests too.
        train: language → data, as `data.source`.
        test: language → a file or folder of its test split.
        through: runs the command lines.
        out: folder for the runs; one that is there with the same options is not run again.
        seeds: of fine-tuning, and of the random weights.

    Raises:
        UserError: no language, an option does not fit, or a run cannot be made.
    """
    check_seeds(seeds)
    if not train or not test:
        raise UserError("Name data to train and to test on: --train en=SQUAD --test en=xquad.en.json zh=xquad.zh.json.")
    encoders = named_encoders(sources)
    expect_targets(task, sources[0], next(iter(train.values())), test, through)
    starts = dict(zip(encoders, sources, strict=True))
    twins = {f"{name}, random weights": _random(source) for name, source in starts.items()}
    starts |= {name: source for name, source in twins.items() if source not in sources}
    runs = [(name, source, language, task.set) for name, source in starts.items() for language in train]
    runs.append((CHANCE, _random(sources[0]), next(iter(train)), {**task.set, **UNTRAINED}))
    rows: list[Row] = []
    for name, source, language, options in runs:
        for seed in seeds:
            shared = {"encoder": name, "train": NONE if name == CHANCE else language, "seed": seed}
            run = Tuning(task.recipe, {**options, "data.source": train[language]})
            folder = out / slug(f"{name} {shared['train']}") / f"seed-{seed}"
            rows += [shared | row for row in tested(run, source, seed, folder, test, through)]
    if not rows:
        raise UserError("No test gave a result; a run that is cut short, as by trainer.limit_val_batches, gives none.")
    return Findings(
        "zero-shot",
        "Does a task learned in one language carry over to others?",
        _answer(rows, next(iter(train)), list(test), str(rows[0]["measure"])),
        rows,
        [_table(rows, list(test), measure) for measure in dict.fromkeys(str(row["measure"]) for row in rows)],
        {
            **described(encoders),
            "task": " ".join(task.recipe),
            **{f"trained in {language}": place for language, place in train.items()},
            **{f"tested in {language}": place for language, place in test.items()},
            "seeds": f"{list(seeds)}",
        },
        [
            "± is a 95 % interval over seeds of fine-tuning (Student’s t).",
            "Random weights: the same encoder untrained, fine-tuned alike. Chance: the same with a head that stays as "
            "it was drawn.",
        ],
    )


def _random(source: str) -> str:
    """The same encoder with random weights."""
    return source if source.startswith("random:") else f"random:{source}"


def expect_targets(task: Tuning, source: str, train: str, test: Mapping[str, str], through: CommandLine) -> None:
    """Raises UserError where a file to test on lacks the targets, which a run would miss when it has been trained."""
    for language, place in test.items():
        own: Settings = {"model.encoder": source, "data.source": train, "data.test": place}
        with quiet():
            resolved = through.resolve(command(list(task.recipe), {**task.set, **own}))
            model, data = resolved.make("model"), resolved.make("data")
            model.meet(data)
        if not data.has_targets("test"):
            raise UserError(f"{place}, to test {language} on, has no targets; name a file with those of the task.")


def tested(
    task: Tuning, source: str, seed: int, run: Path, test: Mapping[str, str], through: CommandLine
) -> Iterator[dict[str, Any]]:
    """Fine-tunes, unless that was done before; then every figure of every test, the main one first."""
    own: Settings = {"model.encoder": source, "seed_everything": seed, "out": run, "overwrite": True}
    made(command(list(task.recipe), task.set, QUIET, own), run, seed, through)
    kept = (run / "checkpoints" / name for name in (BEST, LAST))
    checkpoint = next(path for path in kept if path.exists())
    for language, place in test.items():
        folder = run / f"test-{slug(language)}-{sha256(checkpoint)[:8]}"
        own = {"ckpt_path": checkpoint, "data.test": place, "out": folder, "overwrite": True}
        made(command([str(run / "config.yaml")], own, run="test"), folder, seed, through)
        for row in Store(folder / "results.sqlite").rows():
            yield {"test": language, "measure": row.metric, "value": row.value}


def _figure(rows: Sequence[Row], encoder: str, train: str, test: str, measure: str) -> str:
    keys = (encoder, train, test, measure)
    own = [r["value"] for r in rows if (r["encoder"], r["train"], r["test"], r["measure"]) == keys]
    return with_interval(*mean_interval(own)) if own else "–"


def _answer(rows: Sequence[Row], train: str, test: Sequence[str], measure: str) -> str:
    """The main figure of what was trained in the first language."""
    parts = []
    for name in dict.fromkeys(str(row["encoder"]) for row in rows):
        figures = [
            f"{_figure(rows, name, NONE if name == CHANCE else train, other, measure)} in {other}" for other in test
        ]
        parts.append(f"{name}: {', '.join(figures)}")
    return f"Trained in {train}, {measure}: {'; '.join(parts)}."


def _table(rows: Sequence[Row], test: Sequence[str], measure: str) -> Exhibit:
    pairs = dict.fromkeys((str(row["encoder"]), str(row["train"])) for row in rows)
    body = [[name, train, *(_figure(rows, name, train, other, measure) for other in test)] for name, train in pairs]
    return Exhibit(measure, head=["encoder", "trained in", *(f"tested in {other}" for other in test)], body=body)
