"""When a language model learns what: probes and masked words over the checkpoints of a run (arXiv:2010.02480).

Chiang, Huang and Lee 2020, "Pretrained Language Model Embryology: The Birth of ALBERT", sections 2 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.analysis.figures import Curve, lines
from ssl_suite.analysis.findings import Exhibit, Findings, Row
from ssl_suite.analysis.masked_words import masked_words
from ssl_suite.analysis.runs import check_seeds, made
from ssl_suite.analysis.states import short_names
from ssl_suite.analysis.words import Reader, Sentences, read_sentences
from ssl_suite.bench.benchmark import Settings, command
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.stats import mean_interval, with_interval
from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.milestones import milestones
from ssl_suite.data.embeddings import fastest_device
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.plugins import load_all

LEARNT = 0.5
"""Share of its gain over the whole run from which on something counts as learnt."""
NOISE = 0.02
"""Gain over the whole run below which nothing was learnt."""
RARE = 20
"""Words of a part of speech below which it is not shown."""


@dataclass(frozen=True)
class Probe:
    """What a linear classifier is to read off frozen states.

    Attributes:
        source: of the sentences.
        column: of their words.
        target: a label a word (parts of speech, dependency relations), or a sentence (genre, sentiment).
        train: sentences the classifier learns from.
        test: sentences it is scored on.
        ignore: the label of words that have none; they are neither learnt nor scored.
    """

    source: str = "samples:brown"
    column: str = "tokens"
    target: str = "tags"
    train: int = 300
    test: int = 300
    ignore: str | None = None

    def read(self, split: str) -> Sentences:
        return read_sentences(self.source, self.column, self.target, split, getattr(self, split))


PROBES = {"parts of speech": Probe(), "genre": Probe(target="genre", train=1000, test=500)}


def pretrained(
    recipe: Sequence[str], options: Settings, seeds: Sequence[int], out: Path, through: CommandLine
) -> list[Path]:
    """Runs of a pretraining recipe with `Milestones`, one a seed; those that are there already are kept."""
    check_seeds(seeds)
    runs = []
    for seed in seeds:
        fixed: Settings = {"seed_everything": seed, "out": out / f"seed-{seed}", "overwrite": True}
        kept: Settings = {"trainer.callbacks": "Milestones", "trainer.enable_progress_bar": False}
        runs.append(made(command(list(recipe), options, kept, fixed), out / f"seed-{seed}", seed, through))
    return runs


def embryology(runs: Sequence[Path], probes: Mapping[str, Probe], masked: Probe, words: int = 2000) -> Findings:
    """Looks at every checkpoint that `Milestones` kept of one run, or of several that differ in their seed.

    Args:
        runs: folders.
        probes: by the names they are shown by.
        masked: tagged sentences whose words are masked, one at a time.
        words: how many of them.

    Raises:
        UserError: a run has no checkpoints along its way, or `masked` has no tag a word.
    """
    within("--words", words, low=1, whole=True)
    load_all()
    checkpoints = [milestones(run) for run in runs]
    sentences = {name: (probe.read("train"), probe.read("test")) for name, probe in probes.items()}
    hidden = masked.read("test")
    if not hidden.tagged:
        raise UserError(f"{masked.source}: {masked.target!r} must hold a tag for each word; name another column.")
    rows: list[Row] = []
    for run, own in zip(short_names([str(run) for run in runs]), checkpoints, strict=True):
        for step, path in own.items():
            encoder = load_encoder(path).to(fastest_device())
            reader, shared = Reader(encoder), {"run": run, "step": step}
            for name, (train, test) in sentences.items():
                found = probe_layers(reader, train, test, probes[name].ignore)
                rows += [shared | {"measure": f"probe: {name}"} | r for r in found]
            if "head.bias" in encoder.heads:  # of a masked language model; others have no word to predict
                rows += [shared | r for r in masked_words(MaskedLM(encoder), reader, hidden, words)]
    things = learnt(rows, list(probes))
    return Findings(
        "embryology",
        "When does a language model learn what?",
        _answer(things),
        rows,
        [_table(things), *_figures(rows, list(probes))],
        {"runs": ", ".join(map(str, runs)), "checkpoints": str(sum(map(len, checkpoints)))},
        [
            "Probes: logistic regression on the frozen, standardised states (a word is the mean of its "
            "pieces); accuracy on other sentences.",
            "Masked words: a word is masked with all its pieces, and counts where the likeliest are its own; in "
            "place: likewise without a mask (arXiv:2010.02480, sections 2 and 3).",
            f"Learnt at: the checkpoint from which on it keeps {100 * LEARNT:.0f} % of the gain from start to end; "
            f"none where that gain is below {NOISE}. Over runs the geometric mean.",
            "Bands and brackets are 95 % intervals over runs (Student’s t); step 0 stands at the left end of the axis.",
        ],
    )


def probe_layers(
    reader: Reader, train: Sentences, test: Sentences, ignore: str | None = None
) -> Iterator[dict[str, Any]]:
    """Accuracy of a linear probe on each layer: over all labels, and of each label the share that is found.

    Raises:
        UserError: all labels it learns from are one.
    """
    states = reader.words if train.tagged else reader.sentences
    known, asked = _flat(train), _flat(test)
    learnt_from, scored = known != ignore, asked != ignore
    known, asked = known[learnt_from], asked[scored]
    if len(there := np.unique(known)) < 2:
        some = " ".join(map(str, there))
        raise UserError(f"A probe tells labels apart, but all that it learns from are {some!r}; name another target.")
    for layer, (x, y) in enumerate(zip(states(train.words), states(test.words), strict=True)):
        right = probed(x[learnt_from], known, y[scored]) == asked
        yield {"layer": layer, "label": "all", "value": float(right.mean())}
        for label in np.unique(asked):
            yield {"layer": layer, "label": str(label), "value": float(right[asked == label].mean())}


def probed(train: Tensor, labels: NDArray[Any], test: Tensor) -> NDArray[Any]:
    """Labels that a logistic regression on standardised features gives the test rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    return np.asarray(classifier.fit(train.numpy(), labels).predict(test.numpy()))


