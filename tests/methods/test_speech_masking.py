"""Masking while speech is fine-tuned: SpecAugment as its paper has it, states as transformers masks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from host_waits import HostWaits
from tiny import QUIET, speech_batch, tiny_image_encoder, tiny_speech_encoder
from torch import Tensor, nn

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import item_seed, uniform
from ssl_suite.data.speech.speech import Speech
from ssl_suite.methods.speech.masking import MaskedStates, SpecAugment
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.tasks.classify import Classify


def seeds(n: int, epoch: int = 0) -> Tensor:
    return torch.tensor([item_seed(0, epoch, i) for i in range(n)])


def by_the_paper(augment: SpecAugment, tau: int, size: int, mels: int, seed: Tensor) -> Tensor:
    """(size, mels) True where section 2 hides: f from [0, F] and f0 from what is left of v, t ≤ pτ likewise."""
    hidden = torch.zeros(size, mels, dtype=torch.bool)
    u = uniform(seed[None], 2 * augment.bands, 620)[0]
    for m in range(augment.bands):
        f = int(u[m] * (augment.widest + 1))
        f0 = int(u[augment.bands + m] * (mels - f + 1))
        hidden[:, f0 : f0 + f] = True
    u = uniform(seed[None], 2 * augment.stretches, 621)[0]
    for m in range(augment.stretches):
        t = int(u[m] * (min(augment.longest, int(augment.share * tau)) + 1))
        t0 = int(u[augment.stretches + m] * (tau - t + 1))
        hidden[t0 : t0 + t] = True
    return hidden


@pytest.mark.parametrize("stack", [1, 2])
def test_spec_augment_hides_what_the_paper_says_of_each_recording(stack: int) -> None:
    lengths, size, mels = torch.tensor([200, 120, 10, 2]), 200, 80
    augment = SpecAugment(longest=30)
    frames, mask = torch.rand(4, size // stack, mels * stack) + 1, lengths_to_mask(lengths // stack, size // stack)
    now = seeds(4)
    with HostWaits() as waited:
        found = augment.mask(frames, mask, now, stack)
    assert waited.found == []
    for row in range(4):
        wanted = by_the_paper(augment, int(lengths[row]), size, mels, seeds(4)[row])
        ours, before = (x[row].view(size, mels) for x in (found, frames))
        assert torch.equal(ours == 0, wanted)
        assert torch.equal(ours[~wanted], before[~wanted])
    assert not torch.equal(found, augment.mask(frames, mask, seeds(4, epoch=1), stack))


def test_spec_augment_hides_every_channel_and_frame_about_as_often() -> None:
    n, size, mels = 4000, 100, 80
    mask = torch.ones(n, size, dtype=torch.bool)
    channels = SpecAugment(stretches=0, bands=1).mask(torch.ones(n, size, mels), mask, seeds(n))[:, 0] == 0
    times = SpecAugment(bands=0, stretches=1).mask(torch.ones(n, size, mels), mask, seeds(n))[:, :, 0] == 0
    assert float(channels.sum(1).float().mean()) == pytest.approx(13.5, abs=0.5)  # uniform on 0 … 27
    assert float(times.sum(1).float().mean()) == pytest.approx(10, abs=0.5)  # at most 0.2 · 100
    assert float(channels.float().mean(0)[30:50].std()) < 0.02


def test_masked_states_are_transformers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", reason="parity needs transformers (the extra `hub`)")
    theirs = transformers.models.wav2vec2.modeling_wav2vec2
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "conv_dim": [8] * 7}
    shape |= {"intermediate_size": 24, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    dropouts = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    rates = {"mask_time_prob": 0.5, "mask_feature_prob": 0.5, "layerdrop": 0.0}
    model = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**shape, **dropouts, **rates))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.3)
    model.masked_spec_embed.data.zero_()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    encoder, batch = load_encoder(f"hf:{tmp_path}"), speech_batch([16000, 16000])
    masking = MaskedStates(Spans(0.5, 4), Spans(0.4, 3, 0))
    seen: dict[int, Tensor] = {}

    def ours(shape: tuple[int, int], *_: Any, **__: Any) -> Any:
        every = torch.ones(shape, dtype=torch.bool)
        along_time = shape[1] != 16
        spans = masking.time if along_time else masking.channels
        assert spans is not None
        seen[shape[1]] = spans.draw(every, batch.seed, 500 if along_time else 510)
        return seen[shape[1]].numpy()

    monkeypatch.setattr(theirs, "_compute_mask_indices", ours)
    model.train()
    encoder.eval()
    wanted = model(batch.wave).last_hidden_state
    found = encoder.contextualise(masking.embed(encoder, batch)).states[-1]
    assert all(0.1 < hidden.float().mean() < 0.7 for hidden in seen.values())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    mean, other = wanted.square().mean(), found.square().mean()
    mean.backward()
    other.backward()
    weight = encoder.get_parameter("trunk.blocks.0.feed_forward.up.weight").grad
    torch.testing.assert_close(
        weight, model.encoder.layers[0].feed_forward.intermediate_dense.weight.grad, rtol=1e-3, atol=1e-5
    )


@pytest.fixture
def voices(tmp_path: Path) -> Callable[[], Speech]:
    return lambda: Speech("samples:prompts", target="language", labels=24, batch_size=8)


def run(model: Finetune, data: Speech, folder: Path, epochs: int = 1) -> list[float]:
    losses: list[float] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    quiet = {"enable_checkpointing": False, "num_sanity_val_steps": 0, "accelerator": "cpu", **QUIET}
    trainer = pl.Trainer(max_epochs=epochs, default_root_dir=folder, limit_val_batches=1, callbacks=[Keep()], **quiet)
    trainer.fit(model, data)
    return losses


@pytest.mark.parametrize("kind", [SpecAugment, MaskedStates])
def test_it_is_for_training_alone_and_the_same_again(kind: Any, voices: Callable[[], Speech], tmp_path: Path) -> None:
    def model(masking: Any) -> Finetune:
        torch.manual_seed(0)
        encoder = tiny_speech_encoder(trunk="transformer", mels=40, dropout=0.0)
        return Finetune(encoder, Classify(), mode="finetune", masking=masking, optim=Optim(lr=3e-3))

    masking = kind(stretches=1) if kind is SpecAugment else kind()
    masked, again, plain = (run(model(m), voices(), tmp_path) for m in (masking, masking, None))
    assert masked == again
    assert masked[0] != plain[0]
    chosen, batch = model(masking), speech_batch([8000, 5000])
    for training in (True, False):
        chosen.train(training)
        a, b = (chosen._encoded(batch).states[-1], chosen.readout.select(chosen.encoder(batch)).states[-1])
        assert torch.equal(a, b) != training


def test_an_encoder_learns_under_it(voices: Callable[[], Speech], tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = tiny_speech_encoder(trunk="transformer", mels=40, dim=32)
    model = Finetune(encoder, Classify(), mode="finetune", masking=SpecAugment(), optim=Optim(lr=3e-3))
    losses = run(model, voices(), tmp_path, epochs=12)
    assert sum(losses[-3:]) / 3 < 0.8 * sum(losses[:3]) / 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Finetune(tiny_speech_encoder(), Classify(), masking=SpecAugment(widest=5)),
            "set model.mode to finetu",
        ),
        (
            lambda: finetuned(tiny_speech_encoder(frontend="waveform"), SpecAugment()),
            "does not read; take MaskedStates",
        ),
        (lambda: finetuned(tiny_speech_encoder(), SpecAugment(widest=13)), "masking.widest is 13, but must be a"),
        (lambda: finetuned(tiny_image_encoder(), MaskedStates()), "MaskedStates needs a speech encoder"),
        (lambda: SpecAugment(share=1.5), "masking.share is 1.5"),
    ],
)
def test_what_cannot_be_masked_is_one_sentence(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def finetuned(encoder: Any, masking: Any) -> Finetune:
    return Finetune(encoder, Classify(), mode="finetune", masking=masking)


def test_a_recording_is_masked_alike_whatever_it_is_with() -> None:
    encoder, batch = tiny_speech_encoder(trunk="transformer"), speech_batch([16000, 6000])
    alone = SpeechBatch(batch.index[1:], batch.seed[1:], None, batch.wave[1:, :6000], batch.lengths[1:])
    for masking in (SpecAugment(widest=6), MaskedStates(channels=Spans(0.5, 4, 0))):
        together = masking.embed(encoder, batch)
        apart = masking.embed(encoder, alone)
        real = apart.mask[0]
        a, b = together.values[1, : len(real)][real], apart.values[0][real]
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
