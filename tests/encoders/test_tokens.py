"""An encoder in two halves: what is kept, dropped or replaced between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import image_batch, speech_batch, text_batch, tiny_speech_encoder

from ssl_suite.core.outputs import outputs_of
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.encoders.simple import Fbank, Mfcc, RawPixels
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.encoders.text import TextEncoder

TEXT, SPEECH, IMAGE = (
    (lambda: text_batch([9, 5])),
    (lambda: speech_batch([4000, 2500])),
    (lambda: image_batch(2, 32, 0)),
)
ENCODERS: dict[str, Any] = {
    "text": (lambda: TextEncoder(261, 32, 2, 2, max_length=20), TEXT),
    "rotary": (lambda: TextEncoder(261, 32, 2, 2, positions="rotary", segments=2), TEXT),
    "causal": (lambda: TextEncoder(261, 32, 2, 2, causal=True, positions="rotary"), TEXT),
    "albert": (lambda: TextEncoder(261, 32, 2, 2, shared=True, embedding_dim=8, norm="post"), TEXT),
    "t5": (lambda: EncoderDecoder(261, 32, 2, heads=2), TEXT),
    "bart": (lambda: EncoderDecoder(261, 32, 2, heads=2, shape="bart"), TEXT),
    "lstm": (lambda: LSTMEncoder(261, 32), TEXT),
    "conv": (lambda: SpeechEncoder(mels=12, trunk="transformer", dim=32, layers=2, heads=2), SPEECH),
    "turning": (
        lambda: SpeechEncoder(mels=12, trunk="transformer", dim=32, layers=2, heads=2, positions="rotary"),
        SPEECH,
    ),
    "wave": (lambda: SpeechEncoder("waveform", channels=16, trunk="transformer", dim=32, layers=2, heads=2), SPEECH),
    "stacked": (lambda: tiny_speech_encoder(trunk="transformer", position_layers=3, position_kernel=5), SPEECH),
    "gated": (
        lambda: tiny_speech_encoder(
            frontend="waveform", trunk="transformer", conv_norm="group", norm="post", buckets=8, reach=9
        ),
        SPEECH,
    ),
    "gru": (lambda: SpeechEncoder(mels=12, dim=32, layers=1), SPEECH),
    "fbank": (lambda: Fbank(12, 2), SPEECH),
    "mfcc": (lambda: Mfcc(), SPEECH),
    "vit": (lambda: ImageEncoder("test_vit"), IMAGE),
    "resnet": (lambda: ImageEncoder("test_resnet"), IMAGE),
    "pixels": (lambda: RawPixels(8), IMAGE),
}


def both(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    make, batch = ENCODERS[name]
    return make().eval(), batch()


@pytest.mark.parametrize("name", ENCODERS)
def test_forward_is_contextualise_of_embed(name: str) -> None:
    encoder, batch = both(name)
    tokens = encoder.embed(batch)
    assert tokens.mask.shape == tokens.values.shape[:2]
    whole, halves = encoder(batch), encoder.contextualise(tokens)
    assert torch.equal(whole.states[-1], halves.states[-1])
    assert torch.equal(whole.pooled, halves.pooled)
    nothing = torch.zeros_like(tokens.mask)
    again = encoder.contextualise(tokens.replace(nothing, torch.zeros(tokens.values.shape[2])))
    torch.testing.assert_close(again.states[-1], whole.states[-1])


@pytest.mark.parametrize(
    "name", ["text", "rotary", "causal", "albert", "t5", "bart", "conv", "turning", "wave", "stacked", "gated", "vit"]
)
def test_all_places_kept_are_the_whole(name: str) -> None:
    encoder, batch = both(name)
    tokens = encoder.embed(batch)
    b, t = tokens.mask.shape
    kept = tokens.keep(torch.arange(t).expand(2 * b, t))
    assert kept.values.shape == (2 * b, t, tokens.values.shape[2])
    whole, part = encoder.contextualise(tokens), encoder.contextualise(kept)
    for a, b_ in zip(whole.states, part.states, strict=True):
        torch.testing.assert_close(a.repeat_interleave(2, 0)[kept.mask], b_[kept.mask], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["text", "rotary", "causal", "albert"])
def test_a_subset_sees_itself_alone_and_stands_where_it_stood(name: str) -> None:
    """As the whole does whose attention is cut to the subset."""
    encoder, batch = both(name)
    tokens = encoder.embed(batch)
    places = torch.tensor([[0, 2, 5, 7], [1, 2, 4, 8]])  # the last of the second row is padding
    seen = torch.zeros_like(tokens.mask).scatter(1, places, True) & tokens.mask
    cut = encoder.trunk(tokens.values, seen)[-1].gather(1, places[..., None].expand(-1, -1, encoder.dim))
    kept = tokens.keep(places)
    assert kept.mask.tolist() == [[True] * 4, [True] * 3 + [False]]
    torch.testing.assert_close(encoder.contextualise(kept).states[-1][kept.mask], cut[kept.mask], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["text", "albert", "conv", "gated", "vit"])
def test_what_blocks_add_last_is_reachable(name: str) -> None:
    encoder, batch = both(name)
    with outputs_of(encoder.feed_forwards()) as added:
        encoded = encoder(batch)
    assert len(added) == encoder.num_states - 1
    if name == "vit":  # the stream is the sum of what blocks add
        block = encoder.net.blocks[-1]
        x = torch.cat([encoder.embed(batch).prefix, encoder.embed(batch).values], 1)
        for other in encoder.net.blocks[:-1]:
            x = other(x)
        x = x + block.attn(block.norm1(x)) + added[-1]
        torch.testing.assert_close(encoder.net.norm(x)[:, 1:], encoded.states[-1])
    with outputs_of(encoder.feed_forwards()) as added:
        pass
    encoder(batch)
    assert added == []


def test_what_replaces_a_patch_stands_where_the_patch_stood() -> None:
    """As in BEiT and DINOv2: the mask token takes the patch's place before positions are added."""
    encoder, batch = both("vit")
    tokens, by = encoder.embed(batch), torch.randn(encoder.dim)
    where = torch.rand(tokens.mask.shape, generator=torch.manual_seed(0)) < 0.5
    net = encoder.net
    patches = net.patch_embed((batch.images - encoder.mean) / encoder.std)
    masked = torch.where(where[..., None], by, patches.flatten(1, -2)).view(patches.shape)
    wanted = net._pos_embed(masked)[:, net.num_prefix_tokens :]
    torch.testing.assert_close(tokens.replace(where, by).values, wanted)
    kept = tokens.keep(torch.tensor([[1, 3]] * len(where)))
    torch.testing.assert_close(kept.replace(torch.ones_like(kept.mask), by).values, by + tokens.positions[:, [1, 3]])
