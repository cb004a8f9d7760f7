"""Every pretraining recipe of configs/text parses, alone and at the smoke size, and builds its method."""

from __future__ import annotations

import pytest
from cli_recipes import printed

RECIPES = [
    "bert",
    "roberta",
    "spanbert",
    "ernie",
    "electra",
    "elmo",
    "gpt",
    "albert",
]


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
