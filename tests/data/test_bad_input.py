"""Bad input is one clear sentence that names the file, the row and the remedy."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import soundfile

from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.tasks.ctc import CTC

Maker = Callable[..., Path]


def complaint(data: DataModule, request: Request = Request(), read: bool = True) -> str:
    """What serving the data and reading all of it complains about."""
    with pytest.raises(UserError) as caught:  # noqa: PT012
        data.serve(request)
        if read:
            for batch in data.eval_dataloader("train"):
                data.finish(batch)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def classes(labels: list[str] | None = None) -> Request:
    return Request(target="class", labels=labels)


# Folders --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "what"), [(Images, "image"), (Speech, "audio"), (Text, ".txt")])
def test_an_empty_folder(kind: Any, what: str, tmp_path: Path) -> None:
    message = complaint(kind(str(tmp_path)))
    assert str(tmp_path) in message
    assert what in message


@pytest.mark.parametrize("kind", [Images, Speech, Text])
def test_a_folder_that_is_not_there(kind: Any, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in complaint(kind(str(tmp_path / "nowhere")))


def test_a_sample_pack_without_its_prefix() -> None:
    assert "samples:digits" in complaint(Images("digits"))


def test_a_misspelt_sample_pack() -> None:
    assert "Did you mean digits?" in complaint(Images("samples:digit"))


# Images ---------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_image(tmp_path: Path, picture: Maker) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    message = complaint(Images(str(tmp_path), image_size=8))
    assert "b.png" in message
    assert "on_error" in message


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_an_image_cut_short(extension: str, tmp_path: Path, picture: Maker) -> None:
    path = picture(tmp_path / f"a.{extension}", size=(200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = complaint(Images(str(tmp_path), image_size=8))
    assert f"a.{extension}" in message
    assert "on_error" in message


def test_an_empty_image_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "a.png" in complaint(Images(str(tmp_path), image_size=8))


def test_bad_bytes_in_a_table_name_the_row(tmp_path: Path, picture: Maker) -> None:
    from datasets import Dataset

    good = picture(tmp_path / "a.png").read_bytes()
    rows = [{"image": {"bytes": b, "path": None}} for b in (good, b"bad", good)]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    message = complaint(Images(str(tmp_path / "t.parquet"), image_size=8))
    assert "t.parquet, row 2" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_counts_what_it_skips(workers: int, tmp_path: Path, pictures: Maker) -> None:
    pictures(tmp_path)
    for name in ("cat/03.png", "dog/07.png"):
        (tmp_path / name).write_text("broken")
    data = Images(str(tmp_path), image_size=8, batch_size=8, num_workers=workers, on_error="skip")
    data.serve(Request())
    read = [i for split in data.splits() for batch in data.eval_dataloader(split) for i in batch.index.tolist()]
    assert len(read) == 18
    assert data.skipped.value == 2
    with pytest.warns(UserWarning, match="2 unreadable samples were skipped"):
        data.teardown("fit")


@pytest.mark.parametrize("workers", [0, 2])
def test_raising_is_the_default_and_one_line_from_workers_too(
    workers: int, tmp_path: Path, pictures: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # torch waits so long for its workers
    pictures(tmp_path)
    (tmp_path / "cat/03.png").write_text("broken")
    data = Images(str(tmp_path), image_size=8, batch_size=8, num_workers=workers)
    message = complaint(data)
    assert message.startswith(str(tmp_path / "cat/03.png"))
    assert data.skipped.value == 0
    del data
    gc.collect()


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_text("broken")
    assert "unreadable" in complaint(Images(str(tmp_path), image_size=8, on_error="skip"))


# Audio ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["wav", "flac", "aiff"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_an_audio_file_cut_short(extension: str, share: float, tmp_path: Path, sound: Maker) -> None:
    path = sound(tmp_path / f"a.{extension}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    message = complaint(Speech(str(tmp_path)))
    assert f"a.{extension}" in message
    assert "on_error" in message


def test_audio_cut_short_inside_a_table(tmp_path: Path, sound: Maker) -> None:
    from datasets import Dataset

    data = sound(tmp_path / "a.wav").read_bytes()
    Dataset.from_list([{"audio": {"bytes": data[:5000], "path": None}}]).to_parquet(tmp_path / "t.parquet")
    assert "t.parquet, row 1" in complaint(Speech(str(tmp_path / "t.parquet")))


def test_a_clip_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [], 16000)
    message = complaint(Speech(str(tmp_path)))
    assert "a.wav has no samples" in message


def test_a_file_that_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_text("no audio")
    assert "a.flac" in complaint(Speech(str(tmp_path)))


def test_skipped_audio_is_counted(tmp_path: Path, sound: Maker) -> None:
    for i in range(4):
        sound(tmp_path / f"{i}.wav")
    soundfile.write(tmp_path / "2.wav", [], 16000)
    data = Speech(str(tmp_path), on_error="skip")
    data.serve(Request())
    assert sum(len(batch) for batch in data.eval_dataloader("train")) == 3
    assert data.skipped.value == 1


# Manifests ------------------------------------------------------------------------------------------------------------


def test_a_manifest_without_a_column_of_files(tmp_path: Path, picture: Maker) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("name,label\na.png,x\n")
    message = complaint(Images(str(tmp_path)))
    assert "metadata.csv" in message
    assert "file_name" in message
    assert "name, label" in message


def test_a_manifest_that_names_a_missing_file(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,x\nb.wav,y\n")
    message = complaint(Speech(str(tmp_path)))
    assert "metadata.csv, row 2" in message
    assert "b.wav" in message


def test_an_empty_manifest(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,label\n")
    assert "metadata.csv" in complaint(Images(str(tmp_path)))


def test_a_manifest_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\na.png,caf\xe9\n")
    message = complaint(Images(str(tmp_path)))
    assert "metadata.csv" in message
    assert "UTF-8" in message


def test_a_manifest_without_the_target_names_the_nearest_column(tmp_path: Path, picture: Maker) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,labels\na.png,x\n")
    message = complaint(Images(str(tmp_path)), classes())
    assert "'label'" in message
    assert "Did you mean labels?" in message


# Text -----------------------------------------------------------------------------------------------------------------


def test_text_that_is_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"first line\nsecond line\ncaf\xe9 au lait\n")
    message = complaint(Text(str(tmp_path)))
    assert "a.txt, line 3" in message
    assert "byte 26" in message


@pytest.mark.parametrize("text", ["", "\n\n \n"])
def test_an_empty_text_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert "a.txt" in complaint(Text(str(tmp_path / "a.txt")))
    assert str(tmp_path) in complaint(Text(str(tmp_path)))


def test_text_shorter_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a few words")
    message = complaint(Text(str(tmp_path / "a.txt"), max_length=64))
    assert "a.txt" in message
    assert "64" in message


def test_a_broken_line_of_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": "cut o\n')
    message = complaint(Text(str(tmp_path / "a.jsonl")))
    assert "a.jsonl, line 2" in message


def test_a_jsonl_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "caf\xe9"}\n')
    message = complaint(Text(str(tmp_path / "a.jsonl")))
    assert "a.jsonl" in message
    assert "UTF-8" in message


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "3"])
def test_a_line_of_jsonl_that_is_no_object(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    assert "a.jsonl, line 2" in complaint(Text(str(tmp_path / "a.jsonl")))


def test_broken_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "good"},')
    assert "a.json" in complaint(Text(str(tmp_path / "a.json")))


def test_an_empty_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert "a.jsonl" in complaint(Text(str(tmp_path / "a.jsonl")))


def test_a_csv_of_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\ncaf\xe9,1\n")
    message = complaint(Text(str(tmp_path / "a.csv")))
    assert "a.csv" in message
    assert "UTF-8" in message


def test_a_csv_of_text_with_a_short_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,text\n1,good\n2\n")
    message = complaint(Text(str(tmp_path / "a.csv"), pack=False))
    assert "a.csv, row 2" in message


def test_a_quote_that_swallows_rows_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('label,text\n1,good\n2,"he said\n3,fine\n4,"more" text\n')
    message = complaint(Text(str(tmp_path / "a.csv"), pack=False))
    assert "a.csv, row 2 (line 3)" in message
    assert "quote" in message


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('label,text\n1,good\n2,"he said\n3,fine\n')
    assert "a.csv, row 2 (line 3): a quote is not closed" in complaint(Text(str(tmp_path / "a.csv"), pack=False))


def test_a_comma_too_many(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('label,text\n1,"good, and\nquoted"\n2,not, quoted\n')
    assert "a.csv, row 2 (line 4) has 3 columns, the header 2" in complaint(Text(str(tmp_path / "a.csv"), pack=False))


def test_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('label\ttext\n1\t"never closed\n2\tan "odd" one"\n3\tlast\n')
    data = Text(str(tmp_path / "a.tsv"), pack=False)
    data.serve(classes())
    assert data.rows["train"].column("text") == ['"never closed', 'an "odd" one"', "last"]


def test_rows_of_another_width_in_a_tsv_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("label\ttext\n1\tgood\n2\tone\ttoo many\n3\tgood\n")
    data = Text(str(tmp_path / "a.tsv"), pack=False)
    with pytest.warns(UserWarning, match=r"a\.tsv: 1 of 3 rows .* row 2 \(line 3\) has 3 columns, the header 2"):
        data.serve(classes())
    assert data.rows["train"].column("text") == ["good", "one", "good"]


def test_one_file_of_another_encoding_among_many(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("naïve words\n" * 9, encoding="latin-1" if name == "b" else "utf-8")
    assert "b.txt, line 1 is not UTF-8 (byte 2)" in complaint(Text(str(tmp_path)))


def test_an_empty_file_among_others_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words of text\n" * 20)
    (tmp_path / "b.txt").touch()
    with pytest.warns(UserWarning, match=r"1 of 2 \.txt files are empty, .*b\.txt"):
        Text(str(tmp_path), max_length=8).serve(Request())


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "txt"])
def test_an_empty_file(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").touch()
    assert f"a.{suffix}" in complaint(Text(str(tmp_path / f"a.{suffix}")))


def test_a_broken_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "a.parquet cannot be read as parquet" in complaint(Text(str(tmp_path / "a.parquet")))


def test_a_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    message = complaint(Text(str(tmp_path / "a.xlsx")))
    assert "a.xlsx" in message
    assert ".parquet" in message


def test_an_unknown_text_column_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"sentence": "good", "label": 1}\n')
    message = complaint(Text(str(tmp_path / "a.jsonl"), column="sentense"))
    assert "sentense" in message
    assert "Did you mean sentence?" in message


def test_a_missing_text_names_its_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "good", "label": "x"}, {"text": None, "label": "x"}])
    for request in (Request(), classes()):
        assert "a.jsonl, row 2" in complaint(Text(str(tmp_path / "a.jsonl"), max_length=8), request)


def test_words_where_a_text_is_wanted(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"tokens": ["a", "b"], "label": "x"}])
    assert "a.jsonl, row 1" in complaint(Text(str(tmp_path / "a.jsonl"), column="tokens"), classes())


def test_a_text_where_words_are_wanted(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "a b", "tags": ["x", "y"]}])
    message = complaint(Text(str(tmp_path / "a.jsonl"), target="tags"), Request(target="tags"))
    assert "a.jsonl, row 1" in message


def test_more_words_than_tags(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["x", "y"]}, {"tokens": ["a", "b", "c"], "tags": ["x"]}]
    write_rows(tmp_path / "a.jsonl", rows)
    data = Text(str(tmp_path / "a.jsonl"), column="tokens", target="tags")
    message = complaint(data, Request(target="tags"))
    assert "a.jsonl, row 2" in message
    assert "3" in message
    assert "1" in message


def test_a_tokenizer_larger_than_the_encoder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words of text, enough of them\n" * 50)
    message = complaint(Text(str(tmp_path / "a.txt"), vocab_size=300, max_length=16), Request(vocab_size=20))
    assert "vocab_size" in message


def test_another_tokenizer_than_the_encoders(tmp_path: Path) -> None:
    from ssl_suite.encoders.tokenizer import train_tokenizer

    (tmp_path / "a.txt").write_text("some words of text, enough of them\n" * 50)
    own, other = (train_tokenizer(["some words of text"] * 9, kind, 300) for kind in ("wordpiece", "byte"))
    for name, tokenizer in (("own", own), ("other", other)):
        tokenizer.save(str(tmp_path / f"{name}.json"))
    message = complaint(
        Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "other.json")), Request(tokenizer=own, vocab_size=300)
    )
    assert "trained with another tokenizer" in message
    assert "other.json" in message
    own.enable_truncation(8)  # what the data do with it makes it no other
    Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "own.json"), max_length=8).serve(Request(tokenizer=own))


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words\n" * 50)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in complaint(Text(str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "tokenizer.json")))


# Targets --------------------------------------------------------------------------------------------------------------


def test_a_label_that_is_missing(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": None}])
    assert "a.jsonl, row 2" in complaint(Text(str(tmp_path / "a.jsonl")), classes())


def test_a_value_that_is_no_number(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "a", "rating": "3"}, {"text": "b", "rating": "high"}])
    message = complaint(Text(str(tmp_path / "a.jsonl"), target="rating"), Request(target="value"))
    assert "a.jsonl, row 2" in message
    assert "'high'" in message


def test_tags_that_are_no_list(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": ["a"], "label": "x"}])
    assert "list of tags" in complaint(Text(str(tmp_path / "a.jsonl")), Request(target="tags"))


def test_a_row_without_a_transcript(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav")
    write_rows(tmp_path / "m.jsonl", [{"file": "a.wav", "text": "hello"}, {"file": "a.wav"}])
    message = complaint(Speech(str(tmp_path / "m.jsonl"), target="text"), Request(target="characters"))
    assert "m.jsonl, row 2" in message


def test_seconds_that_are_no_number(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,seconds\na.wav,long\n")
    assert "'seconds'" in complaint(Speech(str(tmp_path)))


def test_a_transcript_that_is_missing(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav")
    message = complaint(Speech(str(tmp_path), target="text"), Request(target="characters"))
    assert "'text'" in message


def test_more_labels_asked_for_than_there_are(tmp_path: Path, pictures: Maker) -> None:
    message = complaint(Images(str(pictures(tmp_path)), labels=1000), classes())
    assert "1000" in message


def test_a_filter_that_keeps_nothing(tmp_path: Path, pictures: Maker) -> None:
    message = complaint(Images(str(pictures(tmp_path)), where={"label": "bird"}))
    assert "label = bird" in message
    assert "cat, dog" in message


def test_a_filter_by_a_column_that_is_not_there(tmp_path: Path, pictures: Maker) -> None:
    """As `speech/phones`, which takes English prompts, over somebody's own recordings."""
    message = complaint(Images(str(pictures(tmp_path)), where={"language": "en"}))
    assert "no column 'language' for data.where; --data.where null takes all rows." in message


