"""Units of speech: made of any encoder's frames, kept as arrays, cut with the audio, and traced to what made them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from tiny import tiny_speech_encoder

from ssl_suite.cli import main
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.data.common.source import open_source
from ssl_suite.data.speech import prepare
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.speech.unit_figures import Agreement
from ssl_suite.data.speech.units import UnitFile
from ssl_suite.encoders.simple import Mfcc

FEW = ("--units", "5", "--seed", "1")


def make(source: str, out: Path, *options: str) -> dict[str, Any]:
    """Runs the command, and returns what the folder says of itself."""
    assert main(["prepare", "units", "--source", source, "--out", str(out), *FEW, *options]) == 0
    return json.loads((out / "units.json").read_text())


@pytest.fixture(scope="module")
def folder(speech_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of MFCC, every 10 ms."""
    out = tmp_path_factory.mktemp("units") / "made"
    make(speech_folder, out)
    return out


def served(source: str, units: Path | None, request: Request, **options: Any) -> Speech:
    data = Speech(source, units=units and str(units), **{"batch_size": 4, **options})
    data.serve(request)
    return data


def test_each_unit_is_the_centre_next_to_its_frame(folder: Path, speech_folder: str) -> None:
    centres = prepare.load_file(str(folder / "centres.safetensors"))["centres"]
    for split, n in (("train", 12), ("validation", 4)):
        file, data = UnitFile.load(folder / f"{split}.safetensors"), served(speech_folder, None, Request())
        assert len(file.marks) == n == len(file.marks.unique())
        for i in range(n):
            encoded = Mfcc(normalize=False)(data.collate([data.read(split, i, 0)]))
            expected = torch.cdist(encoded.states[0][0], centres).argmin(1)
            assert torch.equal(file.units[file.starts[i] : file.starts[i + 1]].long(), expected)


