"""Tiny Shakespeare by characters: our recipe against nanoGPT's for a CPU, to the same validation text.

nanoGPT's (config/train_shakespeare_char.py with its README's options for a CPU): 4 layers, 4 heads, width 128, 64
characters a row, 12 rows a step, 2,000 steps of AdamW; here on transformers' GPT-2 of that size in a plain loop.
Both sides are scored on every character of the last tenth, in rows as long as they train with; the clock includes
what each scores on its way. It is processor time on one thread, so that a machine that others use too does not matter.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from side_by_side import QUIET, draw, machine, quiet
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.allocator import keep_freed_memory

RECIPE = Path(__file__).parents[1] / "configs" / "text" / "shakespeare.yaml"
Curve = list[tuple[int, float, float]]
"""(step, seconds, validation loss in nats a character)."""


def ours(text: tuple[str, str], steps: int | None) -> tuple[Curve, int]:
    """`configs/text/shakespeare.yaml`, as `ssl-suite fit` runs it."""
    import yaml

    from ssl_suite.core.optim import Optim
    from ssl_suite.data.text.text import Text
    from ssl_suite.encoders.text import TextEncoder
    from ssl_suite.methods.text.causal_lm import CausalLM

    keep_freed_memory()
    recipe = yaml.safe_load(RECIPE.read_text())
    model, data, trainer = recipe["model"]["init_args"], recipe["data"]["init_args"], recipe["trainer"]
    folder = Path(tempfile.mkdtemp())
    for split, part in zip(("train", "validation"), text, strict=True):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": part}), encoding="utf-8")
    method = CausalLM(TextEncoder(**model["encoder"]["init_args"]), Optim(**model["optim"]))
    trainer["max_steps"] = steps or trainer["max_steps"]
    trainer["val_check_interval"] = min(trainer["val_check_interval"], trainer["max_steps"])

    class Scores(pl.Callback):
        def __init__(self) -> None:
            self.curve: Curve = []

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.started = time.process_time()

        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            loss = float(trainer.callback_metrics["val/loss"])
            self.curve.append((trainer.global_step, time.process_time() - self.started, loss))

    scores = Scores()
    quiet_trainer = QUIET | {"limit_val_batches": None} | trainer | {"callbacks": [scores], "default_root_dir": folder}
    pl.Trainer(**quiet_trainer).fit(method, datamodule=Text(**data | {"source": str(folder)}))
    return scores.curve, sum(p.numel() for p in method.parameters())


def nano_gpt(text: tuple[str, str], steps: int | None) -> tuple[Curve, int]:
    """nanoGPT's recipe."""
    from transformers import GPT2Config, GPT2LMHeadModel

    steps, rows, length, every = steps or 2000, 12, 64, 250
    letters = {c: i for i, c in enumerate(sorted(set(text[0] + text[1])))}
    train, held_out = (torch.tensor([letters[c] for c in part]) for part in text)
    config = GPT2Config(
        vocab_size=len(letters), n_positions=length, n_embd=128, n_layer=4, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def rate(step: int) -> float:
        if step < 100:
            return 1e-3 * (step + 1) / 101
        return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))) * 9e-4

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())

    curve: Curve = []
    started = time.process_time()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step - 1)
        at = torch.randint(len(train) - length, (rows,))
        x, y = (torch.stack([train[i + shift : i + shift + length] for i in at.tolist()]) for shift in (0, 1))
        loss(x, y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % every == 0 or step == steps:
            model.eval()
            with torch.no_grad():
                sums = [float(loss(x, y)) * y.numel() for x, y in windows(held_out, length)]
            model.train()
            curve.append((step, time.process_time() - started, sum(sums) / (len(held_out) - 1)))
    return curve, sum(p.numel() for p in model.parameters())


def windows(ids: Tensor, length: int, rows: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of a whole text, each character but the first predicted once."""
    full = (len(ids) - 1) // length * length
    x, y = ids[:full].view(-1, length), ids[1 : full + 1].view(-1, length)
    yield from zip(x.split(rows), y.split(rows), strict=True)
    if full < len(ids) - 1:
        yield ids[None, full:-1], ids[None, full + 1 :]


def share(curve: Curve, peer: Curve) -> str:
    """Seconds to the peer's last loss, at the first scoring that is as good, and their share of the peer's."""
    _, spent, loss = peer[-1]
    at = next((seconds for _, seconds, value in curve if value <= loss), None)
    return "not reached" if at is None else f"{at:.0f} s, {at / spent:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="tiny Shakespeare's input.txt")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, to see that the script works")
    parser.add_argument("--curve", type=Path, default=None, help="an SVG of both curves to write")
    args = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    whole = args.text.read_text(encoding="utf-8")
    cut = int(0.9 * len(whole))
    table = Table(title=f"{machine()}: loss in nats a character")
    for column in ("", "seed", "parameters", "steps", "seconds", "validation loss", "to nanoGPT's"):
        table.add_column(column, justify="right")
    curves: list[tuple[str, Curve]] = []
    for seed in range(args.seeds):
        found = {}
        for name, side in (("ours", ours), ("nanoGPT's recipe", nano_gpt)):
            pl.seed_everything(seed, verbose=False)
            found[name] = side((whole[:cut], whole[cut:]), args.steps)
        for name, (curve, size) in found.items():
            step, seconds, value = curve[-1]
            reached = share(curve, found["nanoGPT's recipe"][0])
            table.add_row(name, str(seed), f"{size:,}", f"{step:,}", f"{seconds:.0f}", f"{value:.3f}", reached)
            curves.append((f"{name}, seed {seed}", curve))
    Console(width=120).print(table)
    if args.curve:
        named = {name: [(seconds, loss) for _, seconds, loss in curve] for name, curve in curves}
        draw(named, args.curve, "seconds of processor time", "validation loss, nats a character")
