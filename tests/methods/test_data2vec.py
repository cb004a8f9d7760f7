"""Data2Vec in three modalities against the paper's equations, written out densely; and MAE against transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightly.models import utils
from tiny import QUIET, image_batch, speech_batch, text_batch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.checkpoint import encoder_of
from ssl_suite.core.ema import Ramp, update_teacher
from ssl_suite.core.encoder import Encoder, Tokens
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.images import Images
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes
from ssl_suite.methods.image.mae import MAE


def vit(**options: Any) -> ImageEncoder:
    return ImageEncoder("test_vit", image_size=64, **options)


def made(modality: str, **options: Any) -> tuple[Data2Vec, Any]:
    """A small model, its teacher unlike its student, and a batch; rows differ in length."""
    torch.manual_seed(0)
    encoder: Encoder
    if modality == "image":
        encoder, batch = vit(), image_batch(3, 64, 0)
        holes = Holes(0.75, block=2, adjust=0.05)
    elif modality == "text":
        encoder = TextEncoder(261, 32, 3, 2, max_length=40, dropout=0.0)
        batch, holes = text_batch([21, 13, 4]), Holes(0.5, block=1, adjust=0.0, inverse=False)
    else:
        encoder = SpeechEncoder(mels=12, trunk="transformer", dim=32, layers=3, heads=2, dropout=0.0)
        batch, holes = speech_batch([6000, 4100]), Holes(0.5, block=5, adjust=0.05, inverse=False)
    decoder = Decoder(layers=2, width=32, kernel=3, groups=4)
    model = Data2Vec(encoder, **{"top": 2, "masks": 3, "holes": holes, "decoder": decoder} | options)
    with torch.no_grad():
        for p in model.teacher.parameters():
            p += 0.05 * torch.randn_like(p)
    return model, batch


def dense(encoder: Any, tokens: Tokens, seen: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Every position through every block, attending to what is seen alone; and what each block adds last."""
    x, apart = tokens.values, 0
    if isinstance(encoder, SpeechEncoder):
        assert encoder.positions is not None
        x = x * seen[..., None]
        x = x + F.gelu(encoder.positions.convolutions[0](x.mT)[..., : x.shape[1]].mT)
    if tokens.prefix is not None:
        x, apart = torch.cat([tokens.prefix, x], 1), tokens.prefix.shape[1]
        seen = F.pad(seen, (apart, 0), value=True)
    added = []
    timm = isinstance(encoder, ImageEncoder)
    for block in encoder.blocks():
        a, f = (block.attn, block.mlp) if timm else (block.attention, block.feed_forward)
        out, up, down = (a.proj, f.fc1, f.fc2) if timm else (a.out, f.up, f.down)
        heads = a.num_heads if timm else a.config.heads
        q, k, v = a.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
        x = x + out(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))
        added.append(down(F.gelu(up(block.norm2(x)))))
        x = x + added[-1]
    x = encoder.net.norm(x) if timm else encoder.trunk.norm(x)
    return x, [layer[:, apart:] for layer in added]


