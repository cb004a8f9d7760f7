"""The report is one safe, self-contained and readable page, whatever is missing from the folder."""

import base64
import io
import json
import math
import re
import shutil
import wave
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_suite.bench import figures
from ssl_suite.bench.report import build_report
from ssl_suite.bench.store import Result, Store
from ssl_suite.core.errors import UserError

SEEDS = (0, 1, 2)
EVIL = "<script>alert('name')</script>"
# modality: encoder, throughput unit, parameters, {task: (metric, direction, labels)}, {method: (role, a mean a task)}
BENCHMARK: dict[str, Any] = {
    "text": (
        "TransformerEncoder", "tokens/s", 5_243_904,
        {"part of speech": ("accuracy", "max", 2000), "sentiment": ("accuracy", "max", 1600)},
        {
            "bag of words": ("simple", (0.712, 0.771)), "random": ("random", (0.644, 0.702)),
            "MaskedLM": ("ssl", (0.853, 0.709)), "CausalLM": ("ssl", (0.836, 0.7)),
            "ReplacedTokenDetection": ("ssl", (0.861, 0.69)), "supervised": ("supervised", (0.872, 0.768)),
        },
    ),
    "image": (
        "ImageEncoder", "images/s", 11_173_962,
        {"digits": ("accuracy", "max", 1000), "faces": ("accuracy", "max", 400)},
        {
            "raw pixels": ("simple", (0.938, 0.621)), "random": ("random", (0.894, 0.573)),
            "SimCLR": ("ssl", (0.974, 0.731)), "BYOL": ("ssl", (0.969, 0.724)), "DINO": ("ssl", (0.951, 0.702)),
            "BarlowTwins": ("ssl", (0.966, 0.69)), "MAE": ("ssl", (0.921, 0.583)),
            "supervised": ("supervised", (0.981, 0.702)),
        },
    ),
    "speech": (
        "SpeechEncoder", "audio-s/s", 7_318_272,
        {
            "characters": ("cer", "min", 3600), "speaker": ("accuracy", "max", 900),
            "keyword": ("accuracy", "max", 1200),
        },
        {
            "FBANK": ("simple", (0.742, 0.81, 0.688)), "random": ("random", (0.781, 0.774, 0.702)),
            "Wav2Vec2": ("ssl", (0.496, 0.851, 0.871)), "HuBERT": ("ssl", (0.458, 0.832, 0.884)),
            "CPC": ("ssl", (0.671, 0.869, 0.762)), "supervised": ("supervised", (0.523, 0.842, 0.9)),
        },
    ),
}  # fmt: skip


def make_result(modality: str, method: str, role: str, task: str, value: float, seed: int, **other: object) -> Result:
    encoder, _, _, tasks, _ = BENCHMARK[modality]
    metric, direction, labels = tasks[task]
    run = f"{modality}/{method}-{task}-{seed}".replace(" ", "-")
    values: dict[str, object] = {
        "data": f"samples:{task}", "data_hash": task, "split": "test", "fold": 0, "main": True, "checkpoint": "",
        "protocol": "supervised@1" if role == "supervised" else "probe@1", "recipe": "3f9a", "weights": method,
        "validation": value, "seconds": 41.5, "run": run, "created": "2026-03-02T10:00:00+00:00", "version": "0.1.0",
        "command": f"ssl-suite fit -c configs/{modality}/probe.yaml --model.encoder runs/{method} --seed {seed}",
    }  # fmt: skip
    values |= {"metric": metric, "direction": direction, "labels": labels, "chosen_on": 3000} | other
    return Result(modality, method, method, role, encoder, task=task, value=value, seed=seed, **values)  # type: ignore[arg-type]


def make_png(pixels: np.ndarray) -> str:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, cmap="gray_r", format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def make_wav(seconds: float, pitch: float) -> str:
    buffer = io.BytesIO()
    samples = np.sin(2 * np.pi * pitch * np.arange(int(8000 * seconds)) / 8000) * 8000
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return base64.b64encode(buffer.getvalue()).decode()


def make_mel(rng: np.random.Generator) -> list[list[float]]:
    bands, frames = np.mgrid[0:40, 0:90]
    voiced = np.cos(bands / (2.5 + np.sin(frames / 14) * 0.5)) * np.clip(np.sin(frames / 11 + rng.uniform(0, 3)), 0, 1)
    return (voiced * np.exp(-bands / 25) + rng.normal(0, 0.12, voiced.shape)).round(2).tolist()


