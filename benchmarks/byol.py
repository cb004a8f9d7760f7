"""Accuracy of BYOL beside lightly's: the same backbone, first weights, views, steps and optimizer, the same probe."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from rich.console import Console
from rich.table import Table
from side_by_side import machine, quiet
from torch import Tensor, nn

from ssl_suite.bench.benchmark import command
from ssl_suite.cli.fit import run
from ssl_suite.cli.suite import SuiteCLI
from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim, parameter_groups

CONFIGS = Path(__file__).parents[1] / "configs/image"
RECIPES = ["byol", "byol_short"]
PICTURES = {"samples:digits": ([*RECIPES, "byol_digits"], 28), "samples:emoji": (RECIPES, 32)}
"""Recipes and side; of other pictures those of the emoji."""


class LightlyBYOL(Method):
    """https://docs.lightly.ai/self-supervised-learning/examples/byol.html, its momentum by the step, as in the paper.

    Takes the arguments of the suite's BYOL; data, views, optimizer and schedule are the suite's too.
    """

    views = "byol"

    def __init__(
        self,
        encoder: Encoder | str,
        hidden_dim: int,
        projection_dim: int,
        momentum: tuple[float, float],
        predictor_lr: float,
        optim: Optim,
    ) -> None:
        super().__init__(encoder, optim)
        self.projection_head = BYOLProjectionHead(self.encoder.dim, hidden_dim, projection_dim)
        self.prediction_head = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
        self.backbone_momentum = copy.deepcopy(self.encoder)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion, self.momentum, self.predictor_lr = NegativeCosineSimilarity(), momentum, predictor_lr

    def parameter_groups(self) -> list[dict[str, Any]]:
        decay, rate = self.optim.weight_decay, self.predictor_lr
        rest = parameter_groups(nn.ModuleList([self.encoder, self.projection_head]), decay)
        return rest + [{**g, "lr_factor": rate} for g in parameter_groups(self.prediction_head, decay)]

    def forward(self, x: ImageBatch) -> Tensor:
        return self.prediction_head(self.projection_head(self.encoder(x).pooled))

    def forward_momentum(self, x: ImageBatch) -> Tensor:
        return self.projection_head_momentum(self.backbone_momentum(x).pooled).detach()

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        momentum = cosine_schedule(self.global_step, int(self.trainer.estimated_stepping_batches), *self.momentum)
        update_momentum(self.encoder, self.backbone_momentum, m=momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=momentum)

    def step(self, batch: ImageBatch) -> StepOutput:
        x0, x1 = batch.view(0), batch.view(1)
        p0, z0 = self(x0), self.forward_momentum(x0)
        p1, z1 = self(x1), self.forward_momentum(x1)
        return StepOutput(0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0)))


def pretrain(method: str, source: str, seed: int, out: Path, args: argparse.Namespace) -> str:
    """Runs the recipe with one of the two methods and returns the encoder's folder."""
    recipes, size = PICTURES.get(source, (RECIPES, 32))
    settings = {"model": method, "data.source": source, "data.image_size": size, "seed_everything": seed, "out": out}
    if args.epochs:
        settings |= {"trainer.max_epochs": args.epochs}
    if args.tiny:
        settings |= {"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "data.batch_size": 4}
    fit(recipes, settings | {"trainer.limit_val_batches": 0})
    return str(out / "encoder")


def probe(encoder: str, source: str, seed: int, out: Path, args: argparse.Namespace) -> float:
    """Test accuracy of a linear probe of the frozen encoder, on labels drawn by the seed."""
    _, size = PICTURES.get(source, (RECIPES, 32))
    settings = {"model.encoder": encoder, "data.source": source, "data.image_size": size, "data.labels": args.labels}
    cli = fit(["probe"], settings | {"seed_everything": seed, "test_after": True, "out": out})
    return float(cli.trainer.callback_metrics["test/accuracy"])


def fit(recipes: list[str], settings: dict[str, Any]) -> SuiteCLI:
    """`ssl-suite fit`, without its progress."""
    silent = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}
    return run(command([str(CONFIGS / f"{recipe}.yaml") for recipe in recipes], settings, silent))


def compare(source: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Accuracies of the four encoders, one a seed of pretraining and of the probe."""
    accuracy: dict[str, list[float]] = {"raw pixels": [], "random weights": [], "ours": [], "lightly": []}
    for seed in range(args.seeds):
        ours = pretrain("BYOL", source, seed, folder / f"ours-{seed}", args)
        theirs = pretrain(f"{__name__}.LightlyBYOL", source, seed, folder / f"lightly-{seed}", args)
        encoders = {"raw pixels": "RawPixels", "random weights": f"random:{ours}", "ours": ours, "lightly": theirs}
        for side, encoder in encoders.items():
            for draw in range(args.probes):
                number = args.probes * seed + draw
                accuracy[side].append(probe(encoder, source, number, folder / f"{side}-probe-{number}", args))
    return {"pictures": source, "accuracy": accuracy}


def show(results: list[dict[str, Any]], args: argparse.Namespace) -> None:
    runs = f"{args.seeds} seeds × {args.probes} probes"
    caption = f"test accuracy, {args.labels} labels: mean (lowest to highest) of {runs}"
    table = Table(title=machine(), caption=caption)
    table.add_column("")
    for side in results[0]["accuracy"]:
        table.add_column(side, justify="right", no_wrap=True)
    for r in results:
        cells = (f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in r["accuracy"].values())
        table.add_row(r["pictures"], *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source", action="append", help="folder with a subfolder a class; default: the embedded digits and emoji"
    )
    parser.add_argument("--epochs", type=int, help="of pretraining; default: the recipe's")
    parser.add_argument("--seeds", type=int, default=2, help="of pretraining")
    parser.add_argument("--labels", type=int, default=500, help="of each probe")
    parser.add_argument("--probes", type=int, default=3, help="probes of each encoder")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the script works")
    args = parser.parse_args()
    quiet()
    results = []
    for source in args.source or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare(source, args, Path(folder)))
    if args.format == "json":
        print(json.dumps({"machine": machine(), "results": results}))
    else:
        show(results, args)
