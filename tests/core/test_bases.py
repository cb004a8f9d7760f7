"""The bases are abstract: what a subclass leaves out is named when it is made, not when it is missed."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from tiny import image_batch, tiny_image_encoder

from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder, encoder_class
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method
from ssl_suite.core.module import Evaluation
from ssl_suite.core.task import Task
from ssl_suite.plugins import load_built_in

BASES: dict[type, set[str]] = {
    Encoder: {"embed", "contextualise"},
    Method: {"step"},
    Task: {"build", "forward", "loss", "update", "metrics", "decode"},
    DataModule: {"prepare", "splits", "size", "read", "collate", "fingerprint"},
    Evaluation: {"main"},
}


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_a_subclass_that_leaves_something_out_is_not_made(base: type) -> None:
    for left_out in BASES[base]:
        given = {name: lambda self: None for name in BASES[base] - {left_out}}
        with pytest.raises(TypeError, match=rf"abstract class Partial.* '?{left_out}'?$"):
            type("Partial", (base,), given)()


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_every_class_of_ours_is_complete_or_a_base(base: type) -> None:
    load_built_in()

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    ours = {cls for cls in below(base) if cls.__module__.startswith("ssl_suite.")}
    abstract = {cls.__name__ for cls in ours if inspect.isabstract(cls)}
    assert abstract - {"Evaluation", "Layerwise", "Scorer", "SourceData", "TextSource"} == {base.__name__} - {
        "Evaluation"
    }


def test_an_abstract_encoder_is_not_one_that_a_folder_can_name() -> None:
    class Half(Encoder):
        def embed(self, batch: Any) -> Any:
            return batch

    with pytest.raises(UserError, match="'Half' is not an encoder class"):
        encoder_class("Half")


def test_an_encoder_can_be_pickled_and_copied() -> None:
    encoder, batch = tiny_image_encoder().eval(), image_batch(2)
    wanted = encoder(batch).pooled
    for twin in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert twin.config == encoder.config
        assert torch.equal(twin(batch).pooled, wanted)