def test_a_state_has_the_unit_of_its_first_sample_and_crops_carry_theirs(folder: Path, speech_folder: str) -> None:
    file = UnitFile.load(folder / "train.safetensors")
    for stride in (160, 320, 640):
        request = Request(pretrains=True, target="frames", stride=stride)
        whole = served(speech_folder, folder, request, max_seconds=None)
        cropped = served(speech_folder, folder, request, max_seconds=0.2)
        assert cropped.labels == list("01234")
        for i in range(12):
            units = file.units[file.starts[i] : file.starts[i + 1]].long()
            target = whole.read("train", i, 0).target
            states = [t * stride // 160 for t in range(len(target))]
            assert target.tolist() == units[states].tolist()
            assert abs(len(target) - len(whole.read("train", i, 0).wave) / stride) <= 2
            item, audio = cropped.read("train", i, 7), whole.read("train", i, 0).wave
            starts = [s for s in range(0, len(audio), stride) if torch.equal(audio[s : s + 3200], item.wave)]
            assert len(starts) == 1
            first = starts[0] // stride
            assert item.target.tolist() == target[first : first + -(-3200 // stride)].tolist()


def test_rows_that_were_held_out_filtered_or_drawn_keep_their_units(speech_folder: str, tmp_path: Path) -> None:
    train = f"{speech_folder}/train"  # without splits: every tenth row is held out for validation
    rows = [{"audio": str(p), "who": p.stem[-1], "label": p.parent.name} for p in sorted(Path(train).rglob("*.wav"))]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source, out = str(tmp_path / "all.jsonl"), tmp_path / "made"
    make(source, out)
    file = UnitFile.load(out / "train.safetensors")
    for options in ({}, {"where": {"label": "low"}}):
        data = served(source, out, Request(target="frames", stride=160), **options)
        assert set(data.splits()) == ({"train", "validation"} if not options else {"train"})
        for split in data.splits():
            for i, number in enumerate(range(6) if data.rows[split].numbers is None else data.rows[split].numbers):
                expected = file.units[file.starts[number] : file.starts[number + 1]]
                assert data.target(split, i).tolist() == expected.tolist()


def test_another_process_maps_the_file_itself(folder: Path, speech_folder: str) -> None:
    data = served(speech_folder, folder, Request(target="frames", stride=160))
    sent = pickle.dumps(data.rows["train"].beside["units"])
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[3], data.rows["train"].beside["units"][3])


def test_a_folder_says_what_made_it_and_refuses_other_things(
    folder: Path, speech_folder: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    told = json.loads((folder / "units.json").read_text())
    assert (told["units"], told["stride"], told["made_of"]["encoder"], told["made_of"]["seed"]) == (5, 160, "mfcc", 1)
    assert told["made_of"]["weights"] == prepare.fingerprint(Mfcc(normalize=False))
    again = ("prepare", "units", "--source", speech_folder, "--out", str(folder))
    assert "units of another seed" in fails(*again, "--units", "5", "--seed", "2")
    assert "units of another units" in fails(*again, "--units", "6", "--seed", "1")
    (tmp_path / "letter.txt").write_text("dear")
    assert "holds other files" in fails(*again[:-1], str(tmp_path))
    assert "fewer than --units 3000" in fails(*again[:-1], str(tmp_path / "made"), "--units", "3000")
    assert "has no column 'phones'" in fails(*again, *FEW, "--labels", "phones")
    assert "layers 0 to 0" in fails(*again[:-1], str(tmp_path / "made"), "--readout", "layer:3")


def test_a_layer_of_an_encoder_gives_units_and_another_layer_others(speech_folder: str, tmp_path: Path) -> None:
    save_encoder(tiny_speech_encoder(trunk="transformer", stack=2), tmp_path / "encoder")
    first = make(speech_folder, tmp_path / "a", "--encoder", str(tmp_path / "encoder"), "--readout", "layer:1")
    other = make(speech_folder, tmp_path / "b", "--encoder", str(tmp_path / "encoder"), "--readout", "layer:2")
    assert first["stride"] == 320
    assert first["hash"] != other["hash"]
    a, b = (UnitFile.load(tmp_path / n / "train.safetensors") for n in "ab")
    assert torch.equal(a.starts, b.starts)
    assert not torch.equal(a.units, b.units)
    same = make(speech_folder, tmp_path / "c", "--encoder", str(tmp_path / "encoder"), "--readout", "layer:1")
    assert same["hash"] == first["hash"]
    assert torch.equal(UnitFile.load(tmp_path / "c/train.safetensors").units, a.units)


def test_what_was_stopped_goes_on_and_gives_the_same(
    folder: Path, speech_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "HOUR", 1.0)  # parts of a few recordings
    recipe, seen = prepare.Recipe(speech_folder, units=5, seed=1), list[int]()
    encode = prepare.Nearest.__call__

    def stop(self: prepare.Nearest, batch: Any) -> Any:
        seen.extend(batch.index.tolist())
        if len(seen) > 6:
            raise KeyboardInterrupt
        return encode(self, batch)

    monkeypatch.setattr(prepare.Nearest, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare_units(recipe, tmp_path / "made", batch_seconds=1.0)
    kept = list((tmp_path / "made/parts/train").glob("*.safetensors"))
    assert kept
    before = len(seen)

    def note(self: prepare.Nearest, batch: Any) -> Any:
        seen.extend(batch.index.tolist())
        return encode(self, batch)

    monkeypatch.setattr(prepare.Nearest, "__call__", note)
    monkeypatch.setattr(prepare, "sampled", lambda *_: pytest.fail("k-means was run again"))
    prepare.prepare_units(recipe, tmp_path / "made", batch_seconds=1.0)
    assert (
        len(seen) - before < 12 + 4 + 4
    )  # a part that is there is not made again; each split's longest is tried first
    for split in ("train", "validation"):
        a, b = (UnitFile.load(f / f"{split}.safetensors") for f in (folder, tmp_path / "made"))
        assert torch.equal(a.units, b.units)
        assert torch.equal(a.starts, b.starts)
    assert {p.name for p in (tmp_path / "made").iterdir() if p.is_dir()} == set()


def test_two_that_are_started_together_share_the_work(
    folder: Path, speech_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "HOUR", 1.0)  # parts of a few recordings
    encode, sample, done, runs = prepare.Nearest.__call__, prepare.sampled, list[int](), list[int]()

    def note(self: prepare.Nearest, batch: Any) -> Any:
        done.extend(batch.index.tolist())
        return encode(self, batch)

    monkeypatch.setattr(prepare.Nearest, "__call__", note)
    monkeypatch.setattr(prepare, "sampled", lambda *given: runs.append(1) or sample(*given))
    recipe = prepare.Recipe(speech_folder, units=5, seed=1)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(prepare.prepare_units, recipe, tmp_path / "made") for _ in range(2)]
        told = [one.result() for one in both]
    assert told[0] == told[1]
    assert runs == [1]
    assert sorted(done) == sorted([*range(12), *range(4)])
    for split in ("train", "validation"):
        a, b = (UnitFile.load(f / f"{split}.safetensors") for f in (folder, tmp_path / "made"))
        assert torch.equal(a.units, b.units)


def test_units_of_other_recordings_are_refused(folder: Path, speech_folder: str, tmp_path: Path) -> None:
    request = Request(target="frames", stride=160)
    with pytest.raises(UserError, match=r"has the units of 12 recordings, and .* has 4"):
        served(f"{speech_folder}/validation", folder, request)
    other = shutil.copytree(speech_folder, tmp_path / "other")
    (other / "train/low/03.wav").rename(other / "train/low/03b.wav")
    with pytest.raises(UserError, match=r"train.safetensors are of another recording there"):
        served(str(other), folder, request)
    with pytest.raises(UserError, match=r"holds no units; ssl-suite prepare units makes some"):
        served(speech_folder, tmp_path, request)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "units.json").write_text((folder / "units.json").read_text())
    (damaged / "train.safetensors").write_bytes((folder / "train.safetensors").read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read as units"):
        served(speech_folder, damaged, request)


def test_a_recording_that_cannot_be_read_has_no_units(speech_folder: str, folder: Path, tmp_path: Path) -> None:
    file = UnitFile(torch.tensor([1, 2, 3], dtype=torch.int16), torch.tensor([0, 2, 2, 3]), torch.arange(3))
    rows = open_source(alignment(tmp_path, [[0, 0], [1], [1]]))["train"]
    assert Agreement.of(file, rows, "phones").counts.sum() == 3


def alignment(folder: Path, labels: list[Any]) -> str:
    path = folder / "aligned.jsonl"
    path.write_text("\n".join(json.dumps({"phones": value, "who": f"s{i % 2}"}) for i, value in enumerate(labels)))
    return str(path)


def test_purity_and_pnmi_are_those_of_their_definitions(tmp_path: Path) -> None:
    """Against scikit-learn's mutual information and a count by hand."""
    rng = np.random.default_rng(0)
    phones = [rng.integers(0, 4, n) for n in (30, 50)]
    units = [np.where(rng.random(len(p)) < 0.7, p * 2, rng.integers(0, 9, len(p))) for p in phones]
    twice = [np.repeat(u, 2) for u in units]  # units every 10 ms, phones every 20
    file = UnitFile(
        torch.from_numpy(np.concatenate(twice)).short(), torch.tensor([0, 60, 160]), torch.zeros(2, dtype=torch.long)
    )
    rows = open_source(alignment(tmp_path, [[f"p{v}" for v in p] for p in phones]))["train"]
    found = Agreement.of(file, rows, "phones")
    u, p = np.concatenate(units), np.concatenate(phones)
    figures = found.figures()
    share = np.bincount(p) / len(p)
    assert figures["pnmi"] == pytest.approx(mutual_info_score(p, u) / -(share * np.log(share)).sum())
    assert figures["purity"] == pytest.approx(sum(np.bincount(p[u == k]).max() for k in np.unique(u)) / len(p))
    assert figures["unit_purity"] == pytest.approx(sum(np.bincount(u[p == k]).max() for k in np.unique(p)) / len(p))
    assert figures["chance"] == pytest.approx(share.max())
    assert "phone purity" in str(found)
    whole = Agreement.of(file, rows, "who")
    assert whole.counts.sum(0).tolist() == [60, 100]
    assert "one a recording, so that it says nothing of phones" in str(whole)
