"""Contrast of two modalities against transformers' CLIP and SigLIP; joint batches; retrieval, up to the report."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
import transformers
from PIL import Image
from tiny import QUIET, image_batch, text_batch, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from torch import Tensor

import ssl_suite
from ssl_suite.bench.reading import read_runs
from ssl_suite.cli import main
from ssl_suite.core.batch import JointBatch, TextBatch
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.request import Request
from ssl_suite.data.image.images import Images
from ssl_suite.data.joint import Joint
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.methods.any.contrast import Contrast, sigmoid_loss, softmax_loss
from ssl_suite.tasks.retrieval import Retrieval, ranks

EMOJI = "samples:emoji"


def encoders() -> dict[str, Encoder | str]:
    torch.manual_seed(0)
    return {"image": tiny_image_encoder(), "text": tiny_text_encoder(dropout=0.0)}


def pairs() -> JointBatch:
    images, texts = image_batch(4), text_batch([5, 9, 7, 3])
    return JointBatch(images.index, images.seed, None, {"image": images, "text": texts})


SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def peer(loss: str) -> Any:
    """A tiny model of transformers' and what it says of eight pairs."""
    torch.manual_seed(1)
    text = SMALL | {"vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2}
    vision = SMALL | {"image_size": 8, "patch_size": 4}
    model: Any
    if loss == "softmax":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        torch.nn.init.constant_(model.logit_scale, 1.2)
        torch.nn.init.constant_(model.logit_bias, -3.0)
    ids = torch.randint(3, 40, (8, 8))
    ids[:, -1] = 2
    return model, model(input_ids=ids, pixel_values=torch.randn(8, 3, 8, 8), return_loss=True)


class Given(Encoder):
    """Gives vectors that were computed elsewhere."""

    modality = "image"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.num_states = dim, 1

    def embed(self, batch: Any) -> Any:
        return batch

    def contextualise(self, tokens: Any) -> Encoded:
        return Encoded((tokens.images[:, None],), torch.ones(len(tokens), 1, dtype=torch.bool), tokens.images)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_loss_and_gradient_are_transformers(loss: Any) -> None:
    model, said = peer(loss)
    vectors = {"image": said.image_embeds.detach(), "text": said.text_embeds.detach()}
    dim = vectors["text"].shape[1]
    ours = Contrast({name: Given(dim) for name in vectors}, loss, dim)
    given = {name: vector.clone().requires_grad_() for name, vector in vectors.items()}
    with torch.no_grad():
        for projection in ours.projections.values():
            projection.weight.copy_(torch.eye(dim))
        ours.scale.copy_(model.logit_scale.squeeze())
        if loss == "sigmoid":
            ours.bias.copy_(model.logit_bias.squeeze())
    index = torch.arange(8)
    parts = {}
    for name, vector in given.items():
        parts[name] = image_batch(8)
        parts[name].images = vector
    out = ours.step(JointBatch(index, index, None, parts)).total()
    out.backward()
    torch.testing.assert_close(out, said.loss)
    theirs = torch.autograd.grad(said.loss, [said.image_embeds, said.text_embeds, model.logit_scale])
    along = [g - v * (g * v).sum(1, keepdim=True) for g, v in zip(theirs, vectors.values(), strict=False)]  # normalised
    got = [given["image"].grad, given["text"].grad, ours.scale.grad]
    for mine, other in zip(got, [*along, theirs[2].squeeze()], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_losses_from_the_papers_equations() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64)
    softmax = sigmoid = 0.0
    for i in range(3):
        softmax -= float((logits[i, 2 + i].exp() / logits[i].exp().sum()).log()) / 3
        for j in range(7):
            z = 1 if j == 2 + i else -1
            sigmoid -= float((1 / (1 + (-z * logits[i, j]).exp())).log()) / 3
    assert float(softmax_loss(logits, 2)) == pytest.approx(softmax)
    assert float(sigmoid_loss(logits, 2)) == pytest.approx(sigmoid)


def test_a_rank_is_how_many_are_as_similar_or_more() -> None:
    similar = torch.randint(0, 4, (9, 9)).float()
    wanted = [sum(bool(similar[i, j] >= similar[i, i]) for j in range(9) if j != i) for i in range(9)]
    assert ranks(similar).tolist() == wanted
    assert ranks(torch.zeros(5, 5)).tolist() == [4] * 5  # a collapsed encoder finds nothing


def test_any_two_modalities_and_no_fewer() -> None:
    model = Contrast({"voice": tiny_speech_encoder(), "words": tiny_text_encoder()})
    assert list(model.encoders) == ["voice", "words"]
    assert model.exports == {"voice": "towers.voice", "words": "towers.words"}
    with pytest.raises(UserError, match="takes two encoders, not 1"):
        Contrast({"image": tiny_image_encoder()})


def emoji(**options: Any) -> Joint:
    parts = {
        "image": Images(EMOJI, image_size=16, batch_size=4),
        "text": Text(EMOJI, column="name", tokenizer="byte", max_length=24),
    }
    return Joint(parts, batch_size=4, **options)


def test_an_item_is_one_row_of_every_part() -> None:
    data = emoji()
    data.serve(Contrast(encoders()).request())
    batch = data.finish(data.collate([data.read("train", i, 0) for i in (3, 1, 2)]))
    texts = batch.parts["text"]
    assert batch.index.tolist() == batch.parts["image"].index.tolist() == texts.index.tolist() == [3, 1, 2]
    names = data.part("text").rows["train"].column("name")
    decode = data.part("text").tokenizer.decode
    said = [decode(ids[mask].tolist()) for ids, mask in zip(texts.ids, texts.mask, strict=True)]
    assert said == [names[i] for i in (3, 1, 2)]
    assert batch.to("meta").parts["image"].images.device.type == "meta"


def test_parts_of_other_rows_are_refused() -> None:
    parts = {"image": Images(EMOJI, where={"label": "Objects"}), "text": Text(EMOJI, column="name", tokenizer="byte")}
    with pytest.raises(UserError, match=r"train split of samples:emoji has \d+ rows for 'image' and \d+ others for"):
        Joint(parts).serve(Request(pretrains=True))
    with pytest.raises(UserError, match="two parts or more"):
        Joint({"image": Images(EMOJI)})
    with pytest.raises(UserError, match=r"data.parts has no 'picture', which an encoder is called; it has image, text"):
        emoji().part("picture")


def test_rows_of_other_tables_are_not_paired_by_their_numbers(tmp_path: Path) -> None:
    for name, header in (("a", "text"), ("b", "text"), ("c", "id,text"), ("d", "id,text")):
        cells = [f"row {i}" if header == "text" else f"n{i},row {i}" for i in range(12)]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *cells]))
    parts = {name: Text(str(tmp_path / f"{name}.csv"), tokenizer="byte") for name in "abcd"}
    with pytest.raises(UserError, match=r"12 rows|11 rows|10 rows|give both tables a column `id`"):
        Joint({"a": parts["a"], "b": parts["b"]}).serve(Request(pretrains=True))
    Joint({"c": parts["c"], "d": parts["d"]}).serve(Request(pretrains=True))  # ids say which belong together


