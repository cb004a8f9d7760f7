"""Labels and transcripts as they are found: spelled twice, empty, unseen in training, in any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from ssl_suite.core.batch import stacked
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.task import Task
from ssl_suite.data.common.clean import Clean
from ssl_suite.data.common.kinds import KINDS, TargetKind
from ssl_suite.data.common.source import Rows
from ssl_suite.data.common.targets import Targets
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.questions.questions import Questions
from ssl_suite.data.text.text import Text
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.tag import Tag

Maker = Callable[..., Path]


def targets(kind: Any, labels: list[str] | None = None, clean: Clean = Clean(), **splits: list[Any]) -> Targets:
    rows = {s: Rows(Dataset.from_dict({"y": values}), f"{s}.csv") for s, values in splits.items()}
    return Targets(rows, "y", kind, labels, clean)


def figures(task: Task, found: Targets, split: str, answers: list[list[int]]) -> dict[str, float]:
    """What a task says of these answers, one list of label numbers a row."""
    torch.manual_seed(0)
    task.build(4, found.labels)
    task.unseen = found.unseen
    metrics = task.metrics()
    outputs = len(found.labels) + isinstance(task, CTC)
    for row, answer in enumerate(answers):
        output = torch.nn.functional.one_hot(torch.tensor([answer]), outputs).float()
        mask = torch.ones(output.shape[:2], dtype=torch.bool)
        target = stacked([found[split, row]])
        task.update(metrics, output if task.sequence else output[:, 0], mask, target)
        assert torch.isfinite(task.loss(output if task.sequence else output[:, 0], mask, target))
    return {name: float(value) for name, value in metrics.compute().items()}


# Classes --------------------------------------------------------------------------------------------------------------


def test_one_label_spelled_twice_is_one() -> None:
    found = targets("class", train=["1", "0", "1.0", "0.0", " 1"], validation=[1, 0])
    assert found.labels == ["0", "1"]
    assert [int(found["train", i]) for i in range(5)] == [1, 0, 1, 0, 1]
    assert [int(found["validation", i]) for i in range(2)] == [1, 0]
    assert [int(targets("class", labels=["0.0", "1.0"], test=["1", "0"])["test", i]) for i in range(2)] == [1, 0]


def test_labels_that_only_look_alike_stay_apart() -> None:
    assert set(targets("class", train=["1", "01", "1.5", "v1.0", "-1.0", "10"]).labels) == {
        "1", "01", "1.5", "v1.0", "-1", "10",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["class", "characters"])
@pytest.mark.parametrize("nothing", ["", "  ", None])
def test_an_empty_cell_is_named(kind: Any, nothing: str | None) -> None:
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=rf"^{split}.csv, row 2: 'y' is empty"):
            targets(kind, **{"train": ["a", "b"], split: ["a", nothing]})


def test_a_number_that_is_none_is_an_empty_cell() -> None:
    with pytest.raises(UserError, match="row 2: 'y' is empty"):
        targets("class", train=[1.0, float("nan")])


def test_an_empty_tag_is_named_by_its_word() -> None:
    with pytest.raises(UserError, match=r"train.csv, row 2, word 3: 'y' is empty"):
        targets("tags", train=[["A"], ["A", "B", ""]])


def test_class_numbers_beyond_the_names_are_refused_and_minus_one_is_not_the_last() -> None:
    features = Features({"y": ClassLabel(names=["cat", "dog"])})
    rows = {"train": Rows(Dataset.from_dict({"y": [0, 1, -1]}, features), "train.parquet")}
    with pytest.raises(UserError, match="row 3: 'y' holds -1, and the classes are 0 to 1"):
        Targets(rows, "y", "class")


def test_numbers_of_classes_are_no_values() -> None:
    features = Features({"y": ClassLabel(names=["cat", "dog"])})
    rows = {"train": Rows(Dataset.from_dict({"y": [0, 1]}, features), "train.parquet")}
    with pytest.raises(UserError, match=r"holds classes \(cat, dog, ...\).*take the task Classify"):
        Targets(rows, "y", "value")


@pytest.mark.parametrize("task", [Classify(), Tag()])
def test_one_label_alone_is_nothing_to_learn(task: Task) -> None:
    with pytest.raises(UserError, match="the label is '1' on every training row"):
        task.build(4, ["1"])


def test_unseen_labels_count_as_wrong_in_every_figure() -> None:
    truth = ["a", "b", "c", "a", "d", "d", "b"]
    found = targets("class", train=["a", "b", "a", "b"], test=truth, validation=["a", "e"])
    assert (found.labels, found.unseen) == (["a", "b"], ["c", "d", "e"])
    answers = [0, 1, 0, 1, 1, 0, 1]
    said = [found.labels[i] for i in answers]
    task = Classify(metrics=["accuracy", "macro_f1", "matthews", "f1"])
    scores = figures(task, found, "test", [[i] for i in answers])
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert scores["matthews"] == pytest.approx(matthews_corrcoef(truth, said))
    assert scores["f1"] == pytest.approx(f1_score([t == "b" for t in truth], [s == "b" for s in said]))


def test_unseen_labels_are_named_once_with_their_number() -> None:
    found = targets("class", train=["a", "b"], test=["a", "c", "d", "c"], validation=["b"])
    with pytest.warns(UserWarning, match=r"^test.csv: 3 of 4 labels never occur in training \('c' 2, 'd' 1; first in "
                                         r"row 2\).*count as wrong") as said:  # fmt: skip
        found.warn_of_unseen()
    assert len(said) == 1


def test_unseen_labels_cost_no_loss() -> None:
    task = Classify()
    task.build(4, ["a", "b"])
    task.unseen = ["c"]
    output, mask = torch.randn(3, 2), torch.ones(3, 1)
    seen = task.loss(output[:2], mask[:2], torch.tensor([0, 1]))
    assert task.loss(output, mask, torch.tensor([0, 1, 2])) == seen
    assert seen == torch.nn.functional.cross_entropy(output[:2], torch.tensor([0, 1]))
    assert task.loss(output[2:], mask[2:], torch.tensor([2])) == 0


def test_a_label_that_a_built_task_cannot_learn_is_refused() -> None:
    found = targets("class", labels=["good", "bad"], train=["good", "bad", "goood"])
    with pytest.raises(UserError, match=r"train.csv, row 3: the task does not know the label 'goood'. Did you mean"):
        found.expect_known("train")
    targets("class", labels=["good", "bad"], train=["good"], test=["goood"]).expect_known("train")


@pytest.mark.parametrize("hidden", ["", None, -1])
def test_a_test_split_of_hidden_labels_has_no_targets(tmp_path: Path, hidden: Any) -> None:
    names = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])} if hidden == -1 else {
        "text": Value("string"), "label": Value("string")})  # fmt: skip
    for split, labels in (("train", [0, 1] * 6 if hidden == -1 else ["a", "b"] * 6), ("test", [hidden] * 3)):
        table = {"text": [f"word {i}" for i in range(len(labels))], "label": labels}
        Dataset.from_dict(table, names).to_parquet(str(tmp_path / f"{split}.parquet"))
    data = Text(str(tmp_path), tokenizer="byte")
    data.serve(Request(target="class"))
    assert data.labels == ["a", "b"]
    assert not data.has_targets("test")


def test_an_identity_may_be_new_in_every_other_split(recwarn: pytest.WarningsRecorder) -> None:
    found = targets("identity", train=["ann", "bob"], test=["cid", "dan", "cid"])
    assert (found.labels, found.unseen) == (["ann", "bob"], ["cid", "dan"])
    assert [int(found["test", i]) for i in range(3)] == [2, 3, 2]
    found.warn_of_unseen()
    assert not recwarn
    found.warn_of_shared()
    assert not recwarn
    with pytest.raises(UserError, match="label 'cid' never occurs in training, nor does any other of this split"):
        targets("class", train=["ann", "bob"], test=["cid", "dan", "cid"]).warn_of_unseen()


def test_an_identity_that_training_has_too_is_counted_and_named() -> None:
    found = targets("identity", train=["ann", "bob"], validation=["bob", "eve", "bob"], test=["cid", "cid", "dan"])
    with pytest.warns(UserWarning, match=r"^validation.csv: 1 of 2 in 'y' are in training too \('bob'\)") as said:
        found.warn_of_shared()
    assert len(said) == 1
    for kind in ("class", "name", "transcript"):
        targets(kind, train=["ann", "bob"], test=["bob"]).warn_of_shared()


@pytest.mark.parametrize(("test", "lack"), [(["cid"] * 2, "two different ones"), (["cid", "dan"], "one and the same")])
def test_identities_that_make_no_pairs_of_both_kinds_are_named(test: list[str], lack: str) -> None:
    """An error rate of such a split is NaN."""
    with pytest.warns(UserWarning, match=rf"^test.csv: no pair is of {lack} by 'y', so there is no error rate") as said:
        targets("identity", train=["ann", "bob"], test=test).warn_of_shared()
    assert len(said) == 1


def test_a_transcript_is_one_whatever_its_case_and_points() -> None:
    found = targets("transcript", train=["Time.", "half past 10.0"], test=["time", "TIME!", "no"])
    assert (found.labels, found.unseen) == (["half past 10 0", "time"], ["no"])
    assert [int(found["test", i]) for i in range(3)] == [1, 1, 2]
    with pytest.raises(UserError, match=r"test.csv, row 2: 'y' is empty"):
        targets("transcript", train=["a"], test=["a", " "])


def test_a_kind_of_ones_own_is_given_by_every_data_module_of_its_modality(tmp_path: Path) -> None:
    class Marks(TargetKind):
        """Which marks a text has, of however many: (C,) 0 or 1."""

        name = "marks"
        modalities = ("text",)

        def read(self) -> list[list[str]]:
            return [str(value).split() for value in self.rows.column(self.column)]

        def parts(self, value: list[str]) -> list[str]:
            return value

        def tensor(self, row: int, ids: Mapping[str, int]) -> torch.Tensor:
            return torch.tensor([float(mark in self.values[row]) for mark in ids])

    try:
        (tmp_path / "t.csv").write_text("text,label\n" + "one,a b\ntwo,b\nthree,a c\n" * 4)
        data = Text(str(tmp_path / "t.csv"), tokenizer="byte")
        data.serve(Request(target="marks"))
        assert data.labels == ["a", "b", "c"]
        batch = data.collate([data.read("train", i, 0) for i in range(data.size("train"))])
        wanted = {"one": [1, 1, 0], "two": [0, 1, 0], "three": [1, 0, 1]}
        texts = data.rows["train"].column("text")
        assert batch.target.tolist() == [wanted[text] for text in texts]
        assert "marks" not in Speech.kinds()
        with pytest.raises(UserError, match=r"Two kinds of target are called 'marks': .*Marks and .*Other"):
            type("Other", (Marks,), {})
    finally:
        del KINDS["marks"]


def test_only_some_data_give_a_kind_and_which_ones_is_said() -> None:
    assert Questions.kinds() == ("span",)
    with pytest.raises(UserError, match=r"Text gives no target of the kind 'span'; it gives class, .*Questions can"):
        Text("samples:sentences").serve(Request(target="span"))


# Tags -----------------------------------------------------------------------------------------------------------------


def test_unseen_tags_count_as_wrong_in_every_figure() -> None:
    truth = [["O", "B-LOC", "I-LOC"], ["B-PER", "O", "B-LOC"]]
    found = targets("tags", train=[["O", "B-PER"]], test=truth)
    assert found.unseen == ["B-LOC", "I-LOC"]
    answers = [[found.labels.index(t) for t in row] for row in (["O", "B-PER", "O"], ["B-PER", "O", "O"])]
    said = [[found.labels[i] for i in row] for row in answers]
    scores = figures(Tag(metrics=["accuracy", "macro_f1", "entity_f1"]), found, "test", answers)
    flat, guess = [t for row in truth for t in row], [t for row in said for t in row]
    assert scores["accuracy"] == pytest.approx(accuracy_score(flat, guess))
    assert scores["macro_f1"] == pytest.approx(f1_score(flat, guess, average="macro"))
    assert scores["entity_f1"] == pytest.approx(seqeval_f1(truth, said))


# Transcripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["नमस्ते दुनिया", "สวัสดีชาวโลก", "வணக்கம் உலகம்", "বাংলা ভাষা", "مُحَمَّدٌ", "שָׁלוֹם", "xin chào thế giới", "ɛ̃ɡ m̩", "می‌خواهم"],
)  # fmt: skip
def test_letters_keep_their_marks(text: str) -> None:
    assert Clean()(text) == unicodedata.normalize("NFC", text)
    assert Clean()(unicodedata.normalize("NFD", text)) == Clean()(text)


@pytest.mark.parametrize(
    ("clean", "text", "wanted"),
    [
        (Clean(), "Well,  it’s 5 o'clock!", "well it's 5 o'clock"),
        (Clean(), "cafe\u0301 nai\u0308ve", "café naïve"),
        (Clean(), "İstanbul", "i̇stanbul"),
        (Clean(), "co\u00adop\ufeff", "coop"),
        (Clean(lower=False), "New-York", "New York"),
        (Clean(keep="'-"), "New-York.", "new-york"),
        (Clean(keep=None), "What? No -- ’tis!", "what? no -- ’tis!"),
        (Clean(marks=False), "مُحَمَّدٌ café", "محمد cafe"),
    ],
)
def test_what_goes_is_an_option(clean: Clean, text: str, wanted: str) -> None:
    assert clean(text) == wanted
    assert clean(wanted) == wanted


def test_a_transcript_of_which_nothing_is_left_is_named() -> None:
    with pytest.raises(UserError, match=r"train.csv, row 2: nothing is left of the transcript '\?!'"):
        targets("characters", train=["a", "?!"])
    assert targets("characters", clean=Clean(keep=None), train=["a", "?!"]).labels == ["!", "?", "a"]


def test_error_rates_are_over_the_whole_reference() -> None:
    """What training never had cannot be said, and counts: against jiwer, with the share that cannot be said."""
    train, test = ["the cat sat", "a cat"], ["the dog ate", "a zoo", "über", "cat"]
    found = targets("characters", train=train, test=test)
    assert found.unseen == list("bdgorzü")
    said = ["the c ate", "a h", "the", "cat"]
    answers = [[found.labels.index(c) + 1 for c in text] for text in said]
    scores = figures(CTC(), found, "test", answers)
    assert scores["cer"] == pytest.approx(jiwer.cer(test, said))
    assert scores["wer"] == pytest.approx(jiwer.wer(test, said))
    assert scores["unsayable"] == pytest.approx(sum(c not in "".join(train) for t in test for c in t) / 23)


def test_ctc_learns_what_can_be_said() -> None:
    task = CTC()
    task.build(4, ["a", "b"])
    output, mask = torch.randn(1, 8, 3), torch.ones(1, 8, dtype=torch.bool)
    wanted = task.loss(output, mask, torch.tensor([[0, 1, 0]]))
    task.unseen = ["c", "d"]
    torch.testing.assert_close(task.loss(output, mask, torch.tensor([[2, 0, 1, 3, 0, 2]])), wanted)


def test_an_answer_is_composed_as_references_are() -> None:
    found = targets("characters", train=["e q\u0301"], test=["é"])  # é has a composed form, q́ none
    answers = [[found.labels.index(c) + 1 for c in "e\u0301"]]
    assert figures(CTC(), found, "test", answers)["cer"] == 0


def test_speech_keeps_the_marks_and_takes_the_option(tmp_path: Path, sound: Maker) -> None:
    for name in "ab":
        sound(tmp_path / f"{name}.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,नमस्ते दुनिया\nb.wav,Nai\u0308ve!\n", encoding="utf-8")
    data = Speech(str(tmp_path), target="text")
    data.serve(Request(target="characters"))
    assert data.targets is not None
    assert data.targets.values("train") == ["नमस्ते दुनिया", "naïve"]
    data = Speech(str(tmp_path), target="text", clean=Clean(lower=False, keep=None))
    data.serve(Request(target="characters"))
    assert data.targets is not None
    assert data.targets.values("train") == ["नमस्ते दुनिया", "Naïve!"]


def test_speech_names_the_row_of_an_empty_field(tmp_path: Path, sound: Maker) -> None:
    for name in "abc":
        sound(tmp_path / f"{name}.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label,text\na.wav,x,one\nb.wav,,two\nc.wav,y,\n")
    with pytest.raises(UserError, match="row 2: 'label' is empty"):
        Speech(str(tmp_path)).serve(Request(target="class"))
    with pytest.raises(UserError, match="row 3: 'text' is empty"):
        Speech(str(tmp_path), target="text").serve(Request(target="characters"))


def test_truth_values_are_padded_with_false() -> None:
    rows = [torch.tensor([True]), torch.tensor([False, True])]
    assert stacked(rows).tolist() == [[True, False], [False, True]]
    assert stacked([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [[1, -100], [2, 3]]
    assert stacked([torch.tensor([1.0]), torch.tensor([2.0, 3.0])]).tolist() == [[1, 0], [2, 3]]


def test_numbers_beyond_float32_are_no_numbers() -> None:
    with pytest.raises(UserError, match=r"row 1: 'y' holds 1e\+300, not a number"):
        targets("value", train=[1e300, 2.0])


def test_truth_values_are_no_frames() -> None:
    with pytest.raises(UserError, match="not a list of whole numbers from 0"):
        targets("frames", train=[[True, False]])
