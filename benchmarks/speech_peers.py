"""Steps of pretraining on speech as peers' own recipes take them: Hugging Face's wav2vec 2.0, torchaudio's HuBERT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from side_by_side import WARM_UP, Clock
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ssl_suite.core.optim import Optim
from ssl_suite.data.speech.reading import RATE
from ssl_suite.encoders.frontend import Waveform

STRIDE = Waveform.stride


def wav2vec2(waves: Sequence[Tensor], size: int, sizes: dict[str, int], optim: Optim, steps: int) -> float:
    """As `run_wav2vec2_pretraining_no_trainer.py` of transformers: random padded batches, masks and negatives by NumPy.

    Args:
        waves: (N,) each, in memory: the recipe maps them from a file.
        size: recordings a step.
        sizes: of the trunk.
        optim: of AdamW.
        steps: that are measured.

    Returns:
        real audio-seconds a second.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    config = Wav2Vec2Config(
        hidden_size=sizes["dim"], num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"],
        intermediate_size=4 * sizes["dim"], conv_dim=[sizes["channels"]] * 7, feat_extract_norm="layer",
        do_stable_layer_norm=True, mask_time_prob=0.65, mask_time_length=10, codevector_dim=256,
        proj_codevector_dim=256, hidden_dropout=0.1, feat_proj_dropout=0.1, attention_dropout=0.0,
        activation_dropout=0.0, layerdrop=0.0, feat_quantizer_dropout=0.0,
    )  # fmt: skip
    model = Wav2Vec2ForPreTraining(config).train()
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    rows = [{"input_values": extractor(w.numpy(), sampling_rate=RATE).input_values[0]} for w in waves]

    def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = dict(extractor.pad(items, padding="longest", return_tensors="pt"))
        frames = int(model._get_feat_extract_output_lengths(batch["input_values"].shape[1]))
        real = model._get_feature_vector_attention_mask(frames, batch["attention_mask"])
        shape = (len(items), frames)
        masked = _compute_mask_indices(shape, config.mask_time_prob, config.mask_time_length, attention_mask=real)
        negatives = _sample_negative_indices(shape, config.num_negatives, mask_time_indices=masked)
        return batch | {
            "mask_time_indices": torch.tensor(masked, dtype=torch.long),
            "sampled_negative_indices": torch.tensor(negatives, dtype=torch.long),
        }

    optimizer = torch.optim.AdamW(model.parameters(), optim.lr, optim.betas, optim.eps)
    clock = Clock()
    loader = DataLoader(rows, size, shuffle=True, collate_fn=collate, drop_last=True)  # type: ignore[arg-type]
    for _, batch in zip(range(WARM_UP + steps), endless(loader), strict=False):
        losses = batch["mask_time_indices"].sum()
        model(**batch).loss.backward()
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(1 / losses)
        sum(p.grad.norm(2).item() ** 2 for p in model.parameters() if p.grad is not None)  # the recipe logs it
        optimizer.step()
        optimizer.zero_grad()
        clock.step(float(batch["attention_mask"].sum()) / RATE)
    return clock.rate()


def hubert(
    read: Callable[[int], tuple[Tensor, Tensor]], batches: list[list[int]], sizes: dict[str, int], optim: Optim,
    classes: int, steps: int,
) -> float:  # fmt: skip
    """As `examples/hubert` of torchaudio: batches of similar lengths, all cropped to the shortest.

    Args:
        read: number of a recording → its wave (N,) and units (T,).
        batches: that the recipe's sampler would make as well: recordings of one length's bucket.
        sizes: of the trunk.
        optim: of AdamW.
        classes: different units.
        steps: that are measured.

    Returns:
        audio-seconds a second, of what is left of the recordings.
    """
    from torchaudio.models import hubert_pretrain_model

    convolutions = [(sizes["channels"], k, s) for k, s in zip(Waveform.kernels, Waveform.strides, strict=True)]
    model = hubert_pretrain_model(
        extractor_mode="group_norm", extractor_conv_layer_config=convolutions, extractor_conv_bias=False,
        encoder_embed_dim=sizes["dim"], encoder_projection_dropout=0.1, encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16, encoder_num_layers=sizes["layers"], encoder_num_heads=sizes["heads"],
        encoder_attention_dropout=0.0, encoder_ff_interm_features=4 * sizes["dim"], encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.1, encoder_layer_norm_first=False, encoder_layer_drop=0.0, mask_prob=0.8,
        mask_selection="static", mask_other=0.0, mask_length=10, no_mask_overlap=False, mask_min_space=1,
        mask_channel_prob=0.0, mask_channel_selection="static", mask_channel_other=0.0, mask_channel_length=10,
        no_mask_channel_overlap=False, mask_channel_min_space=1, skip_masked=False, skip_nomask=False,
        num_classes=classes, final_dim=256, feature_grad_mult=0.1,
    )  # fmt: skip

    def collate(rows: list[int]) -> tuple[Tensor, Tensor]:
        read_rows, wave, labels = [read(i) for i in rows], [], []
        frames = min(len(units) for _, units in read_rows)
        size = (frames - 1) * STRIDE + 400
        for whole, units in read_rows:
            start = int(torch.randint(len(units) - frames + 1, ()))
            piece = whole[start * STRIDE :][:size]
            wave.append(F.pad(piece, (0, size - len(piece))))
            labels.append(units[start : start + frames])
        return torch.stack(wave), torch.stack(labels)

    optimizer = torch.optim.AdamW(model.parameters(), optim.lr, optim.betas, optim.eps, optim.weight_decay)
    clock = Clock()
    for _, rows in zip(range(WARM_UP + steps), endless(batches), strict=False):
        wave, labels = collate(rows)
        masked, seen, penalty = model.train()(wave, labels, torch.full((len(rows),), wave.shape[1]))
        losses = [F.cross_entropy(x, x.new_zeros(len(x), dtype=torch.long), reduction="sum") for x in (masked, seen)]
        loss = (10.0 * penalty + losses[0] + 0.0 * losses[1]) / len(masked)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        clock.step(wave.numel() / RATE)
    return clock.rate()


def endless(things: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    for epoch in count():
        np.random.seed(epoch)
        yield from things
