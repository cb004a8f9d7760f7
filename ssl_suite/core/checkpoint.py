"""Checkpoint files: written whole or not at all, checked when read, and with all that makes the encoder again."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn
from torch.distributed.tensor import DTensor

from ssl_suite.core.encoder import Encoder, class_name, encoder_class
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import replacing
from ssl_suite.core.folder import CONFIG, ENCODER
from ssl_suite.core.reading import a_file
from ssl_suite.core.weights import load_strictly, untied

LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicIO(TorchCheckpointIO):
    """Writes beside the target, waits for the disk, then renames: a killed write costs nothing on any file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's own, about the error of the file underneath
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None


class Best(ModelCheckpoint):
    """Keeps `best.ckpt`, the state that is best on the validation split; a run that moved knows it by its name."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, Path(BEST).stem, monitor, mode=mode, auto_insert_metric_name=False, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        kept = Path(state_dict["best_model_path"])
        here = Path(str(self.dirpath)) / kept.name
        path = next((str(p) for p in (here, kept) if kept.name and p.exists()), None)
        if path is None:
            return
        self.best_model_path = self.kth_best_model_path = path
        self.best_model_score = self.current_score = self.kth_value = state_dict["best_model_score"]
        self.best_k_models = {path: state_dict["best_model_score"]}


def read_checkpoint(path: Path, weights: bool = True) -> dict[str, Any]:
    """Reads a checkpoint of a run; executes nothing from it.

    Args:
        path: of the file.
        weights: with tensors; else their shapes only.

    Raises:
        UserError: it is not there, damaged, or no checkpoint of a run.
    """
    if not path.exists():
        others = ", ".join(sorted(p.name for p in path.parent.glob("*.ckpt")))
        raise UserError(f"There is no checkpoint {path}" + (f"; its folder has {others}." if others else "."))
    if path.is_dir() and (path / CONFIG).exists():
        raise UserError(f"{path} is an encoder folder: start from it with --model.encoder; --ckpt_path resumes a run.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a checkpoint in it.")
    a_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        checkpoint = torch.load(path, weights_only=True, map_location="cpu" if weights else "meta", mmap=True)
    except Exception as error:  # a zip, pickle or I/O error, whatever the damage is
        raise UserError(
            f"{path} is not a readable checkpoint ({' '.join(str(error).split())[:120]}); take another."
        ) from None
    if damaged is not None:
        raise UserError(f"{path} is damaged (the checksum of {damaged} does not fit); take another.")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a run.")
    if "encoder" in checkpoint:
        raise UserError(f"{path} was written by an earlier version of the suite, which this one cannot read; run anew.")
    return checkpoint


def describe(model: nn.Module, module: str, heads: dict[str, str], provenance: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the encoder in `module` beside its weights, so that `encoder_of` can make it again."""
    encoder = cast(Encoder, model.get_submodule(module))
    return {
        "module": module,
        "class": class_name(type(encoder)),
        "arguments": encoder.config,
        "preprocess": encoder.preprocess,
        "tokenizer": None if encoder.tokenizer is None else encoder.tokenizer.to_str(),
        "heads": heads,
        "provenance": provenance,
    }


def encoder_of(path: Path) -> Encoder:
    """Makes the encoder of a run from its checkpoint, with its tokenizer and the heads that belong to it.

    Raises:
        UserError: the file is damaged, or holds no encoder of ours.
    """
    checkpoint = read_checkpoint(path)
    encoders = checkpoint.get("encoders", {})
    if len(encoders) != 1:
        has = f"holds several encoders ({', '.join(encoders)})" if encoders else "does not say what its encoder is"
        raise UserError(f"{path} {has}; take an encoder folder.")
    (made_by,), state = encoders.values(), checkpoint["state_dict"]
    encoder = encoder_class(made_by["class"])(**made_by["arguments"])
    stem = f"{made_by['module']}."
    own = {name.removeprefix(stem): tensor for name, tensor in state.items() if name.startswith(stem)}
    load_strictly(encoder, {name: tensor.clone() for name, tensor in own.items()}, str(path))
    encoder.tokenizer, encoder.preprocess = tokenizer_of(checkpoint), made_by["preprocess"]
    heads = {
        f"{head}.{name.removeprefix(f'{module}.')}": tensor
        for head, module in made_by["heads"].items()
        for name, tensor in state.items()
        if name.startswith(f"{module}.")
    }
    encoder.heads = {name: tensor.clone() for name, tensor in untied(heads, own.values()).items()}
    return encoder


def tokenizer_of(checkpoint: dict[str, Any], encoder: str = ENCODER) -> Any:
    """The tokenizer that an encoder of its run had; None for other modalities."""
    text = checkpoint.get("encoders", {}).get(encoder, {}).get("tokenizer")
    if text is None:
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def check_finite(trainer: pl.Trainer, module: nn.Module) -> None:
    """Raises UserError, on every rank, where a weight is NaN or infinite: such weights are never written."""
    local = ((n, p.to_local() if isinstance(p, DTensor) else p) for n, p in module.named_parameters())
    broken = [name for name, p in local if not bool(torch.isfinite(p).all())]
    if not trainer.strategy.reduce_boolean_decision(not broken, all=True):
        raise UserError(
            f"Weights are NaN or infinite after step {trainer.global_step} ({', '.join(broken[:3])}); they were not "
            "written. Lower the learning rate or clip gradients (--trainer.gradient_clip_val 1)."
        )
