"""`ssl-suite embed ENCODER SOURCE`: embeddings of a data set in a parquet file."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser, place

ABOUT = "data → a parquet file of ids and embeddings"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite embed", description=ABOUT)
    parser.add_argument("encoder", help="encoder folder or URI")
    parser.add_argument("source", help="samples:NAME, a folder, a table, or hf:NAME")
    parser.add_argument("--out", type=place, required=True, help="parquet file to write")
    parser.add_argument("--split", default="train", help="of the source; default: train")
    parser.add_argument("--readout", default="last", help="last, cls, mean or layer:K")
    parser.add_argument("--frames", action="store_true", help="keep the time axis: a list of embeddings a row")
    parser.add_argument("--column", help="of the input; default: text, image or audio")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="at an unreadable sample")
    parser.add_argument("--image_size", type=int, help="side in pixels, for images; default: as in training")
    options = parser.parse_args(arguments)
    from ssl_suite.data.embeddings import write_embeddings

    written = write_embeddings(**vars(options))
    skipped = f"; {written.skipped} unreadable samples left out" if written.skipped else ""
    print(f"{options.out}: {written.rows} embeddings of width {written.dim} ({options.split}){skipped}")
