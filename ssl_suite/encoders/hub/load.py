"""A Hugging Face folder or hub name → an encoder of ours: text, text to text or speech, as its config.json says."""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.reading import read_json
from ssl_suite.encoders.hub.families import FAMILIES
from ssl_suite.encoders.hub.files import fetch, fetch_weights
from ssl_suite.encoders.hub.seq2seq import SEQ2SEQ_FAMILIES, load_seq2seq
from ssl_suite.encoders.hub.speech import PREPROCESSOR, SPEECH_FAMILIES, load_speech
from ssl_suite.encoders.hub.text import load_text
from ssl_suite.encoders.hub.tokenizer import TOKENIZER_FILES


def load_hub(name: str) -> Encoder:
    """Reads a model of one of the `FAMILIES`, `SEQ2SEQ_FAMILIES` or `SPEECH_FAMILIES`.

    Args:
        name: a folder with config.json and model.safetensors, or a name on the Hugging Face hub.

    Raises:
        UserError: it is not there, of no known family, or its files do not fit one another.
    """
    local = Path(name).is_dir()
    folder = Path(name) if local else fetch(name, "config.json", PREPROCESSOR, *TOKENIZER_FILES)
    config = read_json(folder / "config.json", "a Hugging Face folder")
    kind = str(config.get("model_type"))
    if kind not in (known := FAMILIES | SEQ2SEQ_FAMILIES | SPEECH_FAMILIES):
        hint = nearest(kind, known)
        raise UserError(f"{folder / 'config.json'}: model_type {config.get('model_type')!r} is not supported.{hint}")
    if not local:
        fetch_weights(name, folder)
    encoder: Encoder
    if kind in SEQ2SEQ_FAMILIES:
        encoder = load_seq2seq(folder, SEQ2SEQ_FAMILIES[kind], config)
    elif kind in FAMILIES:
        encoder = load_text(folder, FAMILIES[kind], config)
    else:
        encoder = load_speech(folder, SPEECH_FAMILIES[kind], config)
    encoder.check()
    return encoder
