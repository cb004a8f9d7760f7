"""ABX against loops over triples, its item files, and rows of results from the command line."""

from __future__ import annotations

import sqlite3
from itertools import permutations
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
from test_dtw import warped
from tiny import QUIET

from ssl_suite.cli import main
from ssl_suite.core.encoder import Encoded, Tokens
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.simple import Fbank
from ssl_suite.tasks import abx as module
from ssl_suite.tasks.abx import ABX, averaged, cell_errors
from ssl_suite.tasks.abx_items import Label, Mode, cells, read_cuts
from ssl_suite.tasks.dtw import DISTANCES, Pieces
from ssl_suite.tasks.layerwise import Judged


def some(n: int = 40) -> tuple[list[Label], list[torch.Tensor]]:
    """Pieces of units, with ties, of 3 phones in 2 contexts of 3 speakers."""
    draw = np.random.default_rng(0)
    labels = [Label(f"p{draw.integers(3)}", (f"c{draw.integers(2)}",), f"s{draw.integers(3)}") for _ in range(n)]
    return labels, [torch.from_numpy(draw.integers(0, 3, (draw.integers(1, 5), 1))).float() for _ in range(n)]


def slowly(labels: list[Label], states: list[torch.Tensor], mode: Mode) -> float:
    """The error from its definition, triple after triple."""

    def distance(i: int, j: int) -> float:
        return warped((states[i] != states[j].T).float())

    triples: dict[tuple[Any, ...], list[float]] = {}
    for a, b, x in permutations(range(len(labels)), 3):
        one, other, third = labels[a], labels[b], labels[x]
        if not (one.by == other.by == third.by and one.of == third.of != other.of and one.across == other.across):
            continue
        if (one.across == third.across) != (mode == "within"):
            continue
        to_a, to_b = distance(x, a), distance(x, b)
        key = (one.of, other.of), one.across, (one.by, third.across)
        triples.setdefault(key, []).append(1.0 if to_b < to_a else 0.5 if to_b == to_a else 0.0)
    cell = {key: mean(errors) for key, errors in triples.items()}
    speakers = {k[:2]: mean(e for other, e in cell.items() if other[:2] == k[:2]) for k in cell}
    pairs = {k[0]: mean(e for other, e in speakers.items() if other[0] == k[0]) for k in speakers}
    return mean(pairs.values())


