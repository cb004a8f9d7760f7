"""embed: pooled or framewise, in the order of the rows, from any column, whatever cannot be read left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from cli_recipes import METHODS

from ssl_suite.cli import main
from ssl_suite.core.load import load_encoder
from ssl_suite.data.embeddings import data_for

IMAGE = {"image": ["--image_size=16"]}


@pytest.mark.parametrize("modality", METHODS)
@pytest.mark.parametrize("readout", ["last", "layer:1"])
def test_frames_are_the_states_at_real_positions(
    modality: str, readout: str, tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    folder, out = str(pretrained[modality] / "encoder"), tmp_path / "e.parquet"
    encoder = load_encoder(folder).eval()
    if readout == "layer:1" and encoder.num_states < 2:
        pytest.skip("an encoder with one state")
    options = ["--split=test", "--batch_size=5", "--frames", f"--readout={readout}", *IMAGE.get(modality, [])]
    assert main(["embed", folder, sources[modality], f"--out={out}", *options]) == 0
    table = pq.read_table(out)
    assert table["id"].to_pylist() == pq.read_table(Path(sources[modality]) / "test.parquet")["id"].to_pylist()
    found = table["embedding"].to_pylist()
    data = data_for(encoder, sources[modality], batch_size=1, **({"image_size": 16} if modality == "image" else {}))
    state = -1 if readout == "last" else 1
    with torch.no_grad():
        for batch in data.eval_dataloader("test"):
            encoded = encoder(data.finish(batch))
            wanted = encoded.states[state][0][encoded.mask[0]]
            torch.testing.assert_close(torch.tensor(found[batch.index.item()]), wanted, atol=1e-4, rtol=1e-3)


def test_the_file_says_what_it_holds(tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]) -> None:
    folder = str(pretrained["speech"] / "encoder")
    assert main(["embed", folder, sources["speech"], f"--out={tmp_path / 'e.parquet'}", "--split=test"]) == 0
    told = {k.decode(): v.decode() for k, v in pq.read_schema(tmp_path / "e.parquet").metadata.items()}
    assert told["encoder"] == folder
    assert (told["split"], told["readout"]) == ("test", "last")
    assert int(told["stride"]) == load_encoder(folder).stride
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.parquet"]


def test_another_column_and_workers_that_read(tmp_path: Path, pretrained: dict[str, Path]) -> None:
    folder = str(pretrained["text"] / "encoder")
    (tmp_path / "train.csv").write_text("id,text,review\n" + "".join(f"{i},x,film {i} is good\n" for i in range(9)))
    (tmp_path / "other.csv").write_text("id,text\n" + "".join(f"{i},film {i} is good\n" for i in range(9)))
    tables = []
    for source, options in (("train.csv", ["--column=review", "--workers=2"]), ("other.csv", [])):
        out = tmp_path / f"{source}.parquet"
        assert main(["embed", folder, str(tmp_path / source), f"--out={out}", "--batch_size=4", *options]) == 0
        tables.append(pq.read_table(out).to_pydict())
    assert tables[0] == tables[1]


def test_an_unreadable_image_is_named_or_left_out(
    image_folder: str,
    tmp_path: Path,
    pretrained: dict[str, Path],
    fails: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(pretrained["image"] / "encoder")
    copy = tmp_path / "images"
    for path in Path(image_folder, "test").rglob("*.png"):
        (copy / path.name).parent.mkdir(exist_ok=True)
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "bad.png").write_bytes(b"no image")
    command = ["embed", folder, str(copy), f"--out={tmp_path / 'e.parquet'}", "--image_size=16"]
    assert "bad.png" in fails(*command)
    assert not (tmp_path / "e.parquet").exists()
    assert main([*command, "--on_error=skip"]) == 0
    assert "4 embeddings of width" in (said := capsys.readouterr().out)
    assert "1 unreadable samples left out" in said
    assert pq.read_table(tmp_path / "e.parquet")["id"].to_pylist() == ["00.png", "01.png", "02.png", "03.png"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--readout=weighted_sum", "weights only once a task has learnt them"),
        ("--readout=layer:9", "this encoder has layers"),
        ("--batch_size=0", "--batch_size is 0, but must be a whole number at least 1"),
        ("--workers=-1", "--workers is -1"),
        ("--image_size=8", "--image_size is for images"),
        ("--split=dev2", "no dev2 split"),
        ("--column=nope", "no column 'nope'"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    option: str,
    said: str,
    tmp_path: Path,
    pretrained: dict[str, Path],
    sources: dict[str, str],
    fails: Callable[..., str],
) -> None:
    command = ["embed", str(pretrained["text"] / "encoder"), sources["text"], f"--out={tmp_path / 'e.parquet'}", option]
    assert said in fails(*command)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["{}", "random:{}"])
def test_an_encoder_remembers_the_size_of_its_images(
    source: str, tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str],
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    folder, rows = source.format(pretrained["image"] / "encoder"), {}
    assert load_encoder(folder).preprocess == {"image_size": 16}
    for size in ([], ["--image_size=16"], ["--image_size=20"]):
        recwarn.clear()
        out = tmp_path / f"e{len(rows)}.parquet"
        assert main(["embed", folder, sources["image"], f"--out={out}", "--split=test", *size]) == 0
        rows[tuple(size)] = pq.read_table(out)["embedding"].to_pylist()
        told = [str(w.message) for w in recwarn if "image_size" in str(w.message)]
        assert told == (
            ["data.image_size is 20, but the encoder is of images of 16 pixels; leave it out to take that size."]
            if size == ["--image_size=20"] else []
        )  # fmt: skip
    assert rows[()] == rows["--image_size=16",]
    assert rows[()] != rows["--image_size=20",]
