"""Each encoder's contract: shapes, padding, and its front end."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import image_batch, speech_batch, text_batch, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from ssl_suite.core.batch import ImageBatch, SpeechBatch, TextBatch
from ssl_suite.core.ema import teacher_of
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.frontend import LogMel, Waveform
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.simple import BagOfWords, Fbank, RawPixels

LENGTHS = [9000, 4321, 400]


def single(batch: SpeechBatch, row: int) -> SpeechBatch:
    n = batch.lengths[row : row + 1]
    return SpeechBatch(
        batch.index[row : row + 1], batch.seed[row : row + 1], None, batch.wave[row : row + 1, : int(n)], n
    )


def check_contract(encoder: Encoder, batch: TextBatch | ImageBatch | SpeechBatch) -> Encoded:
    encoded = encoder.eval()(batch)
    encoder.check()
    assert len(encoded.states) == encoder.num_states
    b, t = encoded.mask.shape
    assert [s.shape for s in encoded.states] == [(b, t, width) for width in encoder.widths]
    assert encoded.pooled.shape == (b, encoder.dim)
    assert encoded.mask.dtype == torch.bool
    layers = [p for layer in encoder.layers() for p in layer]
    assert sorted(map(id, layers)) == sorted(map(id, encoder.parameters()))
    assert all(encoder.layers()) or not layers
    return encoded


@pytest.mark.parametrize("frontend", [{"stack": 1}, {"stack": 3}, {"frontend": "waveform"}], ids=str)
@pytest.mark.parametrize(("trunk", "causal"), [("gru", False), ("transformer", False), ("transformer", True)])
def test_speech_batch_equals_single_utterances(frontend: dict[str, Any], trunk: str, causal: bool) -> None:
    encoder = tiny_speech_encoder(**frontend, trunk=trunk, causal=causal)
    for p in encoder.parameters():
        torch.nn.init.normal_(p, std=0.2)
    batch = speech_batch(LENGTHS)
    together = check_contract(encoder, batch)
    for row in range(len(LENGTHS)):
        alone = encoder(single(batch, row))
        n = int(alone.mask.sum())
        assert n == int(together.mask[row].sum()) == alone.mask.shape[1]
        for a, b in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(b[row, :n], a[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trunk", ["gru", "transformer"])
def test_causal_speech_states_do_not_see_what_follows(trunk: str) -> None:
    encoder = tiny_speech_encoder(trunk=trunk, causal=True).eval()
    frames, mask = torch.randn(1, 20, 12), torch.ones(1, 20, dtype=torch.bool)
    changed = frames.clone()
    changed[:, 11:] = torch.randn(1, 9, 12)
    before, after = (encoder.contextualise(encoder.enter(x, mask)).states for x in (frames, changed))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a[:, :11], b[:, :11])
        assert not torch.allclose(a[:, 11:], b[:, 11:])


@pytest.mark.parametrize("trunk", ["gru", "transformer"])
def test_every_parameter_of_a_speech_encoder_learns_from_its_output(trunk: str) -> None:
    """What gets no gradient stops data-parallel training."""
    encoder = tiny_speech_encoder(frontend="waveform", trunk=trunk)
    encoder(speech_batch(LENGTHS)).states[-1].square().mean().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("length", [1, 159, 160, 399, 400, 401, 16000, 16079])
def test_frames_count_what_the_front_ends_give(length: int) -> None:
    for frontend in (LogMel(12), LogMel(12, stack=4), Waveform(4)):
        _, mask = frontend(speech_batch([length]))
        assert mask.shape[1] == int(frontend.frames(torch.tensor(length)))
        assert mask.all()
    assert int(LogMel(12).frames(torch.tensor(length))) == length // 160 + 1
    if length >= 400:
        assert int(Waveform(4).frames(torch.tensor(length))) == (length - 400) // 320 + 1


def test_logmel_is_torchaudios_normalised_over_real_frames() -> None:
    batch = speech_batch([4800, 1600])
    frames, mask = LogMel(40)(batch)
    reference = MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=40, center=True, pad_mode="constant")
    for row in range(2):
        logmel = (reference(batch.wave[row, : int(batch.lengths[row])]) + 1e-6).log().T
        expected = (logmel - logmel.mean(0)) / (logmel.var(0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(frames[row][mask[row]], expected, atol=1e-4, rtol=1e-3)
    assert frames[~mask].abs().max() == 0
    assert not LogMel(40).state_dict()


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
@pytest.mark.parametrize("causal", [False, True])
def test_text_batch_equals_single_rows(pool: str, causal: bool) -> None:
    encoder = tiny_text_encoder(pool=pool, causal=causal)
    batch = text_batch([9, 5, 1])
    together = check_contract(encoder, batch)
    for row, n in enumerate([9, 5, 1]):
        ids = batch.ids[row : row + 1, :n]
        alone = encoder(
            TextBatch(batch.index[:1], batch.seed[:1], None, ids, torch.ones_like(ids, dtype=torch.bool), dense=True)
        )
        torch.testing.assert_close(together.states[-1][row, :n], alone.states[-1][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-4)


def test_text_longer_than_its_positions_is_refused() -> None:
    with pytest.raises(UserError, match=r"65 tokens.* 64"):
        tiny_text_encoder()(text_batch([65]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"small_images": False, "width": 8},
        {"name": "vit_tiny_patch16_224", "small_images": False, "width": 64, "image_size": 32},
    ],
)
def test_image_encoders_keep_the_contract(options: dict[str, object]) -> None:
    size = 16 if not options else 32
    encoder = tiny_image_encoder(**options)
    check_contract(encoder, image_batch(2, size))
    assert encoder.config["name"] in ("resnet18", "vit_tiny_patch16_224")


def test_image_encoder_normalises_its_input() -> None:
    encoder = tiny_image_encoder().eval()
    batch = image_batch(2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (batch.images - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(encoder(batch).pooled, encoder.net(x))


def test_wrong_image_options_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean resnet18"):
        ImageEncoder("resnet_18")
    with pytest.raises(UserError, match="width"):
        ImageEncoder("vit_tiny_patch16_224", width=8)
    with pytest.raises(UserError, match="stem"):
        ImageEncoder("vit_tiny_patch16_224", small_images=True)


def test_simple_baselines_keep_the_contract_and_have_names() -> None:
    check_contract(RawPixels(4), image_batch(2))
    check_contract(Fbank(12), speech_batch(LENGTHS))
    check_contract(BagOfWords(270, 8), text_batch([4, 2]))
    assert all(cls.baseline for cls in (RawPixels, Fbank, BagOfWords))


def test_fbank_pools_raw_energies_of_real_frames_only() -> None:
    batch = speech_batch(LENGTHS)
    encoder = Fbank(12)
    for row in range(len(LENGTHS)):
        torch.testing.assert_close(
            encoder(batch).pooled[row], encoder(single(batch, row)).pooled[0], atol=1e-4, rtol=1e-4
        )


class NeedsWidth(Encoder):
    """A plug-in's encoder, with an argument that has no default."""

    modality = "image"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim, self.num_states = width, 1
        self.net = torch.nn.Linear(3, width)

    def embed(self, batch: ImageBatch) -> Tokens:
        values = batch.images.mean((2, 3))[:, None]
        return Tokens(values, torch.ones(len(values), 1, dtype=torch.bool), dense=True)

    def contextualise(self, tokens: Tokens) -> Encoded:
        x = self.net(tokens.values)
        return Encoded((x,), tokens.mask, x[:, 0])


