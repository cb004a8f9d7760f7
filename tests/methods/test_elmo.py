"""ELMo: two language models that predict neither across documents nor from what they see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import text_batch, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.errors import UserError
from ssl_suite.core.method import mean_of
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.methods.text.elmo import ELMo


def elmo() -> ELMo:
    model = ELMo(LSTMEncoder(vocab_size=270, dim=12, dropout=0.0))
    model.start_id, model.end_id = 2, 3
    torch.nn.init.normal_(model.softmax.weight)
    return model


def test_loss_is_both_directions_within_documents() -> None:
    model, batch = elmo(), text_batch([12, 7])
    batch.ids[:, 0] = 2
    batch.ids[0, 5] = batch.ids[0, 11] = batch.ids[1, 6] = 3  # a document ends inside the first row
    logits = [model.softmax(h) for h in model.encoder(batch).states[-1].chunk(2, -1)]
    ahead, back = [], []
    for b, n in enumerate([12, 7]):
        for t in range(n - 1):
            left, right = batch.ids[b, t], batch.ids[b, t + 1]
            if left != 3:
                ahead.append(F.cross_entropy(logits[0][b, t], right))
            if left not in (2, 3):
                back.append(F.cross_entropy(logits[1][b, t + 1], left))
    out = model.step(batch)
    assert (len(ahead), len(back)) == (10 + 6, 9 + 5)
    torch.testing.assert_close(mean_of(out.logs["forward_loss"]), torch.stack(ahead).mean())
    torch.testing.assert_close(mean_of(out.logs["backward_loss"]), torch.stack(back).mean())
    torch.testing.assert_close(out.total(), torch.stack(ahead + back).mean())
    assert out.terms["loss"].count == 30


def test_loss_does_not_depend_on_padding() -> None:
    model, batch = elmo(), text_batch([20, 9])
    changed = replace(batch, ids=batch.ids.masked_fill(~batch.mask, 77))
    torch.testing.assert_close(model.step(batch).total(), model.step(changed).total())


def test_single_tokens_give_no_loss() -> None:
    out = elmo().step(text_batch([1, 1]))
    assert out.total() == 0


def test_encoders_that_see_both_sides_are_refused() -> None:
    with pytest.raises(UserError, match="LSTMEncoder"):
        ELMo(tiny_text_encoder())
