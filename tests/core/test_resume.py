"""A run that stops anywhere and goes on from its checkpoint ends bit for bit where it would have ended."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tiny import QUIET, differing, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from upstreams import UPSTREAMS

from ssl_suite.core.finetune import Finetune
from ssl_suite.core.log import CSVLog
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.image.mae import MAE
from ssl_suite.methods.image.simclr import SimCLR
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.electra import Electra
from ssl_suite.methods.text.elmo import ELMo
from ssl_suite.methods.text.gpt_bert import GPTBERT
from ssl_suite.methods.text.mask import Mask
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.methods.text.mdlm import MDLM
from ssl_suite.methods.text.multi_token import MultiTokenLM
from ssl_suite.methods.text.seq2seq import Seq2Seq
from ssl_suite.tasks.classify import Classify

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*The dirpath has changed"),
]
EPOCHS = 3
SMALL = Decoder(layers=1, width=16, kernel=3, groups=2, dropout=0.1)
Build = Callable[..., tuple[pl.LightningModule, pl.LightningDataModule]]


@pytest.fixture(scope="module")
def builders(
    image_folder: str, text_file: str, speech_folder: str, units_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Build]:
    """Name → model and data; dropout (or random views) and shuffling in each, 3 batches or more an epoch."""

    lines = Path(text_file).read_text().splitlines()
    documents = tmp_path_factory.mktemp("documents") / "a.txt"
    documents.write_text("\n\n".join("\n".join(lines[i : i + 5]) for i in range(0, 60, 5)))

    def images(**options: Any) -> Images:
        return Images(image_folder, **{"image_size": 16, "batch_size": 4, **options})

    def text(**options: Any) -> Text:
        return Text(text_file, tokenizer="byte", max_length=48, **{"batch_size": 10, **options})

    return {
        "SimCLR": lambda **o: (SimCLR(tiny_image_encoder(drop_path=0.2), projection_dim=8), images(**o)),
        "BYOL": lambda **o: (BYOL(tiny_image_encoder(drop_path=0.2), 16, 8, (0.5, 1.0)), images(**o)),
        "MaskedLM": lambda **o: (MaskedLM(tiny_text_encoder()), text(**o)),
        "MaskedLM with spans and pairs": lambda **o: (
            MaskedLM(tiny_text_encoder(segments=2), final_rate=0.4, mask=Mask("span"), pairs="sop"),
            Text(str(documents), tokenizer="byte", max_length=48, **{"batch_size": 6, **o}),
        ),
        "Electra": lambda **o: (Electra(tiny_text_encoder()), text(**o)),
        "ELMo": lambda **o: (ELMo(LSTMEncoder(vocab_size=270, dim=12)), text(**o)),
        "Seq2Seq": lambda **o: (Seq2Seq(EncoderDecoder(370, 16, 2, heads=2)), text(**o)),
        "CausalLM": lambda **o: (CausalLM(tiny_text_encoder(causal=True)), text(**o)),
        "MDLM": lambda **o: (MDLM(tiny_text_encoder(), optim=Optim(lr=1e-3)), text(**o)),
        "MultiTokenLM": lambda **o: (MultiTokenLM(tiny_text_encoder(causal=True), 3), text(**o)),
        "GPTBERT": lambda **o: (GPTBERT(tiny_text_encoder()), text(**o)),
        "Experts": lambda **o: (MaskedLM(tiny_text_encoder(experts=3, router_z=1e-3)), text(**o)),
        "Adafactor": lambda **o: (
            Seq2Seq(EncoderDecoder(370, 16, 2, heads=2), optim=Optim("adafactor", 0.1, schedule="inverse_sqrt")),
            text(**o),
        ),
        "Muon": lambda **o: (CausalLM(tiny_text_encoder(causal=True), Optim("muon", 3e-3, warmup_steps=2)), text(**o)),
        "Data2Vec on images": lambda **o: (
            Data2Vec(ImageEncoder("test_vit", patch_size=4, image_size=16, drop_path=0.2), 2, 2, Holes(), SMALL),
            images(**o),
        ),
        "Data2Vec on text": lambda **o: (
            Data2Vec(tiny_text_encoder(), 1, 2, Holes(0.5, 1, 0.0, False), SMALL),
            text(**o),
        ),
        "Data2Vec on speech": lambda **o: (
            Data2Vec(tiny_speech_encoder(trunk="transformer"), 1, 2, Holes(0.5, 5, 0.05, False), SMALL),
            Speech(speech_folder, max_seconds=0.3, **{"batch_size": 4, **o}),
        ),
        "MAE": lambda **o: (
            MAE(ImageEncoder("test_vit", patch_size=4, image_size=16, drop_path=0.2), dim=16, layers=1, heads=2),
            images(**o),
        ),
        "APC": lambda **o: (
            APC(tiny_speech_encoder()),
            Speech(speech_folder, max_seconds=0.3, **{"batch_size": 4, **o}),
        ),
        **{
            name: lambda make=make, **o: (
                make(dropout=0.1),
                Speech(speech_folder, units=units_folder, max_seconds=0.3, **{"batch_size": 4, **o}),
            )
            for name, make in UPSTREAMS.items()
        },
        "Finetune": lambda **o: (
            Finetune(
                tiny_image_encoder(drop_path=0.2),
                Classify(8, dropout=0.3),
                mode="finetune",
                optim=Optim("sgd", 0.05, warmup_epochs=1, layer_decay=0.8),
            ),
            images(**o),
        ),
    }


class LossTrace(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


class Run:
    """A straight run that saves after every step, every epoch and every validation."""

    def __init__(self, build: Build, folder: Path, data: dict[str, Any], **trainer: Any) -> None:
        self.build, self.folder, self.data, self.options = build, folder, data, trainer
        self.final, self.losses = self.fit(1, None)
        self.steps = self.final["global_step"]

    def fit(self, seed: int, ckpt: Path | None) -> tuple[dict[str, Any], list[float]]:
        """Returns the whole state at the end; `seed` draws the first weights, which a checkpoint replaces."""
        pl.seed_everything(seed)
        model, data = self.build(**self.data)
        pl.seed_everything(7)
        places = {
            "step": {"every_n_train_steps": 1},
            "epoch": {"save_on_train_epoch_end": True},
            "val": {"mode": "max"},
        }
        saving = [
            ModelCheckpoint(self.folder / name, "{step}", save_top_k=-1, save_last=name == "step", **options)
            for name, options in places.items()
        ]
        trace = LossTrace()
        callbacks = [trace, *(saving if ckpt is None else [])]
        trainer = pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", callbacks=callbacks, default_root_dir=self.folder / "run",
            num_sanity_val_steps=0, **QUIET, **self.options,
        )  # fmt: skip
        trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
        weights = {**model.state_dict(), **dict(model.named_buffers())}
        state = {
            "model": {k: v.clone() for k, v in weights.items() if "memory_bank" not in k},  # lightly's, never filled
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": {
                k: v for k, v in trainer.lr_scheduler_configs[0].scheduler.state_dict().items() if k[0] != "_"
            },
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
        }
        return state, trace.losses

    def check(self, ckpt: Path) -> None:
        state, losses = self.fit(2, ckpt)
        assert losses == self.losses[len(self.losses) - len(losses) :]
        assert losses
        assert differing(state, self.final) == []


METHODS = [
    "SimCLR", "BYOL", "MaskedLM", "MaskedLM with spans and pairs", "Electra", "ELMo", "CausalLM", "MDLM",
    "MultiTokenLM", "GPTBERT", "Experts", "Muon", "Adafactor", "APC", "MAE",
    "Data2Vec on images", "Data2Vec on text", "Data2Vec on speech", "Finetune",
    *UPSTREAMS,
]  # fmt: skip


@pytest.fixture(scope="module", params=METHODS)
def straight(
    request: pytest.FixtureRequest, builders: dict[str, Build], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    return Run(builders[request.param], tmp_path_factory.mktemp(request.param), {})


@pytest.mark.parametrize("place", ["step/middle", "step/last_of_epoch", "step/first_of_epoch", "epoch/end", "val/end"])
def test_resumed_run_ends_bit_identical(straight: Run, place: str) -> None:
    kind, where = place.split("/")
    per_epoch = straight.steps // EPOCHS
    offset = {"middle": per_epoch + 2, "last_of_epoch": per_epoch, "first_of_epoch": per_epoch + 1, "end": per_epoch}
    straight.check(straight.folder / kind / f"step={offset[where]}.ckpt")


def test_training_changes_between_steps_and_epochs(straight: Run) -> None:
    assert len(set(straight.losses)) == len(straight.losses)
    assert straight.steps >= 2 * EPOCHS


def test_checkpoint_holds_tensors_only(straight: Run) -> None:
    checkpoint = torch.load(straight.folder / "step" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]


@pytest.mark.parametrize("name", ["BYOL", "MaskedLM", "Data2Vec on images"])
def test_resume_is_exact_with_accumulation(name: str, builders: dict[str, Build], tmp_path: Path) -> None:
    batch = {"BYOL": 2, "MaskedLM": 8, "Data2Vec on images": 2}[name]
    run = Run(builders[name], tmp_path, {"batch_size": batch}, accumulate_grad_batches=2)
    per_epoch = run.steps // EPOCHS
    assert len(run.losses) > run.steps
    for step in (per_epoch - 1, per_epoch, per_epoch + 1):
        run.check(tmp_path / "step" / f"step={step}.ckpt")


def test_resume_is_exact_with_workers_and_does_not_depend_on_their_number(
    builders: dict[str, Build], tmp_path: Path
) -> None:
    alone = Run(builders["SimCLR"], tmp_path / "a", {})
    run = Run(builders["SimCLR"], tmp_path / "b", {"num_workers": 2})
    assert differing(run.final, alone.final) == []
    run.check(tmp_path / "b" / "step" / f"step={run.steps // EPOCHS + 1}.ckpt")


def test_resume_is_exact_with_limited_batches(builders: dict[str, Build], tmp_path: Path) -> None:
    run = Run(builders["MaskedLM"], tmp_path, {"batch_size": 8}, limit_train_batches=2)
    assert run.steps == 2 * EPOCHS
    for step in (2, 3):
        run.check(tmp_path / "step" / f"step={step}.ckpt")


# Stopped again and again ----------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "steps": {"max_epochs": -1, "max_steps": 8},
    "often validated": {"val_check_interval": 2},
    "seldom validated": {"check_val_every_n_epoch": 2},
    "validated by steps": {"check_val_every_n_epoch": None, "val_check_interval": 4},
}
HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end", "on_train_epoch_end")


class Stopped(Exception):
    pass


class Life(pl.Callback):
    """Counts what a run does over all its processes, and ends one at the nth call of a hook, with a checkpoint."""

    def __init__(self, hook: str, path: Path, every: int) -> None:
        self.path, self.every, self.calls = path, every, 0
        self.losses: dict[int, float] = {}
        self.validated: list[int] = []
        setattr(self, hook, self._then_stop(getattr(self, hook)))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses[trainer.fit_loop.epoch_loop.batch_progress.total.processed] = float(outputs["loss"])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(trainer.global_step)

    def _then_stop(self, then: Callable[..., None]) -> Callable[..., None]:
        def hook(trainer: Any, *arguments: Any) -> None:
            then(trainer, *arguments)
            self.calls += 1
            if self.every and self.calls % self.every == 0:
                trainer.save_checkpoint(self.path)
                raise Stopped

        return hook


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_stopped_at_every_call_of_a_hook_takes_each_step_and_validation_once(
    variant: str, builders: dict[str, Build], tmp_path: Path
) -> None:
    def train(life: Life, ckpt: Path | None) -> tuple[dict[str, Any], list[dict[str, str]]]:
        pl.seed_everything(7)
        model, data = builders["MaskedLM"](batch_size=8)
        folder = life.path.parent
        trainer = pl.Trainer(
            **{"max_epochs": EPOCHS, **VARIANTS[variant]}, accelerator="cpu", callbacks=[life], num_sanity_val_steps=0,
            default_root_dir=folder, enable_checkpointing=False, log_every_n_steps=1,
            **{**QUIET, "logger": CSVLog(folder, until=steps_of(ckpt))},
        )  # fmt: skip
        trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
        with (folder / "metrics.csv").open() as file:
            table = list(csv.DictReader(file))
        rows = [{k: v for k, v in row.items() if "_per_s" not in k and "mfu" not in k} for row in table]
        return {"weights": model.state_dict(), "steps": trainer.global_step}, rows

    def steps_of(ckpt: Path | None) -> int:
        return torch.load(ckpt, weights_only=True)["global_step"] if ckpt else 0

    whole = Life("on_train_batch_end", tmp_path / "whole" / "a.ckpt", 0)
    wanted, rows = train(whole, None)
    assert len(whole.losses) >= wanted["steps"] >= 2 * EPOCHS
    for hook in HOOKS:
        again = hook.endswith("_start") or (hook == "on_train_batch_end" and variant == "accumulated")
        every = 3 if again else 1  # where a resumed run comes to the same call again
        life, ckpt = Life(hook, tmp_path / hook / "a.ckpt", every), None
        for _ in range(40):
            try:
                found, found_rows = train(life, ckpt)
                break
            except Stopped:
                ckpt = life.path
        assert ckpt is not None or len(whole.validated) < every
        assert differing(found, wanted) == [], hook
        assert life.losses == whole.losses, hook
        assert life.validated == whole.validated, hook
        if hook != "on_train_batch_end":  # whose step is logged after it
            assert found_rows == rows, hook
