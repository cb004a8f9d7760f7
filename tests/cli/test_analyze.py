"""`ssl-suite analyze`: encoders and data in; rows and a page out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_suite.analysis.states import Items, named_encoders
from ssl_suite.cli import main
from ssl_suite.core.collapse import collapse_signs


@pytest.mark.parametrize("modality", ["text", "image", "speech"])
def test_layers_and_rank_of_any_modality(
    modality: str,
    pretrained: dict[str, Path],
    sources: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(pretrained[modality])
    options = [run, f"random:{run}", "--data", sources[modality], "--count", "24"]
    assert main(["analyze", "layers", *options, "--out", str(tmp_path / "layers")]) == 0
    assert "CKA" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "layers/rows.csv").open()))
    own = [r for r in rows if r["measure"] == "cka" and r["encoder"] == r["other"] and r["layer"] == r["other_layer"]]
    assert len(own) >= 4
    assert all(float(r["value"]) == pytest.approx(1, abs=1e-5) for r in own if r["value"] != "nan")
    assert main(["analyze", "rank", *options, "--out", str(tmp_path / "rank")]) == 0
    kept = json.loads((tmp_path / "rank/rows.json").read_text())
    (last,) = named_encoders([run]).values()
    signs = collapse_signs(Items(sources[modality], wanted=24).states(last)[-1])
    ranks = [r["value"] for r in kept["rows"] if r["measure"] == "effective_rank" and r["encoder"] == Path(run).name]
    assert ranks[-1] == pytest.approx(float(signs["effective_rank"]), rel=1e-4)
    for name in ("layers", "rank"):
        page = (tmp_path / name / "report.html").read_text()
        assert "<svg" in page
        assert "http" not in page.split("<body>")[1].replace("http-equiv", "")


def test_positions_are_the_frames_and_the_means_are_of_them(
    pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    (encoder,) = named_encoders([str(pretrained["speech"])]).values()
    one = Items(sources["speech"], wanted=4, batch_size=1)
    together = Items(sources["speech"], wanted=4, batch_size=4)
    for alone, padded in zip(one.states(encoder), together.states(encoder), strict=True):
        torch.testing.assert_close(alone, padded, rtol=1e-3, atol=1e-4)
    frames = together.states(encoder, positions=True)
    assert len(frames[0]) == len(one.states(encoder, positions=True)[0]) > 4


def test_what_cannot_be_compared_is_one_sentence(
    pretrained: dict[str, Path], sources: dict[str, str], fails: Callable[..., str], tmp_path: Path
) -> None:
    run = str(pretrained["text"])
    data = ["--data", sources["text"], "--out", str(tmp_path / "out")]
    assert "named twice" in fails("analyze", "layers", run, run, *data)
    assert "has no tset split" in fails("analyze", "layers", run, *data, "--split", "tset")
    assert "named twice" in fails("analyze", "layers", run, f"{run}/encoder", *data)
    assert "at least 4" in fails("analyze", "rank", run, *data, "--count", "2")
    (tmp_path / "r.yaml").write_text("contu: 24\n")
    assert "has no option 'contu'. Did you mean count?" in fails(
        "analyze", "rank", run, "-c", str(tmp_path / "r.yaml"), *data
    )
    assert not (tmp_path / "out").exists()


def test_a_recipe_gives_options_and_the_command_line_the_last_word(
    pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"encoders: ['{pretrained['text']}']\ndata: '{sources['text']}'\ncount: 9\n")
    assert main(["analyze", "rank", "-c", str(recipe), "--out", str(tmp_path / "a")]) == 0
    assert main(["analyze", "rank", "-c", str(recipe), "--count", "7", "--out", str(tmp_path / "b")]) == 0
    most = [json.loads((tmp_path / x / "rows.json").read_text())["rows"][2]["value"] for x in "ab"]
    assert most == [9, 7]


FINE_TUNING = ["--recipe", "text/classify", "--set", "data.max_length=32", "data.batch_size=8", "trainer.max_epochs=8"]


def test_landscape_fine_tunes_from_both_starts_and_keeps_the_runs(
    pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [
        *FINE_TUNING,
        f"data.source={sources['text']}",
        "trainer.check_val_every_n_epoch=1",
        "model.optim.lr=0.01",
    ]
    run = [
        "analyze",
        "landscape",
        str(pretrained["text"]),
        *options,
        "--seeds",
        "3",
        "--count",
        "16",
        "--out",
        str(out),
    ]
    other = ["--other_recipe", "text/tag", "--other_set", "trainer.max_steps=3", "data.labels=8", "--grid", "3"]
    assert main([*run, *other]) == 0
    rows = json.loads((out / "rows.json").read_text())["rows"]
    for start in ("pretrained", "random"):
        own = [r for r in rows if r["start"] == start]
        value = {m: [r["value"] for r in own if r["measure"] == m] for m in ("loss", "f", "final", "sharpness", "f2")}
        assert {r["alpha"]: r["value"] for r in own if r["measure"] == "f"}[1.0] == pytest.approx(value["final"][0])
        assert value["loss"][-1] == pytest.approx(value["final"][0])
        assert value["loss"][-1] < value["loss"][0]  # it learns
        assert value["sharpness"][0] > 0
        assert len(value["f2"]) == 9
    checkpoint = out / "random-3/checkpoints/step-0.ckpt"
    first = checkpoint.stat().st_mtime_ns
    capsys.readouterr()
    assert main(run) == 0
    assert checkpoint.stat().st_mtime_ns == first
    assert "ssl-suite fit" not in capsys.readouterr().out
    assert "f2" not in {r["measure"] for r in json.loads((out / "rows.json").read_text())["rows"]}


def test_embryology_pretrains_and_looks_at_each_milestone(
    sources: dict[str, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "recipe: [text/roberta, text/small]\nseeds: [0, 1]\nwords: 200\n"
        f"set: {{trainer.max_steps: 6, data.source: '{sources['text']}', data.max_length: 32, data.batch_size: 16}}\n"
        "probes: {tags: {train: 20, test: 20}}\n"
    )
    assert main(["analyze", "embryology", "-c", str(recipe), "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out/rows.json").read_text())["rows"]
    assert sorted({r["step"] for r in rows}) == [0, 1, 2, 3, 6]
    assert {r["run"] for r in rows} == {"seed-0", "seed-1"}
    assert {r["measure"] for r in rows} == {"probe: tags", "prediction", "reconstruction"}
    for run in ("seed-0", "seed-1"):
        kept = {
            r["step"]: r["value"]
            for r in rows
            if (r["run"], r["measure"], r["label"]) == (run, "reconstruction", "all")
        }
        assert max(kept.values()) > kept[0] + 0.03  # it learns what the commonest words are
    assert "no checkpoints along its way" in fails("analyze", "embryology", sources["text"])
    assert "Name runs, or a --recipe" in fails("analyze", "embryology")
    recipe.write_text("probes: {tags: {sauce: x}}\n")
    assert "each has a source, a column and a target" in fails("analyze", "embryology", "x", "-c", str(recipe))


def test_senses_of_a_word_and_what_lacks_them(
    pretrained: dict[str, Path], tmp_path: Path, fails: Callable[..., str]
) -> None:
    run = ["analyze", "senses", str(pretrained["text"]), "--out", str(tmp_path / "out")]
    assert main([*run, "-c", "analysis/senses", "--most", "4"]) == 0
    rows = json.loads((tmp_path / "out/rows.json").read_text())["rows"]
    assert {r["layer"] for r in rows} == {"word embedding", "state 0", "state 1"}
    (static,) = (r["value"] for r in rows if r["layer"] == "word embedding" and r["measure"] == "auc")
    assert static == 0.5  # one vector for all
    assert "Nearest neighbours" in (tmp_path / "out/report.html").read_text()
    assert "'zebra' needs two senses" in fails(*run, "--word", "zebra")
    table = tmp_path / "s.tsv"
    table.write_text("a\tone bank\nb\n")
    assert f"{table}, line 2 has 1 column, but must have a sense and a sentence" in fails(
        *run, "--word", "bank", "--data", str(table)
    )
    assert "needs a text encoder" in fails("analyze", "senses", str(pretrained["image"]), "--word", "like")


def test_alignment_and_language_shift_of_a_parallel_list(
    pretrained: dict[str, Path], tmp_path: Path, fails: Callable[..., str]
) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"the {w} is here\tel {w} {w}\n" for w in "abcdefgh"))
    words = tmp_path / "words.tsv"
    words.write_text("".join(f"{w}\t{w}\n" for w in "abcdx"))
    run, pairs = str(pretrained["text"]), ["--pairs", str(table), "--languages", "en", "es"]
    options = [run, f"random:{run}", *pairs, "--dictionary", str(words), "--out", str(tmp_path / "a")]
    assert main(["analyze", "alignment", *options]) == 0
    rows = json.loads((tmp_path / "a/rows.json").read_text())["rows"]
    assert {(r["unit"], r["candidates"]) for r in rows} == {("texts", 8), ("words", 4)}
    assert all(0 < r["value"] <= 1 for r in rows)
    shift = ["analyze", "language-shift", run, *pairs, "--out", str(tmp_path / "s")]
    assert main([*shift, "--alphas", "1", "2"]) == 0
    rows = json.loads((tmp_path / "s/rows.json").read_text())["rows"]
    assert {r["alpha"] for r in rows if r["measure"] == "target_share"} == {0, 1, 2}
    assert "α = 2" in (tmp_path / "s/report.html").read_text()
    assert "--layer is 9" in fails(*shift, "--layer", "9")
    table.write_text("a\tb\n")
    assert "column 1 needs four different texts or more, but has 1" in fails(*shift)


def test_too_few_rows_and_rows_that_are_all_alike(
    pretrained: dict[str, Path], tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    table, run, out = tmp_path / "few.csv", str(pretrained["text"]), ["--out", str(tmp_path / "out")]
    table.write_text("text\na\nb\nc\n")
    for name in ("layers", "rank"):
        said = fails("analyze", name, run, "--data", str(table), "--split", "train", *out)
        assert "split has 3 items, but 4 or more are needed" in said
    table.write_text("text\n" + "the same\n" * 9)
    capsys.readouterr()
    assert main(["analyze", "layers", run, "--data", str(table), "--split", "train", *out]) == 0
    assert "cannot be compared: one of them is the same for all" in capsys.readouterr().out


def test_where_results_cannot_go_is_said_before_any_work(tmp_path: Path, fails: Callable[..., str]) -> None:
    analyze = ["analyze", "rank", "nowhere", "--data", "nothing", "--out"]
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        assert "is not a folder, or lies below a file" in fails(*analyze, str(tmp_path / place))
    for name, text in (("rows.csv", "a,b"), ("rows.json", "[1]"), ("report.html", "<p>")):
        out = tmp_path / name.replace(".", "_")
        out.mkdir()
        (out / name).write_text(text)
        assert f"{out / name} was not written by `analyze`" in fails(*analyze, str(out))
    (out / "rows.json").write_text('{"analysis": "rank", "command": "", "rows": []}')
    assert "was not written by" not in fails(*analyze, str(out))


def test_a_name_that_is_set_twice(fails: Callable[..., str]) -> None:
    said = fails("analyze", "zero-shot", "x", "--train", "en=a", "en=b", "--test", "en=c")
    assert said == "--train has en twice, 'a' and 'b'; leave one out."


def test_what_landscape_and_zero_shot_cannot_use_is_said_before_training(
    pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path, fails: Callable[..., str]
) -> None:
    run, out = str(pretrained["text"]), ["--out", str(tmp_path / "out")]
    data = f"data.source={sources['text']}"
    said = fails("analyze", "landscape", run, "--recipe", "text/bert", "--set", data, *out)
    assert said == "text/bert does not fine-tune (Finetune), but pretrains; take the recipe of a task."
    table = tmp_path / "bare.csv"
    table.write_text("text\na\nb\n")
    options = ["--recipe", "text/classify", "--train", f"en={sources['text']}", "--test", f"es={table}"]
    said = fails("analyze", "zero-shot", run, *options, "--set", "data.max_length=32", *out)
    assert said.startswith(f"{table}, to test es on, has no targets")
    assert not (tmp_path / "out").exists()