def write_run(folder: Path, modality: str, method: str, seed: int, rng: np.random.Generator) -> None:
    encoder, unit, parameters, _, _ = BENCHMARK[modality]
    run = folder / modality / f"{method}-{seed}"
    (run / "encoder").mkdir(parents=True)
    (run / "config.yaml").write_text(f"seed_everything: {seed}\nmodel:\n  class_path: {method}\n  note: '{EVIL}'\n")
    steps = np.arange(0, 3000, 10)
    losses = 1.1 + 4 * np.exp(-steps / 500) + rng.normal(0, 0.09, steps.size) + 0.04 * seed
    lines = ["step,epoch,train/loss,val/loss"]
    for step, loss in zip(steps, losses, strict=True):
        lines.append(f"{step},{step // 300},{loss:.4f},")
        if step % 300 == 290:
            lines.append(f"{step},{step // 300},,{loss + 0.12:.4f}")
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    provenance = {
        "method": method, "encoder": encoder, "modality": modality, "data": "samples:all", "seed": seed, "steps": 3000,
        "seconds": 412.0 + 9 * seed, "config_hash": "77ab", "parameters": parameters, "mfu": 0.31 if seed else None,
        "metrics": {"train/loss": float(losses[-1]), "val/loss": float(losses[-1] + 0.12)},
        "throughput": {"value": 5430.0, "unit": unit}, "machine": "2-core x86-64 CPU, 24 GB",
        "versions": {"python": "3.11.2", "torch": "2.14.1", "pytorch-lightning": "2.6.0"},
        "command": f"ssl-suite fit -c configs/{modality}/{method.lower()}.yaml --seed_everything {seed}",
    }  # fmt: skip
    (run / "encoder" / "provenance.json").write_text(json.dumps(provenance))


def write_exhibits(folder: Path, rng: np.random.Generator) -> None:
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    digits = load_digits()
    labels = [str(label) for label in digits.target]
    thumbs = [
        {"png": make_png(image), "label": label} for image, label in zip(digits.images[:24], labels, strict=False)
    ]
    places = PCA(2, random_state=0).fit_transform(digits.data[:500])
    words = ["three o'clock", "open the door", "seven"]
    clips = [
        {"wav": make_wav(0.4, 200 + 90 * i), "text": text, "label": f"speaker {i}", "mel": make_mel(rng)}
        for i, text in enumerate(words)
    ]
    story = "Once upon a time there was a small river that wanted to see the sea."
    exhibits = [
        ("images", "image", "Handwritten digits", thumbs),
        ("text", "text", "Film reviews", [{"text": story, "label": "positive"}, {"text": EVIL, "label": "negative"}]),
        ("speech", "speech", "Short commands", clips),
        ("generated", "text", "CausalLM continues", [{"prompt": "Once upon a time", "text": story[16:]}]),
        ("table", "text", "Words and tags", [{"word": "river", "tag": "NOUN"}, {"word": "wanted", "tag": "VERB"}]),
        ("map", "image", "SimCLR, seed 0 (PCA)",
         [{"x": x, "y": y, "label": label} for (x, y), label in zip(places.tolist(), labels, strict=False)]),
    ]  # fmt: skip
    (folder / "exhibits").mkdir()
    for i, (kind, modality, title, items) in enumerate(exhibits):
        caption = "Items of the training split, the first ones."
        exhibit = {"kind": kind, "modality": modality, "title": title, "caption": caption, "items": items}
        (folder / "exhibits" / f"{i}.json").write_text(json.dumps(exhibit))