def reference(model: Data2Vec, batch: Any) -> Tensor:
    """The loss, item by item and mask by mask."""
    tokens, teacher = model.encoder.embed(batch), model.teacher.embed(batch)
    with torch.no_grad():
        added = dense(model.teacher, teacher, teacher.mask)[1]
    chosen = model.holes.draw(tokens, batch.seed, model.masks)
    torch.manual_seed(5)
    noise = model.noise * torch.randn(*chosen.hidden.shape, model.encoder.dim)
    total, count, cls = torch.zeros(()), 0, torch.zeros(())
    for row in range(len(chosen.hidden)):
        i = row // model.masks
        real, hidden = tokens.mask[i], chosen.hidden[row]
        n = int(real.sum())
        layers = [layer[i, :n] for layer in added[-model.top :]]
        y = sum((l - l.mean(0)) / (l.var(0, correction=0) + 1e-5).sqrt() for l in layers) / len(layers)  # noqa: E741
        if model.normalize:
            y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        mine = Tokens(tokens.values[i : i + 1], real[None], None if tokens.prefix is None else tokens.prefix[i : i + 1])
        output = dense(model.encoder, mine, (real & ~hidden)[None])[0][0]
        prefix, output = output.split([len(output) - len(hidden), len(hidden)])
        x = torch.where(hidden[:, None], noise[row], output * real[:, None])
        z = x.T[None] if tokens.grid is None else x.T.reshape(1, -1, *tokens.grid)
        convolve = F.conv1d if tokens.grid is None else F.conv2d
        for layer in model.decoder.convolutions:
            a = convolve(z, layer.weight, layer.bias, padding=1, groups=4)  # type: ignore[operator]
            a = (a - a.mean(1, keepdim=True)) / (a.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            z = (z + F.gelu(a) if z.shape == a.shape else F.gelu(a)) * real.view(1, 1, *z.shape[2:])
        guess = model.decoder.out(z.flatten(2)[0].T)
        for t in hidden.nonzero().flatten().tolist():
            total, count = total + (guess[t] - y[t]).square().sum() * model.scale, count + 1
        if len(prefix):
            cls = cls + (prefix[0] - y.mean(0)).square().sum() * model.scale
    return total / count + model.class_loss * cls


TWO_PROJECTIONS = Decoder(layers=2, width=32, kernel=3, groups=4, projections=2)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": False, "scale": 1.0, "top": 3, "masks": 1, "decoder": TWO_PROJECTIONS}]
)
@pytest.mark.parametrize("modality", ["image", "text", "speech"])
def test_loss_and_gradient_are_those_of_the_papers_equations(modality: str, options: dict[str, Any]) -> None:
    model, batch = made(modality, **options)
    named = dict(model.encoder.named_parameters()) | dict(model.decoder.named_parameters())
    wanted = reference(model, batch)
    gradients = torch.autograd.grad(wanted, list(named.values()), allow_unused=True)
    torch.manual_seed(5)
    out = model.step(batch).total()
    found = torch.autograd.grad(out, list(named.values()), allow_unused=True)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    largest = max(float(g.abs().max()) for g in gradients if g is not None)
    for name, a, b in zip(named, found, gradients, strict=True):
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            assert float((a - b).abs().max()) < 1e-5 * largest, name


@pytest.mark.parametrize("modality", ["image", "text", "speech"])
def test_the_teacher_gets_no_gradient_and_what_is_hidden_does_not_reach_the_student(modality: str) -> None:
    model, batch = made(modality)
    tokens = model.encoder.embed(batch)
    chosen = model.holes.draw(tokens, batch.seed, model.masks)
    kept = tokens.keep(chosen.places, chosen.real)
    noisy = tokens.replace(chosen.hidden[:: model.masks], torch.full((tokens.values.shape[2],), 9.0))
    again = noisy.keep(chosen.places, chosen.real)
    before, after = (model.encoder.contextualise(t).states[-1][:: model.masks] for t in (kept, again))
    real = torch.ones(before.shape[:2], dtype=torch.bool) if chosen.real is None else chosen.real[:: model.masks]
    torch.testing.assert_close(before[real], after[real])
    model.step(batch).total().backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert not model.train().teacher.training
    assert model.watched is model.teacher


@pytest.mark.parametrize("modality", ["text", "speech"])
def test_a_teacher_shares_the_students_embeddings_and_averages_its_blocks(modality: str) -> None:
    model, _ = made(modality, shared=True)
    own, before = ({n: p.detach().clone() for n, p in m.named_parameters()} for m in (model.encoder, model.teacher))
    update_teacher(*model.teacher_pairs()[0], momentum=0.9)
    model.after_step()
    for name, p in model.teacher.named_parameters():
        trunk = name.startswith("trunk.")
        torch.testing.assert_close(p, 0.9 * before[name] + 0.1 * own[name] if trunk else own[name])


def test_only_a_class_token_is_held_to_the_mean() -> None:
    """`test_vit2` has a register and no class token."""
    batch = image_batch(2, 64, 0)
    for name, terms in (("test_vit", {"regression", "class"}), ("test_vit2", {"regression"})):
        model = Data2Vec(ImageEncoder(name, image_size=64), 2, 2, Holes(), Decoder(1, 16, 3, 2))
        assert set(model.step(batch).terms) == terms
        assert set(model.counts(batch)) == terms


