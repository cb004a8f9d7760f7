"""How a task sees an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import image_batch, speech_batch, text_batch, tiny_text_encoder

from ssl_suite.core.encoder import Encoded, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.moments import Moments
from ssl_suite.core.readout import Readout
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.simple import Fbank


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


def normalised_frames(n: int = 40, dim: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames with mean 0 over time in every utterance and channel, as after CMVN, and their mask."""
    lengths = torch.randint(20, 90, (n,))
    mask = torch.arange(90)[None] < lengths[:, None]
    frames = torch.randn(n, 90, dim) - 8
    frames = (frames - masked_mean(frames, mask)[:, None]) * mask[..., None]
    return frames, mask


class Given(torch.nn.Module):
    """Stands for an encoder."""

    num_states, dim, widths, class_token = 2, 12, (12, 12), True


@pytest.mark.parametrize("projected", [False, True])
def test_the_mean_of_normalised_frames_is_not_blown_up(projected: bool) -> None:
    """A head would read rounding errors as features of deviation 1."""
    frames, mask = normalised_frames()
    if projected:
        frames = torch.nn.functional.linear(frames, torch.randn(12, 12) / 3, torch.rand(12) - 0.5)
    levels = torch.randn(40, 1, 12)
    readout = Readout("weighted_sum", Given(), sequence=False, standardize=True)  # type: ignore[arg-type]
    selected = readout.select(Encoded((frames.detach(), frames.detach() + levels), mask, frames[:, 0].detach()))
    values = torch.stack(selected.states, 2)[:, 0]
    assert values[:, 0].std(0).max() < 1e-5
    readout.fit(Moments.of(values))
    assert (readout.scale[0] == 0).all()
    assert (readout.scale[1] > 0).all()
    features, _ = readout(selected)
    torch.testing.assert_close(features[:, 0] * 2, (levels[:, 0] - levels.mean(0)) / levels.std(0, correction=0))


def test_small_but_real_deviations_are_scaled_up() -> None:
    """Relative to its state's size a feature of 1 / 1000 is no rounding error, nor is a state of small numbers."""
    readout = Readout("last", Given(), sequence=False, standardize=True)  # type: ignore[arg-type]
    values = torch.randn(500, 1, 12)
    values[:, :, 0] = 3 + 1e-3 * values[:, :, 0]
    values[:, :, 1] = 7.0
    for size in (1.0, 1e-6, 1e6):
        readout.fit(Moments.of(values * size))
        assert (readout.scale[0, 1], (readout.scale > 0).sum()) == (0, 11)
        scaled = (values * size - readout.shift) * readout.scale
        deviations = scaled.std(0, correction=0)[0, [0, *range(2, 12)]]
        torch.testing.assert_close(deviations, torch.ones(11), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", ["last", "mean", "weighted_sum", "layer:0"])
def test_every_readout_of_log_mel_frames_reads_their_level(name: str) -> None:
    """Their positions are normalised: averaged, only the frames before that say something."""
    batch, encoder = speech_batch([4000, 2500, 1600]), Fbank(12)
    readout = Readout(name, encoder, sequence=False)
    features, _ = readout(readout.select(encoder(batch)))
    torch.testing.assert_close(features[:, 0], encoder(batch).pooled)
    assert features[:, 0].std(0).min() > 1e-3


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


def test_a_class_token_is_read_where_there_is_one_and_stages_by_their_own_width() -> None:
    vit = ImageEncoder("test_vit", image_size=64).eval()
    batch = image_batch(2, 64, 0)
    encoded, whole = vit(batch), vit.net.forward_features((batch.images - vit.mean) / vit.std)
    torch.testing.assert_close(Readout("cls", vit, False).select(encoded).states[0][:, 0], whole[:, 0])
    torch.testing.assert_close(Readout("mean", vit, False).select(encoded).states[0][:, 0], whole[:, 1:].mean(1))
    resnet = ImageEncoder("resnet18", width=8, small_images=True).eval()
    with pytest.raises(UserError, match="no class token"):
        Readout("cls", resnet, False)
    with pytest.raises(UserError, match="states of one width"):
        Readout("weighted_sum", resnet, False)
    third = Readout("layer:2", resnet, False)
    features = third.select(resnet(image_batch(2, 32, 0))).states[0]
    assert features.shape == (2, 1, third.dim) == (2, 1, 16)


@pytest.mark.parametrize(
    ("options", "stride"),
    [({"name": "vit_tiny_patch16_224"}, 16), ({"name": "resnet18"}, 32), ({"name": "convnext_atto"}, 32),
     ({"name": "resnet18", "small_images": True}, 8)],
)  # fmt: skip
def test_strides(options: dict[str, Any], stride: int) -> None:
    with torch.device("meta"):
        encoder = ImageEncoder(**options)
        assert encoder.stride == stride
        assert encoder(image_batch(1, 224, 0)).mask.shape == (1, (224 // stride) ** 2)
