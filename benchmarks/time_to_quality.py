"""Time to quality: a masked language model of the Brown corpus, our recipe against Hugging Face's `run_mlm`.

Theirs, as the example script trains from scratch: a `BertConfig` of 4 layers × 128, documents joined and cut to rows
(`--max_seq_length 128`), 8 a step, 15 % masked anew each time, the Trainer's own AdamW, its rate falling linearly to
zero from the default of 5e-5; and the same from 1e-3, as 5e-5 is a rate for weights that have learned already. Ours:
`configs/text/brown.yaml`, with no more parameters and the same tokenizer.

Time is processor time of the training loop on one thread, so that a machine that others use too does not matter.
Both sides are scored on the same masks (15 %) of all held-out documents, off the clock. How many steps fit into a
side's minutes is measured before, so that its rate has fallen when its time is over.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hugging_face
import pytorch_lightning as pl
import torch
import yaml
from rich.console import Console
from rich.table import Table
from side_by_side import QUIET, WARM_UP, Points, draw, machine, quiet
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.allocator import keep_freed_memory
from ssl_suite.core.batch import TextBatch
from ssl_suite.core.data import Request
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id
from ssl_suite.encoders.transformer import Places
from ssl_suite.methods.text.corrupt import choose_positions, maskable, replace_tokens
from ssl_suite.methods.text.masked_lm import MaskedLM

RECIPE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "configs/text/brown.yaml").read_text())
RATES = [5e-5, 1e-3]
"""Of the peer: the Trainer's, and a higher one."""
TRIAL, SCORINGS = 20, 12
"""Steps whose pace is measured, and how often a side is scored, at even distances."""
TINY: dict[str, dict[str, Any]] = {
    "model": {"vocab_size": 512, "dim": 32, "layers": 1},
    "data": {"source": "samples:sentences", "where": None, "vocab_size": 512},
}
Logits = Callable[[TextBatch, Places], Tensor]