def make_folder(folder: Path) -> Path:
    """A folder as `ssl-suite bench` leaves it: results, pre-training runs and exhibits in three modalities."""
    rng = np.random.default_rng(0)
    results = []
    for modality, (_, _, _, tasks, methods) in BENCHMARK.items():
        for method, (role, means) in methods.items():
            for task, mean in zip(tasks, means, strict=True):
                for seed in SEEDS:
                    results.append(make_result(modality, method, role, task, mean + rng.normal(0, 0.008), seed))
            for seed in SEEDS if role == "ssl" else ():
                write_run(folder, modality, method, seed, rng)
    results.append(make_result("image", "SimCLR", "ssl", "digits", 0.4321, 0, online=True, protocol="online@1"))
    Store(folder / "results.sqlite").add(results)
    write_exhibits(folder, rng)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(make_folder(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def html(page: Path) -> str:
    return page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What is asked of the page's markup: tags, attributes and headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside in ("h1", "h2", "h3"):
            self.headings.append(data.strip())
            self.inside = ""


def test_the_answer_comes_first(html: str) -> None:
    assert re.search(r"On <b>6 of 7</b> tasks self-supervised features beat the same encoder with random weights", html)
    assert html.startswith("<!doctype html>")


def test_every_part_has_its_heading(html: str) -> None:
    headings = Page(html).headings
    for name in ("Summary", "text", "image", "speech", "How each number was made", "Learning curves", "Pre-training"):
        assert name in headings
    assert headings.index("Summary") < headings.index("text") < headings.index("image") < headings.index("speech")
    assert (
        headings.count("Generated text") == headings.count("Maps of embeddings") == headings.count("Online probes") == 1
    )


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
                assert (value or "").startswith(("data:", "#")), (tag, name, value)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_names_from_files_are_text_not_markup(html: str) -> None:
    assert EVIL not in html
    assert "&lt;script&gt;alert(&#39;name&#39;)" in html


def test_method_names_are_text_in_figures_too(tmp_path: Path) -> None:
    rows = [make_result("image", EVIL + " $x_1$", "ssl", "digits", 0.5 + seed / 50, seed) for seed in SEEDS]
    Store(tmp_path / "results.sqlite").add(rows)
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "$x_1$" in html


def test_ids_are_unique_and_figures_have_titles(html: str) -> None:
    tags = Page(html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures_ = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(figures_) >= 7 + 11 + 1  # tasks, methods that were pre-trained, the map
    assert all(a.get("role") == "img" and (a.get("aria-label") or a.get("aria-labelledby") in ids) for a in figures_)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")


def test_figures_use_only_the_colours_of_the_page(html: str) -> None:
    styles = re.findall(r'<(?:path|use|text|g)[^>]* style="([^"]*)"', html)
    assert styles
    assert not any(re.search(r"#[0-9a-f]{6}", style) for style in styles)


def test_commands_and_configs_are_shown(html: str) -> None:
    assert '<pre class="command">ssl-suite fit -c configs/image/simclr.yaml --seed_everything 0</pre>' in html
    assert "class_path: SimCLR" in html


def test_online_results_stay_out_of_the_main_table(html: str) -> None:
    image = html[html.index('id="part-2"') : html.index('id="part-3"')]
    before, after = image.split("<h3>Online probes</h3>")
    assert ">0.432<" not in before
    assert ">0.432<" in after


def test_a_config_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("secret: 1")
    folder = tmp_path / "runs"
    Store(folder / "results.sqlite").add([make_result("image", "SimCLR", "ssl", "digits", 0.5, 0, run="..")])
    assert "secret" not in build_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "encoder/provenance.json", "exhibit"])
def test_a_link_to_a_file_outside_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    folder, secret = tmp_path / "runs", tmp_path / "secret"
    make_folder(folder)
    path = folder / "exhibits/1.json" if name == "exhibit" else folder / "image/SimCLR-0" / name
    secret.write_text(path.read_text().replace("SimCLR", "Secret").replace("Film reviews", "Secret"))
    path.unlink()
    path.write_text(secret.read_text())
    if name != "metrics.csv":
        assert "Secret" in build_report(folder).read_text(encoding="utf-8"), "a file of the folder is shown"
    path.unlink()
    path.symlink_to(secret)
    html = build_report(folder).read_text(encoding="utf-8")
    assert "Secret" not in html
    assert ("leads outside" in html) == (name not in ("config.yaml", "metrics.csv"))
    if name == "metrics.csv":
        assert "Loss of SimCLR against the step, 2 runs" in html


def test_failed_runs_are_told_with_their_sentence(tmp_path: Path) -> None:
    rows = [make_result("image", "SimCLR", "ssl", "digits", 0.9 + seed / 100, seed) for seed in range(2)]
    failed = replace(rows[0], seed=2, run="tasks/digits/SimCLR-seed2", metric="", main=False, value=math.nan,
                     error="The loss became nan at step 7.")  # fmt: skip
    Store(tmp_path / "results.sqlite").add([*rows, failed])
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert "tasks/digits/SimCLR-seed2 gave no result: The loss became nan at step 7." in html
    assert "†" in html


def test_losses_are_marked_and_counted_and_the_headline_says_how(tmp_path: Path) -> None:
    means = {"random": (0.6, 0.6), "SimCLR": (0.9, 0.4), "raw pixels": (0.7, 0.4)}
    roles = {"random": "random", "SimCLR": "ssl", "raw pixels": "simple"}
    Store(tmp_path / "results.sqlite").add(
        make_result("image", method, roles[method], task, mean + seed / 200, seed)
        for method, values in means.items()
        for task, mean in zip(("digits", "faces"), values, strict=True)
        for seed in SEEDS
    )
    html = build_report(tmp_path).read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]*>", "", html).split())
    assert "On 1 of 2 tasks self-supervised features beat the same encoder with random weights, on 1 they" in text
    assert "Against the simple baseline they are better on 1 of 2, worse on 0, and not told apart on 1." in text
    assert "2 comparisons with random weights, 2 with simple baselines" in text
    assert "chosen on validation" in text
    assert "worse than random weights" in html


def test_names_of_metrics_are_explained(tmp_path: Path) -> None:
    rows = [make_result("speech", "CPC", "ssl", "characters", 0.5, s, metric="unfit", main=False) for s in SEEDS]
    Store(tmp_path / "results.sqlite").add(rows)
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert "<b>unfit</b>: share of test items whose text has more characters than" in html