def test_an_encoder_with_required_arguments_can_be_copied_for_a_teacher() -> None:
    encoder = NeedsWidth(5)
    for twin in (copy.deepcopy(encoder), teacher_of(encoder)):
        assert twin.config == {"width": 5}
        assert torch.equal(twin.net.weight, encoder.net.weight)
    with pytest.raises(TypeError, match="width"):
        NeedsWidth()  # type: ignore[call-arg]


def test_incomplete_encoder_is_named() -> None:
    encoder = NeedsWidth(5)
    del encoder.dim
    with pytest.raises(UserError, match="NeedsWidth does not set dim"):
        encoder.check()


def test_masked_mean_counts_real_positions_and_survives_none() -> None:
    values = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    expected: Tensor = values[0, :2].mean(0)
    torch.testing.assert_close(masked_mean(values, mask), torch.stack([expected, torch.zeros(4)]))


@pytest.mark.parametrize(("width", "wanted"), [(4, torch.contiguous_format), (8, torch.channels_last)])
def test_narrow_resnets_keep_off_the_convolutions_that_corrupt_memory(width: int, wanted: torch.memory_format) -> None:
    assert tiny_image_encoder(width=width).memory_format == wanted
    assert ImageEncoder("resnet18").memory_format == torch.channels_last


def test_an_encoder_of_one_segment_does_not_tell_two_apart() -> None:
    """RoBERTa has one token type, and is given pairs like any other."""
    encoder = tiny_text_encoder(segments=1).eval()
    batch = text_batch([9, 7])
    batch.segments = (torch.arange(9) > 4).long().expand(2, -1)
    with torch.no_grad():
        both = encoder(batch).states[-1]
        batch.segments = None
        torch.testing.assert_close(encoder(batch).states[-1], both, rtol=0, atol=0)
