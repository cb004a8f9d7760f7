"""Runs ours and a peer's side by side on equal shapes, in alternating rounds, and prints the ratio of the medians."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table

from ssl_suite.bench.drawing import CATEGORIES, canvas, styled
from ssl_suite.core.allocator import keep_freed_memory

WARM_UP = 1
"""Steps before the clock starts, in every round."""

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
}
"""A Lightning Trainer that trains and does nothing else, as the peers are set up to."""

Points = Sequence[tuple[float, float]]
"""(seconds, loss)."""
TIMERS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
timer = TIMERS["wall"]


@dataclass
class Case:
    """One comparison.

    Args:
        name: of what is run.
        unit: of speed, a second.
        peer: whose the other side is.
        sides: `ours` and `peer`: steps → units a second, over the steps after the warm-up.
    """

    name: str
    unit: str
    peer: str
    sides: dict[str, Callable[[int], float]]


class Clock:
    """Measures from the end of the warm-up to the last step."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self.units = 0.0

    def step(self, units: float) -> None:
        """To be called at the end of each step with what it has processed."""
        self.units += units
        self.marks.append((timer(), self.units))

    def rate(self) -> float:
        """Units a second after the warm-up."""
        (start, before), (end, after) = self.marks[WARM_UP - 1], self.marks[-1]
        return (after - before) / (end - start)


class LightningClock(pl.Callback):
    """A `Clock` in a Lightning Trainer."""

    def __init__(self, units: Callable[[Any], float]) -> None:
        self.clock, self.units = Clock(), units

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.step(self.units(batch))


def fit(module: pl.LightningModule, steps: int, units: Callable[[Any], float], folder: Path, **fit_args: Any) -> float:
    """Trains `module` for WARM_UP + steps steps and returns units a second."""
    clock = LightningClock(units)
    options = QUIET | {"gradient_clip_val": fit_args.pop("gradient_clip_val", None)}
    trainer = pl.Trainer(**options, max_steps=WARM_UP + steps, callbacks=[clock], default_root_dir=folder)
    trainer.fit(module, **fit_args)
    return clock.clock.rate()


def loop(step: Callable[[Any], None], batches: Sequence[Any], steps: int, units: Callable[[Any], float]) -> float:
    """Calls `step` on the batches in turn, WARM_UP + steps times, and returns units a second."""
    clock = Clock()
    for i in range(WARM_UP + steps):
        batch = batches[i % len(batches)]
        step(batch)
        clock.step(units(batch))
    return clock.rate()


def arguments(about: str, rounds: int, steps: int) -> argparse.ArgumentParser:
    """The options every script has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds of each side; they alternate")
    parser.add_argument("--steps", type=int, default=steps, help="measured steps a round, after one of warm-up")
    parser.add_argument("--case", action="append", help="run only this case; may be repeated")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument(
        "--clock",
        choices=list(TIMERS),
        default="wall",
        help="cpu: seconds of processor time of one thread and process, for a machine that others use too",
    )
    parser.add_argument("--side", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the script works")
    return parser


def compare(cases: Sequence[Callable[[argparse.Namespace], Case]], args: argparse.Namespace) -> None:
    """Builds and runs the chosen cases and prints them."""
    global timer
    quiet()
    timer = TIMERS[args.clock]
    if args.clock == "cpu":
        torch.set_num_threads(1)
    if args.side:
        args.case = args.case[-1:]
    results = []
    for build in cases:
        name = build.__name__.replace("_", "-")
        if args.case and name not in args.case:
            continue
        results.append(run(build(args), name, args))
    if not results:
        sys.exit(f"No such case; there are: {', '.join(c.__name__.replace('_', '-') for c in cases)}.")
    if args.format == "json":
        facts = {"machine": machine(), "clock": args.clock, "rounds": args.rounds, "steps": args.steps}
        print(json.dumps(facts | {"results": results}))
    else:
        show(results, args)


def run(case: Case, key: str, args: argparse.Namespace) -> dict[str, Any]:
    """Alternates the sides, the first changing from round to round, and returns the figures.

    Each round is a process of its own, so that neither side lives on memory the other has warmed; with `--tiny` all
    run in this one.
    """
    if args.side:
        if args.side == "ours":
            keep_freed_memory()  # as `ssl-suite fit` does
        rate = case.sides[args.side](args.steps)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {"key": key, "rate": rate, "peak_mb": int(status["VmHWM"].split()[0]) / 1024}
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    peaks = dict.fromkeys(rates, 0.0)
    for number in range(args.rounds):
        for side in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
            if args.tiny:
                rates[side].append(case.sides[side](args.steps))
                continue
            alone = fresh_process(key, side)
            rates[side].append(alone["rate"])
            peaks[side] = max(peaks[side], alone["peak_mb"])
    ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
    medians = {side: statistics.median(values) for side, values in rates.items()}
    result: dict[str, Any] = {"case": case.name, "key": key, "unit": case.unit, "peer_name": case.peer, **medians}
    result |= {"ratio": medians["ours"] / medians["peer"], "ratio_range": [min(ratios), max(ratios)]}
    return result | {"rates": rates, "peak_mb": peaks}


def fresh_process(key: str, side: str) -> dict[str, Any]:
    """One round of one side in a process of its own: its rate and its peak resident MB."""
    command = [sys.executable, *sys.argv, "--case", key, "--side", side, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return next(r for r in json.loads(done.stdout.splitlines()[-1])["results"] if r["key"] == key)


def show(results: list[dict[str, Any]], args: argparse.Namespace) -> None:
    caption = f"a second of {args.clock} time; medians of {args.rounds} alternating rounds of {args.steps} steps"
    table = Table(title=machine(), caption=caption)
    for column in ("", "unit", "ours", "peer", "", "ratio", "a round's"):
        table.add_column(column, justify="left" if not column or column == "unit" else "right", no_wrap=True)
    table.add_column("peak MB: ours, peer", justify="right")
    for r in results:
        low, high = r["ratio_range"]
        cells = [r["case"], r["unit"], f"{r['ours']:,.1f}", f"{r['peer']:,.1f}", r["peer_name"]]
        cells += [f"{r['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
        cells.append(f"{r['peak_mb']['ours']:,.0f}, {r['peak_mb']['peer']:,.0f}")
        table.add_row(*cells)
    Console(width=160).print(table)


@styled
def draw(curves: Mapping[str, Points], path: Path, across: str, up: str) -> None:
    """Writes curves as one SVG (or what else the path ends in)."""
    figure, axes = canvas(600, 380, (52, 12, 10, 42))
    for (name, points), colour in zip(curves.items(), itertools.cycle(CATEGORIES), strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, marker="o", markersize=3, label=name)
    axes.set(xlabel=across, ylabel=up)
    axes.grid(axis="y")
    axes.legend(frameon=False)
    figure.savefig(path)


def machine() -> str:
    """Where and with what this was measured."""
    threads, date = torch.get_num_threads(), time.strftime("%Y-%m-%d")
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, fp32, torch {torch.__version__}, {date}"


def quiet() -> None:
    """Silences both sides alike."""
    import logging

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    pl.seed_everything(0, verbose=False)