def test_a_split_that_is_not_there(tmp_path: Path, pictures: Maker) -> None:
    data = Images(str(pictures(tmp_path)))
    data.serve(Request())
    with pytest.raises(UserError, match="has no test split; it has: train, validation"):
        data.test_dataloader()


def test_a_batch_of_none() -> None:
    with pytest.raises(UserError, match="batch_size"):
        Images("samples:digits", batch_size=0)


def test_bad_items_are_user_errors() -> None:
    assert issubclass(BadItem, UserError)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.mark.parametrize("labels", [None, 1])
def test_files_without_a_training_split(tmp_path: Path, labels: int | None) -> None:
    for split in ("dev", "test"):
        (tmp_path / f"en-ud-{split}.conllu").write_text("1\tIt\tit\tPRON\t_\t_\t0\troot\t_\t_\n\n")
    data = Text(str(tmp_path), column="tokens", target="upos", labels=labels, tokenizer="byte")
    data.tokenizer = train_tokenizer(["It"], "byte")
    message = complaint(data, Request(target="tags"))
    assert message == f"{tmp_path} has no train split; it has: validation, test; name one with --data.train."
    data.use_features(lambda batch: pytest.fail("nothing to encode"), "key")
    with pytest.raises(UserError, match="has no train split"):
        data.features("train")


