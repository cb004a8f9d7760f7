"""Query by example against SUPERB's steps written as loops, its figures, and rows of results from the command line."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import soundfile
import torch
import yaml
from processes import run_processes
from pytorch_lightning.plugins.environments import LightningEnvironment
from test_dtw import found_anywhere
from tiny import QUIET

from ssl_suite.cli import main
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.simple import Fbank
from ssl_suite.tasks import query_by_example as module
from ssl_suite.tasks.query_by_example import QueryByExample, read_pairs, search_scores
from ssl_suite.tasks.term_weighted import NOTHING, best_threshold, term_values

CPU = torch.device("cpu")


def some(count: int, low: int, high: int) -> list[torch.Tensor]:
    draw = np.random.default_rng(count)
    sizes = draw.integers(low, high, count)
    return [torch.from_numpy(draw.normal(0.3, 2.0, (n, 4))).float() for n in sizes]


def slowly(queries: list[torch.Tensor], utterances: list[torch.Tensor]) -> torch.Tensor:
    """SUPERB's scores, one pair after the other."""
    every = torch.cat([*queries, *utterances])
    scores = torch.zeros(len(queries), len(utterances))
    for q, query in enumerate(queries):
        for u, utterance in enumerate(utterances):
            one, other = ((states - every.mean(0)) / every.std(0) for states in (query, utterance))
            cost = (1 - torch.cosine_similarity(one[:, None], other[None], dim=-1)).exp() - 1
            low, high = cost.min(1, keepdim=True).values, cost.max(1, keepdim=True).values
            scores[q, u] = -found_anywhere((cost - low) / (high - low).clamp(min=1e-9)) if len(query) >= 5 else 0
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0).clamp(min=1e-9)


