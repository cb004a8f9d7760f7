"""Make a data set of pictures, each with a caption and a kind, from the stamps of the drawing program Tux Paint.

    python scripts/build_stamps.py OUT [--spoken fr] [--cache DIR]

About 790 pictures and drawings of 16 kinds, licence GPL-2 (the package's own terms are copied to OUT). With `--spoken`,
those with a recording of their caption in that language, and the caption in that language. It takes apt-get and dpkg.
"""

import argparse
import shutil
from pathlib import Path

import sample_sources as sources
from build_samples import TEXT, fetcher, write_split
from datasets import Audio, Features, Image
from PIL import Image as Picture

PACKAGE = "apt:tuxpaint-stamps-default@2022.06.04-1"
SIZE = 128
"""Most pixels a side."""


def caption(path: Path, language: str) -> str:
    """What a stamp is called; empty where the language has no name for it."""
    first, *others = path.read_text(encoding="utf-8").splitlines()
    known = dict(line.split("=", 1) for line in others if "=" in line)
    return (first if language == "en" else known.get(f"{language}.utf8", "")).strip()


def picture(path: Path) -> Picture.Image:
    """A stamp on white."""
    stamp = Picture.open(path).convert("RGBA")
    page = Picture.new("RGBA", stamp.size, "white")
    page.alpha_composite(stamp)
    page.thumbnail((SIZE, SIZE))
    return page.convert("RGB")


def rows(stamps: Path, language: str, spoken: bool) -> list[sources.Row]:
    """A row a stamp that has all that is asked for; of equal captions the first."""
    found: dict[str, sources.Row] = {}
    for path in sorted(stamps.rglob("*.png")):
        audio = path.with_name(f"{path.stem}_desc_{language}.ogg")
        if not path.with_suffix(".txt").exists() or (spoken and not audio.exists()):
            continue
        text = caption(path.with_suffix(".txt"), language)
        where = path.relative_to(stamps)
        row = {"id": str(where.with_suffix("")), "image": sources.encode_image(picture(path), "PNG", optimize=True)}
        words = ", ".join(part.replace("_", " ") for part in where.parts[:-1])
        row |= {"text": text, "description": f"{words}: {text}", "label": where.parts[0]}
        row |= {"audio": {"bytes": audio.read_bytes(), "path": None}} if spoken else {}
        if text:
            found.setdefault(sources.letters_only(text), row)
    return list(found.values())


def main() -> None:
    """Write OUT/{train,validation,test}.parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--spoken", metavar="LANGUAGE", help="with the spoken captions of this language, such as fr")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ssl_suite/packages", help="for downloads")
    options = parser.parse_args()
    package = fetcher(options.cache.resolve())(PACKAGE)
    made = rows(package / "usr/share/tuxpaint/stamps", options.spoken or "en", bool(options.spoken))
    features = {"id": TEXT, "image": Image(), "text": TEXT, "description": TEXT, "label": TEXT}
    features |= {"audio": Audio(sampling_rate=None)} if options.spoken else {}
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "usr/share/doc/tuxpaint-stamps-default/copyright", options.out / "copyright")
    splits = sources.split_by_group(made, lambda row: row["id"], (0.7, 0.1, 0.2), lambda row: row["label"])
    for split, part in splits.items():
        write_split(part, Features(features), options.out / f"{split}.parquet")
        print(f"{options.out / split}.parquet: {len(part)} rows")


if __name__ == "__main__":
    main()
