"""Every pretraining recipe of configs/text parses, alone and at the smoke size, and builds its method."""

from __future__ import annotations

import pytest
from cli_recipes import printed

from ssl_suite.encoders.text import TextEncoder

RECIPES = [
    "bert",
    "multilingual",
    "roberta",
    "spanbert",
    "ernie",
    "electra",
    "elmo",
    "gpt",
    "gpt3",
    "megatron",
    "turing_nlg",
    "albert",
    "modernbert",
    "bigbird",
    "t5",
    "bart",
    "mass",
    "switch",
    "mdlm",
    "multi_token",
    "gpt_bert",
]
SMALL = ["modernbert", "bigbird", "switch", "gpt_bert"]


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_parses_and_shrinks_to_the_smoke_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    full = printed(capsys, f"text/{name}.yaml")
    small = printed(capsys, f"text/{name}.yaml", "text/smoke.yaml")
    assert small["model"]["class_path"] == full["model"]["class_path"]
    before, after = (c["model"]["init_args"]["encoder"] for c in (full, small))
    assert after["class_path"] == before["class_path"]
    changed = {k for k in before["init_args"] if before["init_args"][k] != after["init_args"][k]}
    assert changed <= {"vocab_size", "dim", "layers"}
    assert after["init_args"]["dim"] == 192
    assert before["init_args"]["vocab_size"] >= full["data"]["init_args"].get("vocab_size", 0)
    assert small["trainer"]["max_steps"] == 60


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_keeps_the_objective_and_who_sees_whom(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    full = printed(capsys, f"text/{name}.yaml")["model"]
    small = printed(capsys, f"text/{name}.yaml", f"text/{name}_small.yaml")["model"]
    assert small["class_path"] == full["class_path"]
    sizes = {"encoder", "optim"}
    before, after = full["init_args"], small["init_args"]
    assert {k: v for k, v in before.items() if k not in sizes} == {k: v for k, v in after.items() if k not in sizes}
    assert before["optim"]["schedule"] == after["optim"]["schedule"]
    encoder = TextEncoder(**after["encoder"]["init_args"])
    assert encoder.num_parameters() < 3_000_000
    kept = ("attention", "activation", "bias", "embedding_norm", "causal")
    assert [after["encoder"]["init_args"][k] for k in kept] == [before["encoder"]["init_args"][k] for k in kept]
