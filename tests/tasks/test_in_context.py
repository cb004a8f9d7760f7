"""Scores of answers against a direct computation, whatever else is in the batch; perplexity of long documents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.prompts.documents import Documents
from ssl_suite.data.text.prompts.prompts import Prompts
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.tasks.in_context import InContext
from ssl_suite.tasks.likelihood import Perplexity

WORDS = ["a", "lean", "cat", "saw", "one", "old", "dog", "run", "up", "the", "hill", "and", "sat", "down", "by", "it"]


@pytest.fixture(params=["learned", "rotary"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    torch.manual_seed(3)
    made = tiny_text_encoder(causal=True, max_length=96, positions=request.param, dropout=0.3)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(8)  # so that likelihoods differ well
    made.tokenizer = train_tokenizer([" ".join(WORDS)] * 2, "byte")
    return made


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Rows with 2 to 4 answers of different lengths."""
    for split, n in (("train", 6), ("test", 11)):
        rows = []
        for i in range(n):
            answers = [" ".join(WORDS[(i + k) % 9 :][: 1 + (i * k) % 4]) for k in range(2 + i % 3)]
            rows.append({"q": " ".join(WORDS[: 1 + i % 7]), "answers": answers, "y": i % 2})
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path)


def prompts(source: str, encoder: TextEncoder, **options: object) -> Prompts:
    data = Prompts(source, "{q}: {y}", target="y", choices="answers", **{"max_length": 96, **options})  # type: ignore[arg-type]
    data.serve(Request(tokenizer=encoder.tokenizer))
    return data


@torch.no_grad()
def direct(encoder: TextEncoder, context: str, answer: str) -> float:
    """One sequence alone, all its logits, log softmax, a loop."""
    tokenizer = encoder.eval().tokenizer
    before = [tokenizer.token_to_id("[CLS]"), *tokenizer.encode(context, add_special_tokens=False).ids]
    after = tokenizer.encode(answer, add_special_tokens=False).ids
    ids = torch.tensor([before + after])
    batch = TextBatch(torch.zeros(1), torch.zeros(1), None, ids, torch.ones_like(ids, dtype=torch.bool), dense=True)
    log_p = F.linear(encoder(batch).states[-1], encoder.tokens.weight).double().log_softmax(-1)[0]
    return sum(float(log_p[len(before) + i - 1, token]) for i, token in enumerate(after))


def batches(data: Prompts, size: int, order: list[int]) -> list[ChoiceBatch]:
    return [
        data.collate([data.read("test", i, 0) for i in order[s : s + size]])  # type: ignore[misc]
        for s in range(0, len(order), size)
    ]


@pytest.mark.parametrize("shots", [0, 1])
def test_scores_are_those_of_each_answer_alone(encoder: TextEncoder, source: str, shots: int) -> None:
    data, model = prompts(source, encoder, shots=shots), InContext(encoder)
    (batch,) = batches(data, 11, list(range(11)))
    total, by_character = model.scores(batch)
    train = data.rows["train"]
    solved = "".join(f"{train[r]['q']}: {train[r]['answers'][train[r]['y']]}\n\n" for r in data.shot_rows("test", 0))
    for i, row in enumerate(data.rows["test"]):
        for k, answer in enumerate(row["answers"]):
            wanted = direct(encoder, f"{solved}{row['q']}:", f" {answer}")
            assert float(total[i, k]) == pytest.approx(wanted, rel=1e-4)
            assert float(by_character[i, k]) == pytest.approx(wanted / len(answer), rel=1e-4)
        assert (total[i, len(row["answers"]) :] == -math.inf).all()