def test_a_table_of_files_and_captions_is_one_table(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for split in ("train", "validation"):
        for i in range(3):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / f"img/{split}{i}.png")
        rows = [f"img/{split}{i}.png,caption {i}" for i in range(3)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["image,text", *rows]))
    parts = {"image": Images(str(tmp_path), image_size=16), "text": Text(str(tmp_path), tokenizer="byte")}
    data = Joint(parts)
    data.serve(Request(pretrains=True))
    assert data.ids("train") == [f"img/train{i}.png" for i in range(3)]


def test_what_the_joint_data_are_told_holds_for_the_parts() -> None:
    data = emoji(num_workers=2, on_error="skip")
    assert {(part.num_workers, part.on_error) for part in data.named.values()} == {(2, "skip")}


def test_speech_and_text_are_joined_too() -> None:
    parts = {
        "voice": Speech("samples:prompts", where={"language": "en"}),
        "words": Text("samples:prompts", column="text", where={"language": "en"}, tokenizer="byte", max_length=64),
    }
    data = Joint(parts, batch_size=2)
    model = Contrast({"voice": tiny_speech_encoder(), "words": tiny_text_encoder()})
    data.serve(model.request())
    batch = data.finish(data.collate([data.read("train", i, 0) for i in range(3)]))
    loss = model.step(batch).total()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for tower in model.projections.values() for p in tower.parameters())