class Watch:
    """Scores a model on its way, off the clock, which starts after the warm-up."""

    def __init__(self, steps: int, scorings: int) -> None:
        self.every, self.last, self.scorings = max(1, steps // max(1, scorings)), steps, scorings
        self.curve: list[tuple[float, float]] = []
        self.seconds = self.started = 0.0

    def score(self, model: nn.Module, logits: Logits) -> Callable[[int], None]:
        """What to call after each step."""
        self.parameters = sum(p.numel() for p in model.parameters())

        def after_step(step: int) -> None:
            now = time.process_time()
            if step > WARM_UP:
                self.seconds += now - self.started
            if self.scorings and (step % self.every == 0 or step == self.last):
                self.curve.append((self.seconds, held_out_loss(model, logits)))
            self.started = time.process_time()

        return after_step


Side = Callable[[int, int, Watch], None]
"""Trains for so many steps, with a seed, and scores itself."""


@cache
def corpus() -> Text:
    """Rows and tokenizer of both sides: documents joined, cut every 127 tokens."""
    data = Text(**RECIPE["data"]["init_args"])
    data.serve(Request(vocab_size=data.vocab_size))
    return data


@cache
def held_out() -> list[tuple[TextBatch, TextBatch, Places]]:
    """All of the validation split: as it is, with 15 % of each row's tokens masked as BERT does, and where."""
    data = corpus()
    special, found = torch.tensor(special_ids(data.tokenizer)), []
    for rows in torch.arange(data.size("validation")).split(32):
        batch = data.collate([data.read("validation", i, i) for i in rows.tolist()])
        chosen = choose_positions(maskable(batch, special), batch.seed, 0.15)
        mask, size = token_id(data.tokenizer, "mask"), data.tokenizer.get_vocab_size()  # type: ignore[union-attr]
        ids = replace_tokens(batch.ids, chosen, batch.seed, special, mask, size)
        found.append((batch, replace(batch, ids=ids), chosen.nonzero(as_tuple=True)))
    return found


@torch.no_grad()
def held_out_loss(model: nn.Module, logits: Logits) -> float:
    """Nats a masked token."""
    model.eval()
    losses = [F.cross_entropy(logits(b, at), batch.ids[at], reduction="sum") for batch, b, at in held_out()]
    model.train()
    return float(torch.stack(losses).sum()) / sum(len(at[0]) for *_, at in held_out())


def run_mlm(lr: float) -> Side:
    """The peer's recipe at a rate."""
    from transformers import BertForMaskedLM, DataCollatorForLanguageModeling

    data, shape = corpus(), RECIPE["model"]["init_args"]["encoder"]["init_args"]
    config = hugging_face.bert(shape, data.vocab_size, data.max_length, 0.1, 0.1)

    def side(steps: int, seed: int, watch: Watch) -> None:
        model = BertForMaskedLM(config)
        after = watch.score(model, lambda batch, at: model.cls(model.bert(batch.ids)[0][at]))
        collator = DataCollatorForLanguageModeling(hugging_face.wrapped(data.tokenizer), mlm_probability=0.15)
        optim = Optim(lr=lr, weight_decay=0.0)
        hugging_face.train(model, steps, hugging_face.blocks(data), optim, 8, collator, after, seed=seed)

    return side


def ours(steps: int, seed: int, watch: Watch) -> None:
    """`configs/text/brown.yaml`, as `ssl-suite fit` runs it."""
    options = RECIPE["model"]["init_args"]
    encoder = TextEncoder(**options["encoder"]["init_args"])
    rest = {k: v for k, v in options.items() if k not in ("encoder", "optim")}
    method = MaskedLM(encoder, **rest, optim=Optim(**options["optim"]))
    after = watch.score(method, lambda batch, at: method.head(encoder.output_at(batch, at)))

    class After(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            after(trainer.global_step)

    clip, folder = RECIPE["trainer"]["gradient_clip_val"], tempfile.mkdtemp()
    trainer = pl.Trainer(**QUIET, max_steps=steps, gradient_clip_val=clip, callbacks=[After()], default_root_dir=folder)
    trainer.fit(method, datamodule=Text(**RECIPE["data"]["init_args"]))


def train(side: Side, seconds: float, seed: int) -> dict[str, Any]:
    """Trains a side for about so many seconds of processor time."""
    pl.seed_everything(seed, verbose=False)
    pace = Watch(WARM_UP + TRIAL, 0)
    side(WARM_UP + TRIAL, seed, pace)
    steps = max(SCORINGS, round(seconds / pace.seconds * TRIAL))
    pl.seed_everything(seed, verbose=False)
    side(steps, seed, watch := Watch(steps, SCORINGS))
    return {"steps": steps, "parameters": watch.parameters, "curve": watch.curve, "machine": machine()}


def reached(curve: Points, loss: float) -> float | None:
    """Seconds to a loss, at the first scoring that is as good."""
    return next((seconds for seconds, value in curve if value <= loss), None)


def compared(runs: dict[str, Any]) -> Table:
    """The seconds that ours took to each peer's last loss, over that peer's."""
    table = Table(caption="seconds of processor time, one thread; the share of a peer's seconds until its last loss")
    peers = {name: run["curve"][-1] for name, run in runs.items() if not name.startswith("ours")}
    for column in ("", "parameters", "steps", "seconds", "validation loss", *(f"to {name}'s" for name in peers)):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        seconds, loss = run["curve"][-1]
        cells = [name, f"{run['parameters']:,}", f"{run['steps']:,}", f"{seconds:.0f}", f"{loss:.3f}"]
        for spent, target in peers.values():
            at = reached(run["curve"], target)
            cells.append("not reached" if at is None else f"{at:.0f} s, {at / spent:.2f}")
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="of processor time, for each of the peer's runs")
    parser.add_argument("--share", type=float, default=0.25, help="of these that ours gets")
    parser.add_argument("--lr", type=float, action="append", help=f"of the peer, repeatable; default: {RATES}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--runs", type=Path, help="JSON of runs that are done, which are not done again, and of new ones"
    )
    parser.add_argument("--curve", type=Path, help="an SVG of all curves to write")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the script works")
    args = parser.parse_args()
    if args.tiny:
        RECIPE["model"]["init_args"]["encoder"]["init_args"].update(TINY["model"])
        RECIPE["data"]["init_args"].update(TINY["data"])
    quiet()
    keep_freed_memory()
    torch.set_num_threads(1)
    budget = 60 * args.minutes
    sides: dict[str, tuple[Side, float]] = {"ours": (ours, args.share * budget)}
    sides |= {f"run_mlm at {lr:g}": (run_mlm(lr), budget) for lr in args.lr or RATES}
    runs = json.loads(args.runs.read_text()) if args.runs and args.runs.exists() else {}
    for seed in range(args.seeds):
        for label, (side, seconds) in sides.items():
            if (name := f"{label}, seed {seed}") not in runs:
                runs[name] = train(side, seconds, seed)
                if args.runs:
                    args.runs.write_text(json.dumps(runs))
    Console(width=150).print(compared(runs))
    if args.curve:
        named = {name: run["curve"] for name, run in runs.items()}
        draw(named, args.curve, "seconds of processor time", "validation loss, nats a masked token")