def test_one_seed_and_no_exhibits_are_told_in_words(tmp_path: Path) -> None:
    rows = [
        make_result("speech", "CPC", "ssl", "keyword", 0.8, 0),
        make_result("speech", "random", "random", "keyword", 0.5, 0),
    ]
    Store(tmp_path / "results.sqlite").add(rows)
    html = build_report(tmp_path).read_text(encoding="utf-8")
    for sentence in (
        "nothing to compare",
        "cannot tell",
        "no exhibits",
        "No run logged a loss",
        "there is no interval",
    ):
        assert sentence in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).lower()


def test_a_seed_without_a_number_is_marked_and_wins_nothing(tmp_path: Path) -> None:
    values = {"MAE": (0.9, 0.91, math.nan), "random": (0.5, 0.51, 0.52), "SimCLR": (math.nan,) * 3}
    rows = [
        make_result("image", method, "random" if method == "random" else "ssl", "digits", value, seed)
        for method, found in values.items()
        for seed, value in enumerate(found)
    ]
    Store(tmp_path / "results.sqlite").add(rows)
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert re.search(r"0\.905 ± 0\.064 †", html)
    assert "n/a" in html
    assert "better than random weights" not in html


def test_broken_files_are_named_and_left_out(tmp_path: Path) -> None:
    Store(tmp_path / "results.sqlite").add([make_result("image", "SimCLR", "ssl", "digits", 0.5, 0)])
    (tmp_path / "exhibits").mkdir()
    (tmp_path / "exhibits" / "broken.json").write_text("{")
    (tmp_path / "exhibits" / "odd.json").write_text('{"kind": "images", "modality": "image", "items": [{"png": "?"}]}')
    (tmp_path / "exhibits" / "list.json").write_text("[]")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "provenance.json").write_text("nonsense")
    html = build_report(tmp_path).read_text(encoding="utf-8")
    for name in ("exhibits/broken.json", "exhibits/odd.json", "exhibits/list.json", "run/provenance.json"):
        assert name in html


def test_exhibits_may_lack_labels(tmp_path: Path) -> None:
    Store(tmp_path / "results.sqlite").add([make_result("image", "SimCLR", "ssl", "digits", 0.5, 0)])
    (tmp_path / "exhibits").mkdir()
    for kind, item in {
        "images": {"png": make_png(np.eye(4))},
        "text": {"text": "hello"},
        "speech": {"text": "bye"},
    }.items():
        exhibit = {"kind": kind, "modality": "image", "items": [item, {**item, "label": 0}]}
        (tmp_path / "exhibits" / f"{kind}.json").write_text(json.dumps(exhibit))
    html = build_report(tmp_path).read_text(encoding="utf-8")
    assert 'alt="example 1"' in html
    assert "left out" not in html


def test_without_results_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        build_report(tmp_path)
    Store(tmp_path / "results.sqlite")
    with pytest.raises(UserError, match="holds no results"):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_map_names_the_frequent_labels_only() -> None:
    points = [(float(i), float(i % 7), f"label {i % 14}") for i in range(140)]
    _, legend = figures.scatter(points, "m", "map")
    assert len(legend) == len(figures.CATEGORIES) + 1
    assert legend[-1][1] == "4 other labels"


@pytest.mark.parametrize(("count", "text"), [(950, "950"), (1234, "1.23k"), (11_173_962, "11.2M"), (None, "–")])
def test_counts_are_short(count: int | None, text: str) -> None:
    assert figures.compact(count) == text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(page: Path, width: int, scheme: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browsers = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    executable = next(browsers, None)
    if executable is None:
        pytest.skip("no Chromium on PATH")
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        problems: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        sizes = tab.evaluate(
            "[...document.querySelectorAll('svg, img, audio')].map(e => e.getBoundingClientRect())"
            ".map(r => Math.min(r.width, r.height))"
        )
        fits = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        names = tab.evaluate("[...document.querySelectorAll('.results tbody th')].map(e => e.offsetWidth)")
        heights = tab.evaluate("[...document.querySelectorAll('.results tbody th')].map(e => e.offsetHeight)")
        hidden, told = (
            tab.evaluate(f"[...document.querySelectorAll('.scroll')].map(e => {what})")
            for what in (
                "e.scrollWidth > e.clientWidth",
                "!!e.nextElementSibling?.matches('.more') && innerWidth < 640",
            )
        )
        broken = tab.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
        browser.close()
    assert not problems
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    assert min(sizes) > 10
    assert fits
    assert not broken
    assert max(names) < 0.45 * width, "a name must leave room for its figures"
    assert max(heights) < 100, "and be read in a line or three"
    assert width > 400 or all(said or not more for more, said in zip(hidden, told, strict=True)), "hidden columns"
    assert not hidden[0], "the summary is seen whole"