def _flat(sentences: Sentences) -> NDArray[Any]:
    rows = sentences.labels if sentences.tagged else [[label] for label in sentences.labels]
    return np.array([str(label) for row in rows for label in row])


def learnt_at(values: Mapping[int, float]) -> int | None:
    """The step from which on it never again falls below `LEARNT` of what is gained from start to end; None: never."""
    steps = sorted(values)
    start, end = values[steps[0]], values[steps[-1]]
    if end - start < NOISE:
        return None
    low = [i for i, step in enumerate(steps) if values[step] < start + LEARNT * (end - start)]
    return steps[low[-1] + 1]


@dataclass(frozen=True)
class Learnt:
    """Something that is learnt.

    Attributes:
        name: as shown.
        runs: its value at each step, of each run.
    """

    name: str
    runs: Sequence[Mapping[int, float]]

    @property
    def logarithms(self) -> list[float]:
        """Of the step where it was learnt, to base 10, of each run in which it was."""
        return [math.log10(step) for run in self.runs if (step := learnt_at(run)) is not None]

    @property
    def step(self) -> float | None:
        """Geometric mean over runs; None unless every one learnt it."""
        found = self.logarithms
        return 10 ** mean_interval(found)[0] if len(found) == len(self.runs) else None

    @property
    def said(self) -> str:
        """The step with its 95 % interval over runs, Student's t of the logarithms."""
        if self.step is None:
            return f"in {len(found)} of {len(self.runs)} runs" if (found := self.logarithms) else "–"
        mean, half = mean_interval(self.logarithms)
        interval = f" [{10 ** (mean - half):,.0f}, {10 ** (mean + half):,.0f}]" if math.isfinite(half) else ""
        return f"{self.step:,.0f}{interval}"

    def at(self, end: Literal[0, -1]) -> str:
        """The value at the start (0) or the end (−1) with its interval."""
        return with_interval(*mean_interval([run[sorted(run)[end]] for run in self.runs]))


def learnt(rows: Sequence[Row], probes: Sequence[str]) -> list[Learnt]:
    """Probes of the output, and masked words by part of speech, in the order in which they are learnt."""
    of: dict[str, tuple[str, str, int | None]] = {
        f"{name} (probe)": (f"probe: {name}", "all", _top(rows)) for name in probes
    }
    of |= {f"masked {tag}": ("prediction", tag, None) for tag in _common(rows, "prediction")}
    things = [Learnt(name, list(_values(rows, *which).values())) for name, which in of.items()]
    return sorted(things, key=lambda thing: (thing.step is None, thing.step or 0))


def _top(rows: Sequence[Row]) -> int | None:
    return max((row["layer"] for row in rows if "layer" in row), default=None)


def _common(rows: Sequence[Row], measure: str) -> list[str]:
    """Parts of speech of which enough words were looked at."""
    return sorted({r["label"] for r in rows if r["measure"] == measure and r["words"] >= RARE} - {"all"})


def _values(rows: Sequence[Row], measure: str, label: str, layer: int | None = None) -> dict[str, dict[int, float]]:
    """Run → step → value."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["measure"] == measure and row["label"] == label and row.get("layer") == layer:
            found.setdefault(row["run"], {})[row["step"]] = row["value"]
    return found


def _curve(rows: Sequence[Row], measure: str, label: str, layer: int | None = None) -> Curve:
    found: dict[int, list[float]] = {}
    for step, value in chain.from_iterable(run.items() for run in _values(rows, measure, label, layer).values()):
        found.setdefault(step, []).append(value)
    points = {step: mean_interval(values) for step, values in sorted(found.items())}
    return Curve(list(points), [m for m, _ in points.values()], [h for _, h in points.values()])


def _figures(rows: Sequence[Row], probes: Sequence[str]) -> Iterator[Exhibit]:
    top = _top(rows)
    if probes and top is not None:
        curves = {name: _curve(rows, f"probe: {name}", "all", top) for name in probes}
        yield _figure(curves, "probes", "Probes of the output", "accuracy")
        layers = {f"state {k}": _curve(rows, f"probe: {probes[0]}", "all", k) for k in range(top + 1)}
        yield _figure(layers, "layers", f"Probe of {probes[0]}, state by state", "accuracy")
    for measure, title in (("prediction", "Masked words, by part of speech"), ("reconstruction", "Words in place")):
        if tags := _common(rows, measure):
            yield _figure({tag: _curve(rows, measure, tag) for tag in tags}, measure, title, "share right")


def _figure(curves: Mapping[str, Curve], name: str, title: str, up: str) -> Exhibit:
    figure, legend = lines(curves, f"embryology-{name}", title, "step of pretraining", up, log=True)
    return Exhibit(title, figure, legend=legend)


def _table(things: Sequence[Learnt]) -> Exhibit:
    body = [[thing.name, thing.said, thing.at(0), thing.at(-1)] for thing in things]
    return Exhibit("In which order it is learnt", head=["", "learnt at step", "at the start", "at the end"], body=body)


def _answer(things: Sequence[Learnt]) -> str:
    known = [t for t in things if t.step is not None]
    if not known:
        return "Nothing that was looked at is learnt over this run."
    first, last = known[0], known[-1]
    return f"First learnt: {first.name}, at step {first.said}; last: {last.name}, at step {last.said}."
