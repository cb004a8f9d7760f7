"""Verification: figures against scikit-learn and the definition, trials, heads that no padding reaches, whole runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import soundfile
import torch
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve
from tiny import QUIET, tiny_image_encoder, tiny_speech_encoder
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.bench.resample import Outcomes, score
from ssl_suite.core.batch import IGNORE, lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks import trials as trials_module
from ssl_suite.tasks.similarity import Similarity
from ssl_suite.tasks.trials import eer, errors, every_pair, located, min_dcf, read_trials
from ssl_suite.tasks.verify import Vectors, Verify
from ssl_suite.tasks.xvector import SPAN, XVector, statistics


def drawn(n: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Scores that tell most trials apart, one in five of which is of one identity."""
    same = torch.rand(n) < 0.2
    scores = torch.randn(n) + 1.5 * same
    return (scores * 2).round() if ties else scores, same


# Figures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [10, 101, 2000])
def test_eer_is_the_root_on_scikit_learns_interpolated_roc(n: int, ties: bool) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        scores, same = drawn(n, ties)
        same[:2] = torch.tensor([True, False])
        alarms, hits, _ = roc_curve(same, scores)
        wanted = brentq(lambda x: 1 - x - interp1d(alarms, hits)(x), 0, 1)  # noqa: B023
        assert float(eer(scores, same)) == pytest.approx(wanted, abs=1e-9)


def test_eer_of_what_tells_all_or_nothing_apart() -> None:
    same = torch.tensor([True, True, False, False, False])
    assert float(eer(same.float(), same)) == 0
    assert float(eer(-same.float(), same)) == 1
    assert float(eer(torch.zeros(5), same)) == pytest.approx(0.5)
    assert eer(torch.rand(3), torch.ones(3, dtype=torch.bool)).isnan()
    assert eer(torch.rand(3), torch.zeros(3, dtype=torch.bool)).isnan()


def test_errors_of_single_trials_have_the_eer_as_their_mean_in_both_kinds() -> None:
    scores, same = drawn(301)
    wrong = errors(scores, same)
    assert ((wrong > 0) & (wrong < 1)).sum() < 15, "a few between two corners of the ROC count by how near each is"
    assert float(wrong[same].mean()) == pytest.approx(float(wrong[~same].mean()))


@pytest.mark.parametrize("target", [0.01, 0.05, 0.5])
def test_min_dcf_is_the_least_over_all_thresholds(target: float) -> None:
    for ties in (False, True):
        scores, same = drawn(500, ties)
        mine, others = scores[same], scores[~same]
        cuts = [*scores.unique().tolist(), np.inf]
        costs = [
            target * float((mine < cut).double().mean()) + (1 - target) * float((others >= cut).double().mean())
            for cut in cuts
        ]
        wanted = min(costs) / min(target, 1 - target)
        assert float(min_dcf(scores, same, target)) == pytest.approx(wanted, abs=1e-12)
        assert float(min_dcf(torch.zeros(500), same, target)) == 1, "normalised: saying nothing costs 1"


# Trials ---------------------------------------------------------------------------------------------------------------


def test_a_split_poses_each_pair_once() -> None:
    found = every_pair(torch.tensor([3, 1, 3]))
    assert [tuple(row) for row in zip(*(part.tolist() for part in found), strict=True)] == [
        (0, 1, False), (0, 2, True), (1, 2, False)
    ]  # fmt: skip


def test_of_too_many_pairs_some_are_drawn_half_of_one_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "MOST", 4000)
    identity = torch.randint(12, (300,))
    identity[7] = 99  # alone: it can be in pairs of two alone
    found = every_pair(identity)
    assert torch.equal(found.same, identity[found.first] == identity[found.second])
    assert (found.first != found.second).all()
    assert int(found.same.sum()) >= 1900
    assert int((~found.same).sum()) >= 1700
    assert 7 in found.first[~found.same]
    assert len(found.first[found.same].unique()) == 299
    assert all(torch.equal(a, b) for a, b in zip(found, every_pair(identity), strict=True))


def test_a_list_names_items_by_the_last_parts_of_their_paths(tmp_path: Path) -> None:
    path = tmp_path / "veri_test.txt"
    path.write_text("1 id1/a/1.wav id1/b/1.wav\n\n0 id1/a/1.wav id2/a/1.wav\n")
    ids = ["wav/id2/a/1.wav", "wav/id1/a/1.wav", "wav/id1/b/1.wav"]
    found = located(read_trials(path), ids, "list", "the test split")
    assert (found.first.tolist(), found.second.tolist(), found.same.tolist()) == ([1, 1], [2, 0], [True, False])


