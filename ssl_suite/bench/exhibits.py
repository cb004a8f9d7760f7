"""What the report shows beside its numbers: samples of the data, generated text, a map of embeddings."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_suite.bench.benchmark import Pretraining, slug
from ssl_suite.core.files import write_text
from ssl_suite.core.load import load_encoder
from ssl_suite.data.common.source import Rows, open_source

PROMPTS = ("And the LORD said unto", "In the beginning", "The president of the company")
MAP_POINTS = 500


def write_exhibits(encoders: Sequence[Pretraining], sources: Mapping[str, str], out: Path) -> None:
    """Writes `out/exhibits/*.json` for the modalities that have encoders.

    Args:
        encoders: of the benchmark, in its folder.
        sources: modality → embedded pack whose samples are shown.
        out: folder of the benchmark.
    """
    modalities = {e.modality for e in encoders}
    for modality, source in sources.items():
        if modality in modalities:
            _write(out, f"samples-{modality}", samples(modality, source))
    for entry in encoders:
        folder = entry.folder(out)
        encoder = load_encoder(folder)
        if encoder.config.get("causal") and entry.modality == "text":
            _write(out, f"generated-{slug(entry.name)}", generated(encoder, entry.name))
    for modality, source in sources.items():
        first = next((e for e in encoders if e.modality == modality), None)
        if first is not None:
            folder = first.folder(out)
            _write(out, f"map-{modality}", embedding_map(str(folder), first.name, modality, source))


def _write(out: Path, name: str, exhibit: dict[str, Any]) -> None:
    write_text(out / "exhibits" / f"{name}.json", json.dumps(exhibit))


def _rows(source: str, media: str | None, split: str = "test") -> Rows:
    opened = open_source(source, media=media)
    return opened.get(split) or opened["train"]


def _spread(n: int, count: int) -> list[int]:
    """`count` row numbers evenly over n rows."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, count))]


def _label(rows: Rows, i: int, column: str) -> str:
    if column not in rows.columns:
        return ""
    names, value = rows.label_names(column), rows.column(column)[i]
    return names[value] if names else str(value)


def samples(modality: str, source: str) -> dict[str, Any]:
    """A few rows of a pack, as its modality is looked at."""
    shared = {"kind": {"image": "images"}.get(modality, modality), "modality": modality, "title": source}
    if modality == "image":
        rows = _rows(source, "image")
        items = [_image(rows, i) for i in _spread(len(rows), 30)]
        return shared | {"caption": f"{len(items)} of {len(rows)} test images.", "items": items}
    if modality == "text":
        rows = _rows(source, None)
        texts = rows.column("text")
        items = [{"text": texts[i][:300], "label": _label(rows, i, "label")} for i in _spread(len(rows), 6)]
        return shared | {"caption": f"{len(items)} of {len(rows)} test rows.", "items": items}
    rows = _rows(source, "audio")
    items = [_clip(rows, i) for i in _spread(len(rows), 5)]
    return shared | {"caption": f"{len(items)} of {len(rows)} test utterances, log-mel.", "items": items}


def _image(rows: Rows, i: int) -> dict[str, str]:
    from ssl_suite.data.image.reading import load_image

    buffer = io.BytesIO()
    load_image(rows[i]["image"], rows.where(i)).save(buffer, "PNG")
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "label": _label(rows, i, "label")}


def _clip(rows: Rows, i: int) -> dict[str, Any]:
    import soundfile
    from torchaudio.transforms import MelSpectrogram

    from ssl_suite.data.speech.reading import RATE, load_audio

    wave = load_audio(rows[i]["audio"], rows.where(i))[: 4 * RATE]
    mel = (MelSpectrogram(RATE, n_fft=400, hop_length=320, n_mels=40)(wave) + 1e-5).log()
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.numpy(), RATE, format="WAV", subtype="PCM_16")
    return {
        "wav": base64.b64encode(buffer.getvalue()).decode(),
        "text": rows.column("text")[i],
        "label": _label(rows, i, "language"),
        "mel": [[round(float(v), 1) for v in band] for band in mel],
    }


def generated(encoder: Any, name: str) -> dict[str, Any]:
    """Continuations by a causal encoder."""
    from ssl_suite.methods.text.causal_lm import CausalLM

    model = CausalLM(encoder)
    items = []
    for i, prompt in enumerate(PROMPTS):
        text = model.generate(prompt, length=60, temperature=0.8, top_k=40, seed=i)
        read = encoder.tokenizer.decode(encoder.tokenizer.encode(prompt, add_special_tokens=False).ids)
        items.append({"prompt": prompt + " ", "text": text.removeprefix(read).lstrip()})
    caption = "Temperature 0.8, the 40 likeliest tokens, first draw shown."
    return {
        "kind": "generated",
        "modality": "text",
        "title": f"Text continued by {name}",
        "caption": caption,
        "items": items,
    }


def embedding_map(folder: str, name: str, modality: str, source: str) -> dict[str, Any]:
    """t-SNE of test embeddings."""
    from sklearn.manifold import TSNE

    from ssl_suite.data.embeddings import data_for, embeddings

    encoder = load_encoder(folder)
    rows = _rows(source, {"image": "image", "speech": "audio"}.get(modality))
    options = {"image_size": encoder.preprocess.get("image_size", 28)} if modality == "image" else {}
    chosen = _spread(len(rows), MAP_POINTS)
    _, vectors = embeddings(encoder, data_for(encoder, rows.take(chosen), batch_size=64, **options), "test")
    values = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1).numpy()
    points = TSNE(2, init="pca", perplexity=min(30, len(values) / 4), random_state=0).fit_transform(values)
    column = "language" if "language" in rows.columns else "label"
    items = [
        {"x": float(x), "y": float(y), "label": _label(rows, i, column)}
        for (x, y), i in zip(points, chosen, strict=True)
    ]
    title = f"What {name} sees in {source}"
    caption = f"t-SNE of {len(items)} test embeddings; colours are labels that pretraining never saw."
    return {"kind": "map", "modality": modality, "title": title, "caption": caption, "items": items}
