"""The online probe and kNN: they measure, and leave the method as it is."""

import pytest
import pytorch_lightning as pl
import torch
from host_waits import HostWaits
from sklearn.neighbors import KNeighborsClassifier

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.core.probes import KNN, OnlineProbe, accuracy, knn_predict
from ssl_suite.data.image.images import Images
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.simple import RawPixels
from ssl_suite.methods.image.simclr import SimCLR
from ssl_suite.tasks.classify import Classify


def run(tmp_path, *callbacks: pl.Callback, epochs: int = 1, ckpt: str | None = None) -> tuple[pl.Trainer, SimCLR]:
    pl.seed_everything(0)
    method = SimCLR(ImageEncoder("resnet18", width=8), optim=Optim(lr=1e-3))
    data = Images("samples:digits", image_size=28, batch_size=50, eval_batch_size=500)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[*callbacks, pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)],
        default_root_dir=tmp_path,
        logger=False,
        limit_train_batches=4,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(method, datamodule=data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return trainer, method


def test_watching_changes_no_weight_and_has_columns_of_its_own(tmp_path):
    trainer, watched = run(tmp_path / "a", OnlineProbe(), KNN(k=20))
    _, alone = run(tmp_path / "b")
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert {"online/train_accuracy", "online/val_accuracy", "knn/val_accuracy"} <= set(trainer.callback_metrics)
    assert 0 <= float(trainer.callback_metrics["knn/val_accuracy"]) <= 1


class StopsInSecondEpoch(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise InterruptedError


def test_the_online_probe_resumes_exactly(tmp_path):
    straight, split = OnlineProbe(), OnlineProbe()
    run(tmp_path / "a", straight, epochs=2)
    with pytest.raises(InterruptedError):
        run(tmp_path / "b", OnlineProbe(), StopsInSecondEpoch(), epochs=2)
    run(tmp_path / "b", split, epochs=2, ckpt=str(tmp_path / "b" / "last.ckpt"))
    assert split._saved is not None
    steps = [float(p.optimizer.state_dict()["state"][0]["step"]) for p in (straight, split)]
    assert steps[0] == steps[1] == 8


def test_knn_agrees_with_scikit_learn_where_every_neighbour_votes_by_its_weight():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(300, 16, generator=generator), torch.randn(100, 16, generator=generator)
    labels = torch.randint(0, 5, (300,), generator=generator)

    def votes(distance):  # of unit vectors: cos = 1 − d² / 2
        return torch.exp((1 - torch.from_numpy(distance) ** 2 / 2) / 0.1).numpy()

    unit = torch.nn.functional.normalize
    oracle = KNeighborsClassifier(20, weights=votes).fit(unit(bank), labels)
    assert (knn_predict(queries, bank, labels, 5, k=20).numpy() == oracle.predict(unit(queries))).all()


def test_k_is_clamped_to_the_bank():
    assert knn_predict(torch.eye(3), torch.eye(3), torch.tensor([2, 0, 1]), 3, k=200).tolist() == [2, 0, 1]


def test_accuracy_counts_what_has_a_label_and_never_waits():
    target = torch.tensor([1, 1, IGNORE, 3])  # the guesses are 0, 1, 2, 3
    with HostWaits() as waits:
        share = accuracy(torch.eye(4), target)
    assert share.item() == pytest.approx(2 / 3)
    assert waits.found == []


def test_a_probe_on_a_finetuning_run_is_refused(tmp_path):
    trainer = pl.Trainer(callbacks=[KNN()], logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(UserError, match="watches pretraining methods"):
        trainer.fit(Finetune(RawPixels(), Classify()), datamodule=Images("samples:digits", image_size=28))