@pytest.mark.parametrize(("text", "sentence"), [
    ("1 a/1.wav b/9.wav\n", "list, line 1: no item of the test split is called 'b/9.wav'"),
    ("1 a/1.wav b/1.wav\n0 a/1.wav 2.wav\n", "list, line 2: several items of the test split are called '2.wav'"),
    ("0 a/1.wav b/1.wav\n2 a/1.wav b/1.wav\n", "line 2: '2 a/1.wav b/1.wav' is no trial; one is `1 FIRST SECOND`"),
    ("1 a/1.wav\n", "line 1: '1 a/1.wav' is no trial"),
    (" \n", "holds no trial"),
])  # fmt: skip
def test_a_bad_line_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        located(read_trials(tmp_path / "t.txt"), ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"], "list", "the test split")


def test_a_list_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"nowhere\.txt does not exist"):
        Verify(trials="nowhere.txt")


# Heads ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[40, 17, 15], [40, 14, 3], [9, 2, 1]])
def test_nothing_of_the_padding_reaches_a_vector(lengths: list[int]) -> None:
    head, size = XVector(6, 8, 11), torch.tensor(lengths)
    features, mask = torch.randn(3, max(lengths), 6), lengths_to_mask(size, max(lengths))
    features[~mask] = 100 * torch.randn(int((~mask).sum()), 6)
    together = head(features, mask)
    for i, length in enumerate(lengths):
        alone = head(features[i : i + 1, :length], mask[i : i + 1, :length])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=1e-5, atol=1e-6)


def test_xvector_is_the_network_of_its_definition() -> None:
    """Layer by layer from contexts of frames, over whole windows, and torch's own deviation of a sample."""
    head, x = XVector(6, 8, 11), torch.randn(30, 6)
    frames = head.projection(x)
    for layer, offsets in zip(head.layers, ([-2, -1, 0, 1, 2], [-2, 0, 2], [-3, 0, 3], [0], [0]), strict=True):
        weight, reach = layer.weight.permute(0, 2, 1).flatten(1), max(offsets)  # type: ignore[operator]
        windows = [torch.cat([frames[t + o] for o in offsets]) for t in range(reach, len(frames) - reach)]
        frames = F.relu(F.linear(torch.stack(windows), weight, layer.bias))  # type: ignore[arg-type]
    assert len(frames) == 30 - SPAN + 1 == 30 - 14
    pooled = torch.cat([frames.mean(0), frames.std(0)])
    first = head.compared(pooled).relu()
    found = head(x[None], torch.ones(1, 30, dtype=torch.bool))
    torch.testing.assert_close(found[0][0], first)
    torch.testing.assert_close(found[1][0], head.classified(first).relu())


def test_a_deviation_of_nothing_has_a_gradient() -> None:
    x = torch.zeros(2, 5, 3, requires_grad=True)
    statistics(x, torch.tensor([[True] * 5, [True] + [False] * 4])).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def built(labels: int = 4, **options: Any) -> Verify:
    task = Verify(**{"head": "linear", "width": 8, **options})
    task.build(5, [str(i) for i in range(labels)])
    return task


def test_am_softmax_takes_the_margin_off_the_true_cosine() -> None:
    task, mask = built(scale=10.0, margin=0.3), torch.ones(6, 1, dtype=torch.bool)
    target = torch.tensor([0, 3, 2, 1, 4, IGNORE])  # 4: an identity that training does not have
    output = task(torch.randn(6, 1, 5), mask, torch.arange(6))
    total = 0.0
    for row, true in zip(output.compared[:4], target[:4], strict=True):
        cosines = torch.stack([F.cosine_similarity(row, w, dim=0) for w in task.directions])
        powers = (10 * cosines).exp()
        rest = powers.sum() - powers[true]
        top = (10 * (cosines[true] - 0.3)).exp()
        total = total - torch.log(top / (top + rest))
    torch.testing.assert_close(task.loss(output, mask, target), total / 4)
    assert task.loss(output._replace(cosines=output.cosines[4:]), mask[4:], target[4:]) == 0


# Figures of a split ---------------------------------------------------------------------------------------------------


