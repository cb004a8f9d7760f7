"""Fine-tuning from pretrained and from random weights: its loss curves, loss landscapes and sharpness (1908.05620).

Hao et al. 2019, "Visualizing and Understanding the Effectiveness of BERT", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_suite.analysis.figures import Curve, contours, lines
from ssl_suite.analysis.findings import Exhibit, Findings
from ssl_suite.analysis.runs import check_seeds, made
from ssl_suite.analysis.states import described, named_encoders
from ssl_suite.analysis.surface import Point, Surface, difference, length, projected
from ssl_suite.bench.attempts import quiet
from ssl_suite.bench.benchmark import Settings, command
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.stats import mean_interval, with_interval
from ssl_suite.core.check import within
from ssl_suite.core.checkpoint import read_checkpoint
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.milestones import milestones
from ssl_suite.core.random import seed_all
from ssl_suite.data.embeddings import fastest_device

STARTS = {"pretrained": "ssl", "random": "random"}
"""Where fine-tuning starts → the role whose colour it has."""
REACH = np.round(np.linspace(-0.5, 1.5, 25), 3)
"""α of the curves: 0 is where fine-tuning starts, 1 where it ends."""
NAMES = {
    "final": "training loss at the end",
    "beside_final": "validation loss at the end",
    "distance": "length of the way, |θ₁ − θ₀|",
    "width": "width of the valley, of α",
    "sharpness": "largest eigenvalue of the Hessian",
}
"""Measures of the end of fine-tuning."""


@dataclass(frozen=True)
class Tuning:
    """How an encoder is fine-tuned.

    Attributes:
        recipe: names or files, composed in this order.
        set: options on top.
    """

    recipe: Sequence[str]
    set: Settings = field(default_factory=dict)

    def arguments(self, encoder: str, seed: int, out: Path) -> list[str]:
        fixed: Settings = {"model.encoder": encoder, "model.mode": "finetune", "seed_everything": seed}
        still: Settings = {"trainer.enable_progress_bar": False}
        kept: Settings = {"trainer.callbacks": "Milestones", "out": out, "overwrite": True}
        return command(list(self.recipe), self.set, fixed, still, kept)

    def expect_finetune(self, encoder: str, through: CommandLine) -> None:
        """Raises UserError where the recipe is one of pretraining."""
        with quiet():
            read = through.resolve(command(list(self.recipe), self.set, {"model.encoder": encoder})).dumped()
        if not issubclass(resolve_name(read["model"]["class_path"]), Finetune):
            raise UserError(
                f"{' '.join(self.recipe)} does not fine-tune (Finetune), but pretrains; take the recipe of a task."
            )


@dataclass(frozen=True)
class Tuned:
    """One fine-tuning run: how its weights came to be.

    Attributes:
        points: by step; the first is where it started, the last where it ended.
        surface: J on training items.
        beside: J on items it did not learn from.
    """

    points: Mapping[int, Point]
    surface: Surface
    beside: Surface

    @property
    def start(self) -> Point:
        return self.points[min(self.points)]

    @property
    def end(self) -> Point:
        return self.points[max(self.points)]

    @property
    def direction(self) -> Point:
        """δ = θ₁ − θ₀."""
        return difference(self.end, self.start)


def landscape(
    encoder: str,
    task: Tuning,
    through: CommandLine,
    out: Path,
    other: Tuning | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    wanted: int = 256,
    grid: int = 11,
) -> Findings:
    """Fine-tunes an encoder, and the same one with random weights, and looks at the loss around their ways.

    Args:
        encoder: folder, run, checkpoint or URI.
        task: what it is fine-tuned to.
        through: runs the command lines.
        out: folder for the runs; one that is there with the same options is not run again.
        other: the task whose fine-tuning is the second direction, from the same weights; None: no surfaces.
        seeds: of fine-tuning, and of the random weights.
        wanted: items that J is the mean over.
        grid: points of a surface along each direction.

    Raises:
        UserError: an option does not fit, or a run cannot be made.
    """
    within("--count", wanted, low=1, whole=True)
    within("--grid", grid, low=3, whole=True)
    check_seeds(seeds)
    for one in filter(None, (task, other)):
        one.expect_finetune(encoder, through)
    encoders = named_encoders([encoder])
    sources = {"pretrained": encoder, "random": f"random:{encoder}"}
    tuned: dict[str, list[Tuned]] = {}
    for start, source in sources.items():
        tuned[start] = [tune(task, source, seed, out / f"{start}-{seed}", through, wanted) for seed in seeds]
    rows = list(
        chain.from_iterable(_rows(s, seed, t) for s, own in tuned.items() for seed, t in zip(seeds, own, strict=True))
    )
    exhibits = [*_curves(rows), _along(rows)]
    if other is not None:
        for start, source in sources.items():
            folder = out / f"{start}-other-{seeds[0]}"
            run = made(other.arguments(source, seeds[0], folder), folder, seeds[0], through)
            points = points_of(run)
            second = difference(*(encoder_part(points[end], tuned[start][0].start) for end in (-1, 0)))
            more, exhibit = _surface(start, seeds[0], tuned[start][0], second, grid)
            rows, exhibits = [*rows, *more], [*exhibits, exhibit]
    figures = {m: {s: _interval(rows, s, m) for s in STARTS} for m in NAMES}
    exhibits.insert(0, _table(figures))
    return Findings(
        "landscape",
        "Pretrained or random: where does fine-tuning go?",
        f"Fine-tuned from pretrained weights the loss on the validation split ends at "
        f"{_said(figures['beside_final']['pretrained'])}, from random ones at "
        f"{_said(figures['beside_final']['random'])}; the Hessian’s largest eigenvalue there is "
        f"{_said(figures['sharpness']['pretrained'])} and {_said(figures['sharpness']['random'])}.",
        rows,
        exhibits,
        {**described(encoders), "task": " ".join(task.recipe), "seeds": f"{list(seeds)}"},
        [
            f"J(θ): the task’s loss without dropout, over {tuned['random'][0].surface.items} training items, the same "
            "at all points; “beside” it over as many of the validation split.",
            "f(α) = J(θ₀ + α(θ₁ − θ₀)), all weights, from the start (0) to the end (1) of fine-tuning; filters are not "
            "normalised. f(α, β) adds β times the way of another task from the same weights, of the encoder alone, "
            "as the head is another (arXiv:1908.05620, sections 3 and 4).",
            "Sharpness: the largest eigenvalue of J’s Hessian at θ₁, by power iteration. Width: how far α may go "
            "from 1 while f stays below the middle between f(0) and f(1).",
            "± is a 95 % interval over seeds (Student’s t).",
        ],
    )


def points_of(run: Path) -> list[Point]:
    return [read_checkpoint(path)["state_dict"] for path in milestones(run).values()]


def encoder_part(state: Point, parameters: Point) -> Point:
    """What of a checkpoint is a parameter of the encoder; its buffers, as of batch norms, are no direction."""
    return {name: value for name, value in state.items() if name.startswith("encoder.") and name in parameters}


def tune(task: Tuning, source: str, seed: int, run: Path, through: CommandLine, wanted: int) -> Tuned:
    """Fine-tunes unless that was done before, and reads how it went from the checkpoints of the run."""
    arguments = task.arguments(source, seed, run)
    made(arguments, run, seed, through)
    resolved = through.resolve(arguments)
    seed_all(seed)
    model, data = resolved.make("model"), resolved.make("data")
    model.meet(data)
    states = dict(zip(milestones(run), points_of(run), strict=True))
    model.load_state_dict(states[max(states)])
    model.to(fastest_device())
    names = {name for name, _ in model.named_parameters()}
    points = {s: {n: w.to(model.device) for n, w in state.items() if n in names} for s, state in states.items()}
    beside = "validation" if data.has("validation") else "train"
    return Tuned(points, Surface(model, data, "train", wanted), Surface(model, data, beside, wanted))


def _rows(start: str, seed: int, tuned: Tuned) -> Iterator[dict[str, Any]]:
    """Every number of one run but those of its surface."""
    shared = {"start": start, "seed": seed}
    for step, point in tuned.points.items():
        yield shared | {"step": step, "measure": "loss", "value": tuned.surface.at(point)}
        yield shared | {"step": step, "measure": "beside", "value": tuned.beside.at(point)}
    steps = [float(a) for a in REACH]
    losses = tuned.surface.along(tuned.start, tuned.direction, steps)
    yield from (shared | {"alpha": a, "measure": "f", "value": v} for a, v in zip(steps, losses, strict=True))
    yield shared | {"measure": "final", "value": tuned.surface.at(tuned.end)}
    yield shared | {"measure": "beside_final", "value": tuned.beside.at(tuned.end)}
    yield shared | {"measure": "distance", "value": length(tuned.direction)}
    yield shared | {"measure": "width", "value": width(steps, losses)}
    yield shared | {"measure": "sharpness", "value": tuned.surface.sharpness(tuned.end, seed=seed)}


def width(steps: Sequence[float], losses: Sequence[float]) -> float:
    """Length of the range around α = 1 where f is below the middle between f(0) and f(1), between points by lines."""
    x = np.linspace(steps[0], steps[-1], 2001)
    f = np.interp(x, steps, losses)
    middle = (np.interp(0.0, steps, losses) + np.interp(1.0, steps, losses)) / 2
    at = int(np.abs(x - 1).argmin())
    above = np.flatnonzero(f > middle)
    left, right = above[above < at], above[above > at]
    return float(x[right[0] if len(right) else -1] - x[left[-1] if len(left) else 0])


def _surface(start: str, seed: int, tuned: Tuned, second: Point, grid: int) -> tuple[list[dict[str, Any]], Exhibit]:
    across, up = np.linspace(-0.5, 1.5, grid), np.linspace(-0.75, 1.25, grid)
    second = {name: value.to(tuned.start[name]) for name, value in second.items()}
    directions = (tuned.direction, second)
    values = tuned.surface.over(tuned.start, directions, across.tolist(), up.tolist())
    shared = {"start": start, "seed": seed, "measure": "f2"}
    rows = [
        shared | {"alpha": float(a), "beta": float(b), "value": float(values[j, i])}
        for j, b in enumerate(up)
        for i, a in enumerate(across)
    ]
    way = np.array([projected(point, tuned.start, directions) for point in tuned.points.values()])
    low, high = float(values.min()), float(values.max())
    levels: NDArray[Any] = low + (high - low) * np.linspace(0.05, 0.95, 9)
    paths = {f"fine-tuning from {start} weights": (way, STARTS[start])}
    names = ("α, this task", "β, the other task")
    figure, legend = contours(
        across, up, values, paths, f"surface-{start}", f"Loss around {start} weights", names, levels
    )
    caption = "Darker is higher. The large dot is where fine-tuning ends; its way is projected onto the plane."
    return rows, Exhibit(f"Around {start} weights", figure, caption, legend)


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[Exhibit]:
    for measure, title in (("loss", "Training loss"), ("beside", "Loss on the validation split")):
        curves = {f"from {start} weights": _curve(rows, start, measure, "step") for start in STARTS}
        figure, legend = lines(curves, f"landscape-{measure}", title, "step of fine-tuning", "loss", log=True)
        yield Exhibit(title, figure, "Mean over seeds with its 95 % interval, at the checkpoints of each run.", legend)


def _along(rows: Sequence[Mapping[str, Any]]) -> Exhibit:
    curves = {f"from {start} weights": _curve(rows, start, "f", "alpha") for start in STARTS}
    marks = [(0.0, "start"), (1.0, "end")]
    figure, legend = lines(curves, "landscape-f", "Loss along the way", "α", "f(α)", marks=marks)
    return Exhibit("Loss on the line from start to end", figure, "Mean over seeds with its 95 % interval.", legend)


def _curve(rows: Sequence[Mapping[str, Any]], start: str, measure: str, axis: str) -> Curve:
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["start"] == start and row["measure"] == measure:
            found.setdefault(row[axis], []).append(row["value"])
    points = {x: mean_interval(values) for x, values in sorted(found.items())}
    return Curve(list(points), [m for m, _ in points.values()], [h for _, h in points.values()], STARTS[start])


def _interval(rows: Sequence[Mapping[str, Any]], start: str, measure: str) -> tuple[float, float]:
    return mean_interval([r["value"] for r in rows if r["start"] == start and r["measure"] == measure])


def _said(figure: tuple[float, float]) -> str:
    return with_interval(*figure, ".3g", ".2g")


def _table(figures: Mapping[str, Mapping[str, tuple[float, float]]]) -> Exhibit:
    body = [[name, *(_said(figures[m][s]) for s in STARTS)] for m, name in NAMES.items()]
    return Exhibit("At the end of fine-tuning", head=["", *(f"from {s} weights" for s in STARTS)], body=body)
