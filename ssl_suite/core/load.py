"""An encoder from what names it: a folder, a run, a checkpoint, or a URI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ssl_suite.core.checkpoint import encoder_of
from ssl_suite.core.encoder import Encoder, encoder_names, full_names
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.folder import CONFIG, ENCODER, build_encoder, encoder_folders, load_weights
from ssl_suite.core.random import drawn_from, run_seed
from ssl_suite.plugins import load_all

schemes: dict[str, Callable[[str], Encoder]] = {}
"""`SCHEME:NAME` → encoder, for weights that live elsewhere (`timm:resnet50`)."""


def add_scheme(name: str, load: Callable[[str], Encoder]) -> None:
    """Lets URIs begin with `name:`, whose rest `load` makes an encoder of.

    Raises:
        UserError: they are another's already.
    """
    if name == "random" or schemes.get(name, load) is not load:
        raise UserError(f"URIs that begin with {name}: are known already; give the scheme another name.")
    schemes[name] = load


def load_encoder(source: str | Path | Encoder) -> Encoder:
    """Gives an encoder: a folder of ours, `random:FOLDER-OR-URI` (the same, untrained) or a URI such as `hf:gpt2`.

    A run's folder stands for its encoder, a checkpoint for the encoder in it.
    Random weights are drawn from the run's seed, so that one seed gives one encoder.
    """
    if isinstance(source, Encoder):
        source.check()
        return source
    encoder = _load(located(str(source)))
    encoder.trained = not str(source).startswith("random:")
    return encoder


def _load(text: str) -> Encoder:
    scheme, colon, rest = text.partition(":")
    rest = located(rest)
    if colon and scheme == "random":
        with drawn_from(run_seed()):
            return untrained(rest)
    if colon and known_scheme(scheme):
        return schemes[scheme](rest)
    folder = Path(text)
    if folder.suffix == ".ckpt" and folder.exists():
        return encoder_of(folder)
    if not folder.is_dir():
        if len(classes := full_names(text)) > 1:
            raise UserError(f"{text} is the name of several classes; write one in full: {' or '.join(classes)}.")
        if classes:
            raise UserError(f"{text} is a class without weights; name the folder or URI of an encoder.")
        known = ["random", *schemes]
        hint = nearest(text, encoder_names()) if "/" not in text else ""
        uris = ", ".join(f"{k}:" for k in known)
        raise UserError(f"No encoder folder {text!r}, and it is no encoder class and no URI ({uris}).{hint}")
    if several := [f for f in encoder_folders(folder) if f != folder]:
        raise UserError(f"{folder} holds several encoders; name one: {', '.join(map(str, several))}.")
    encoder = build_encoder(folder)
    load_weights(encoder, folder)
    encoder.check()
    return encoder


def side_by_side(source: Mapping[str, Encoder | str] | str) -> Mapping[str, Encoder | str]:
    """Several encoders: as they are given, or those that a joint run wrote, untrained ones for `random:RUN`.

    Raises:
        UserError: there are none.
    """
    if not isinstance(source, str):
        return source
    random, place = ("random:", source.removeprefix("random:")) if source.startswith("random:") else ("", source)
    folders = encoder_folders(Path(located(place)))
    if not folders or folders == [Path(located(place))]:
        raise UserError(f"{place} holds no encoders side by side; name each: {{image: FOLDER, text: FOLDER}}.")
    return {folder.name: f"{random}{folder}" for folder in folders}


def untrained(source: str) -> Encoder:
    """The encoder of a folder or URI with new weights and its tokenizer."""
    scheme, colon, _ = source.partition(":")
    if not (colon and known_scheme(scheme)) and not source.endswith(".ckpt"):
        return build_encoder(Path(source))
    trained = load_encoder(source)
    encoder = type(trained)(**trained.config)
    encoder.tokenizer, encoder.preprocess = trained.tokenizer, trained.preprocess
    return encoder


def known_scheme(scheme: str) -> bool:
    """Whether a URI may begin so; the suite and its plug-ins are imported before the answer is no."""
    if scheme not in schemes and scheme.isidentifier():
        load_all()
    return scheme in schemes


def located(source: str) -> str:
    """Where the encoder of a run is, if `source` is the run's folder: written at its end, before in its checkpoint."""
    run = Path(source)
    kept = [p for p in (run / ENCODER, run / "checkpoints" / "last.ckpt") if p.exists()]
    return str(kept[0]) if kept and not (run / CONFIG).exists() else source