@pytest.mark.parametrize("states", [(1, 1), (12, 60), (1 << 9, 1 << 12)])
def test_scores_are_superbs(states: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATES", states)
    queries, utterances = [*some(4, 5, 9), torch.ones(3, 4)], some(11, 1, 30)
    got = search_scores(queries, utterances, CPU)
    torch.testing.assert_close(got, slowly(queries, utterances), rtol=1e-4, atol=1e-4)
    assert got[-1].tolist() == [0.0] * 11


def value(scores: torch.Tensor, found: torch.Tensor, threshold: float, beta: float) -> float:
    """1 − P(miss) − β · P(false alarm), the mean over terms, counted one by one."""
    values = []
    for row, true in zip(scores.tolist(), found.tolist(), strict=True):
        missed = sum(t and s < threshold for s, t in zip(row, true, strict=True)) / sum(true)
        wrong = sum(not t and s >= threshold for s, t in zip(row, true, strict=True)) / (len(true) - sum(true))
        values.append(1 - missed - beta * wrong)
    return mean(values)


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_counted_and_no_threshold_is_better(ties: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    found = torch.rand(6, 30, generator=draw) < 0.2
    scores = torch.randn(6, 30, generator=draw) + 2.0 * found
    scores = scores.round() if ties else scores
    best, threshold = best_threshold(scores, found, 3.0)
    every = [value(scores, found, t, 3.0) for t in scores.unique().tolist()]
    assert best == pytest.approx(max(every))
    assert value(scores, found, threshold, 3.0) == pytest.approx(best)
    for t in (threshold, 0.0, 1.0):
        assert float(term_values(scores, found, t, 3.0).mean()) == pytest.approx(value(scores, found, t, 3.0))
    assert best_threshold(-scores, found, 100.0) == (0.0, NOTHING)


WORDS = {"first": "acf", "second": "fbd", "third": "dae", "fourth": "ceb", "fifth": "bfa", "sixth": "edc"}
"""Each is three tones, of the pitches a to f; nobody sings the last."""


def sung(text: str, draw: np.random.Generator) -> Any:
    """Tones of 0.15 s, a little off."""
    pitches = dict(zip("abcdef", (300.0, 700.0, 1300.0, 2200.0, 3600.0, 5800.0), strict=True))
    time = np.arange(2400) / 16000
    tones = [pitches[tone] * draw.uniform(0.98, 1.02) for word in text.split() for tone in WORDS[word]]
    wave = np.concatenate([np.sin(2 * np.pi * pitch * time) for pitch in tones])
    return 0.3 * wave + draw.normal(0, 0.01, len(wave))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of sung words with transcripts: songs of two words in training, single ones in the other splits."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "wav").mkdir()
    draw = np.random.default_rng(0)
    texts = {"train": [" ".join(draw.permutation(list(WORDS)[:5])[:2]) for _ in range(20)]}
    texts |= {"validation": ["First!", "Third", "fifth", "second", "fourth", "first second third fourth"]}
    texts |= {"test": ["second", "fourth", "third", "first", "sixth"]}
    for split, rows in texts.items():
        lines = ["file_name,text"]
        for number, text in enumerate(rows):
            name = f"wav/{split}{number}.wav"
            soundfile.write(folder / name, sung(text.lower().strip("!"), draw), 16000)
            lines.append(f"{name},{text}")
        (folder / f"{split}.csv").write_text("\n".join(lines))
    return folder


def judge(folder: Path, out: Path, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Rows of results by metric."""
    base = ["test", "--model=QueryByExample", "--model.encoder=Fbank", "--data=Speech", f"--data.source={folder}"]
    base += ["--model.beta=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", f"--out={out}"]
    assert main([*base, *more]) == code
    if code:
        return {}
    with sqlite3.connect(out / "results.sqlite") as database:
        database.row_factory = sqlite3.Row
        return {row["metric"]: dict(row) for row in database.execute("select * from results")}


def test_words_are_found_in_songs_and_give_rows(songs: Path, tmp_path: Path) -> None:
    rows = judge(songs, tmp_path / "run")
    assert set(rows) == {"atwv", "mtwv", "threshold"}
    first = rows["atwv"]
    assert (first["main"], first["direction"], first["protocol"]) == (1, "max", "qbe@1")
    assert 0.5 < first["value"] <= rows["mtwv"]["value"] <= 1
    examples = pq.read_table(tmp_path / "run/outcomes-test.parquet").to_pylist()
    assert [row["id"] for row in examples] == [f"wav/test{n}.wav" for n in range(4)]  # nobody sings the sixth
    assert mean(row["numerator"] for row in examples) == pytest.approx(first["value"])
    compat = judge(songs, tmp_path / "compat", "--model.protocol=compat")
    assert set(compat) == {"mtwv"}
    assert (compat["mtwv"]["main"], compat["mtwv"]["protocol"]) == (1, "qbe-compat@1")
    assert compat["mtwv"]["value"] == rows["mtwv"]["value"]


def test_the_threshold_is_that_of_the_validation_split_or_given(songs: Path, tmp_path: Path) -> None:
    chosen = judge(songs, tmp_path / "chosen")
    given = judge(songs, tmp_path / "given", f"--model.threshold={chosen['threshold']['value']}")
    assert given["atwv"]["value"] == chosen["atwv"]["value"]
    assert judge(songs, tmp_path / "none", "--model.threshold=1000")["atwv"]["value"] == 0
    own = judge(songs, tmp_path / "own", f"--data.validation={songs}/test.csv", "--data.test", f"{songs}/test.csv")
    assert own["atwv"]["value"] == pytest.approx(own["mtwv"]["value"])  # tuned on what is scored


def test_quesst_tells_where_its_queries_are(tmp_path: Path) -> None:
    """A folder in its layout: the first query is in the second and third utterance, the second one in the first."""
    draw = np.random.default_rng(0)
    texts = {"Audio/quesst14": ["second fifth", "first third", "fourth first"]}
    texts |= {f"{part}_queries/quesst14_{part}": ["first", "second"] for part in ("dev", "eval")}
    for place, rows in texts.items():
        folder, _, stem = place.partition("/")
        (tmp_path / folder).mkdir()
        listed = []
        for number, text in enumerate(rows):
            name = f"{folder}/{stem}_{number:04}.wav"
            soundfile.write(tmp_path / name, sung(text, draw), 16000)
            listed.append(f"quesst14Database/{name} nnenglish\n")
        part = {"Audio": "utterances"}.get(folder, folder.removesuffix("_queries"))
        truth = tmp_path / f"scoring/groundtruth_quesst14_{part}"
        truth.mkdir(parents=True)
        (tmp_path / f"scoring/language_key_{part}.lst").write_text("".join(listed))
        found = [f"LEXEME quesst14_000{u} 1 0 9 quesst14_{part}_000{q} lex self 1" for q, u in ((0, 1), (0, 2), (1, 0))]
        (truth / f"quesst14_{part}.rttm").write_text("\n".join(found))
    rows = judge(tmp_path, tmp_path / "run", "--model.told=occurs", f"--data.source=quesst14/nnenglish:{tmp_path}")
    assert rows["mtwv"]["value"] == 1.0
    assert rows["atwv"]["value"] >= 0.5


def test_pairs_and_columns_say_what_transcripts_do(songs: Path, tmp_path: Path) -> None:
    """Three ways to tell the same truth give the same figures."""
    told = judge(songs, tmp_path / "told")
    words = {split: read_table(songs / f"{split}.csv") for split in ("train", "validation", "test")}
    pairs = {}
    (tmp_path / "columns").mkdir()
    for split in ("validation", "test"):
        lines, rows = ["query,utterance"], []
        for name in words["train"]:
            rows.append({"file_name": str(songs / name), "id": name, "role": "utterance", "occurs": []})
        for query, word in words[split].items():
            found = [name for name, text in words["train"].items() if word in text.split()]
            lines += [f"{Path(query).stem},{name}" for name in found]
            rows.append({"file_name": str(songs / query), "id": query, "role": "query", "occurs": found})
        (tmp_path / f"{split}-pairs.csv").write_text("\n".join(lines))
        (tmp_path / f"columns/{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        pairs[split] = str(tmp_path / f"{split}-pairs.csv")
    listed = judge(songs, tmp_path / "listed", f"--model.pairs={json.dumps(pairs)}")
    columns = judge(tmp_path / "columns", tmp_path / "run", "--model.told=occurs")
    for metric in ("atwv", "mtwv"):
        assert listed[metric]["value"] == pytest.approx(told[metric]["value"])
        assert columns[metric]["value"] == pytest.approx(told[metric]["value"], abs=1e-6)


def read_table(path: Path) -> dict[str, str]:
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return {name: text.lower().strip("!") for name, text in rows}


def examples(songs: str, devices: int) -> list[Any]:
    model = QueryByExample(Fbank(), beta=1.0)
    more = {"devices": devices, "strategy": "ddp", "plugins": [LightningEnvironment()]} if devices > 1 else {}
    trainer = pl.Trainer(accelerator="cpu", **more, **QUIET)  # type: ignore[arg-type]
    trainer.test(model, datamodule=Speech(songs, batch_size=3), verbose=False)
    return model.examples("test")


def worker(rank: int, port: int, songs: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
    Path(folder, f"{rank}.json").write_text(json.dumps(examples(songs, 2)))
    torch.distributed.destroy_process_group()


def test_two_processes_judge_as_one(songs: Path, tmp_path: Path) -> None:
    run_processes(worker, 2, str(songs), str(tmp_path))
    alone = examples(str(songs), 1)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert [name for name, _, _ in found] == [name for name, _, _ in alone]
        assert [value for _, value, _ in found] == pytest.approx([value for _, value, _ in alone])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("query,utterance\ntest0,nowhere\n", "The query 'wav/test0.wav' is to be in 'nowhere', which is no utterance"),
        ("query,utterance\nnobody,train0\n", "no query of the test split is in an utterance and not in all"),
        ("query;utterance\ntest0;train0\n", "line 2 lacks a query or an utterance; its columns are query,utterance"),
        ("query,utterance\n", "names no query"),
    ],
)
def test_a_list_that_does_not_fit_is_named(
    pairs: str, said: str, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text(pairs)
    judge(songs, tmp_path / "run", f"--model.pairs={tmp_path}/pairs.csv", "--model.threshold=1", code=2)
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_the_validation_split_must_say_is_asked_for(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text("query,utterance\ntest0,train0\n")
    judge(songs, tmp_path / "run", f"--model.pairs={tmp_path}/pairs.csv", code=2)
    assert "model.pairs names no file of the validation split" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/test.csv").write_text((songs / "test.csv").read_text().replace("wav/", f"{songs}/wav/"))
    judge(tmp_path / "alone", tmp_path / "run", code=2)
    assert "has no validation split, on which the threshold is chosen" in " ".join(capsys.readouterr().err.split())
    assert read_pairs(str(tmp_path / "pairs.csv")) == {"test0": {"train0"}}


def test_two_test_splits_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subset in ("test-clean", "test-other"):
        chapter = tmp_path / subset / "1/2"
        chapter.mkdir(parents=True)
        (chapter / "1-2.trans.txt").write_text("1-2-0000 SOME WORDS\n")
        soundfile.write(chapter / "1-2-0000.flac", np.zeros(1600), 16000)
    judge(tmp_path, tmp_path / "run", f"--data.source=librispeech:{tmp_path}", code=2)
    assert "QueryByExample judges one split, not test and test_other" in " ".join(capsys.readouterr().err.split())


def test_options_without_meaning_are_refused() -> None:
    for options, said in (
        ({"told": "x"}, "model.told is 'x'"),
        ({"beta": 0}, "model.beta is 0"),
        ({"most_words": 0}, "1"),
    ):
        with pytest.raises(UserError, match=said):
            QueryByExample(Fbank(), **options)  # type: ignore[arg-type]


def test_the_recipe_of_the_prompts_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["test", "-c", "speech/query_by_example", "--model.encoder=Fbank", "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert (options["told"], options["by"]) == ("transcript", ["language"])
