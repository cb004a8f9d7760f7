"""The small recipes of Data2Vec stack on those of the authors, and build."""

from __future__ import annotations

import pytest
from cli_recipes import printed

from ssl_suite.core.ema import Ramp
from ssl_suite.core.encoder import encoder_class
from ssl_suite.core.optim import Optim
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes


@pytest.mark.parametrize(
    ("modality", "small", "shared"),
    [("image", "data2vec_digits", False), ("text", "data2vec_small", True), ("speech", "data2vec_small", True)],
)
def test_a_small_recipe_changes_sizes_and_keeps_the_objective(
    modality: str, small: str, shared: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    published = printed(capsys, f"{modality}/data2vec.yaml")["model"]["init_args"]
    options = printed(capsys, f"{modality}/data2vec.yaml", f"{modality}/{small}.yaml")["model"]["init_args"]
    for name in ("normalize", "class_loss", "noise", "shared"):
        assert options[name] == published[name]
    for name in ("block", "adjust", "inverse"):
        assert options["holes"][name] == published["holes"][name]
    encoder = options.pop("encoder")
    for name, kind in {"holes": Holes, "decoder": Decoder, "momentum": Ramp, "optim": Optim}.items():
        options[name] = kind(**options[name])
    model = Data2Vec(encoder_class(encoder["class_path"].rpartition(".")[2])(**encoder["init_args"]), **options)
    assert model.shared is shared
    assert model.encoder.modality == modality
    assert model.encoder.num_parameters() < 2_000_000


def test_the_small_recipe_for_speech_takes_nothing_of_the_trunk_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Recipes are merged deeply: post-norm, dropped blocks and stacked convolutions once reached it unseen."""
    options = printed(capsys, "speech/data2vec.yaml", "speech/data2vec_small.yaml")["model"]["init_args"]
    wanted = {"norm": "pre", "layer_drop": 0.0, "normalize": False, "position_layers": 1, "positions": "rotary"}
    assert {name: options["encoder"]["init_args"][name] for name in wanted} == wanted