RECIPE = """
model:
  class_path: Contrast
  init_args:
    encoders:
      image: {class_path: ImageEncoder, init_args: {name: resnet10t}}
      text: {class_path: TextEncoder, init_args: {vocab_size: 270, dim: 16, layers: 1, heads: 2}}
    projection_dim: 8
data:
  class_path: Joint
  init_args:
    batch_size: 16
    parts:
      image: {class_path: Images, init_args: {source: DATA, image_size: 32}}
      text: {class_path: Text, init_args: {source: DATA, column: name, tokenizer: byte, max_length: 24}}
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `clip`, and the recipe of its retrieval."""
    folder = tmp_path_factory.mktemp("joint")
    data = Path(ssl_suite.__file__).parent / "data/samples/emoji"
    for split in ("train", "validation", "test"):
        rows(data / f"{split}.parquet", folder / f"emoji/{split}.parquet", 64 if split == "train" else 24)
    (folder / "clip.yaml").write_text(RECIPE.replace("DATA", str(folder / "emoji")))
    assert main(["fit", "-c", str(folder / "clip.yaml"), "--out", str(folder / "clip"), "--seed_everything=3"]) == 0
    judge = RECIPE[: RECIPE.index("model:")] + RECIPE[RECIPE.index("data:") :].replace(", image_size: 32", "")
    judge = judge.replace(", tokenizer: byte", "").replace("DATA", str(folder / "emoji"))
    places = {name: str(folder / "clip/encoder" / name) for name in ("image", "text")}
    model = f"model: {{class_path: Retrieval, init_args: {{encoders: {places}, ks: [1, 5], template: 'a {{}}'}}}}\n"
    (folder / "judge.yaml").write_text(model + judge.replace("max_epochs: 2, ", ""))
    return folder


def rows(source: Path, to: Path, n: int) -> None:
    to.parent.mkdir(exist_ok=True)
    pq.write_table(pq.read_table(source).slice(0, n), to)


def test_each_encoder_has_a_folder_with_its_projection(run: Path) -> None:
    for name, dim in (("image", 512), ("text", 16)):
        encoder = ssl_suite.load(run / "clip/encoder" / name)
        assert encoder.heads["projections.weight"].shape == (8, dim)
        assert (encoder.tokenizer is not None) == (name == "text")
    assert ssl_suite.load(run / "clip/encoder/image").preprocess == {"image_size": 32}
    for place in ("clip", "clip/encoder"):
        with pytest.raises(UserError, match=r"holds several encoders; name one: .*encoder/image, .*encoder/text"):
            ssl_suite.load(run / place)
    with pytest.raises(UserError, match=r"last.ckpt holds several encoders \(image, text\)"):
        ssl_suite.load(run / "clip/checkpoints/last.ckpt")


def test_a_resumed_run_ends_with_the_same_weights(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Contrast) -> None:
        if self.trainer.global_step == 6:
            raise SystemExit

    start = ["fit", "-c", str(run / "clip.yaml"), "--out", str(run / "again"), "--seed_everything=3"]
    with monkeypatch.context() as patch:
        patch.setattr(Contrast, "after_step", stop)
        with pytest.raises(SystemExit):
            main(start)
    assert not (run / "again/encoder").exists()
    assert main([*start, "--ckpt_path=last"]) == 0
    for name in ("image", "text"):
        one, two = (ssl_suite.load(run / place / "encoder" / name).state_dict() for place in ("clip", "again"))
        assert all(torch.equal(one[k], two[k]) for k in one)
    assert main([*start, "--overwrite=true"]) == 0  # nothing else lies in its folders


def test_retrieval_is_judged_from_the_folders_and_gives_a_row(run: Path) -> None:
    store = run / "results.sqlite"
    assert main(["test", "-c", str(run / "judge.yaml"), "--out", str(run / "judged"), "--results", str(store)]) == 0
    with sqlite3.connect(store) as database:
        database.row_factory = sqlite3.Row
        found = {row["metric"]: dict(row) for row in database.execute("select * from results")}
    assert set(found) == {"accuracy", *(f"{d}recall@{k}" for d in ("", "image_", "text_") for k in (1, 5))}
    main_row = found["recall@1"]
    assert (main_row["modality"], main_row["method"], main_row["role"]) == ("image+text", "Contrast", "ssl")
    assert main_row["encoder"].count("+") == main_row["weights"].count("+") == 1
    assert found["recall@5"]["value"] == pytest.approx(
        (found["image_recall@5"]["value"] + found["text_recall@5"]["value"]) / 2
    )
    assert main(["report", str(run)]) == 0
    assert "Contrast" in (run / "report.html").read_text()