def data(n: int, ids: list[str] | None = None) -> Any:
    return SimpleNamespace(size=lambda split: n, ids=lambda split: ids or [str(i) for i in range(n)],
                           has=lambda split: True, source_name="voices")  # fmt: skip


def outputs(vectors: Tensor, index: Tensor) -> Vectors:
    return Vectors(vectors, torch.zeros(len(vectors), 4), index)


def spread(n: int) -> tuple[Tensor, Tensor]:
    """Vectors that tell their identities apart, mostly."""
    identity = torch.randint(6, (n,))
    return torch.randn(6, 8)[identity] + 1.2 * torch.randn(n, 8), identity


@pytest.mark.parametrize("listed", [False, True])
def test_outcomes_of_items_make_up_the_eer_of_their_trials(listed: bool, tmp_path: Path) -> None:
    vectors, identity = spread(40)
    every = every_pair(identity)
    path = tmp_path / "trials.txt"
    chosen = [t for t in zip(*(p.tolist() for p in every), strict=True) if t[0] % 3]
    path.write_text("\n".join(f"{int(same)} {a} {b}" for a, b, same in chosen))
    task = built(trials=str(path) if listed else None)
    task.meet(data(40))
    metrics, mask, kept = task.metrics(), torch.ones(40, 1), {}
    for rows in (torch.arange(25, 40), torch.arange(0, 27)):  # out of order, and two items twice as ranks have them
        output = outputs(vectors[rows], rows)
        task.update(metrics, output, mask, identity[rows])
        kept |= dict(zip(rows.tolist(), task.outcomes(output, mask, identity[rows]), strict=True))
    found = task.compute(metrics, data(40), "test")
    posed = chosen if listed else list(zip(*(p.tolist() for p in every), strict=True))
    cosines = torch.stack([F.cosine_similarity(vectors[a], vectors[b], dim=0) for a, b, _ in posed])
    wanted = eer(cosines, torch.tensor([same for _, _, same in posed]))
    assert 0.05 < wanted < 0.4
    assert float(found["eer"]) == pytest.approx(float(wanted), abs=1e-6)
    examples = task.examples(sorted(kept.items()), data(40), "test")
    values = np.array([outcome for _, *outcome in examples])
    again = score(Outcomes(tuple(name for name, *_ in examples), values, task.statistic), np.ones((1, len(values))))
    assert again[0] == pytest.approx(float(wanted), abs=1e-6)
    assert values[:, 1].mean() == pytest.approx(1 if not listed else 40 / len(values))


def test_trials_that_contradict_the_identities_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("0 0 1\n1 0 2\n")
    task = built(trials=str(path))
    task.meet(data(3))
    with pytest.raises(
        UserError, match=r"line 2: 0 and 2 are said to be of one identity, but by data\.target .* of two"
    ):
        task.scored(torch.randn(3, 8), torch.tensor([0, 1, 1]), torch.arange(3), data(3), "test")


def test_trials_of_items_that_were_not_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("0 0 1\n1 0 2\n0 1 2\n")
    task = built(trials=str(path))
    task.meet(data(3))
    with pytest.warns(UserWarning, match="2 of 3 trials are of items that were not read"):
        trials, scores = task.scored(torch.randn(2, 8), torch.tensor([0, 0]), torch.tensor([0, 2]), data(3), "test")
    assert (trials.same.tolist(), len(scores)) == ([True], 1)


