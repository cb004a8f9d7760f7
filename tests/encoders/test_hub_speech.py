"""wav2vec 2.0 and its kin against transformers and torchaudio: the same states, and the same bits back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from test_encoders import single
from tiny import speech_batch, tiny_speech_encoder, tiny_text_encoder
from torch import Tensor, nn

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders.hub.export import export_encoder
from ssl_suite.encoders.hub.speech import SPEECH_FAMILIES
from ssl_suite.encoders.speech import SpeechEncoder

transformers = pytest.importorskip("transformers", reason="parity needs transformers (the extra `hub`)")

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LARGE = SHAPE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BUCKETS = {"num_buckets": 16, "max_bucket_distance": 10}
STACKED = SHAPE | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", SHAPE),
    "wav2vec2 large": ("Wav2Vec2", LARGE | {"num_conv_pos_embeddings": 7}),
    "wav2vec2, groups and biases": ("Wav2Vec2", SHAPE | {"conv_bias": True, "do_stable_layer_norm": True}),
    "hubert": ("Hubert", SHAPE),
    "hubert large": ("Hubert", LARGE),
    "distilhubert": ("Hubert", SHAPE | {"feat_proj_layer_norm": False}),
    "wavlm": ("WavLM", SHAPE | BUCKETS),
    "wavlm large": ("WavLM", LARGE | BUCKETS),
    "data2vec": ("Data2VecAudio", STACKED),
    "data2vec, even": ("Data2VecAudio", STACKED | {"conv_pos_kernel_size": 4, "conv_bias": True}),
}


def hub_folder(name: str, folder: Path, head: str = "Model", normalize: bool | None = False) -> Any:
    """Saves a randomly initialised transformers model, biases and norms random too, with its preprocessor."""
    family, options = MODELS[name]
    model = getattr(transformers, f"{family}{head}")(getattr(transformers, f"{family}Config")(**options)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.3)
    model.save_pretrained(folder)
    if normalize is not None:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return model


def their_states(model: Any, wave: Tensor) -> list[Tensor]:
    """Before each block, and the output."""
    with torch.no_grad():
        out = model(wave, output_hidden_states=True)
    return [*out.hidden_states[:-1], out.last_hidden_state]


def batched_and_alone(encoder: SpeechEncoder, batch: SpeechBatch) -> list[list[Tensor]]:
    """States of each utterance encoded alone, which are those it has in the batch."""
    found = []
    with torch.no_grad():
        together = encoder(batch)
        for row in range(len(batch)):
            alone = encoder(single(batch, row))
            for a, b in zip(alone.states, together.states, strict=True):
                assert (b[row, : a.shape[1]] - a[0]).abs().max() < 1e-5 * max(1.0, float(a.abs().max()))
            found.append(list(alone.states))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_states_are_transformers_own_and_every_bit_comes_back(name: str, tmp_path: Path) -> None:
    model = hub_folder(name, tmp_path / "theirs")
    encoder = load_encoder(f"hf:{tmp_path / 'theirs'}").eval()
    assert isinstance(encoder, SpeechEncoder)
    assert encoder.trained
    batch = speech_batch([16000, 7001, 1234, 400])
    for row, ours in enumerate(batched_and_alone(encoder, batch)):
        theirs = their_states(model, batch.wave[row : row + 1, : int(batch.lengths[row])])
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() < 1e-4

    save_encoder(encoder, tmp_path / "ours")  # the whole way: into a folder of ours, out of it, and back to theirs
    chosen = export_encoder(load_encoder(tmp_path / "ours"), tmp_path / "back", model.config.model_type)
    assert chosen.model_type == model.config.model_type
    back, info = transformers.AutoModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert type(back) is type(model)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() - after.keys() == {"masked_spec_embed"}
    assert [n for n in after if not torch.equal(before[n], after[n])] == []
    for key, _ in chosen.keys.values():
        assert getattr(back.config, key) == getattr(model.config, key)
    for a, b in zip(their_states(model, batch.wave), their_states(back.eval(), batch.wave), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm large"])
def test_a_checkpoint_that_asks_for_it_gets_normalised_waveforms(name: str, tmp_path: Path) -> None:
    """As its feature extractor makes them, before padding."""
    model = hub_folder(name, tmp_path / "theirs", normalize=True)
    encoder = load_encoder(f"hf:{tmp_path / 'theirs'}").eval()
    batch = speech_batch([5000, 3000])
    batch.wave = (batch.wave + 0.2 * (batch.wave != 0)) * 0.3
    extract = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "theirs")
    for row, ours in enumerate(batched_and_alone(encoder, batch)):  # type: ignore[arg-type]
        wave = batch.wave[row, : int(batch.lengths[row])].numpy()
        inputs = extract(wave, sampling_rate=16000, return_tensors="pt").input_values
        for a, b in zip(ours, their_states(model, inputs), strict=True):
            assert (a - b).abs().max() < 1e-4
    export_encoder(encoder, tmp_path / "back")
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "back").do_normalize


def test_without_a_preprocessor_waveforms_stay_as_they_are(tmp_path: Path) -> None:
    hub_folder("hubert", tmp_path, normalize=None)
    with pytest.warns(UserWarning, match=r"has no preprocessor_config\.json"):
        assert not load_encoder(f"hf:{tmp_path}").config["normalize"]


HEADS = [("wav2vec2", "ForPreTraining"), ("hubert", "ForCTC"), ("wavlm", "ForXVector"), ("data2vec", "ForCTC")]


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_heads_are_left_and_named(
    name: str, head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = hub_folder(name, tmp_path, head)
    with caplog.at_level("INFO"):
        encoder = load_encoder(f"hf:{tmp_path}").eval()
    assert "not read, for no encoder needs it" in caplog.text + capsys.readouterr().err
    batch = speech_batch([3000])
    with torch.no_grad():
        theirs = model.base_model(batch.wave).last_hidden_state
        assert (encoder(batch).states[-1] - theirs).abs().max() < 1e-4


def test_an_untrained_copy_of_a_hubs_model_is_a_row_of_a_benchmark(tmp_path: Path) -> None:
    hub_folder("wavlm", tmp_path, normalize=True)
    trained, untrained = load_encoder(f"hf:{tmp_path}"), load_encoder(f"random:hf:{tmp_path}")
    assert untrained.config == trained.config
    assert untrained.config["normalize"]
    assert not torch.equal(untrained.state_dict()["project.weight"], trained.state_dict()["project.weight"])


def test_older_pickled_weights_are_read(tmp_path: Path) -> None:
    """Weight norm under its old names, as on the hub for most of these."""
    hub_folder("hubert", tmp_path)
    new = load_encoder(f"hf:{tmp_path}").state_dict()
    old = {}
    for name, tensor in load_file(str(tmp_path / "model.safetensors")).items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        old[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    assert {n.rpartition(".")[2] for n in old} >= {"weight_g", "weight_v"}
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    again = load_encoder(f"hf:{tmp_path}").state_dict()
    assert again.keys() == new.keys()
    assert all(torch.equal(new[n], again[n]) for n in new)


def test_a_configuration_that_leaves_keys_out_means_transformers_own_defaults() -> None:
    for family in SPEECH_FAMILIES.values():
        defaults = transformers.CONFIG_MAPPING[family.model_type]().to_dict()
        for key, default in family.keys.values():
            assert defaults[key] == default
        for key, value in family.expected.items():
            found = defaults.get(key, value)
            assert (list(found) if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu'"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "conv_stride is"),
        ({"conv_dim": [8, 8, 8, 8, 8, 8, 16]}, "conv_dim is .*; only 7 equal widths"),
        ({"conv_dim": []}, "conv_dim is"),
        ({"add_adapter": True}, "add_adapter is True; only False"),
        ({"feat_extract_norm": "batch"}, "conv_norm is 'batch'"),
        ({"num_hidden_layers": 4}, r"lack encoder\.layers\.3\.attention\.q_proj"),
        ({"num_hidden_layers": "3"}, "layers is '3', but SpeechEncoder takes int"),
        ({"num_conv_pos_embedding_groups": 3}, r"position_groups \(3\) must divide dim"),
        ({"num_hidden_layers": 2}, r"nothing is known of encoder\.layers\.2\.attention"),
        ({"hidden_size": 32}, "other shape"),
        ({"model_type": "wav2vec2-bert"}, "model_type 'wav2vec2-bert' is not supported"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    hub_folder("hubert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=match):
        load_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000; only 16000"),
        ({"do_normalize": "yes"}, "do_normalize is 'yes', but must be true or false"),
    ],
)
def test_a_preprocessor_we_cannot_follow_is_refused(value: dict[str, Any], match: str, tmp_path: Path) -> None:
    hub_folder("hubert", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=rf"preprocessor_config\.json: {match}"):
        load_encoder(f"hf:{tmp_path}")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    hub_folder("hubert", tmp_path)
    file = load_file(str(tmp_path / "model.safetensors"))
    file["encoder.layer_norm.bias"][3] = torch.nan
    save_file(file, str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match=r"norm\.bias holds numbers that are not finite"):
        load_encoder(f"hf:{tmp_path}")


INEXPRESSIBLE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "log-mel": ({"trunk": "transformer"}, None, r"wav2vec2 cannot express this encoder: frontend: logmel \(not wave"),
    "gru": ({"frontend": "waveform"}, None, "trunk: gru"),
    "rotary": ({"frontend": "waveform", "trunk": "transformer", "positions": "rotary"}, "hubert", "positions: rotary"),
    "no norm": (
        {"frontend": "waveform", "trunk": "transformer", "feature_norm": False},
        None,
        r"feature_norm: False \(not True",
    ),
    "no buckets": ({"frontend": "waveform", "trunk": "transformer"}, "wavlm", "wavlm .* buckets: 0"),
    "buckets": ({"frontend": "waveform", "trunk": "transformer", "buckets": 8, "reach": 9}, "hubert", "buckets: 8"),
    "one layer": ({"frontend": "waveform", "trunk": "transformer", "norm": "post"}, "data2vec-audio", "position_lay"),
    "of text": ({}, "bert", "bert is no family of speech encoders; those are wav2vec2, hubert"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_no_family_expresses_is_said(name: str, tmp_path: Path) -> None:
    options, family, match = INEXPRESSIBLE[name]
    with pytest.raises(UserError, match=match):
        export_encoder(tiny_speech_encoder(**options), tmp_path / "out", family)
    assert not (tmp_path / "out").exists()


def test_text_is_not_written_as_speech(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hubert is no family of text encoders"):
        export_encoder(tiny_text_encoder(), tmp_path / "out", "hubert")


BASE: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
BIG = BASE | {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}
LOGITS = {"encoder_num_buckets": 16, "encoder_max_distance": 10}
BUNDLES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "base": ("Wav2Vec2", BASE, False),
    "large": ("Wav2Vec2", BIG, True),
    "with a head": ("Wav2Vec2", BASE | {"aux_num_out": 5}, False),
    "wavlm": ("WavLM", BASE | LOGITS, False),
    "wavlm large": ("WavLM", BIG | LOGITS, True),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_pipelines_states_are_torchaudios_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, parameters, normalize = BUNDLES[name]
    factory = torchaudio.models.wavlm_model if kind == "WavLM" else torchaudio.models.wav2vec2_model
    model = factory(**parameters)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.3)
    (tmp_path / "checkpoints").mkdir()
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "tiny.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # where fetched files are looked for first
    bundle = torchaudio.pipelines.Wav2Vec2Bundle("tiny.pth", parameters, 16000, normalize, kind)
    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_BASE", bundle)
    encoder = load_encoder("torchaudio:HUBERT_BASE").eval()
    assert isinstance(encoder, SpeechEncoder)
    batch = speech_batch([9000, 3001])
    batch.wave *= 10
    peer = bundle.get_model()
    for row, ours in enumerate(batched_and_alone(encoder, batch)):
        with torch.no_grad():
            theirs, _ = peer.extract_features(batch.wave[row : row + 1, : int(batch.lengths[row])])
        if parameters["encoder_layer_norm_first"]:
            theirs[-1] = model.encoder.transformer.layer_norm(theirs[-1])
        for a, b in zip(ours[1:], theirs, strict=True):
            assert (a - b).abs().max() < 1e-4


def test_every_pipeline_of_torchaudio_is_described_by_our_arguments() -> None:
    from ssl_suite.encoders.hub.bundles import read_parameters

    names = ["WAV2VEC2_BASE", "WAV2VEC2_LARGE", "HUBERT_BASE", "HUBERT_LARGE", "WAVLM_BASE", "WAVLM_BASE_PLUS"]
    for name in [*names, "WAVLM_LARGE", "WAV2VEC2_XLSR53"]:
        bundle = getattr(torchaudio.pipelines, name)
        with torch.device("meta"):
            encoder = SpeechEncoder(**read_parameters(bundle._params, name))
            factory = "wavlm_model" if bundle._model_type == "WavLM" else "wav2vec2_model"
            model = getattr(torchaudio.models, factory)(**bundle._params)
        assert encoder.num_parameters() == sum(p.numel() for p in model.parameters())


def test_a_pipeline_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no pipeline 'HUBERT_BAS' of speech encoders\. Did you mean HUBERT_BASE"):
        load_encoder("torchaudio:HUBERT_BAS")
    with pytest.raises(UserError, match="no pipeline 'CONVTASNET_BASE_LIBRI2MIX'"):
        load_encoder("torchaudio:CONVTASNET_BASE_LIBRI2MIX")

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no network\nat all")

    monkeypatch.setattr("torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"^torchaudio:HUBERT_BASE is not to be had \(no network\)\.$"):
        load_encoder("torchaudio:HUBERT_BASE")
