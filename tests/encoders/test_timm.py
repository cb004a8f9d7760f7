"""Any timm backbone: one of each module of timm keeps the contract, and what cannot be is one sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from timm.models._registry import _model_to_module
from tiny import image_batch
from torch import Tensor

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders.image import IMAGENET, ImageEncoder

SMALL = {
    "beit": "beit_base_patch16_224", "byoanet": "halonet_h1", "byobnet": "test_byobnet", "cait": "cait_xxs24_224",
    "coat": "coat_tiny", "convit": "convit_tiny", "convmixer": "convmixer_768_32", "convnext": "convnext_atto",
    "cpubone": "cpubone_nano", "crossvit": "crossvit_tiny_240", "csatv2": "csatv2", "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny", "davit": "davit_tiny", "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224", "densenet": "densenet121", "dla": "dla46x_c", "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small", "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0", "efficientnet": "test_efficientnet",
    "efficientvim": "efficientvim_m1", "efficientvit_mit": "efficientvit_b0", "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb", "fasternet": "fasternet_t0", "fastvit": "fastvit_t12",
    "focalnet": "focalnet_tiny_srf", "gcvit": "gcvit_xxtiny", "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050", "hardcorenas": "hardcorenas_b", "hgnet": "hgnetv2_b0", "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny", "hrnet": "hrnet_w18_small", "iformer": "iformer_s",
    "inception_next": "inception_next_atto", "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3", "inception_v4": "inception_v4", "lcnetv2": "lcnetv2_small",
    "levit": "levit_384_s8", "lowformer": "lowformer_b0", "mambaout": "test_mambaout", "maxxvit": "maxvit_pico_rw_256",
    "metaformer": "caformer_s18", "mlp_mixer": "mixer_s16_224", "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base", "mobilevit": "mobilevit_xxs", "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_siglip", "nasnet": "nasnetalarge", "nest": "nest_tiny",
    "nextvit": "nextvit_small", "nfnet": "test_nfnet", "pit": "pit_ti_224", "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0", "qwen3_vit": "qwen3_vit_88m", "rdnet": "rdnet_tiny", "regnet": "regnetx_002",
    "repghost": "repghostnet_050", "repvit": "repvit_m1", "res2net": "res2next50", "resnest": "resnest14d",
    "resnet": "test_resnet", "resnetv2": "resnetv2_18", "rexnet": "rexnet_100", "selecsls": "selecsls42",
    "senet": "legacy_seresnet18", "sequencer": "sequencer2d_s", "shvit": "shvit_s1", "sknet": "skresnet18",
    "starnet": "starnet_s050", "swiftformer": "swiftformer_xs", "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256", "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224", "tnt": "tnt_s_legacy_patch16_224", "tresnet": "tresnet_m",
    "twins": "twins_svt_small", "vgg": "vgg11", "visformer": "visformer_tiny", "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224", "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224", "vitamin": "vitamin_small_224", "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw", "xception": "legacy_xception", "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}  # fmt: skip
"""Module of timm → a small architecture in it."""

POOLED = {
    "coat", "cpubone", "crossvit", "efficientvim", "efficientvit_mit", "fasternet", "ghostnet", "hardcorenas", "hgnet",
    "inception_next", "lcnetv2", "lowformer", "mambaout", "mobilenetv3", "pit", "repghost", "vgg",
}  # fmt: skip
"""Modules with several streams, or whose head widens what it pools: their one state is the pooled vector."""


def side(encoder: ImageEncoder) -> int:
    return int(encoder.net.pretrained_cfg["input_size"][-1])


def check(encoder: ImageEncoder, encoded: Encoded, images: int) -> Tensor:
    """Returns the output of an encoder that keeps its contract."""
    states, pooled = encoded.states[-1], encoded.pooled
    assert [s.shape for s in encoded.states] == [(*encoded.mask.shape, width) for width in encoder.widths]
    assert len(encoded.states) == encoder.num_states
    assert pooled.shape == (images, encoder.dim)
    assert states.shape == (*encoded.mask.shape, encoder.dim)
    assert encoded.mask.shape[0] == images
    layers = [p for layer in encoder.layers() for p in layer]
    assert sorted(map(id, layers)) == sorted(map(id, encoder.parameters()))
    assert all(encoder.layers())
    return states


def test_every_module_of_timm_is_tried() -> None:
    assert set(SMALL) == {_model_to_module[name] for name in timm.list_models()}


@pytest.mark.parametrize("module", SMALL)
def test_one_backbone_of_each_module_keeps_the_contract(module: str) -> None:
    """Without memory: shapes are computed, numbers are not."""
    with torch.device("meta"):
        encoder = ImageEncoder(SMALL[module]).eval()
        size = 64 if module == "sequencer" else side(encoder)  # its LSTMs take long
        states = check(encoder, encoder(image_batch(1, size, 0)), 1)
    positions = states.shape[1]
    assert (states.shape[1] == 1) == (module in POOLED)
    if module in POOLED or module == "mobilenetv5":  # which joins its last stages at the stride of the one before
        return
    rows = math.isqrt(positions)
    assert positions == rows**2
    assert rows in {size // encoder.stride + extra for extra in (-2, -1, 0, 1)}  # by how the edges are padded


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_resnet", "test_efficientnet", "test_mambaout", "test_nfnet", "mobilenetv3_small_050",
     "efficientvit_b0", "crossvit_tiny_240", "caformer_s18", "swin_tiny_patch4_window7_224"],
)  # fmt: skip
def test_backbones_of_each_kind_come_back_from_their_folder_and_learn(name: str, tmp_path: Any) -> None:
    encoder = ImageEncoder(name).eval()
    batch = image_batch(2, side(encoder), 0)
    loaded = load_encoder(save_encoder(encoder, tmp_path / "e")).eval()
    assert loaded.config == encoder.config
    wanted, found = encoder(batch), loaded(batch)
    assert torch.equal(check(loaded, found, 2), wanted.states[-1])
    assert torch.equal(found.pooled, wanted.pooled)
    encoder.train()(batch).pooled.square().mean().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_positions_are_positions_and_not_channels(name: str) -> None:
    """Both pool by the mean: of channels last, as of channels first."""
    encoder = ImageEncoder(name).eval()
    encoded = encoder(image_batch(2, side(encoder), 0))
    torch.testing.assert_close(encoded.states[-1].mean(1), encoded.pooled, atol=1e-4, rtol=1e-4)


def test_a_vision_transformer_takes_images_of_other_sizes() -> None:
    encoder = ImageEncoder("test_vit").eval()
    own, patch = side(encoder), encoder.stride
    plain = timm.create_model("test_vit", num_classes=0).eval()
    plain.load_state_dict(encoder.net.state_dict())
    batch = image_batch(2, own, 0)
    x = (batch.images - encoder.mean) / encoder.std
    torch.testing.assert_close(encoder(batch).pooled, plain(x))
    for size in (2 * patch, own // 2, own + patch):
        encoded = encoder(image_batch(2, size, 0))
        assert encoded.states[0].shape == (2, (size // patch) ** 2, encoder.dim)
        assert encoded.prefix is not None
        assert encoded.prefix.shape == (2, encoder.net.num_prefix_tokens, encoder.dim)


def test_a_size_that_a_backbone_cannot_take_is_one_sentence() -> None:
    with torch.device("meta"):
        encoder = ImageEncoder("mixer_s16_224").eval()
        message = r"mixer_s16_224, built for images of 224 pixels, cannot take 64 × 64 .*image_size 224"
        with pytest.raises(UserError, match=message):
            encoder(image_batch(2, 64, 0))
        small = ImageEncoder("mixer_s16_224", image_size=64).eval()
        assert small(image_batch(2, 64, 0)).pooled.shape == (2, 512)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "vgg11", "drop_path": 0.1}, "'vgg11' takes no drop_path; leave it out"),
        ({"name": "resnet18", "image_size": 32}, "'resnet18' takes no image_size; leave it out"),
        ({"name": "resnet18", "drop_path": 1.5}, "drop_path is 1.5"),
        ({"name": "resnet18", "width": 0}, "width is 0"),
        ({"name": "resnet18.tv_in2k"}, r"no weights 'resnet18.tv_in2k'. Did you mean resnet18.tv_in1k\?"),
        ({"name": "resnet_18.tv_in1k"}, "Did you mean resnet18"),
        ({"std": [1.0, 1.0, 0.0]}, "std is .* three numbers, one a colour, above 0"),
        ({"mean": [1.0]}, "mean is .* three numbers"),
    ],
)  # fmt: skip
def test_what_a_backbone_cannot_be_is_one_sentence(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        ImageEncoder(**options)


def test_weights_that_cannot_be_had_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"timm:resnet50.tv_in1k cannot be had \(We couldn't connect to [^\n]*\)\.$"):
        load_encoder("timm:resnet50.tv_in1k")


def test_a_tag_brings_its_own_normalisation_and_a_folder_keeps_it(tmp_path: Any) -> None:
    assert ImageEncoder("resnet18").config["mean"] == list(IMAGENET["mean"])
    encoder = ImageEncoder("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert encoder.config["mean"] == [0.5, 0.5, 0.5]
    chosen = ImageEncoder("test_resnet", mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    loaded = load_encoder(save_encoder(chosen, tmp_path / "e"))
    assert loaded.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    batch = ImageBatch(torch.arange(1), torch.arange(1), None, torch.rand(1, 3, 64, 64))
    x = (batch.images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    torch.testing.assert_close(loaded.eval()(batch).pooled, chosen.net.eval()(x))
