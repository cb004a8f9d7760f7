"""Audio SNIPS (Lai et al. 2021, arXiv:2104.01604; SUPERB's SF): transcripts with slots, spoken by sixteen voices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options, require
from ssl_suite.data.speech.layouts.lists import stems, tell_unlisted

SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "validation": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
"""As SUPERB splits them."""
FOLDERS = {"train": "train", "validation": "valid", "test": "test"}


def audio_snips(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `text`, `tags` (a list, one a word: O, B-artist, ...), `marked`, `intent` and `speaker`.

    `marked` is the text with a mark where each slot begins and ends, see `Marked`.

    Lines of all.iob.snips.txt are `SPEAKER-snips-SPLIT-NUMBER BOS words EOS`, a tab, and a tag for each of these, that
    of EOS being the intent.

    Args:
        folder: with all.iob.snips.txt, train/, valid/ and test/.
        part: `all` for every speaker in every split; empty: each split has speakers of its own, as in SUPERB.
    """
    every = bool(options(part, ("all",), "audio_snips"))
    said = {}
    for where, line in lines(require(folder / "all.iob.snips.txt", "Audio SNIPS")):
        spoken, _, tagged = line.partition("\t")
        name, *words = spoken.split()
        tags = tagged.split()
        if words[:1] != ["BOS"] or words[-1:] != ["EOS"] or len(words) != len(tags):
            raise UserError(
                f"{where}: {name} has {len(words)} words and {len(tags)} tags; it needs BOS ... EOS, one each."
            )
        words, tags, intent = words[1:-1], tags[1:-1], tags[-1]
        said[name] = {"text": " ".join(words), "tags": tags, "marked": marked(words, tags), "intent": intent}
    splits: Splits = {}
    for split, place in FOLDERS.items():
        found = stems(require(folder / place, "Audio SNIPS"))
        tell_unlisted(found, said, folder / place)
        rows = splits[split] = []
        for name, path in found.items():
            speaker = name.split("-")[0]
            if name in said and (every or speaker in SPEAKERS[split]):
                recording = {"bytes": None, "path": str(path)}
                rows.append({"id": name, "audio": recording, **said[name], "speaker": speaker})
        if not rows:
            raise UserError(f"{folder / place}: none of its {len(found)} recordings is in all.iob.snips.txt.")
    return splits


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """Words with marks around those of a slot: B-artist begins it, I-artist goes on."""
    pieces: list[str] = []
    for word, tag, following in zip(words, tags, [*tags[1:], "O"], strict=True):
        name = tag[2:]
        begins = f"<{name}>" * tag.startswith("B-")
        ends = f"</{name}>" * (tag != "O" and following != f"I-{name}")
        pieces.append(f"{begins}{word}{ends}")
    return " ".join(pieces)
