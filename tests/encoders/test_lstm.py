"""ELMo's encoder: directions apart, padding unseen, characters spelled once, states as the readout wants them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import text_batch
from torch import nn

from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.core.readout import Readout
from ssl_suite.encoders.lstm import FILTERS, LSTMEncoder, lstm, reversal, spell
from ssl_suite.encoders.tokenizer import train_tokenizer

OPTIONS = [{}, {"expansion": 3}, {"characters": True}, {"layers": 1}]


def encoder_of(**options: Any) -> LSTMEncoder:
    torch.manual_seed(0)
    encoder = LSTMEncoder(**{"vocab_size": 270, "dim": 12, **options}).eval()
    if encoder.characters is not None:
        encoder.tokenizer = train_tokenizer(["any text"], "byte")
    for p in encoder.parameters():
        nn.init.normal_(p, std=0.3)
    return encoder


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_batch_equals_its_rows_alone_whatever_stands_in_the_padding(options: dict[str, Any]) -> None:
    encoder, batch = encoder_of(**options), text_batch([17, 9, 1])
    together = encoder(replace(batch, ids=batch.ids.masked_fill(~batch.mask, 77)))
    assert len(together.states) == encoder.num_states
    for row, n in enumerate([17, 9, 1]):
        one = replace(batch, ids=batch.ids[row : row + 1, :n], mask=batch.mask[row : row + 1, :n])
        alone = encoder(one)
        for a, b in zip(alone.states, together.states, strict=True):
            assert a.shape == (1, n, encoder.dim)
            torch.testing.assert_close(b[row, :n], a[0])
        torch.testing.assert_close(together.pooled[row], alone.pooled[0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_half_sees_one_side_only(options: dict[str, Any]) -> None:
    encoder, batch = encoder_of(**options), text_batch([12, 9])
    changed = replace(batch, ids=batch.ids.clone())
    changed.ids[:, 5] = (batch.ids[:, 5] - 5 + 1) % 256 + 5
    for a, b in zip(encoder(batch).states, encoder(changed).states, strict=True):
        (ahead, back), (ahead2, back2) = a.chunk(2, -1), b.chunk(2, -1)
        torch.testing.assert_close(ahead[:, :5], ahead2[:, :5])
        torch.testing.assert_close(back[:, 6:9], back2[:, 6:9])
    assert not torch.allclose(ahead[:, 6:9], ahead2[:, 6:9])
    assert not torch.allclose(back[:, :5], back2[:, :5])


def test_states_equal_torchs_bidirectional_lstm() -> None:
    encoder, batch = encoder_of(layers=1), text_batch([11, 6])
    theirs = nn.LSTM(6, 6, batch_first=True, bidirectional=True)
    state = encoder.forwards[0].state_dict() | {f"{k}_reverse": v for k, v in encoder.backwards[0].state_dict().items()}
    theirs.load_state_dict(state)
    packed = nn.utils.rnn.pack_padded_sequence(encoder.look_up(batch.ids), batch.mask.sum(1), batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(encoder(batch).states[1].masked_fill(~batch.mask[..., None], 0), expected)


def test_a_residual_joins_the_two_layers() -> None:
    encoder, batch = encoder_of(), text_batch([7])
    one, two = (s.chunk(2, -1)[0] for s in encoder(batch).states[1:])
    torch.testing.assert_close(two, encoder.forwards[1](one)[0] + one)


def test_reversal_turns_each_row_within_its_length() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    assert reversal(mask).tolist() == [[3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 2, 3]]


def test_forget_gates_begin_open() -> None:
    module = lstm(4, 2)
    bias = module.bias_ih_l0 + module.bias_hh_l0
    assert bias[8:16].tolist() == [1.0] * 8
    assert module.weight_hr_l0.shape == (4, 8)


def test_tokens_are_spelled_in_bytes_between_marks() -> None:
    tokenizer = train_tokenizer(["ab é"], "char")
    table = spell(tokenizer, 20, 5)
    assert table[tokenizer.token_to_id("é")].tolist() == [257, 0xC3 + 1, 0xA9 + 1, 258, 0]
    assert table[4].tolist() == [257, *(b + 1 for b in b"[MA"), 258]
    assert not table[tokenizer.get_vocab_size() :].any()


def test_characters_survive_the_folder(tmp_path: Path) -> None:
    encoder, batch = encoder_of(characters=True), text_batch([8, 5])
    again = load_encoder(save_encoder(encoder, tmp_path / "e")).eval()
    assert again.character_ids.any()
    torch.testing.assert_close(again(batch).states[-1], encoder(batch).states[-1], atol=0, rtol=0)


def test_elmos_filters_number_2048() -> None:
    assert sum(round(1024 * share) for _, share in FILTERS) == 2048


def test_layers_hold_each_parameter_once_and_odd_widths_are_refused() -> None:
    for options in OPTIONS:
        encoder = encoder_of(**options)
        held = [id(p) for layer in encoder.layers() for p in layer]
        assert sorted(held) == sorted(map(id, encoder.parameters()))
        assert len(encoder.layers()) == encoder.num_states
    with pytest.raises(UserError, match="even"):
        LSTMEncoder(dim=7)


def test_weighted_sum_reads_all_states() -> None:
    encoder, batch = encoder_of(), text_batch([8, 5])
    readout = Readout("weighted_sum", encoder, sequence=True)
    features, mask = readout(readout.select(encoder(batch)))
    torch.testing.assert_close(features, sum(encoder(batch).states) / 3)
    assert torch.equal(mask, batch.mask)