def test_scores_depend_on_no_batch_size_order_or_padding(encoder: TextEncoder, source: str) -> None:
    data, model = prompts(source, encoder, shots=1), InContext(encoder)
    wanted = {
        int(i): s for b in batches(data, 1, list(range(11))) for i, s in zip(b.index, model.scores(b)[0], strict=True)
    }
    for size, order in ((2, list(range(11))), (5, list(range(10, -1, -1))), (11, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 10])):
        for batch in batches(data, size, order):
            batch.ids[~batch.mask] = 77  # what stands in the padding is nobody's business
            for i, scores in zip(batch.index.tolist(), model.scores(batch)[0], strict=True):
                n = len(wanted[i])
                real = wanted[i].isfinite()
                torch.testing.assert_close(scores[:n][real], wanted[i][real], rtol=1e-4, atol=1e-3)


def test_test_reports_the_share_of_right_answers(encoder: TextEncoder, source: str, tmp_path: Path) -> None:
    model = InContext(encoder)
    data = Prompts(source, "{q}: {y}", target="y", choices="answers", max_length=96, batch_size=4)
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    (figures,) = trainer.test(model, datamodule=data, verbose=False)
    right = norm = 0
    for row in data.rows["test"]:
        scores = [direct(encoder, f"{row['q']}:", f" {a}") for a in row["answers"]]
        right += scores.index(max(scores)) == row["y"]
        by_character = [s / len(a) for s, a in zip(scores, row["answers"], strict=True)]
        norm += by_character.index(max(by_character)) == row["y"]
    assert figures == {"test/accuracy": pytest.approx(right / 11), "test/accuracy_norm": pytest.approx(norm / 11)}
    assert model.protocol == "0-shot"
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


def test_what_cannot_answer_is_refused(encoder: TextEncoder, source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="InContext needs a causal encoder"):
        InContext(tiny_text_encoder())
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    data = Prompts(source, "{q}: {y}", target="y", choices="answers", max_length=97)
    with pytest.raises(UserError, match="trains nothing"):
        trainer.fit(InContext(encoder), datamodule=data)
    if encoder.positions is not None:
        with pytest.raises(UserError, match="max_length is 97, the encoder reads 96"):
            trainer.test(InContext(encoder), datamodule=data)
    else:
        trainer.test(InContext(encoder), datamodule=data, verbose=False)


def test_bits_per_byte_of_long_documents(encoder: TextEncoder, tmp_path: Path) -> None:
    texts = [" ".join(WORDS * 4), "é — short", "x" * 70]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    model, data = Perplexity(encoder), Documents(str(tmp_path), max_length=40, stride=13, batch_size=3)
    (figures,) = trainer.test(model, datamodule=data, verbose=False)
    nats, tokens = 0.0, 0
    for text in texts:
        ids = [encoder.tokenizer.token_to_id("[CLS]"), *encoder.tokenizer.encode(text, add_special_tokens=False).ids]
        tokens += len(ids) - 1
        done = 1
        while done < len(ids):  # one window after the other, all logits
            end = min(40, len(ids)) if done == 1 else min(done + 13, len(ids))
            begin = max(0, end - 40)
            window = torch.tensor([ids[begin:end]])
            mask = torch.ones_like(window, dtype=torch.bool)
            batch = TextBatch(torch.zeros(1), torch.zeros(1), None, window, mask, dense=True)
            with torch.no_grad():
                log_p = F.linear(encoder(batch).states[-1], encoder.tokens.weight).log_softmax(-1)[0]
            nats -= sum(float(log_p[t - 1 - begin, ids[t]]) for t in range(done, end))
            done = end
    assert figures["test/perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-3)
    assert figures["test/bits_per_byte"] == pytest.approx(
        nats / math.log(2) / sum(len(t.encode()) for t in texts), rel=1e-4
    )


def test_logits_are_made_at_scored_places_only(
    encoder: TextEncoder, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl_suite.encoders.text as module

    seen: list[int] = []
    real = module.token_log_likelihoods
    monkeypatch.setattr(module, "token_log_likelihoods", lambda s, w, t: (seen.append(len(s)), real(s, w, t))[1])
    (batch,) = batches(prompts(source, encoder), 11, list(range(11)))
    encoder.log_likelihoods(batch)
    assert seen == [int(batch.scored.sum())]