def test_of_each_image_equally_many_patches_are_seen_and_most_of_them_in_blocks() -> None:
    """39 of 196 at the published values; a random choice would give a seen patch 0.8 seen neighbours."""
    n, seeds = 64, torch.arange(64) * 7919
    tokens = Tokens(torch.zeros(n, 196, 4), torch.ones(n, 196, dtype=torch.bool), grid=(14, 14), dense=True)
    chosen = Holes().draw(tokens, seeds, 4)
    assert chosen.places.shape == (4 * n, 39)
    assert chosen.real is None
    seen = ~chosen.hidden
    assert (seen.sum(1) == 39).all()
    assert (chosen.places.diff(dim=1) > 0).all()
    field = seen.view(-1, 1, 14, 14).float()
    neighbours = F.conv2d(field, torch.tensor([[[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]]]), padding=1)
    assert float((neighbours * field).sum() / field.sum()) > 2.2
    assert len(seen.unique(dim=0)) == 4 * n
    assert torch.equal(Holes().draw(tokens, seeds, 4).hidden, chosen.hidden)


def test_a_shorter_row_sees_its_own_share() -> None:
    mask = torch.arange(100) < torch.tensor([[100], [40], [3], [1]])
    chosen = Holes(0.5, 5, 0.05, inverse=False).draw(Tokens(torch.zeros(4, 100, 2), mask), torch.arange(4), 3)
    assert chosen.real is not None
    assert chosen.real.sum(1).tolist() == [50] * 3 + [20] * 3 + [2] * 3 + [1] * 3  # half of 3, to even: 2
    assert not (chosen.hidden & ~mask.repeat_interleave(3, 0)).any()
    spread = chosen.spread(torch.ones(12, chosen.places.shape[1], 1), torch.zeros(1))[..., 0].bool()
    assert torch.equal(spread, mask.repeat_interleave(3, 0) & ~chosen.hidden)


def test_a_trunk_that_reads_every_position_is_refused() -> None:
    with pytest.raises(UserError, match="needs a transformer"):
        Data2Vec(SpeechEncoder(mels=12, dim=32, layers=1))
    with pytest.raises(UserError, match="needs a vision transformer"):
        MAE(ImageEncoder("test_resnet"))
    encoder = SpeechEncoder(mels=12, dim=32, layers=1)
    tokens = encoder.embed(speech_batch([4000]))
    with pytest.raises(UserError, match="A gru reads every position"):
        encoder.contextualise(tokens.keep(torch.tensor([[0, 2]])))


def test_momentum_is_linear_over_its_own_steps() -> None:
    model, _ = made("text", momentum=Ramp(0.99, 0.999, 10, "linear"))
    assert [model.momentum.at(step, 1000) for step in (0, 5, 10, 500)] == pytest.approx([0.99, 0.9945, 0.999, 0.999])


