"""Probes leave the encoder alone and run it once; fine-tuning reaches all of it, more gently further down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.metrics import accuracy_score, f1_score
from tiny import QUIET, differing, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder, values

from ssl_suite.bench.record import origin
from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.folder import fingerprint, save_encoder
from ssl_suite.core.frozen import Room
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim, check_cover
from ssl_suite.core.sharding import FSDP2
from ssl_suite.core.term import Term
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.text_to_text import TextToText


def trainer(folder: Path, epochs: int = 2, **options: Any) -> pl.Trainer:
    quiet = {"enable_checkpointing": False, "num_sanity_val_steps": 0, "accelerator": "cpu", **QUIET}
    return pl.Trainer(max_epochs=epochs, default_root_dir=folder, **{**quiet, **options})


def images(folder: str, **options: Any) -> Images:
    return Images(folder, image_size=16, batch_size=4, **options)


class Counted(ImageEncoder):
    seen: list[int] = []

    def forward(self, batch: ImageBatch) -> Encoded:
        Counted.seen += batch.index.tolist()
        assert not self.training
        return super().forward(batch)


@pytest.fixture
def counted() -> Counted:
    Counted.seen = []
    encoder = Counted("resnet18", True, 4)
    with torch.no_grad():
        encoder.net.conv1.weight.copy_(torch.randn_like(encoder.net.conv1.weight))
    return encoder


def test_probe_runs_the_encoder_once_an_item_over_seeds_and_epochs(
    counted: Counted, image_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    for seed in range(3):
        pl.seed_everything(seed)
        model = Finetune(counted, Classify())
        run = trainer(tmp_path, epochs=4)
        data = images(image_folder)
        run.fit(model, data)
        run.test(model, data, verbose=False)
    sizes = (14, 5, 4)
    assert sorted(Counted.seen) == sorted([*(i for n in sizes for i in range(n)), 0, 0, 0])  # one shows what all take
    with torch.no_grad():
        counted.net.conv1.weight[0] += 1
    trainer(tmp_path, epochs=1).fit(Finetune(counted, Classify()), images(image_folder))
    assert len(Counted.seen) == 15 + 6 + 5 + 15 + 6


def test_cached_features_are_read_from_disk_and_damage_is_mended(
    counted: Counted, image_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    for damage, expected in ((False, 21), (False, 21), (True, 40)):
        if damage:
            for file in (tmp_path / "cache" / "features").glob("*/*.safetensors"):
                file.write_bytes(file.read_bytes()[:100])
        trainer(tmp_path, epochs=1).fit(Finetune(counted, Classify()), images(image_folder))
        assert len(Counted.seen) == expected


def test_features_are_computed_anew_for_another_precision(
    counted: Counted, image_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    before = torch.get_float32_matmul_precision()
    try:
        for number, precision in enumerate(("highest", "high"), 1):
            torch.set_float32_matmul_precision(precision)
            trainer(tmp_path, epochs=1).fit(Finetune(counted, Classify()), images(image_folder))
            assert len(Counted.seen) == 21 * number
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("keep", [True, False])
def test_every_readout_has_features_of_its_own(
    keep: bool, speech_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    encoder = tiny_speech_encoder()
    seen: dict[str, torch.Tensor] = {}
    for readout in ("mean", "layer:0", "layer:1", "weighted_sum"):
        data = Speech(speech_folder, batch_size=4)
        trainer(tmp_path, epochs=1).fit(Finetune(encoder, Classify(), readout, room=Room(keep)), data)
        seen[readout] = values(data.features("train"))  # (N, S, D)
    assert torch.equal(seen["layer:0"][:, 0], seen["weighted_sum"][:, 0])
    assert torch.equal(seen["layer:1"][:, 0], seen["weighted_sum"][:, 1])
    assert torch.equal(seen["mean"][:, 0], seen["weighted_sum"][:, -1])
    assert not torch.equal(seen["layer:0"], seen["layer:1"])


def test_one_data_module_serves_each_model_what_that_one_asked_for(image_folder: str, tmp_path: Path) -> None:
    def learned(mode: Any, width: int, data: Images) -> dict[str, torch.Tensor]:
        pl.seed_everything(width)
        model = Finetune(tiny_image_encoder(width=width), Classify(), mode=mode, optim=Optim(lr=1e-2))
        run = trainer(tmp_path)
        run.fit(model, data)
        run.test(model, data, verbose=False)
        return {**model.state_dict(), **run.callback_metrics}

    shared = images(image_folder)
    for mode, width in (("probe", 4), ("probe", 6), ("finetune", 4), ("probe", 4), ("finetune", 6)):
        assert differing(learned(mode, width, shared), learned(mode, width, images(image_folder))) == [], (mode, width)


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_images_are_of_the_size_the_encoder_learned_from(mode: Any, image_folder: str, tmp_path: Path) -> None:
    encoder, data = tiny_image_encoder(), Images(image_folder, batch_size=4)
    encoder.preprocess = {"image_size": 10}
    trainer(tmp_path, 1).fit(Finetune(save_encoder(encoder, tmp_path / "e"), Classify(), mode=mode), data)  # type: ignore[arg-type]
    assert data.image_size == 10
    assert data.read("train", 0, 0).image.shape == (3, 10, 10)
    trainer(tmp_path, 1).fit(Finetune(tiny_image_encoder(), Classify(), mode=mode), data)
    assert data.image_size == 224


@pytest.mark.parametrize("batch_size", [13, 4])
def test_a_last_batch_of_one_trains_a_net_with_batch_norm(batch_size: int, image_folder: str, tmp_path: Path) -> None:
    """14 images; at 16 pixels the last stage of the net is one position, so that batch norm sees a value an image."""
    data = Images(image_folder, image_size=16, batch_size=batch_size)
    model = Finetune(tiny_image_encoder(small_images=False), Classify(), mode="finetune")
    trainer(tmp_path).fit(model, data)
    for epoch in range(2):
        batches = data.train_batches(epoch)
        assert sorted(i for batch in batches for i in batch) == list(range(14))
        assert [len(batch) for batch in batches] == {13: [14], 4: [4, 4, 4, 2]}[batch_size]


def test_a_batch_of_one_that_batch_norm_cannot_learn_from_is_named(image_folder: str, tmp_path: Path) -> None:
    model = Finetune(tiny_image_encoder(small_images=False), Classify(), mode="finetune")
    with pytest.raises(UserError, match=r"one image a step.*batch norm"):
        trainer(tmp_path).fit(model, Images(image_folder, image_size=16, batch_size=1))


def test_finetuning_what_was_probed_trains_all_of_it(image_folder: str, tmp_path: Path) -> None:
    encoder, data = tiny_image_encoder(), images(image_folder)
    encoder.net.bn1.weight.requires_grad_(False)  # by its owner, who keeps it so
    trainer(tmp_path, 1).fit(Finetune(encoder, Classify()), data)
    Finetune(encoder, Classify())
    before = {k: v.clone() for k, v in encoder.named_parameters()}
    trainer(tmp_path, 1).fit(Finetune(encoder, Classify(), mode="finetune", optim=Optim(lr=1e-2)), data)
    assert [k for k, v in encoder.named_parameters() if torch.equal(v, before[k])] == ["net.bn1.weight"]
    assert encoder.training


def test_probe_leaves_every_weight_and_statistic_of_the_encoder(image_folder: str, tmp_path: Path) -> None:
    encoder = tiny_image_encoder()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    model = Finetune(encoder, Classify())
    model.train()
    assert not any(m.training for m in encoder.modules())
    assert model.task.training
    trainer(tmp_path).fit(model, images(image_folder))
    assert differing(encoder.state_dict(), before) == []
    assert not any(m.training for m in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_probe_on_raw_inputs_equals_the_probe_on_features(image_folder: str, tmp_path: Path) -> None:
    model, data = Finetune(tiny_image_encoder(), Classify()), images(image_folder)
    trainer(tmp_path).fit(model, data)
    model.eval()
    features = next(iter(data.eval_dataloader("test")))
    data._frozen = None
    raw = data.finish(next(iter(data.eval_dataloader("test"))))
    assert torch.equal(raw.index, features.index)
    with torch.no_grad():
        torch.testing.assert_close(model(raw)[0], model(features)[0], atol=1e-4, rtol=1e-4)


def test_standardized_features_have_mean_0_and_deviation_1(image_folder: str, tmp_path: Path) -> None:
    model, data = Finetune(tiny_image_encoder(), Classify()), images(image_folder)
    trainer(tmp_path, epochs=1).fit(model, data)
    scaled = (values(data.features("train")) - model.readout.shift) * model.readout.scale
    torch.testing.assert_close(scaled.mean(0), torch.zeros_like(model.readout.shift), atol=1e-4, rtol=0)
    alive = model.readout.scale > 0
    torch.testing.assert_close(scaled.std(0, correction=0)[alive], torch.ones(int(alive.sum())), atol=1e-3, rtol=0)


def test_probe_checkpoint_gives_the_same_test_figures_in_a_new_process(image_folder: str, tmp_path: Path) -> None:
    folder = save_encoder(tiny_image_encoder(), tmp_path / "encoder")
    saving = ModelCheckpoint(tmp_path, "best", monitor="val/accuracy", mode="max")
    first = trainer(tmp_path, epochs=3, callbacks=[saving], enable_checkpointing=True)
    model, data = Finetune(str(folder), Classify(), "mean"), images(image_folder)
    first.fit(model, data)
    wanted = first.test(model, data, ckpt_path=saving.best_model_path, weights_only=True, verbose=False)
    again = trainer(tmp_path).test(
        Finetune(f"random:{folder}", Classify(), "mean"), images(image_folder), saving.best_model_path,
        weights_only=True, verbose=False,
    )  # fmt: skip
    assert again == wanted


def test_checkpoint_with_other_labels_is_refused(image_folder: str, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, "last")
    trainer(tmp_path, 1, callbacks=[saving], enable_checkpointing=True).fit(
        Finetune(tiny_image_encoder(), Classify()), images(image_folder)
    )
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["labels"] == ["dark", "light"]
    checkpoint["labels"] = ["cat", "dog"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"cat.*dark"):
        trainer(tmp_path).test(
            Finetune(tiny_image_encoder(), Classify()), images(image_folder), tmp_path / "other.ckpt", weights_only=True
        )


def test_encoder_and_data_of_two_modalities_are_refused(image_folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text encoder and image data"):
        trainer(tmp_path).fit(Finetune(tiny_text_encoder(), Classify()), images(image_folder))


@pytest.mark.parametrize("make", [tiny_image_encoder, tiny_text_encoder, tiny_speech_encoder])
def test_learning_rates_fall_by_the_layer_and_cover_all_parameters(make: Any) -> None:
    task = Classify()
    encoder = make()
    task.build(encoder.dim, ["a", "b"])
    readout = "weighted_sum" if len(set(encoder.widths)) == 1 else "last"
    model = Finetune(encoder, task, readout, "finetune", optim=Optim(layer_decay=0.5, weight_decay=0.1))
    groups = model.parameter_groups()
    check_cover(model, groups)
    factor = {id(p): g["lr_factor"] for g in groups for p in g["params"]}
    assert factor[id(task.head.weight)] == 1
    assert readout == "last" or factor[id(model.readout.weights)] == 1
    layers = encoder.layers()
    assert len(layers) >= 3
    for depth, layer in enumerate(reversed(layers), 1):
        assert {factor[id(p)] for p in layer} == {0.5**depth}
    assert all(g["weight_decay"] == (0.1 if p.ndim > 1 else 0) for g in groups for p in g["params"])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_top_block_is_the_first_layer_below_the_head(norm: str) -> None:
    layers = tiny_text_encoder(norm=norm).layers()
    assert len(layers) == 3  # embeddings and two blocks


def test_finetuning_moves_every_layer(speech_folder: str, tmp_path: Path) -> None:
    encoder = tiny_speech_encoder(trunk="transformer")
    before = {k: v.clone() for k, v in encoder.named_parameters()}
    model = Finetune(encoder, Classify(), "weighted_sum", "finetune", optim=Optim(lr=1e-2))
    trainer(tmp_path, 1).fit(model, Speech(speech_folder, batch_size=4))
    assert [k for k, v in encoder.named_parameters() if torch.equal(v, before[k])] == []
    assert encoder.training


def test_a_probe_is_not_sharded() -> None:
    model = Finetune(tiny_text_encoder(), Classify())
    model.trainer = pl.Trainer(accelerator="cpu", devices=1, strategy=FSDP2(), **QUIET)
    with pytest.raises(UserError, match=r"needs no sharding; take configs/trainer/ddp\.yaml"):
        model.configure_model()


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_labels_that_only_other_splits_have_are_scored_as_wrong(mode: Any, tmp_path: Path) -> None:
    known = [{"text": "good film", "label": "pos"}, {"text": "bad film", "label": "neg"}]
    unseen = [{"text": "odd film", "label": "mixed"}] * 2
    for split, rows in {"train": known * 6, "validation": [*known, *unseen], "test": [known[0], *unseen]}.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Finetune(tiny_text_encoder(), Classify(), mode=mode)
    data = Text(str(tmp_path), tokenizer="byte", max_length=32)
    run = trainer(tmp_path / "run", epochs=1)
    with pytest.warns(UserWarning, match=r"validation.jsonl: 2 of 4 labels never occur in training \('mixed' 2"):
        run.fit(model, data)
    assert run.callback_metrics["val/accuracy"] <= 0.5
    assert torch.isfinite(run.callback_metrics["val/loss"])
    (figures,) = run.test(model, data, verbose=False)
    said = [answer for answers in run.predict(model, data) for answer in answers]
    truth = ["pos", "mixed", "mixed"]
    assert figures["test/accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert figures["test/macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))


class Balanced(ImageEncoder):
    """Asks for a loss of its own, as a mixture of experts does."""

    def contextualise(self, tokens: Any) -> Encoded:
        encoded = super().contextualise(tokens)
        encoded.losses["balance"] = Term(encoded.pooled.square().sum(), len(encoded.pooled), scale=0.5)
        return encoded


@pytest.mark.parametrize("mode", ["finetune", "probe"])
def test_what_an_encoder_asks_for_is_added_while_it_learns(mode: Any, image_folder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Balanced("resnet18", True, 4)
    model, data = Finetune(encoder, Classify(), mode=mode, standardize=False), images(image_folder)
    trainer(tmp_path, epochs=1, limit_train_batches=1, log_every_n_steps=1).fit(model, data)
    model.eval()
    batch = data.finish(data.collate([data.read("train", i, 0) for i in range(4)]))
    with torch.no_grad():
        output, mask = model(batch)
        alone, own = model.task.loss(output, mask, batch.target), encoder(batch).losses["balance"].mean
        model.log_scalars = lambda *args, **named: None  # type: ignore[method-assign]
        whole = model.training_step(batch, 0)
    assert float(whole) == pytest.approx(float(alone + 0.5 * own * (mode == "finetune")), rel=1e-5)


def test_an_encoder_given_as_an_object_counts_as_what_it_is(tmp_path: Path) -> None:
    """Trained weights that are passed on in Python are no random baseline, and each has a name of its own."""
    drawn = tiny_image_encoder()
    assert Finetune(drawn, Classify()).weights.startswith("random-")
    save_encoder(drawn, tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    by_object, by_name = Finetune(loaded, Classify()), Finetune(str(tmp_path / "encoder"), Classify())
    assert by_object.weights == by_name.weights == fingerprint(loaded)
    assert origin(by_object) == ("ImageEncoder", "ssl")
    assert Finetune(f"random:{tmp_path / 'encoder'}", Classify()).weights.startswith("random-")


def test_what_an_encoders_states_do_not_depend_on_is_left_alone() -> None:
    encoder = EncoderDecoder(300, dim=16, layers=1, heads=2)
    Finetune(encoder, Classify(), mode="finetune")
    assert not any(p.requires_grad for p in encoder.decoder.parameters())
    assert all(p.requires_grad for p in [encoder.tokens.weight, *encoder.encoder.parameters()])
    TextToText(encoder)
    assert all(p.requires_grad for p in encoder.parameters())
