"""Several labels for one input: right when all of them are, whatever the modality, from data to a row's outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset
from PIL import Image
from sklearn.metrics import accuracy_score
from tiny import QUIET, tiny_image_encoder
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from ssl_suite.core.batch import IGNORE, stacked
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import check_cover
from ssl_suite.data.common.source import Rows
from ssl_suite.data.common.targets import SlotTargets
from ssl_suite.data.image.images import Images
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.slots import Slots

INTENT = {"action": ["on", "off"], "place": ["bath", "hall", "roof"]}


def built(**options: Any) -> Slots:
    task = Slots(list(INTENT), **options)
    task.build(4, INTENT)
    return task


def test_the_loss_is_the_sum_of_the_slots_and_a_missing_label_costs_nothing() -> None:
    task = built()
    output = {"action": torch.randn(5, 2), "place": torch.randn(5, 3)}
    target = {"action": torch.tensor([0, 1, 1, 0, 0]), "place": torch.tensor([2, 0, IGNORE, 1, 3])}  # 3: unseen
    wanted = F.cross_entropy(output["action"], target["action"])
    wanted = wanted + F.cross_entropy(output["place"][[0, 1, 3]], target["place"][[0, 1, 3]])
    torch.testing.assert_close(task.loss(output, torch.ones(5, 1), target), wanted)


def test_a_whole_answer_is_right_when_every_slot_is() -> None:
    task = built()
    truth = [("on", "bath"), ("off", "hall"), ("on", "roof"), ("off", "attic"), ("on", "hall")]
    said = [("on", "bath"), ("off", "roof"), ("off", "roof"), ("off", "hall"), ("on", "hall")]
    splits = {
        split: Rows(
            Dataset.from_dict({slot: [row[k] for row in said] for k, slot in enumerate(INTENT)}), f"{split}.csv"
        )
        for split, said in {"train": [("on", "bath"), ("off", "hall"), ("on", "roof")], "test": truth}.items()
    }
    found = SlotTargets(splits, {"action": "action", "place": "place"}, task.target)
    assert found.labels == {"action": ["off", "on"], "place": ["bath", "hall", "roof"]}
    assert found.unseen == {"action": [], "place": ["attic"]}
    task.build(4, found.labels)
    task.unseen = found.unseen
    target = stacked([found["test", i] for i in range(5)])
    answers = {slot: torch.tensor([found.labels[slot].index(row[k]) for row in said]) for k, slot in enumerate(INTENT)}
    output = {slot: F.one_hot(answer, len(found.labels[slot])).float() for slot, answer in answers.items()}
    metrics, mask = task.metrics(), torch.ones(5, 1)
    for part in (slice(0, 2), slice(2, 5)):
        some, true = ({slot: tensor[part] for slot, tensor in given.items()} for given in (output, target))
        task.update(metrics, some, mask[part], true)
    scores = {name: float(value) for name, value in metrics.compute().items()}
    assert scores["accuracy"] == pytest.approx(2 / 5)
    for k, slot in enumerate(INTENT):
        assert scores[slot] == pytest.approx(accuracy_score([t[k] for t in truth], [s[k] for s in said]))
    assert task.outcomes(output, mask, target) == [(1, 1), (0, 1), (0, 1), (0, 1), (1, 1)]
    assert [tuple(row.values()) for row in task.decode(output, mask)] == said


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """Pictures that are light or dark, and wide or tall."""
    folder, rows = tmp_path / "p", []
    folder.mkdir()
    for i in range(24):
        tone, form = i % 2, i // 2 % 2
        Image.new("L", (14, 10) if form else (10, 14), 60 + 130 * tone + i).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{['dark', 'light'][tone]},{['tall', 'wide'][form]}")
    (folder / "metadata.csv").write_text("\n".join(["file_name,tone,form", *rows]))
    return str(folder)


def run(data: Images, task: Any, folder: Path, mode: Any = "probe", epochs: int = 2) -> tuple[pl.Trainer, Finetune]:
    torch.manual_seed(0)
    model = Finetune(tiny_image_encoder(), task, mode=mode)
    trainer = pl.Trainer(max_epochs=epochs, default_root_dir=folder, accelerator="cpu", num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data, verbose=False)
    return trainer, model


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_slots_are_learned_kept_in_a_checkpoint_and_predicted(shapes: str, tmp_path: Path, mode: str) -> None:
    data = Images(shapes, image_size=16, batch_size=8)
    trainer, model = run(data, Slots(["tone", "form"]), tmp_path, mode)
    assert {"val/accuracy", "val/tone", "val/form"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    state = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert state["labels"] == {"tone": ["dark", "light"], "form": ["tall", "wide"]}
    said = trainer.predict(model, data.eval_dataloader("validation"))
    assert said[0][0].keys() == {"tone", "form"}


def test_columns_of_other_names_are_said_by_slot(shapes: str) -> None:
    data = Images(shapes, image_size=16, target={"a": "tone", "b": "form"})
    data.serve(Request(target={"a": "class", "b": "class"}))
    assert data.labels == {"a": ["dark", "light"], "b": ["tall", "wide"]}
    batch = data.collate([data.read("train", i, 0) for i in range(3)])
    assert batch.target["a"].tolist() == [int(data.target("train", i)["a"]) for i in range(3)]
    assert batch.to("meta").target["b"].device.type == "meta"


def test_a_few_labels_are_drawn_over_all_combinations(shapes: str) -> None:
    data = Images(shapes, image_size=16, labels=4)
    data.serve(Request(target={"tone": "class", "form": "class"}))
    drawn = {tuple(int(v) for v in data.target("train", i).values()) for i in range(4)}
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("target", "wanted", "sentence"),
    [
        ({"a": "tone"}, {"tone": "class", "form": "class"}, "The task has the slots tone, form; data.target names a"),
        ({"a": "tone"}, "class", r"data.target names slots \(a\), but the task has one target"),
        ("label", {"tone": "class", "fom": "class"}, "has no column 'fom'.*form"),
        ("label", {"tone": "class", "form": "colour"}, "Images gives no target of the kind 'colour'; it gives class"),
    ],
)
def test_slots_that_do_not_fit_are_one_sentence(shapes: str, target: Any, wanted: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Images(shapes, image_size=16, target=target).serve(Request(target=wanted))


class Brightness(Classify):
    """Looks at the picture itself beside the features."""

    inputs = ("images",)

    def build(self, dim: int, labels: list[str]) -> None:
        super().build(dim + 1, labels)

    def forward(self, features: Tensor, mask: Tensor, images: Tensor) -> Tensor:
        light = images.mean((1, 2, 3))[:, None, None].expand(-1, features.shape[1], 1)
        return super().forward(torch.cat([features, light], -1), mask)


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_a_task_sees_what_it_asks_of_the_batch(shapes: str, tmp_path: Path, mode: str) -> None:
    task = Brightness()
    trainer, model = run(Images(shapes, image_size=16, batch_size=8, target="tone"), task, tmp_path, mode, epochs=1)
    assert task.head.weight.shape[1] == model.readout.dim + 1
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


class Rates(Classify):
    """Linear heads side by side, each at its own rate."""

    def __init__(self, rates: tuple[float, ...] = (0.1, 0.0)) -> None:
        super().__init__()
        self.rates = rates

    def build(self, dim: int, labels: list[str]) -> None:
        super().build(dim, labels)
        self.heads = nn.ModuleList(nn.Linear(dim, len(labels)) for _ in self.rates)

    def parameter_groups(self) -> list[dict[str, Any]]:
        heads = zip(self.heads, self.rates, strict=True)
        return [{"params": list(head.parameters()), "lr_factor": rate, "weight_decay": 0.0} for head, rate in heads]

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([self.head(features[:, 0]), *(head(features[:, 0]) for head in self.heads)], 1)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.repeat_interleave(output.shape[1]))

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        super().update(metrics, output[:, 0], mask, target)


def test_heads_learn_at_their_own_rates(shapes: str, tmp_path: Path) -> None:
    task = Rates()
    kept: dict[str, Tensor] = {}

    class Note(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            kept.update({n: p.detach().clone() for n, p in task.named_parameters()})
            check_cover(pl_module, trainer.optimizers[0].param_groups)

    torch.manual_seed(0)
    data = Images(shapes, image_size=16, batch_size=100, target="tone")
    model = Finetune(tiny_image_encoder(), task)
    quiet = {"accelerator": "cpu", "num_sanity_val_steps": 0, "enable_checkpointing": False, **QUIET}
    pl.Trainer(max_steps=1, default_root_dir=tmp_path, callbacks=[Note()], **quiet).fit(model, datamodule=data)
    # the first step of Adam is its rate
    moved = {n: float((p - kept[n]).abs().max()) for n, p in task.named_parameters()}
    assert moved["heads.0.weight"] == pytest.approx(0.1 * moved["head.weight"], rel=1e-3)
    assert moved["heads.1.weight"] == 0


def test_a_probe_that_looks_at_the_inputs_keeps_no_features(
    shapes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    _, model = run(Images(shapes, image_size=16, batch_size=8, target="tone"), Brightness(), tmp_path / "a", epochs=1)
    assert not (tmp_path / "cache/features").exists()
    _, plain = run(Images(shapes, image_size=16, batch_size=8, target="tone"), Classify(), tmp_path / "b", epochs=1)
    torch.testing.assert_close(model.readout.state_dict(), plain.readout.state_dict())