@pytest.mark.parametrize("mode", ["within", "across"])
def test_the_error_is_that_of_all_triples(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, states = some()
    monkeypatch.setattr(module, "PAIRS", 60)  # distances of a few cells at a time
    pieces = Pieces.of(states, lambda values: values)
    found = averaged(cell_errors(pieces, cells(labels, mode, None, None, seed=0), DISTANCES["different"]))
    assert mean(found.values()) == pytest.approx(slowly(labels, states, mode), abs=1e-9)


def test_states_that_tell_all_make_no_error_and_those_that_tell_nothing_err_by_half() -> None:
    labels, states = some()
    for told, error in ((True, 0.0), (False, 0.5)):
        values = [
            torch.full_like(s, float(label.of[1]) if told else 1.0) for label, s in zip(labels, states, strict=True)
        ]
        pieces = Pieces.of(values, lambda values: values)
        found = averaged(cell_errors(pieces, cells(labels, "across", None, None, 0), DISTANCES["different"]))
        assert mean(found.values()) == error


def test_few_pieces_and_speakers_are_drawn_by_the_seed() -> None:
    labels, _ = some(300)
    made = list(cells(labels, "across", 3, 1, seed=1))
    assert {len(piece) for cell in made for piece in (cell.a, cell.b, cell.x)} == {3}
    assert len(made) == 3 * 2 * 3 * 2  # speakers, contexts, A, B: one other speaker each
    again = list(cells(labels, "across", 3, 1, seed=1))
    assert all(np.array_equal(one.x, two.x) for one, two in zip(made, again, strict=True))
    other = list(cells(labels, "across", 3, 1, seed=2))
    assert not all(np.array_equal(one.x, two.x) for one, two in zip(made, other, strict=True))
    kinds = dict(enumerate(labels))
    for cell in made:
        assert {(kinds[i].of, kinds[i].across) for i in cell.a.tolist()} == {(cell.pair[0], cell.across)}
        assert {kinds[i].of for i in cell.x.tolist()} == {cell.pair[0]}
        assert cell.across not in {kinds[i].across for i in cell.x.tolist()}


HEAD = "#file onset offset #phone prev-phone next-phone speaker\n"
COLUMNS = ("phone", "prev-phone", "next-phone", "speaker")


def test_a_piece_has_the_states_whose_middles_lie_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.item").write_text(HEAD + "x 0.2925 0.4725 IH L NG s\nx 0.10 0.13 A B C s\n")
    (long, short) = read_cuts(str(tmp_path / "a.item"), COLUMNS).of("some/folder/x.flac")
    assert (long.columns["phone"], long.columns["next-phone"]) == ("IH", "NG")
    middles = (np.arange(100) + 0.5) / 50
    for cut in (long, short):
        wanted = np.flatnonzero((middles >= cut.onset - 1e-9) & (middles <= cut.offset + 1e-9))
        assert list(range(100)[cut.states(50)]) == wanted.tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#file onset offset speaker\nx 0 1 s\n", "has no column 'phone' in its first line"),
        (HEAD + "x 0 1 A B C\n", "line 2 has 6 values, and the first line 7 names"),
        (HEAD + "x 0 one A B C s\n", "line 2: offset is 'one', but must be a number at least 0"),
        (HEAD + "x 0.5 0.5 A B C s\n", "line 2: the piece ends at 0.5 s, but starts at 0.5 s"),
        ("", "has no column 'file' in its first line"),
    ],
)
def test_a_damaged_item_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.item").write_text(text)
    with pytest.raises(UserError, match=said):
        read_cuts(str(tmp_path / "a.item"), COLUMNS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modes": ()}, "model.modes is of within and across"),
        ({"across": None}, "across needs --model.across"),
        ({"most": 1}, "model.most is 1, but must be a whole number at least 2"),
        ({"layers": [1]}, "model.layers is 1, but must be a whole number at least -1 and at most 0"),
        ({"layers": []}, "model.layers is empty"),
        ({"splits": ["train"]}, "model.splits is of the splits that are judged together"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ABX(Fbank(), **options)


PITCH = {"low": 300.0, "high": 1500.0}


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 0.8 s: noise, then a low or a high tone of 0.4 s, by two voices; a table and item files of them."""
    folder = tmp_path_factory.mktemp("voices")
    (folder / "wav").mkdir()
    draw = np.random.default_rng(0)
    time = np.arange(12800) / 16000
    for split in ("train", "validation", "test"):
        rows, lines = ["file_name,tone,voice"], [HEAD.strip()]
        for number in range(8):
            tone, voice = list(PITCH)[number % 2], number // 4
            wave = np.sin(2 * np.pi * PITCH[tone] * (1 + 0.1 * voice) * time) * (time > 0.4)
            name = f"{split}{number}"
            soundfile.write(folder / f"wav/{name}.wav", wave * 0.3 + draw.normal(0, 0.01, len(time)), 16000)
            rows.append(f"wav/{name}.wav,{tone},v{voice}")
            lines.append(f"{name} 0.45 0.75 {tone} a b v{voice}")
            lines.append(f"{name} 0.05 0.35 none a b v{voice}")
        (folder / f"{split}.csv").write_text("\n".join(rows))
        (folder / f"{split}.item").write_text("\n".join(lines))
    return folder


def judge(voices: Path, out: Path, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Rows of results by metric."""
    base = ["test", "--model=ABX", "--model.encoder=Fbank", "--data=Speech", f"--data.source={voices}"]
    base += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", f"--out={out}"]
    assert main([*base, *more]) == code
    if code:
        return {}
    with sqlite3.connect(out / "results.sqlite") as database:
        database.row_factory = sqlite3.Row
        return {row["metric"]: dict(row) for row in database.execute("select * from results")}


def test_an_item_file_cuts_recordings_and_gives_rows(voices: Path, tmp_path: Path) -> None:
    rows = judge(voices, tmp_path / "run", f"--model.items={voices}/test.item")
    assert set(rows) == {"abx_within", "abx_across"}
    first = rows["abx_within"]
    assert (first["main"], first["direction"], first["protocol"], first["role"]) == (1, "min", "abx@1", "simple")
    assert first["labels"] == 0
    assert rows["abx_across"]["value"] <= 0.1
    examples = pq.read_table(tmp_path / "run/outcomes-test.parquet").to_pylist()
    kinds = ("high", "low", "none")
    assert [row["id"] for row in examples] == [f"{a}|{b}" for a in kinds for b in kinds if a != b]
    assert mean(row["numerator"] for row in examples) == pytest.approx(first["value"])


def test_columns_of_a_table_are_compared_too(voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model.of=tone", "--model.by=[]", "--model.across=voice", "--model.modes=[across, within]")
    rows = judge(voices, tmp_path / "run", *options)
    assert rows["abx_across"]["main"] == 1
    assert rows["abx_across"]["value"] < 0.25
    everything = judge(voices, tmp_path / "all", *options, "--model.splits=[train, test]")
    assert everything["abx_across"]["protocol"] == "abx of train+test@1"
    assert everything["abx_across"]["recipe"] != rows["abx_across"]["recipe"]
    judge(voices, tmp_path / "short", *options, "--model.most_seconds=0.5", code=2)
    assert "no two pieces of one tone in the test split are of different voice" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_piece_without_a_state_is_left_out_and_counted(voices: Path, tmp_path: Path) -> None:
    lines = (voices / "test.item").read_text().splitlines()
    (tmp_path / "some.item").write_text("\n".join([*lines, "test0 0.100 0.101 high a b v0"]))
    with pytest.warns(UserWarning, match="1 of 17 pieces are too short for a state: left out"):
        rows = judge(voices, tmp_path / "run", f"--model.items={tmp_path}/some.item")
    without = judge(voices, tmp_path / "all", f"--model.items={voices}/test.item")
    assert rows["abx_within"]["value"] == without["abx_within"]["value"]


def test_a_recording_that_is_not_there_is_named(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(voices, tmp_path / "run", f"--model.items={voices}/train.item", code=2)
    said = " ".join(capsys.readouterr().err.split())
    assert "train.item, line 2: there is no recording 'train0' in the test split of" in said


class Layers(Fbank):
    """Log-mel frames of layer 1; layer 0 says nothing, and layer 2 that of the validation split alone."""

    def contextualise(self, tokens: Tokens) -> Encoded:
        encoded = super().contextualise(tokens)
        frames = encoded.states[0]
        self.num_states = 3
        return Encoded((torch.ones_like(frames), frames, frames), encoded.mask, encoded.pooled)


def test_the_layer_is_chosen_on_the_validation_split(voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"validation": [0.5, 0.1, 0.2], "test": [0.3, 0.4, 0.2]}
    monkeypatch.setattr(
        ABX, "judge", lambda self, split, number, tuned: Judged({"abx_within": errors[split][number]}, [])
    )
    found = {}
    for protocol in ("strict", "compat"):
        encoder = Layers()
        encoder.num_states = 3
        model = ABX(encoder, of="tone", by=(), across="voice", protocol=protocol)
        trainer = pl.Trainer(accelerator="cpu", **QUIET)
        (found[protocol],) = trainer.test(model, datamodule=Speech(str(voices)), verbose=False)
        assert "abx_within_layer_2" in model.less_is_better
    assert (found["strict"]["test/layer"], found["strict"]["test/abx_within"]) == (1, pytest.approx(0.4))
    assert (found["compat"]["test/layer"], found["compat"]["test/abx_within"]) == (2, pytest.approx(0.2))
    assert found["strict"]["test/abx_within_layer_0"] == pytest.approx(0.3)


def test_each_layer_is_judged_by_its_own_states(voices: Path) -> None:
    encoder = Layers()
    encoder.num_states = 3
    model = ABX(encoder, of="tone", by=(), across="voice", modes=("across",))
    trainer = pl.Trainer(accelerator="cpu", **QUIET)
    (found,) = trainer.test(model, datamodule=Speech(str(voices)), verbose=False)
    assert found["test/abx_across_layer_0"] == 0.5
    assert found["test/abx_across_layer_1"] == found["test/abx_across_layer_2"] < 0.25


def test_nothing_is_trained(voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--data.source={voices}", "--model.encoder=Fbank", f"--out={tmp_path}", "--trainer.accelerator=cpu"]
    assert main(["fit", "--model=ABX", "--data=Speech", "--model.of=tone", "--model.by=[]", *options]) == 2
    assert "ABX trains nothing" in capsys.readouterr().err


def test_the_recipe_of_the_prompts_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["test", "-c", "speech/abx", "--model.encoder=Fbank", "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert (options["of"], options["kind"], options["modes"]) == ("text", "transcript", ["across"])
