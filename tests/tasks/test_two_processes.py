"""Two processes judge as one: the figures of whatever is made of all items of a split together."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import soundfile
import torch
from processes import run_processes
from pytorch_lightning.plugins.environments import LightningEnvironment
from tiny import QUIET

from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.module import Evaluation
from ssl_suite.core.task import Task
from ssl_suite.data.speech.mixtures import Mixtures
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.simple import Fbank
from ssl_suite.tasks.abx import ABX
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.diarize import Diarize
from ssl_suite.tasks.separate import Separate
from ssl_suite.tasks.similarity import Similarity
from ssl_suite.tasks.verify import Verify

Judged = tuple[Evaluation, DataModule]
VOICES = ("x", "y", "z")


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Half a second each of eleven real prompts in each split, by three voices; eleven is odd."""
    folder = tmp_path_factory.mktemp("voices")
    prompts = Speech("samples:prompts")
    prompts.serve(Request())
    for split in ("train", "validation", "test"):
        rows = ["path,speaker,text"]
        for i in range(11):
            wave = prompts.read("test", i, 0).wave[1000 : 9000 + 300 * i]
            soundfile.write(folder / f"{split}{i}.wav", wave.numpy(), 16000)
            rows.append(f"{split}{i}.wav,{VOICES[i % 3]},{'yes' if i % 2 else 'no'}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return str(folder)


def cases(folder: str) -> dict[str, Judged]:
    def probe(task: Task) -> Finetune:
        return Finetune(Fbank(), task, standardize=False)

    def speech(target: str = "speaker") -> Speech:
        return Speech(folder, target=target, batch_size=2)

    def mixtures(count: int, **options: Any) -> Mixtures:
        return Mixtures(folder, count, batch_size=2, **options)

    return {
        "Verify": (probe(Verify("linear", width=8)), speech()),
        "Similarity": (Similarity(Fbank()), speech()),
        "Diarize": (probe(Diarize(hidden=8, medians=[1, 3], protocol="compat")), mixtures(2)),
        "Separate": (probe(Separate(hidden=8, layers=1, window=400)), mixtures(2)),
        "Separate, linear, from noise": (probe(Separate(["a"], layers=0, window=400)), mixtures(1, noise="pink")),
        "ABX": (ABX(Fbank(), of="text", kind="transcript", by=[], others=None, most=None, layers=[-1]), speech()),
        "CTC": (probe(CTC()), speech("text")),
    }


def figures(folder: str, devices: int) -> dict[str, Any]:
    """Of each case, what it logs and what it keeps of single items."""
    more: dict[str, Any] = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    found = {}
    for name, (model, data) in cases(folder).items():
        plugins = {"plugins": [LightningEnvironment()]} if devices > 1 else {}
        trainer = pl.Trainer(accelerator="cpu", **more, **plugins, **QUIET)  # type: ignore[arg-type]
        pl.seed_everything(0, verbose=False)  # several processes begin with the run's seed again
        trainer.test(model, datamodule=data, verbose=False)
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        examples = [(key, value) for key, value, _ in model.examples("test")]
        found[name] = {"logged": logged, "examples": examples}
    return found


def worker(rank: int, port: int, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
    Path(out, f"{rank}.json").write_text(json.dumps(figures(folder, 2)))
    torch.distributed.destroy_process_group()


def test_two_processes_judge_as_one_does(voices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")  # as one that another test has left
    alone = json.loads(json.dumps(figures(voices, 1)))
    run_processes(worker, 2, voices, str(tmp_path), seconds=200)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for name, one in alone.items():
            two = found[name]
            assert two["logged"].keys() == one["logged"].keys(), name
            assert sum(map(math.isfinite, one["logged"].values())) >= 2, name
            for key, value in one["logged"].items():
                if not key.endswith("/loss"):  # a mean of batches, and theirs are other batches
                    assert two["logged"][key] == pytest.approx(value, abs=1e-5), (name, key)
            assert [key for key, _ in two["examples"]] == [key for key, _ in one["examples"]], name
            for (key, a), (_, b) in zip(two["examples"], one["examples"], strict=True):
                assert a == pytest.approx(b, abs=1e-4), (name, key)