@pytest.mark.parametrize("packed", [True, False])
def test_rows_without_a_text_are_left_out_if_the_user_says_so(packed: bool, tmp_path: Path) -> None:
    rows = [{"text": "some words of text", "id": "a"}, {"text": None, "id": "b"}, {"text": 7.5, "id": "c"}]
    write_rows(tmp_path / "train.jsonl", [row for row in rows if row["text"] != 7.5] * 4)
    write_rows(tmp_path / "dev.jsonl", [rows[2]])
    data = Text(str(tmp_path / "train.jsonl"), max_length=8, pack=packed, tokenizer="byte", on_error="skip")
    data.holds_out = False
    with pytest.warns(UserWarning, match=r"train\.jsonl: 4 of 8 rows hold no text and were left out"):
        data.serve(Request())
    assert data.rows["train"].column("id") == ["a"] * 4
    assert data.rows["train"].where(1).endswith("row 3")
    assert "no row holds a text in 'text'" in complaint(Text(str(tmp_path / "dev.jsonl"), on_error="skip"))


def test_transcripts_longer_than_their_recordings_have_states_are_counted(
    tmp_path: Path, sound: Maker, recwarn: pytest.WarningsRecorder
) -> None:
    for i, seconds in enumerate((1.0, 0.2, 0.2)):
        sound(tmp_path / f"{i}.wav", seconds)
    said = "it is said in so few states"  # 27 characters, and a double one
    (tmp_path / "metadata.csv").write_text(f"path,text\n0.wav,{said}\n1.wav,{said}\n2.wav,so\n")
    data, task = Speech(str(tmp_path), target="text"), CTC()
    data.serve(Request(target="characters", stride=160))
    task.build(4, cast(list[str], data.labels))
    task.meet(data)
    (found,) = [str(w.message) for w in recwarn if "longer than" in str(w.message)]
    assert "1 of 3 transcripts of training are longer than their recordings have states (1.wav: 27 characters" in found
