"""A folder of units that was killed in the middle, or that two processes want for different things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssl_suite.core.errors import UserError
from ssl_suite.core.files import Lock, write_text
from ssl_suite.data.speech import prepare
from ssl_suite.data.speech.prepare import CARD, CENTRES, PARTS, Recipe, assigned, learned_centres
from ssl_suite.data.speech.units import UnitFile


def test_centres_without_a_card_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what they are nobody knows: the process was killed before it wrote that down."""
    nothing: Any = None
    save_file({"centres": torch.zeros(5, 3)}, str(tmp_path / CENTRES))
    frames = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    monkeypatch.setattr(prepare, "sampled", lambda *_: frames)
    made = learned_centres(Recipe("x", units=2), nothing, nothing, tmp_path)
    assert made.shape == (2, 3)
    monkeypatch.setattr(prepare, "sampled", lambda *_: pytest.fail("k-means was run again"))
    (tmp_path / CARD).touch()
    assert torch.equal(learned_centres(Recipe("x", units=2), nothing, nothing, tmp_path), made)


def test_parts_that_a_killed_process_left_behind_are_removed(tmp_path: Path) -> None:
    nothing: Any = None
    UnitFile(torch.zeros(3, dtype=torch.int16), torch.tensor([0, 3]), torch.tensor([7])).save(
        tmp_path / "a.safetensors"
    )
    (tmp_path / PARTS / "a").mkdir(parents=True)
    assert len(assigned(nothing, nothing, "a", tmp_path).units) == 3
    assert not (tmp_path / PARTS).exists()


def test_a_folder_that_fills_with_other_units_meanwhile_is_refused(
    speech_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Lock):
        def __enter__(self) -> Late:
            write_text(tmp_path / CARD, '{"made_of": {"units": 7}}')
            return super().__enter__()

    monkeypatch.setattr(prepare, "Lock", Late)
    with pytest.raises(UserError, match=r"holds units of another .*another units"):
        prepare.prepare_units(Recipe(speech_folder, units=5), tmp_path)
