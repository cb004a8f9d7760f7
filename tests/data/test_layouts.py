"""Official layouts of speech corpora, each on a tiny tree in exactly that layout, and what is missing from one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.layouts.official import LAYOUTS
from ssl_suite.data.speech.mixtures import Mixtures
from ssl_suite.data.speech.speech import Speech

REAL = Path(os.environ.get("SSL_SUITE_DATA", "")) / "fsdd"
Maker = Callable[..., Path]


def served(source: str, request: Request = Request(), **options: Any) -> Speech:
    data = Speech(source, **options)
    data.serve(request)
    return data


def column(data: Speech, split: str, name: str) -> list[Any]:
    return data.rows[split].column(name)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# LibriSpeech ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def librispeech(tmp_path: Path, sound: Maker) -> Path:
    root = tmp_path / "LibriSpeech"
    subsets = {
        "train-clean-100": "103",
        "train-other-500": "20",
        "dev-clean": "84",
        "dev-other": "116",
        "test-clean": "61",
    }
    for subset, speaker in subsets.items():
        said = {f"{speaker}-1240-000{i}": f"CHAPTER {['ONE', 'TWO', 'THREE'][i]}" for i in range(3)}
        place = root / subset / speaker / "1240"
        for name in said:
            sound(place / f"{name}.flac", 0.1)
        write(place / f"{speaker}-1240.trans.txt", "".join(f"{name} {text}\n" for name, text in said.items()))
    write(root / "SPEAKERS.TXT", "; who\n")
    return root


def test_librispeech(librispeech: Path) -> None:
    data = served(f"librispeech:{librispeech}", Request(target="characters"), target="text")
    assert {split: data.ids(split)[0] for split in data.splits()} == {
        "train": "103-1240-0000",
        "validation": "84-1240-0000",
        "validation_other": "116-1240-0000",
        "test": "61-1240-0000",
    }
    assert column(data, "train", "speaker") == ["103"] * 3 + ["20"] * 3
    assert column(data, "test", "text") == ["CHAPTER ONE", "CHAPTER TWO", "CHAPTER THREE"]
    assert "".join(data.labels[i] for i in data.read("test", 1, 0).target) == "chapter two"
    assert data.rows["train"].where(3) == f"librispeech:{librispeech}, train, row 4"
    some = served(f"librispeech/train-clean-100+dev-other:{librispeech}")
    assert {split: some.size(split) for split in some.splits()} == {"train": 3, "validation": 3}
    assert some.ids("validation")[0] == "116-1240-0000"


def test_a_part_that_a_layout_does_not_have_is_named(librispeech: Path) -> None:
    with pytest.raises(UserError, match=r"librispeech has no part 'train-clean-10'. Did you mean train-clean-100\?"):
        served(f"librispeech/train-clean-10:{librispeech}")
    with pytest.raises(UserError, match=r"No data at 'librispech:.*'\. Did you mean librispeech\?"):
        served(f"librispech:{librispeech}")
    with pytest.raises(UserError, match=r"librispeech:nowhere: there is no nowhere"):
        served("librispeech:nowhere")
    with pytest.raises(UserError, match=r"has no folders train-\*, dev-\* or test-\*"):
        served(f"librispeech:{librispeech / 'dev-clean'}")


def test_a_recording_that_is_missing_is_named_with_its_line(librispeech: Path) -> None:
    (librispeech / "dev-clean/84/1240/84-1240-0001.flac").unlink()
    with pytest.raises(UserError, match=r"84-1240\.trans\.txt, line 2: there is no file .*84-1240-0001\.flac"):
        served(f"librispeech:{librispeech}")


def test_what_is_named_for_a_split_may_be_a_layout_and_changes_are_seen(librispeech: Path, sound: Maker) -> None:
    first = served(f"librispeech/train-clean-100:{librispeech}", test=f"librispeech/test-clean:{librispeech}")
    assert (first.ids("test")[0], first.size("train")) == ("61-1240-0000", 3)
    before = first.identity()
    assert served(f"librispeech/train-clean-100:{librispeech}", test=first.given["test"]).identity() == before
    sound(librispeech / "train-clean-100/103/1240/103-1240-0000.flac", 0.2)
    assert served(f"librispeech/train-clean-100:{librispeech}", test=first.given["test"]).identity() != before


# Speech Commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def speech_commands(tmp_path: Path, sound: Maker) -> Path:
    root = tmp_path / "speech_commands_v0.02"
    for word in ("yes", "go", "marvin", "zero"):
        for speaker in ("0132a06d", "4c6944d6", "97f4c236"):
            sound(root / word / f"{speaker}_nohash_0.wav", 0.1)
    for name in ("doing_the_dishes", "pink_noise"):
        sound(root / "_background_noise_" / f"{name}.wav", 10.5)
    write(
        root / "validation_list.txt", "".join(f"{w}/4c6944d6_nohash_0.wav\n" for w in ("yes", "go", "marvin", "zero"))
    )
    write(root / "testing_list.txt", "".join(f"{w}/97f4c236_nohash_0.wav\n" for w in ("yes", "go", "marvin", "zero")))
    write(root / "README.md", "words")
    return root


def test_speech_commands_of_twelve_classes(speech_commands: Path, tmp_path: Path, sound: Maker) -> None:
    data = served(f"speech_commands:{speech_commands}", Request(target="class"))
    assert data.labels == ["_silence_", "_unknown_", "go", "yes"]
    assert column(data, "train", "label") == ["go", "_unknown_", "yes", "_unknown_"] + ["_silence_"] * 16
    assert column(data, "test", "id")[:4] == [f"{w}/97f4c236_nohash_0.wav" for w in ("go", "marvin", "yes", "zero")]
    assert column(data, "validation", "speaker")[:4] == ["4c6944d6"] * 4
    assert column(data, "test", "start") == [None] * 4 + [9, 9]
    assert (len(data.read("train", 0, 0).wave), len(data.read("train", 4, 0).wave)) == (1600, 16000)
    official = tmp_path / "speech_commands_test_set_v0.01"
    for label in ("_silence_", "_unknown_", "yes"):
        sound(official / label / "a.wav", 0.1)
    other = served(f"speech_commands:{speech_commands}", Request(target="class"), test=str(official))
    assert [other.labels[other.target("test", i)] for i in range(3)] == ["_silence_", "_unknown_", "yes"]


def test_speech_commands_of_every_word(speech_commands: Path) -> None:
    data = served(f"speech_commands/all:{speech_commands}", Request(target="class"))
    assert data.labels == ["go", "marvin", "yes", "zero"]
    assert {split: data.size(split) for split in data.splits()} == {"train": 4, "validation": 4, "test": 4}
    write(speech_commands / "testing_list.txt", "yes/none.wav\n")
    with pytest.raises(UserError, match=r"testing_list\.txt, line 1: there is no file .*none\.wav"):
        served(f"speech_commands:{speech_commands}")
    (speech_commands / "testing_list.txt").unlink()
    with pytest.raises(UserError, match=r"testing_list\.txt is not there, so this is no folder of Speech Commands"):
        served(f"speech_commands:{speech_commands}")


def test_spoken_digits(tmp_path: Path, sound: Maker) -> None:
    for name in ("george", "jackson", "theo"):
        for take in (0, 5, 10, 49):
            sound(tmp_path / "recordings" / f"7_{name}_{take}.wav", 0.1, rate=8000)
    data = served(f"fsdd:{tmp_path}", Request(target="class"), target="speaker")
    assert {split: data.size(split) for split in data.splits()} == {"train": 6, "validation": 3, "test": 3}
    assert data.labels == ["george", "jackson", "theo"]
    apart = served(f"fsdd/theo:{tmp_path}", Request(target="class"))
    assert {split: set(column(apart, split, "speaker")) for split in apart.splits()} == {
        "train": {"jackson"}, "validation": {"george"}, "test": {"theo"}
    }  # fmt: skip
    with pytest.raises(UserError, match=r"fsdd has no part 'them'"):
        served(f"fsdd/them:{tmp_path}")


@pytest.mark.skipif(not REAL.is_dir() or not REAL.parts, reason="SSL_SUITE_DATA names no folder with fsdd/")
def test_real_digits() -> None:
    data = served(f"fsdd/theo:{REAL}", Request(target="class"))
    assert {split: data.size(split) for split in data.splits()} == {"train": 1000, "validation": 500, "test": 500}
    assert data.labels == list("0123456789")
    assert len(next(iter(data.eval_dataloader("test")))) > 0


# VoxCeleb1 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def voxceleb1(tmp_path: Path, sound: Maker) -> Path:
    root = tmp_path / "VoxCeleb1"
    for speaker in ("id10001", "id10002", "id10270", "id10271"):
        part = "test" if speaker.startswith("id1027") else "dev"
        for video in ("1zcIwhmdeo4", "7gWzIy6yIIk"):
            sound(root / part / "wav" / speaker / video / "00001.wav", 0.1)
    listed = ["1 id10001/1zcIwhmdeo4", "3 id10001/7gWzIy6yIIk", "1 id10270/1zcIwhmdeo4", "2 id10270/7gWzIy6yIIk"]
    write(root / "iden_split.txt", "".join(f"{line}/00001.wav\n" for line in listed))
    trials = [
        "1 id10270/1zcIwhmdeo4/00001.wav id10270/7gWzIy6yIIk/00001.wav",
        "0 id10270/1zcIwhmdeo4/00001.wav id10271/7gWzIy6yIIk/00001.wav",
    ]
    write(root / "veri_test.txt", "\n".join(trials) + "\n")
    return root


def test_voxceleb1_identification(voxceleb1: Path) -> None:
    data = served(f"voxceleb1:{voxceleb1}", Request(target="class"), target="speaker")
    assert data.labels == ["id10001", "id10270"]
    assert {split: data.size(split) for split in data.splits()} == {"train": 2, "validation": 1, "test": 1}
    assert data.ids("validation") == ["id10270/7gWzIy6yIIk/00001.wav"]


def test_voxceleb1_verification(voxceleb1: Path) -> None:
    data = served(f"voxceleb1/verification:{voxceleb1}", Request(target="identity"), target="speaker")
    assert set(column(data, "train", "speaker")) | set(column(data, "validation", "speaker")) == {"id10001", "id10002"}
    assert not set(column(data, "train", "speaker")) & set(column(data, "validation", "speaker"))
    assert data.ids("test") == [
        "id10270/1zcIwhmdeo4/00001.wav", "id10270/7gWzIy6yIIk/00001.wav", "id10271/7gWzIy6yIIk/00001.wav"
    ]  # fmt: skip
    write(voxceleb1 / "veri_test.txt", "1 id10270/1zcIwhmdeo4/00001.wav id10999/x/00001.wav\n")
    with pytest.raises(UserError, match=r"veri_test\.txt, line 1: there is no file .*id10999/x/00001\.wav"):
        served(f"voxceleb1/verification:{voxceleb1}")
    write(voxceleb1 / "veri_test.txt", "id10270/1zcIwhmdeo4/00001.wav\n")
    with pytest.raises(UserError, match=r"veri_test\.txt, line 1: .* is no trial"):
        served(f"voxceleb1/verification:{voxceleb1}")
    (voxceleb1 / "iden_split.txt").unlink()
    with pytest.raises(UserError, match=r"iden_split\.txt is not there; fetch it from https://"):
        served(f"voxceleb1:{voxceleb1}")


# Intents and slots ----------------------------------------------------------------------------------------------------


def test_fluent_speech_commands(tmp_path: Path, sound: Maker) -> None:
    for split, speaker in {
        "train": "2BqVo8kVB2Skwgyb",
        "valid": "4aGjX3AG5xcxeL7a",
        "test": "4BrX8aDqK2cLZRYl",
    }.items():
        rows = [",path,speakerId,transcription,action,object,location"]
        for i, slots in enumerate(("activate,lights,kitchen", "change language,none,none")):
            place = f"wavs/speakers/{speaker}/{split}{i}.wav"
            sound(tmp_path / place, 0.1)
            rows.append(f'{i},{place},{speaker},"Turn it on, please",{slots}')
        write(tmp_path / f"data/{split}_data.csv", "\n".join(rows) + "\n")
    target = {"action": "class", "object": "class", "location": "class"}
    data = served(f"fluent:{tmp_path}", Request(target=target), target={slot: slot for slot in target})
    assert data.labels["action"] == ["activate", "change language"]
    assert data.labels["location"] == ["kitchen", "none"]
    assert {slot: int(value) for slot, value in data.read("test", 0, 0).target.items()} == {
        "action": 0, "object": 0, "location": 0
    }  # fmt: skip
    assert (data.ids("validation"), column(data, "test", "text")[0]) == (["valid0", "valid1"], "Turn it on, please")
    write(tmp_path / "data/test_data.csv", ",path,speakerId,transcription,action,object,location\n0,a.wav,x,hi,,b,c\n")
    with pytest.raises(UserError, match=r"test_data\.csv, row 1 has no 'action'"):
        served(f"fluent:{tmp_path}")


def test_audio_snips(tmp_path: Path, sound: Maker) -> None:
    said = []
    for split, speakers in {"train": ("Ivy", "Amy"), "valid": ("Aditi", "Joey"), "test": ("Brian", "Ivy")}.items():
        for speaker in speakers:
            name = f"{speaker}-snips-{split}-0"
            sound(tmp_path / split / f"{name}.wav", 0.1)
            said.append(f"{name} BOS play westbam on google music EOS\tO O B-artist O B-service I-service PlayMusic")
    write(tmp_path / "all.iob.snips.txt", "\n".join(said) + "\n")
    data = served(f"audio_snips:{tmp_path}", Request(target="class"), target="intent")
    assert {split: column(data, split, "speaker") for split in data.splits()} == {
        "train": ["Ivy"], "validation": ["Aditi"], "test": ["Brian"]
    }  # fmt: skip
    row = data.rows["train"][0]
    assert row["text"] == "play westbam on google music"
    assert row["tags"] == ["O", "B-artist", "O", "B-service", "I-service"]
    assert row["marked"] == "play <artist>westbam</artist> on <service>google music</service>"
    assert data.labels == ["PlayMusic"]
    assert served(f"audio_snips/all:{tmp_path}").ids("train") == ["Amy-snips-train-0", "Ivy-snips-train-0"]
    write(tmp_path / "all.iob.snips.txt", "Ivy-snips-train-0 BOS play EOS\tO PlayMusic\n")
    with pytest.raises(UserError, match=r"snips\.txt, line 1: Ivy-snips-train-0 has 3 words and 2 tags"):
        served(f"audio_snips:{tmp_path}")


# Emotions -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def iemocap(tmp_path: Path, sound: Maker) -> Path:
    for session in range(1, 6):
        name, turns = f"Ses0{session}F_impro01", []
        for i, emotion in enumerate(("neu", "exc", "hap", "ang", "sad", "fru", "xxx")):
            turn = f"{name}_{'FM'[i % 2]}00{i}"
            sound(tmp_path / f"Session{session}/sentences/wav/{name}/{turn}.wav", 0.1)
            turns.append(
                f"[{i}.2901 - {i + 1}.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
            )
        head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        write(tmp_path / f"Session{session}/dialog/EmoEvaluation/{name}.txt", head + "\n".join(turns))
    return tmp_path


def test_iemocap_is_five_folds_of_sessions(iemocap: Path) -> None:
    tested = []
    for fold in range(1, 6):
        data = served(f"iemocap/{fold}:{iemocap}", Request(target="class"))
        sessions = {split: set(column(data, split, "session")) for split in data.splits()}
        assert not sessions["train"] & (sessions["validation"] | sessions["test"])
        assert not sessions["validation"] & sessions["test"]
        assert sum(map(len, sessions.values())) == 5
        tested += sorted(sessions["test"])
    assert tested == list("12345")
    assert data.labels == ["angry", "happy", "neutral", "sad"]
    assert column(data, "test", "label") == ["neutral", "happy", "happy", "angry", "sad"]
    assert column(data, "test", "speaker") == ["5F", "5M", "5F", "5M", "5F"]


def test_iemocap_as_superb_splits_it(iemocap: Path) -> None:
    data = served(f"iemocap/2/superb:{iemocap}")
    assert {split: data.size(split) for split in data.splits()} == {"train": 16, "validation": 4, "test": 5}
    assert set(column(data, "validation", "speaker")) <= set(column(data, "train", "speaker"))
    with pytest.raises(UserError, match="one fold at a time, not 1 and 2"):
        served(f"iemocap/1+2:{iemocap}")
    shutil.rmtree(iemocap / "Session4/sentences")
    with pytest.raises(UserError, match=r"Ses04F_impro01\.txt, line 3: there is no file .*Ses04F_impro01_F000\.wav"):
        served(f"iemocap:{iemocap}")


# Mixtures -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def librimix(tmp_path: Path, sound: Maker) -> Path:
    root = tmp_path / "Libri2Mix"
    for mode, subset, mixture in (
        ("min", "train-100", "mix_both"), ("min", "dev", "mix_both"), ("min", "test", "mix_both"),
        ("max", "train-360", "mix_clean"), ("max", "dev", "mix_clean"), ("max", "test", "mix_clean"),
    ):  # fmt: skip
        place, name = root / "wav16k" / mode, "4077-13754-0001_5142-33396-0065"
        noise = ",noise_path" if mixture == "mix_both" else ""
        for folder in (mixture, "s1", "s2", *(["noise"] if noise else [])):
            sound(place / subset / folder / f"{name}.wav", 0.5, pitch=300 + 100 * len(folder))
        old = "/mnt/elsewhere/Libri2Mix/wav16k"
        paths = ",".join(f"{old}/{folder}/{name}.wav" for folder in ("mix", "s1", "s2", *(["noise"] if noise else [])))
        head = f"mixture_ID,mixture_path,source_1_path,source_2_path{noise},length"
        write(place / "metadata" / f"mixture_{subset}_{mixture}.csv", f"{head}\n{name},{paths},8000\n")
    return root


def test_librimix(librimix: Path) -> None:
    request = Request(target={"a": "waveform", "b": "waveform"})
    data = served(f"librimix:{librimix}", request, target={"a": "s1", "b": "s2"})
    row = data.rows["train"][0]
    assert (row["id"], row["speakers"]) == ("4077-13754-0001_5142-33396-0065", ["4077", "5142"])
    assert data.lengths("train") == [0.5]
    item = data.read("test", 0, 0)
    assert len(item.wave) == len(item.target["a"]) == 8000
    assert "noise" in row
    who = served(f"librimix:{librimix}", Request(target="multi_frames", stride=320), target="voices")
    assert who.labels == ["0", "1"]
    assert torch.equal(who.read("test", 0, 0).target, torch.ones(25, 2))
    assert torch.equal(who.target("test", 0), torch.ones(25, 2))  # of frozen features
    clean = served(f"librimix/max+mix_clean+train-360:{librimix}")
    assert "noise" not in clean.rows["train"].columns
    assert "/max/train-360/mix_clean/" in clean.rows["train"][0]["audio"]["path"]
    with pytest.raises(UserError, match=r"mixture_train-360_mix_both\.csv is not there"):
        served(f"librimix/train-360:{librimix}")
    with pytest.raises(UserError, match="librimix is read as min or max, not as both"):
        served(f"librimix/min+max:{librimix}")


def test_voicebank(tmp_path: Path, sound: Maker) -> None:
    for part, names in {"trainset_28spk": ("p226_001", "p227_001", "p287_002"), "testset": ("p232_001",)}.items():
        for name in names:
            sound(tmp_path / f"noisy_{part}_wav" / f"{name}.wav", 0.2, rate=48000)
            sound(tmp_path / f"clean_{part}_wav" / f"{name}.wav", 0.2, rate=48000, pitch=200)
            write(tmp_path / f"{part}_txt" / f"{name}.txt", "Please call Stella.\n")
    data = served(f"voicebank:{tmp_path}", Request(target="waveform"), target="clean")
    assert {split: data.ids(split) for split in data.splits()} == {
        "train": ["p227_001"], "validation": ["p226_001", "p287_002"], "test": ["p232_001"]
    }  # fmt: skip
    item = data.read("test", 0, 0)
    assert len(item.wave) == len(item.target) == 3200
    assert not torch.allclose(item.wave, item.target, atol=0.1)
    assert column(data, "test", "text") == ["Please call Stella."]
    with pytest.raises(UserError, match=r"noisy_trainset_56spk_wav is not there"):
        served(f"voicebank/56spk:{tmp_path}")
    (tmp_path / "clean_testset_wav/p232_001.wav").unlink()
    with pytest.raises(UserError, match=r"noisy_testset_wav/p232_001\.wav: there is no file .*clean_testset_wav"):
        served(f"voicebank:{tmp_path}")


def test_quesst14(tmp_path: Path, sound: Maker) -> None:
    names = {
        "utterances": ("Audio", "quesst14"),
        "dev": ("dev_queries", "quesst14_dev"),
        "eval": ("eval_queries", "quesst14_eval"),
    }
    for part, (folder, stem) in names.items():
        listed = []
        for i, language in enumerate(("nnenglish", "czech", "nnenglish")):
            sound(tmp_path / folder / f"{stem}_000{i}.wav", 0.1)
            listed.append(f"quesst14Database/{folder}/{stem}_000{i}.wav {language}\n")
        write(tmp_path / f"scoring/language_key_{part}.lst", "".join(listed))
    for part in ("dev", "eval"):
        found = ["SPEAKER quesst14_0000 1 0.0 9.9 <NA> <NA> self <NA>"]
        found += [
            f"LEXEME quesst14_000{u} 1 0.0 9.9 quesst14_{part}_000{q} lex self 0.5" for u, q in ((0, 2), (2, 2), (1, 1))
        ]
        write(tmp_path / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm", "\n".join(found) + "\n")
    data = served(f"quesst14/nnenglish:{tmp_path}")
    assert data.ids("validation") == ["quesst14_0000", "quesst14_0002", "quesst14_dev_0000", "quesst14_dev_0002"]
    assert column(data, "test", "role") == ["utterance", "utterance", "query", "query"]
    assert column(data, "test", "occurs") == [[], [], [], ["quesst14_0000", "quesst14_0002"]]
    assert served(f"quesst14:{tmp_path}").size("test") == 6


# All of them ----------------------------------------------------------------------------------------------------------


def test_every_layout_is_named_and_tried() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_[lm]a*.py"))
    for name in LAYOUTS:
        assert f'f"{name}:' in text or f'f"{name}/' in text
        assert name in (Speech.__doc__ or "")
        with pytest.raises(UserError):
            LAYOUTS[name](Path(__file__).parent, "nonsense")


def test_voices_of_a_layout_are_mixed(librispeech: Path) -> None:
    data = Mixtures(f"librispeech/train-clean-100+train-other-500:{librispeech}", batch_size=2)
    data.serve(Request(target="multi_frames", stride=160))
    assert data.read("train", 0, 0).target.shape[1] == 2