def test_scores_of_a_list_are_written_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1 b a\n0 a c\n")
    task = built(trials=str(path))
    named = data(3, ["a", "b", "c"])
    task.meet(named)
    rows = [(i, vector) for i, vector in enumerate([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])]
    (content,) = task.files(rows, named, "test").values()
    assert content == [{"first": "b", "second": "a", "score": 1.0}, {"first": "a", "second": "c", "score": 0.0}]
    assert task.files(rows, named, "validation") == {}


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six voices, each a tone in noise; the last two are in the test split alone, beside one of training."""
    folder, random = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    for split, speakers in (("train", range(4)), ("validation", range(4)), ("test", (3, 4, 5))):
        for who in speakers:
            (folder / split / f"id{who}").mkdir(parents=True)
            for i in range(4):
                time = np.arange(4000 + 900 * i) / 16000
                wave = 0.3 * np.sin(2 * np.pi * (150 + 120 * who) * time) + 0.05 * random.standard_normal(len(time))
                soundfile.write(folder / split / f"id{who}" / f"{i}.wav", wave, 16000)
    return folder


def run(model: Finetune, data: Any, folder: Path) -> pl.Trainer:
    torch.manual_seed(0)
    options: dict[str, Any] = {"default_root_dir": folder, "accelerator": "cpu", "num_sanity_val_steps": 1, **QUIET}
    trainer = pl.Trainer(max_epochs=2, **options)
    trainer.fit(model, datamodule=data)
    return trainer


@pytest.mark.parametrize("head", ["xvector", "linear"])
@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_voices_are_verified_by_a_list_of_trials(head: Any, mode: Any, voices: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1 id4/0.wav id4/1.wav\n0 id4/0.wav id5/0.wav\n1 id3/2.wav id3/1.wav\n0 id3/0.wav id5/3.wav\n")
    task = Verify(head, width=8, last=12, trials=str(path))
    model = Finetune(tiny_speech_encoder(), task, readout="weighted_sum", mode=mode)
    with pytest.warns(UserWarning, match=r"test: 1 of 3 in 'label' are in training too \('id3'\)"):
        trainer = run(model, Speech(str(voices), batch_size=8), tmp_path)
    assert {"val/eer", "val/min_dcf", "val/loss"} <= set(trainer.callback_metrics)
    trainer.test(model, datamodule=trainer.datamodule, verbose=False)
    assert float(trainer.callback_metrics["test/eer"]) in (0, 0.5, 1)
    assert [name for name, *_ in model.examples("test")] == [
        "id3/0.wav", "id3/1.wav", "id3/2.wav", "id4/0.wav", "id4/1.wav", "id5/0.wav", "id5/3.wav"
    ]  # fmt: skip


def test_a_probe_that_needs_the_number_of_an_item_alone_keeps_its_features(voices: Path, tmp_path: Path) -> None:
    data, seen = Speech(str(voices), batch_size=8), set()

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.add(type(batch).__name__)

    model = Finetune(tiny_speech_encoder(), Verify("linear", 8))
    options: dict[str, Any] = {"default_root_dir": tmp_path, "accelerator": "cpu", **QUIET}
    pl.Trainer(max_epochs=1, callbacks=[Note()], **options).fit(model, datamodule=data)
    assert seen == {"FeatureBatch"}


def test_a_missing_file_of_a_list_is_found_before_anything_is_learned(voices: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1 id4/0.wav id4/9.wav\n")
    model = Finetune(tiny_speech_encoder(), Verify("linear", 8, trials=str(path)))
    with pytest.raises(UserError, match=r"list\.txt, line 1: no item of the test split of .* is called 'id4/9\.wav'"):
        run(model, Speech(str(voices), batch_size=8), tmp_path)


def test_faces_are_verified_as_voices_are(image_folder: str, tmp_path: Path) -> None:
    model = Finetune(tiny_image_encoder(), Verify("linear", width=8))
    trainer = run(model, Images(image_folder, image_size=16, batch_size=8), tmp_path)
    assert 0 <= trainer.callback_metrics["val/eer"] <= 1
    said = trainer.predict(model, trainer.datamodule.eval_dataloader("validation"))
    assert len(said[0][0]) == 8


def test_similarity_is_verification_by_the_encoders_own_vectors(voices: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, data = tiny_speech_encoder(), Speech(str(voices), batch_size=5)
    model = Similarity(encoder, "layer:1")
    options: dict[str, Any] = {"default_root_dir": tmp_path, "accelerator": "cpu", **QUIET}
    trainer = pl.Trainer(**options)
    (found,) = trainer.test(model, datamodule=data, verbose=False)
    batch = data.collate([data.read("test", i, 0) for i in range(data.size("test"))])
    with torch.no_grad():
        states, mask = encoder.eval()(batch).states[1], encoder(batch).mask
    vectors = torch.stack([row[real].mean(0) for row, real in zip(states, mask, strict=True)])
    trials = every_pair(batch.target)
    scores = F.cosine_similarity(vectors[trials.first], vectors[trials.second], dim=1)
    assert found["test/eer"] == pytest.approx(float(eer(scores, trials.same)), abs=1e-6)
    assert 0 < found["test/eer"] < 0.5
    assert len(model.examples("test")) == 12
    with pytest.raises(UserError, match="Similarity trains nothing; use test or validate"):
        trainer.fit(Similarity(encoder), datamodule=data)
