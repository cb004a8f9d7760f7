"""T5 and BART against transformers: the same logits, loss, gradients and generated ids, and the same bits back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import IGNORE, TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.core.seq2seq import Seq2SeqBatch, Seq2SeqItem, SequencePair, collate_pairs
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.generation import beam_search
from ssl_suite.encoders.hub.export import export_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*has no tokenizer")
transformers = pytest.importorskip("transformers", reason="parity needs transformers (the extra `hub`)")

VOCAB = 40
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
T5 |= {"relative_attention_max_distance": 9, "vocab_size": VOCAB, "dropout_rate": 0.0}
T5 |= {"decoder_start_token_id": 0}
HALF = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 24))}
BART = HALF | {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": VOCAB}
BART |= {"max_position_embeddings": 24, "dropout": 0.0, "forced_eos_token_id": None}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "T5": ("T5", T5),
    "T5 1.1": ("T5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "BART": ("Bart", BART),
}


def theirs(name: str, folder: Path, **more: Any) -> Any:
    """A transformers model with random weights, norms and biases too, saved in `folder`."""
    torch.manual_seed(1)
    family, options = MODELS[name]
    model = getattr(transformers, f"{family}ForConditionalGeneration")(
        getattr(transformers, f"{family}Config")(**options | more)
    ).eval()
    for parameter_name, p in model.named_parameters():
        norm = p.ndim == 1 and parameter_name.endswith("weight")
        nn.init.normal_(p, mean=1.0 if norm else 0.0, std=0.35)
    model.save_pretrained(folder)
    return model


def pairs(start: int, pad: int) -> Seq2SeqBatch:
    """Three pairs of unequal lengths, the second target longer than its input."""
    rng = np.random.default_rng(0)
    made = [SequencePair(rng.integers(4, VOCAB, n), rng.integers(4, VOCAB, m)) for n, m in ((13, 6), (4, 9), (1, 1))]
    return collate_pairs([Seq2SeqItem(i, i, [pair]) for i, pair in enumerate(made)], pad, start)


def loss(encoder: EncoderDecoder, batch: Seq2SeqBatch) -> Tensor:
    logits = encoder.logits(encoder.decode(batch, encoder(batch)))
    return F.cross_entropy(logits.flatten(0, 1), batch.wanted.flatten(), ignore_index=IGNORE)


def padding(model: Any) -> int:
    return int(model.config.pad_token_id)


@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients_are_transformers_own_and_every_bit_comes_back(name: str, tmp_path: Path) -> None:
    deeper = {"decoder_layers": 3} if name == "BART" else {"num_decoder_layers": 3}
    model = theirs(name, tmp_path / "theirs", **deeper)
    encoder = load_encoder(f"hf:{tmp_path / 'theirs'}").eval()
    assert isinstance(encoder, EncoderDecoder)
    batch = pairs(encoder.start_id, padding(model))
    wanted = model(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=batch.wanted)
    logits = encoder.logits(encoder.decode(batch, encoder(batch)))
    assert wanted.logits[batch.decoder.mask].std(0).mean() > 0.02
    assert (logits - wanted.logits)[batch.decoder.mask].abs().max() < 1e-4
    states = wanted.encoder_last_hidden_state
    assert (encoder(batch).states[-1] - states)[batch.mask].abs().max() < 1e-4
    own = loss(encoder, batch)
    torch.testing.assert_close(own, wanted.loss)
    own.backward()
    wanted.loss.backward()
    gradients = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    words = model.get_input_embeddings().weight.grad
    if name != "T5 1.1":
        torch.testing.assert_close(gradients["tokens.weight"], words, rtol=1e-4, atol=1e-5)
    stack = model.get_encoder()
    first = stack.block[0].layer[0].SelfAttention if name != "BART" else stack.layers[0].self_attn
    parts = (first.q, first.k, first.v) if name != "BART" else (first.q_proj, first.k_proj, first.v_proj)
    joined = torch.cat([p.weight.grad for p in parts])
    torch.testing.assert_close(gradients["encoder.blocks.0.attention.qkv.weight"], joined, rtol=1e-3, atol=1e-5)
    if name != "BART":
        table = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
        torch.testing.assert_close(gradients["decoder.distances.table.weight"], table, rtol=1e-3, atol=1e-5)

    save_encoder(encoder, tmp_path / "ours")
    export_encoder(load_encoder(tmp_path / "ours"), tmp_path / "back")
    back, info = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    assert [n for n in before if not torch.equal(before[n], after[n])] == []
    again = back(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=batch.wanted)
    torch.testing.assert_close(again.logits, wanted.logits)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_and_beam_search_say_what_transformers_says(
    name: str, penalty: float, beams: int, tmp_path: Path
) -> None:
    model = theirs(name, tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    assert isinstance(encoder, EncoderDecoder)
    start, end = encoder.start_id, int(model.config.eos_token_id)
    batch = pairs(start, padding(model))
    options = {"num_beams": beams, "length_penalty": penalty, "max_new_tokens": 15, "do_sample": False}
    options |= {"early_stopping": False, "eos_token_id": end, "pad_token_id": padding(model)}
    options |= {"decoder_start_token_id": start, "forced_bos_token_id": None, "forced_eos_token_id": None}
    ids = model.generate(input_ids=batch.ids, attention_mask=batch.mask.long(), **options)
    wanted = [row[1:] for row in ids.tolist()]
    wanted = [row[: row.index(end)] if end in row else row for row in wanted]
    found = encoder.generate(batch, 15, beams, penalty, end)
    assert found == wanted
    assert encoder.training  # as it was


def test_beams_find_a_likelier_sentence_than_greed_does() -> None:
    """Of two first words the less likely one leads to a certain end: 0.4 · 1 against 0.6 · 0.5."""
    log_p = torch.full((4, 4), -50.0)
    log_p[0, 2], log_p[0, 3] = np.log(0.6), np.log(0.4)
    log_p[2, 2], log_p[2, 1] = np.log(0.5), np.log(0.5)
    log_p[3, 1] = 0.0
    advance = lambda ids, rows: log_p[ids[:, 0]]  # noqa: E731
    assert beam_search(advance, 1, 0, 1, 3, 2, 0.0, torch.device("cpu")) == [[3]]


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_pairs_packed_into_one_row_are_as_if_alone(shape: Any) -> None:
    torch.manual_seed(0)
    encoder = EncoderDecoder(VOCAB, 16, 2, heads=2, shape=shape, max_length=30, dropout=0.0).eval()
    rng = np.random.default_rng(0)
    made = [SequencePair(rng.integers(4, VOCAB, n), rng.integers(4, VOCAB, m)) for n, m in ((7, 5), (4, 8), (3, 2))]
    packed = collate_pairs([Seq2SeqItem(0, 0, made[:2]), Seq2SeqItem(1, 1, made[2:])], 0, 0)
    assert packed.ids.shape == (2, 11)
    assert packed.decoder.ids[0].tolist() == [0, *made[0].targets[:-1], 0, *made[1].targets[:-1]]
    together = encoder.decode(packed, encoder(packed))
    alone = [collate_pairs([Seq2SeqItem(0, 0, [pair])], 0, 0) for pair in made]
    first, second, third = (encoder.decode(b, encoder(b))[0] for b in alone)
    torch.testing.assert_close(together[0], torch.cat([first, second]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1, :2], third, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_a_cache_says_what_the_whole_sequence_says(shape: Any) -> None:
    torch.manual_seed(0)
    encoder = EncoderDecoder(VOCAB, 16, 2, heads=2, shape=shape, max_length=30)
    batch = pairs(0, 0)
    said = encoder.generate(batch, 8, end=1)
    for row, ids in enumerate(said):
        n = int(batch.mask[row].sum())
        whole = np.array([*ids, 1][:8])
        one = collate_pairs([Seq2SeqItem(0, 0, [SequencePair(batch.ids[row, :n].numpy(), whole)])], 0, 0)
        likeliest = encoder.eval().logits(encoder.decode(one, encoder(one)))[0].argmax(-1)
        assert likeliest.tolist() == whole.tolist()


def test_places_move_what_a_decoder_with_learned_positions_reads() -> None:
    encoder = EncoderDecoder(VOCAB, 16, 1, heads=2, shape="bart", max_length=30, dropout=0.0)
    moved = collate_pairs([Seq2SeqItem(0, 0, [SequencePair(np.arange(9), np.arange(4, 8), place=3)])], 0, 0)
    assert moved.places is not None
    assert moved.places.tolist() == [[3, 4, 5, 6]]
    x = encoder.eval()._enter(moved.decoder, moved.places)
    plain = encoder.tokens(moved.decoder.ids) + encoder.decoder_positions.weight[3:7]  # type: ignore[union-attr]
    torch.testing.assert_close(x, encoder.decoder_embedding_norm(plain))


def test_what_is_too_long_or_of_another_shape_is_named(tmp_path: Path) -> None:
    bart = EncoderDecoder(VOCAB, 16, 1, heads=2, shape="bart", max_length=8)
    ids = torch.ones(1, 9, dtype=torch.long)
    with pytest.raises(UserError, match="9 tokens is longer than max_length 8"):
        bart(TextBatch(ids[:, 0], ids[:, 0], None, ids, ids.bool(), dense=True))
    with pytest.raises(UserError, match="decoder writes 8 tokens"):
        bart.generate(TextBatch(ids[:, 0], ids[:, 0], None, ids[:, :4], ids[:, :4].bool()), 9, end=1)
    with pytest.raises(UserError, match="has the shape of bart, not of t5"):
        export_encoder(bart, tmp_path / "out", "t5")
    with pytest.raises(UserError, match="must divide dim"):
        EncoderDecoder(VOCAB, 16, heads=3)
