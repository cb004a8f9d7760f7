"""The recipes of speech upstreams parse, and their small ones stack on them, keep the objective, and build."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_type_hints

import pytest
from cli_recipes import printed

from ssl_suite.core.encoder import encoder_class
from ssl_suite.core.method import Method
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.best_rq import BestRQ
from ssl_suite.methods.speech.cpc import CPC
from ssl_suite.methods.speech.dinosr import DinoSR, SpidR
from ssl_suite.methods.speech.distil_hubert import DistilHuBERT
from ssl_suite.methods.speech.hubert import HuBERT
from ssl_suite.methods.speech.tera import TERA
from ssl_suite.methods.speech.vq_apc import VQAPC
from ssl_suite.methods.speech.wav2vec2 import Wav2Vec2
from ssl_suite.methods.speech.wavlm import WavLM

RECIPES: dict[str, tuple[type[Method], tuple[str, ...], str, set[str]]] = {
    "best_rq": (BestRQ, ("best_rq",), "best_rq_small", {"codes", "codebooks", "spans", "seen", "normalize"}),
    "tera": (TERA, ("tera",), "tera_small", set()),
    "mockingjay": (TERA, ("tera", "mockingjay"), "tera_small", set()),
    "vq_apc": (VQAPC, ("apc", "vq_apc"), "small", {"steps"}),
    "distil_hubert": (DistilHuBERT, ("distil_hubert",), "distil_hubert_small", {"teacher", "layers"}),
    "dinosr": (DinoSR, ("dinosr",), "dinosr_small", {"top", "codes", "momentum"}),
    "spidr": (SpidR, ("dinosr", "spidr"), "dinosr_small", {"top", "codes", "momentum"}),
    "hubert": (HuBERT, ("hubert",), "hubert_small", {"spans", "seen"}),
    "wavlm": (WavLM, ("wavlm",), "wavlm_small", {"spans", "seen"}),
    "wav2vec2": (Wav2Vec2, ("wav2vec2",), "wav2vec2_small", {"spans", "codebooks"}),
    "cpc": (CPC, ("cpc",), "cpc_small", set()),
}
"""Name → method, its recipes, the small one on top, and which options may be others at the small size."""
SIZES = {"encoder", "optim"}


def built(method: type[Method], options: dict[str, Any]) -> Method:
    """The method of a recipe, with its own classes in place of their options."""
    kinds = {
        n: k for c in reversed(method.__mro__) if "__init__" in vars(c) for n, k in get_type_hints(c.__init__).items()
    }
    given = {n: kinds[n](**v) if is_dataclass(kinds[n]) else v for n, v in options.items()}
    encoder = given.pop("encoder")
    return method(encoder_class(encoder["class_path"].rpartition(".")[2])(**encoder["init_args"]), **given)


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_recipe_changes_sizes_and_keeps_the_objective(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    method, published, on_top, sizes = RECIPES[name]
    full, small = (
        printed(capsys, *(f"speech/{part}.yaml" for part in parts))["model"]
        for parts in (published, (*published, on_top))
    )
    assert full["class_path"].endswith(f".{method.__name__}")
    full, small = full["init_args"], small["init_args"]
    assert {n for n in full if full[n] != small[n]} <= SIZES | sizes
    if "teacher" in small:
        small["teacher"] = SpeechEncoder(stack=2, trunk="transformer", dim=128, heads=2)
    assert built(method, small).encoder.num_parameters() < 2_000_000
