"""How a file names an encoder's class: the suite's have their short names to themselves."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from tiny import tiny_text_encoder

from ssl_suite.core.encoder import Encoder, encoder_class
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import fingerprint, save_encoder
from ssl_suite.core.load import add_scheme, load_encoder
from ssl_suite.encoders import text
from ssl_suite.encoders.simple import BagOfWords


@pytest.fixture
def mine() -> Encoder:
    """Of a user's own class, which has a name of the suite's."""

    class TextEncoder(BagOfWords):
        pass

    return TextEncoder(270, 8)


def test_a_class_of_a_user_takes_no_name_of_the_suite(mine: Encoder, tmp_path: Path) -> None:
    ours = tiny_text_encoder()
    for encoder, folder, name in ((mine, "mine", "test_names.TextEncoder"), (ours, "ours", "TextEncoder")):
        save_encoder(encoder, tmp_path / folder)
        assert json.loads((tmp_path / folder / "config.json").read_text())["class"] == name
        assert type(load_encoder(tmp_path / folder)) is type(encoder)
    assert encoder_class("TextEncoder") is text.TextEncoder


def test_equal_weights_of_classes_that_share_a_name_are_told_apart(mine: Encoder) -> None:
    twin = copy.deepcopy(mine)
    type(twin).__module__ = "other.place"
    there = fingerprint(twin)
    type(twin).__module__ = __name__
    assert there != fingerprint(mine)


def test_two_classes_of_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "registry", dict(Encoder.registry))
    for module in ("one", "other"):
        type("Twin", (BagOfWords,), {"__module__": module, "__qualname__": "<locals>.Twin"})
    with pytest.raises(
        UserError, match=r"'Twin' is the name of several encoder classes, one\.\S*Twin and other\.\S*Twin"
    ):
        encoder_class("Twin")
    assert encoder_class("other.Twin").__module__ == "other"


@pytest.mark.parametrize("name", ["hf", "timm", "random"])
def test_uris_of_the_suite_stay_its_own(name: str) -> None:
    with pytest.raises(UserError, match=f"begin with {name}: are known already"):
        add_scheme(name, lambda source: BagOfWords(270, 8))


def test_a_class_is_no_trained_encoder(mine: Encoder) -> None:
    with pytest.raises(UserError, match="TextEncoder is the name of several classes; write one in full: ssl_suite"):
        load_encoder("TextEncoder")
    with pytest.raises(UserError, match="RawPixels is a class without weights; name the folder or URI of an encoder"):
        load_encoder("RawPixels")