@pytest.mark.parametrize("normalize", [True, False])
def test_mae_is_transformers(normalize: bool) -> None:
    """The same weights and the same noise give the same loss and gradient."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    model = MAE(vit(mean=[0.0] * 3, std=[1.0] * 3), dim=32, layers=2, heads=4, normalize=normalize)
    net, patch = model.encoder.net, model.encoder.stride
    config = ViTMAEConfig(
        hidden_size=net.embed_dim, num_hidden_layers=len(net.blocks), num_attention_heads=net.blocks[0].attn.num_heads,
        intermediate_size=net.blocks[0].mlp.fc1.out_features, image_size=64, patch_size=patch, decoder_hidden_size=32,
        decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=128, mask_ratio=0.75,
        norm_pix_loss=normalize, layer_norm_eps=1e-6,
    )  # fmt: skip
    peer = ViTMAEForPreTraining(config).eval()
    weights: dict[str, Tensor] = {}

    def block(
        to: str, qkv: nn.Linear, out: nn.Linear, norms: tuple[nn.Module, ...], mlp: tuple[nn.Linear, ...]
    ) -> None:
        parts = {"layernorm_before": norms[0], "layernorm_after": norms[1]}
        parts |= {"attention.o_proj": out, "mlp.fc1": mlp[0], "mlp.fc2": mlp[1]}
        for i, name in enumerate("qkv"):
            weights[f"{to}attention.{name}_proj.weight"] = qkv.weight.chunk(3)[i]
            weights[f"{to}attention.{name}_proj.bias"] = qkv.bias.chunk(3)[i]
        for name, part in parts.items():
            weights.update({f"{to}{name}.{k}": v for k, v in part.state_dict(keep_vars=True).items()})

    for i, b in enumerate(net.blocks):
        block(f"vit.layers.{i}.", b.attn.qkv, b.attn.proj, (b.norm1, b.norm2), (b.mlp.fc1, b.mlp.fc2))
    for i, b in enumerate(model.decoder.blocks):
        f = b.feed_forward
        block(f"decoder.decoder_layers.{i}.", b.attention.qkv, b.attention.out, (b.norm1, b.norm2), (f.up, f.down))
    for name, part in {
        "vit.embeddings.patch_embeddings.projection": net.patch_embed.proj, "vit.layernorm": net.norm,
        "decoder.decoder_embed": model.enter, "decoder.decoder_norm": model.decoder.norm,
        "decoder.decoder_pred": model.paint,
    }.items():  # fmt: skip
        weights.update({f"{name}.{k}": v for k, v in part.state_dict(keep_vars=True).items()})
    weights |= {"vit.embeddings.cls_token": net.cls_token, "decoder.mask_token": model.hole.view(1, 1, -1)}
    weights["vit.embeddings.position_embeddings"] = net.pos_embed
    missing = set(peer.state_dict()) - set(weights)
    assert missing == {"decoder.decoder_pos_embed"}
    positions = utils.get_2d_sine_cosine_positional_embedding(32, 64 // patch, cls_token=True)
    weights["decoder.decoder_pos_embed"] = torch.tensor(positions).float()[None]
    peer.load_state_dict({k: v.detach() for k, v in weights.items()})

    batch = image_batch(3, 64, 0)
    chosen = model.holes.draw(model.encoder.embed(batch), batch.seed)
    out = model.eval().step(batch).total()
    wanted = peer(batch.images, noise=chosen.hidden.float()).loss
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    out.backward()
    wanted.backward()
    for ours, theirs in (
        (net.patch_embed.proj, peer.vit.embeddings.patch_embeddings.projection),
        (model.enter, peer.decoder.decoder_embed),
        (net.blocks[0].mlp.fc1, peer.vit.layers[0].mlp.fc1),
    ):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_teacher_is_what_is_written_and_what_a_checkpoint_gives(image_folder: str, tmp_path: Path) -> None:
    model = Data2Vec(
        ImageEncoder("test_vit", image_size=16, patch_size=4), 2, 2, Holes(), Decoder(1, 16, 3, 2),
        momentum=Ramp(0.5, 0.5), optim=Optim(lr=1e-2),
    )  # fmt: skip
    options: dict[str, Any] = QUIET | {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer = pl.Trainer(**options)
    trainer.fit(model, Images(image_folder, image_size=16, batch_size=4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    teacher, student = model.teacher.state_dict(), model.encoder.state_dict()
    assert any(not torch.equal(teacher[name], student[name]) for name in teacher)
    for encoder in (load_encoder(str(tmp_path / "encoder")), encoder_of(tmp_path / "a.ckpt")):
        assert {n for n, w in encoder.state_dict().items() if not torch.equal(w, teacher[n])} == set()
        assert encoder.preprocess["image_size"] == 16
    old = torch.load(tmp_path / "a.ckpt", weights_only=True)
    old["encoder"] = old.pop("encoders")["encoder"]
    torch.save(old, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"old\.ckpt was written by an earlier version of the suite"):
        encoder_of(tmp_path / "old.ckpt")


@pytest.mark.parametrize(("rate", "length"), [(0.7, 15), (0.7, 35), (0.85, 30), (0.85, 70), (0.8, 64)])
def test_no_visible_position_is_hidden_too(rate: float, length: int) -> None:
    tokens = Tokens(torch.zeros(3, length, 2), torch.ones(3, length, dtype=torch.bool), dense=True)
    chosen = Holes(rate, block=1).draw(tokens, torch.arange(3), 2)
    visible = torch.zeros(6, length, dtype=torch.bool).scatter(1, chosen.places, True)
    assert torch.equal(visible, ~chosen.hidden)
