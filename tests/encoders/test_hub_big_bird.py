"""BigBird from the hub: transformers' states, by whichever blocks it draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_suite.core.batch import TextBatch, lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders import transformer
from ssl_suite.encoders.hub.export import export_encoder
from ssl_suite.encoders.sparse import BlockMask, big_bird

transformers = pytest.importorskip("transformers", reason="parity needs transformers (the extra `hub`)")

BLOCK, RANDOM, LAYERS = 4, 2, 3


def saved(folder: Path, **options: Any) -> Any:
    """A BigBird of random weights without dropout."""
    config = transformers.BigBirdConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, block_size=BLOCK,
        num_random_blocks=RANDOM, **options,
    )  # fmt: skip
    model = transformers.BigBirdModel(config)
    for name, p in model.named_parameters():
        nn.init.normal_(p, mean=1.0 if p.ndim == 1 and name.endswith("weight") else 0.0, std=0.4)
    model.save_pretrained(folder)
    return model


def batch(lengths: list[int]) -> TextBatch:
    mask = lengths_to_mask(torch.tensor(lengths), max(lengths))
    ids = torch.randint(5, 90, mask.shape).masked_fill(~mask, 0)
    index = torch.arange(len(lengths))
    return TextBatch(index, index, None, ids, mask, (torch.arange(max(lengths)) > 7).long().expand_as(ids))


def worst(folder: Path, model: Any, rows: TextBatch) -> float:
    """The greatest difference of any state."""
    encoder = load_encoder(f"hf:{folder}").eval()
    with torch.no_grad():
        theirs = model(rows.ids, rows.mask.long(), rows.segments, output_hidden_states=True).hidden_states
        ours = encoder(rows).states
    length = rows.ids.shape[1]
    assert len(ours) == len(theirs) == LAYERS + 1
    return max(float((a - b[:, :length])[rows.mask].abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["original_full", "block_sparse"])
def test_states_are_transformers_own_where_every_position_is_read(kind: str, tmp_path: Path) -> None:
    model = saved(tmp_path, attention_type=kind).eval()
    longest = 60 if kind == "original_full" else (5 + RANDOM) * BLOCK
    assert worst(tmp_path, model, batch([longest, longest - 7, 3])) < 1e-4


@pytest.mark.parametrize("training", [True, False], ids=["draws", "draws nothing"])
@pytest.mark.parametrize("length", [48, 46])
def test_long_rows_too_by_the_blocks_that_transformers_draws(
    training: bool, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path).train(training)
    drawn: list[Tensor] = []
    theirs = type(model.encoder.layer[0].attention.self)
    make_mask = theirs._create_rand_mask_from_inputs

    def watched(from_mask: Tensor, to_mask: Tensor, drawn_blocks: Tensor, *rest: Any) -> Tensor:
        drawn.append(drawn_blocks)  # (B, H, N − 2, r)
        return make_mask(from_mask, to_mask, drawn_blocks, *rest)

    def by_theirs(row: Any, length: int, heads: int, size: int, random: int, layer: int, device: Any) -> BlockMask:
        mask = big_bird(row, length, heads, size, random, layer, device)
        mask.keys[:, :, 1:-1, 5:] = drawn[layer][:1]
        return mask

    rows = batch([length, length])
    monkeypatch.setattr(theirs, "_create_rand_mask_from_inputs", staticmethod(watched))
    before = worst(tmp_path, model, rows)
    assert len(drawn) == LAYERS
    assert bool(drawn[0].any()) is training
    drawn.clear()
    monkeypatch.setattr(transformer, "big_bird", by_theirs)
    assert worst(tmp_path, model, rows) < 1e-4 < before


def test_full_attention_comes_back_and_another_kind_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "theirs", attention_type="original_full")
    export_encoder(load_encoder(f"hf:{tmp_path / 'theirs'}"), tmp_path / "back", "big_bird")
    back = transformers.AutoModel.from_pretrained(tmp_path / "back")
    assert back.config.attention_type == "original_full"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), back.parameters(), strict=True))
    config = json.loads((tmp_path / "theirs/config.json").read_text())
    (tmp_path / "theirs/config.json").write_text(json.dumps(config | {"attention_type": "sparse"}))
    with pytest.raises(UserError, match="attention_type is 'sparse'; only block_sparse, original_full can be read"):
        load_encoder(f"hf:{tmp_path / 'theirs'}")
