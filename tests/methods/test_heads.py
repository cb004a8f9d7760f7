"""Heads that travel with their encoder: a pretraining goes on where another one, or a hub's model, stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from tiny import QUIET, files_below, text_batch, tiny_text_encoder

from ssl_suite.cli import main
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import fingerprint, save_encoder, write_manifest
from ssl_suite.core.load import load_encoder
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.hub.export import export_encoder
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM


def pretrain(method: MaskedLM | CausalLM, text_file: str, folder: Path, steps: int = 2) -> Path:
    data = Text(text_file, tokenizer="byte", max_length=32, batch_size=4)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, **QUIET
    )
    trainer.fit(method, datamodule=data)
    return folder / "encoder"


def test_masked_lm_goes_on_from_its_own_folder(text_file: str, tmp_path: Path) -> None:
    first = MaskedLM(tiny_text_encoder(embedding_dim=8))
    folder = pretrain(first, text_file, tmp_path / "first")
    assert "heads.safetensors" in files_below(folder)
    stored = load_file(str(folder / "heads.safetensors"))
    assert sorted(stored) == ["head.bias", "head.dense.bias", "head.dense.weight", "head.norm.bias", "head.norm.weight"]
    second = MaskedLM(str(folder))
    batch = text_batch([12, 9])
    states = first.encoder.eval()(batch).states[-1]
    assert torch.equal(second.encoder.eval()(batch).states[-1], states)
    assert torch.equal(second.head(states), first.head(states))
    again = pretrain(second, text_file, tmp_path / "second")
    changed = load_file(str(again / "heads.safetensors"))
    assert changed.keys() == stored.keys()
    assert not torch.equal(changed["head.dense.weight"], stored["head.dense.weight"])


def test_a_method_without_a_head_leaves_none_behind(text_file: str, tmp_path: Path) -> None:
    folder = pretrain(CausalLM(tiny_text_encoder(causal=True)), text_file, tmp_path)
    assert "heads.safetensors" not in files_below(folder)


def test_untrained_copies_take_no_head_and_heads_are_no_part_of_what_an_encoder_computes(tmp_path: Path) -> None:
    encoder = tiny_text_encoder()
    bare = fingerprint(encoder)
    encoder.heads = MaskedLM(encoder).head_weights("encoder")
    save_encoder(encoder, tmp_path / "e")
    assert fingerprint(load_encoder(tmp_path / "e")) == bare
    assert load_encoder(f"random:{tmp_path / 'e'}").heads == {}


def test_heads_that_do_not_fit_or_are_damaged_are_named(tmp_path: Path) -> None:
    encoder = tiny_text_encoder()
    encoder.heads = MaskedLM(encoder).head_weights("encoder")
    folder = save_encoder(encoder, tmp_path / "e")
    weights = load_file(str(folder / "heads.safetensors"))
    save_file({n: w for n, w in weights.items() if n != "head.norm.bias"}, str(folder / "heads.safetensors"))
    write_manifest(folder)
    with pytest.raises(UserError, match=r"encoder's 'head' does not fit MaskedHead: missing \['norm\.bias'\]"):
        MaskedLM(str(folder))
    (folder / "heads.safetensors").write_bytes(b"junk")
    write_manifest(folder)
    with pytest.raises(UserError, match=r"heads\.safetensors cannot be read"):
        MaskedLM(str(folder))


def test_pretraining_goes_on_from_a_hugging_face_folder_and_back(text_file: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra `hub`")
    first = MaskedLM(tiny_text_encoder(norm="post", segments=2))
    ours = pretrain(first, text_file, tmp_path / "first")
    assert main(["export", "--encoder", str(ours), "--out", str(tmp_path / "theirs")]) == 0
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = text_batch([12, 12])
    logits = first.head(first.encoder.eval()(batch).states[-1])
    torch.testing.assert_close(model.eval()(batch.ids).logits, logits, atol=1e-5, rtol=1e-4)
    second = MaskedLM(f"hf:{tmp_path / 'theirs'}")
    assert torch.equal(second.head(second.encoder.eval()(batch).states[-1]), logits)
    assert "head.bias" in load_file(str(pretrain(second, text_file, tmp_path / "second") / "heads.safetensors"))


def test_export_answers_mistakes_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_encoder(tiny_text_encoder(), tmp_path / "pre_norm")
    assert main(["export", "--encoder", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "bert cannot express this encoder: norm: pre (not post)" in capsys.readouterr().err
    assert main(["export", "--encoder", str(folder), "--out", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["export", "--encoder", str(folder), "--out", str(tmp_path / "out"), "--family", "t5"]) == 2
    assert main(["export"]) == 2
    assert not (tmp_path / "out").exists()


def test_exported_configuration_names_the_tokens(text_file: str, tmp_path: Path) -> None:
    folder = pretrain(MaskedLM(tiny_text_encoder(norm="post")), text_file, tmp_path / "run", steps=1)
    export_encoder(load_encoder(folder), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["pad_token_id"]) == (["BertForMaskedLM"], 0)
    assert (config["bos_token_id"], config["eos_token_id"]) == (2, 3)
