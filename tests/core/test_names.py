"""How a file names an encoder's class: the suite's have their short names to themselves."""

from __future__ import annotations

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


class TextEncoder(BagOfWords):
    """A user's own, of a name that the suite has."""


def test_a_class_of_a_user_takes_no_name_of_the_suite(tmp_path: Path) -> None:
    mine, ours = TextEncoder(270, 8), tiny_text_encoder()
    for encoder, folder, name in ((mine, "mine", "test_names.TextEncoder"), (ours, "ours", "TextEncoder")):
        save_encoder(encoder, tmp_path / folder)
        assert json.loads((tmp_path / folder / "config.json").read_text())["class"] == name
        assert type(load_encoder(tmp_path / folder)) is type(encoder)
    assert encoder_class("TextEncoder") is text.TextEncoder


def test_equal_weights_of_classes_that_share_a_name_are_told_apart() -> None:
    mine = TextEncoder(270, 8)
    twin = type("TextEncoder", (BagOfWords,), {"__module__": "other.place"})(270, 8)
    twin.load_state_dict(mine.state_dict())
    assert fingerprint(twin) != fingerprint(mine)
    Encoder.registry.pop("other.place.TextEncoder")


def test_two_classes_of_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("one", "other"):
        monkeypatch.setitem(Encoder.registry, f"{module}.Twin", type("Twin", (BagOfWords,), {"__module__": module}))
    with pytest.raises(UserError, match=r"'Twin' is the name of several encoder classes, one\.Twin and other\.Twin"):
        encoder_class("Twin")
    assert encoder_class("other.Twin").__module__ == "other"


@pytest.mark.parametrize("name", ["hf", "timm", "random"])
def test_uris_of_the_suite_stay_its_own(name: str) -> None:
    with pytest.raises(UserError, match=f"begin with {name}: are known already"):
        add_scheme(name, lambda source: TextEncoder(270, 8))


def test_a_class_is_no_trained_encoder() -> None:
    with pytest.raises(UserError, match="RawPixels is a class without weights; name the folder or URI of an encoder"):
        load_encoder("RawPixels")
