"""Loader processes that are not forked (macOS, Python 3.14) make the batches that the run itself would make."""

from __future__ import annotations

import inspect
import json
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from test_glue import official
from test_phrases import write as tagged
from test_questions import CHINESE, ENGLISH, KOEI, PARIS, written
from tiny import differing

from ssl_suite.core.data import DataModule, Request
from ssl_suite.data.image.images import Images
from ssl_suite.data.joint import Joint
from ssl_suite.data.speech.augment import Augment
from ssl_suite.data.speech.mixtures import Mixtures
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.prompts.documents import Documents
from ssl_suite.data.text.prompts.prompts import Prompts
from ssl_suite.data.text.questions.questions import Questions
from ssl_suite.data.text.sequences.glue import CLUE, GLUE
from ssl_suite.data.text.sequences.phrases import Phrases
from ssl_suite.data.text.sequences.text_pairs import TextPairs
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.methods.text.denoise import Denoise
from ssl_suite.plugins import load_built_in

TOKENIZER = train_tokenizer(["a film of train", "the test", "It was p or n."] * 9, "char", 300)
PRETRAIN, CLASS = Request(pretrains=True), Request(target="class")
CHAR = {"tokenizer": "char"}
CASES: dict[str, tuple[type[DataModule], dict[str, Any], Request]] = {
    "views": (Images, {"image_size": 8}, Request(pretrains=True, views="simclr")),
    "augmented": (Images, {"image_size": 8, "augment": "crop", "in_memory": True}, CLASS),
    "crops": (Speech, {"max_seconds": 0.2}, PRETRAIN),
    "utterances": (Speech, {}, CLASS),
    "noisy": (Speech, {"augment": Augment(noise="pink")}, CLASS),
    "mixtures": (Mixtures, {"speaker": "label", "noise": "pink"}, Request(target="multi_frames", stride=320)),
    "blocks": (Text, CHAR | {"max_length": 16}, PRETRAIN),
    "rows": (Text, CHAR | {"pack": False, "split_long": False}, PRETRAIN),
    "sentences": (Text, CHAR, Request(pretrains=True, pairs="sop")),
    "classes": (Text, CHAR, CLASS),
    "phrases": (Phrases, CHAR, Request(phrases=True)),
    "questions": (Questions, CHAR, Request(target="span")),
    "pairs": (GLUE, CHAR | {"task": "rte"}, CLASS),
    "prompts": (Prompts, {"template": "{text} It was {label}."}, Request(tokenizer=TOKENIZER)),
    "joint": (Joint, {}, Request(pretrains=True)),
    "corrupted": (Text, CHAR | {"max_length": 16}, Request(pretrains=True, corruption=Denoise("deshuffle"))),
    "said": (TextPairs, CHAR | {"target": "label"}, Request()),
    "documents": (Documents, {"max_length": 12}, Request(tokenizer=TOKENIZER)),
}


@pytest.fixture(scope="module")
def sources(
    tmp_path_factory: pytest.TempPathFactory, image_folder: str, text_file: str, speech_folder: str
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sources")
    films, glue = folder / "films", folder / "glue"
    films.mkdir()
    talk = folder / "talk.txt"
    talk.write_text("\n\n".join(f"I saw it {i} times.\nSo did you.\nIt was fun." for i in range(30)))
    glue.mkdir()
    for name in ("train", "test"):
        rows = [{"text": f"film {i} of {name}", "label": "pn"[i % 2]} for i in range(8)]
        (films / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "views": image_folder, "augmented": image_folder, "crops": speech_folder, "utterances": speech_folder,
        "mixtures": speech_folder, "noisy": speech_folder,
        "corrupted": text_file, "said": str(films),
        "blocks": text_file, "rows": text_file, "sentences": str(talk), "classes": str(films), "prompts": str(films),
        "documents": str(films), "phrases": tagged(folder / "tagged.jsonl"), "pairs": str(official(glue, "rte")),
        "questions": written(folder / "qa/train-v1.1.json", (PARIS, ENGLISH), (KOEI, CHINESE)),
    }  # fmt: skip


@pytest.fixture
def starts(request: pytest.FixtureRequest) -> Iterator[None]:
    """How processes start; a server that has imported what they need forks them fast."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_forkserver_preload(
        ["ssl_suite.data.text.sequences.glue", "ssl_suite.data.image.images", "torchaudio"]
    )
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize(
    ("name", "starts"), [*((n, "forkserver") for n in CASES), ("views", "spawn")], indirect=["starts"]
)
@pytest.mark.usefixtures("starts")
def test_a_process_that_was_not_forked_reads_the_same(name: str, sources: dict[str, str]) -> None:
    """What is sent to a process is the same either way; spawned, each imports everything anew."""
    cls, options, request = CASES[name]
    found = []
    for workers in (0, 1):
        given = {"parts": joint(sources["classes"])} if name == "joint" else {"source": sources[name]}
        data = cls(batch_size=3, num_workers=workers, **given, **options)
        data.serve(request)
        loader = data.train_dataloader() if data.has("train") else data.eval_dataloader("test")
        found.append([contents(batch) for batch in loader])
    assert len(found[0]) > 1
    assert differing(*found) == []


def contents(batch: Any) -> dict[str, Any]:
    parts = {name: vars(part) for name, part in getattr(batch, "parts", {}).items()}
    decoder = {"decoder": vars(batch.decoder)} if hasattr(batch, "decoder") else {}
    return vars(batch) | {"parts": parts} | decoder


def joint(source: str) -> dict[str, DataModule]:
    return {name: Text(source, tokenizer="char", pack=False, split_long=False) for name in "ab"}


def test_every_data_module_is_tried() -> None:
    load_built_in()

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    ours = {c for c in below(DataModule) if c.__module__.startswith("ssl_suite.") and not inspect.isabstract(c)}
    assert ours - {CLUE} == {cls for cls, *_ in CASES.values()}  # CLUE is GLUE with another table