def test_a_run_stands_for_its_encoders(run: Path) -> None:
    for place in (run / "clip", run / "clip/encoder"):
        assert (
            list(Retrieval(str(place)).encoders)
            == list(Contrast(str(place), projection_dim=8).encoders)
            == ["image", "text"]
        )
    assert Retrieval(f"random:{run / 'clip'}").weights.count("random-") == 2
    with pytest.raises(UserError, match="encoder/text holds no encoders side by side; name each"):
        Retrieval(str(run / "clip/encoder/text"))
    for options, said in (({"ks": ()}, "model.ks is empty"), ({"template": "{x} {}"}, "must have one {}")):
        with pytest.raises(UserError, match=said):
            Retrieval(str(run / "clip"), **options)


def test_a_run_stands_for_its_encoders_on_the_command_line(run: Path) -> None:
    for number, place in enumerate((run / "clip", f"random:{run / 'clip'}")):
        out = ["--out", str(run / f"stands{number}")]
        assert main(["test", "-c", str(run / "judge.yaml"), f"--model.encoders={place}", *out]) == 0
        assert main(["validate", "-c", str(run / "clip.yaml"), f"--model.encoders={place}", *out]) == 0


def test_random_weights_are_judged_too_and_called_so(run: Path) -> None:
    places = {name: f"random:{run / 'clip/encoder' / name}" for name in ("image", "text")}
    store = run / "random.sqlite"
    base = ["test", "-c", str(run / "judge.yaml"), "--results", str(store)]
    assert main([*base, f"--model.encoders={places}", "--out", str(run / "r")]) == 0
    half = places | {"text": str(run / "clip/encoder/text")}
    assert main([*base, f"--model.encoders={half}", "--out", str(run / "h")]) == 0
    with sqlite3.connect(store) as database:
        found = set(database.execute("select method, role from results"))
    assert found == {("random", "random"), ("random+Contrast", "ssl")}


def test_a_joint_run_validates_predicts_and_is_one_run_of_a_report(run: Path) -> None:
    places = {name: str(run / "clip/encoder" / name) for name in ("image", "text")}
    options = ["-c", str(run / "clip.yaml"), f"--model.encoders={places}"]
    assert main(["validate", *options, "--out", str(run / "v")]) == 0
    assert main(["predict", *options, "--out", str(run / "p"), "--split", "test"]) == 0
    assert [(r.folder, r.info["method"]) for r in read_runs(run, []) if r.folder == "clip"] == [("clip", "Contrast")]
    assert all(r.train for r in read_runs(run, []) if r.folder == "clip")


def test_recall_and_zero_shot_are_those_of_a_slow_reading(run: Path) -> None:
    places = {name: str(run / "clip/encoder" / name) for name in ("image", "text")}
    model = Retrieval(places, ks=(1, 5), template="a {}")
    parts = {"image": Images(str(run / "emoji")), "text": Text(str(run / "emoji"), column="name", max_length=24)}
    trainer = pl.Trainer(accelerator="cpu", enable_checkpointing=False, **QUIET)
    (said,) = trainer.test(model, Joint(parts, batch_size=5), verbose=False)
    image, text = (torch.cat([alone(places[name], part, i) for i in range(24)]) for name, part in parts.items())
    order = (image @ text.T).argsort(1, descending=True)
    wanted = sum(i in order[i, :5].tolist() for i in range(24)) / 24
    assert said["test/image_recall@5"] == pytest.approx(wanted)
    labels = parts["image"].labels
    tokenizer = parts["text"].tokenizer
    described = torch.cat([vector(places["text"], text_of(tokenizer, f"a {name}")) for name in labels])
    best = (image @ described.T).argmax(1)
    truth = torch.tensor([int(parts["image"].target("test", i)) for i in range(24)])
    assert said["test/accuracy"] == pytest.approx(float((best == truth).float().mean()))


def alone(place: str, data: Any, index: int) -> Tensor:
    """The vector of one test item in a batch of its own."""
    return vector(place, data.finish(data.collate([data.read("test", index, 0)])))


def vector(place: str, batch: Any) -> Tensor:
    encoder = ssl_suite.load(place).eval()
    with torch.no_grad():
        return torch.nn.functional.normalize(encoder(batch).pooled @ encoder.heads["projections.weight"].T, dim=1)


def text_of(tokenizer: Any, text: str) -> TextBatch:
    ids = torch.tensor([tokenizer.encode(text).ids])
    return TextBatch(torch.zeros(1), torch.zeros(1), None, ids, torch.ones_like(ids, dtype=torch.bool))


def test_encoders_of_different_runs_are_told_apart(run: Path) -> None:
    other = tiny_text_encoder()
    other.heads = {"projections.weight": Tensor(5, other.dim)}
    with pytest.raises(UserError, match="were not contrasted with each other"):
        Retrieval({"image": str(run / "clip/encoder/image"), "text": other})
