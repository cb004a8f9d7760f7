"""How a task sees an encoder."""

from __future__ import annotations

import pytest
import torch
from tiny import text_batch, tiny_text_encoder

from ssl_suite.core.encoder import Encoded, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.readout import Readout


@pytest.fixture
def encoder() -> object:
    return tiny_text_encoder().eval()


@pytest.fixture
def encoded(encoder: object) -> Encoded:
    return encoder(text_batch([6, 4]))  # type: ignore[operator]


def test_weighted_sum_starts_as_the_mean_of_all_states(encoder: object, encoded: Encoded) -> None:
    readout = Readout("weighted_sum", encoder, sequence=True)  # type: ignore[arg-type]
    features, mask = readout(readout.select(encoded))
    torch.testing.assert_close(features, torch.stack(encoded.states).mean(0))
    assert torch.equal(mask, encoded.mask)


def test_weighted_sum_of_means_is_the_mean_of_the_weighted_sum(encoder: object, encoded: Encoded) -> None:
    pooled, along = (Readout("weighted_sum", encoder, sequence=s) for s in (False, True))  # type: ignore[arg-type]
    weights = torch.tensor([0.3, -1.0, 2.0])
    pooled.weights.data, along.weights.data = weights, weights  # type: ignore[union-attr]
    features, mask = pooled(pooled.select(encoded))
    sequence, _ = along(along.select(encoded))
    torch.testing.assert_close(features[:, 0], masked_mean(sequence, encoded.mask))
    assert mask.shape == (2, 1)
    assert mask.all()


def test_each_readout_takes_what_its_name_says(encoder: object, encoded: Encoded) -> None:
    def read(name: str) -> torch.Tensor:
        readout = Readout(name, encoder, sequence=False)  # type: ignore[arg-type]
        assert [n for n, _ in readout.named_parameters()] == (["weights"] if name == "weighted_sum" else [])
        return readout(readout.select(encoded))[0][:, 0]

    torch.testing.assert_close(read("last"), encoded.pooled)
    torch.testing.assert_close(read("cls"), encoded.states[-1][:, 0])
    torch.testing.assert_close(read("mean"), masked_mean(encoded.states[-1], encoded.mask))
    torch.testing.assert_close(read("layer:0"), masked_mean(encoded.states[0], encoded.mask))
    torch.testing.assert_close(read("layer:1"), masked_mean(encoded.states[1], encoded.mask))
    along = Readout("layer:1", encoder, sequence=True)  # type: ignore[arg-type]
    assert torch.equal(along(along.select(encoded))[0], encoded.states[1])


@pytest.mark.parametrize(
    ("name", "sequence", "match"),
    [
        ("weighted-sum", False, "No readout 'weighted-sum'. Did you mean weighted_sum?"),
        ("layer:3", False, "layers 0 to 2"),
        ("layer:-1", False, "layers 0 to 2"),
        ("layer:", False, "layers 0 to 2"),
        ("cls", True, "no time axis"),
        ("mean", True, "no time axis"),
    ],
)
def test_wrong_names_are_refused_with_a_hint(encoder: object, name: str, sequence: bool, match: str) -> None:
    with pytest.raises(UserError, match=match.replace("?", r"\?")):
        Readout(name, encoder, sequence)  # type: ignore[arg-type]
