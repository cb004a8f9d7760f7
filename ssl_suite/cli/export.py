"""`ssl-suite export --encoder ENCODER --out FOLDER`: a folder that transformers loads."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser, place

ABOUT = "encoder folder → a Hugging Face folder that transformers loads"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite export", description=ABOUT)
    parser.add_argument("--encoder", required=True, help="encoder folder or URI")
    parser.add_argument("--out", type=place, required=True, help="new folder to write")
    parser.add_argument(
        "--family",
        choices=(
            *("bert", "roberta", "albert", "electra", "gpt2"),
            *("t5", "bart"),
            *("wav2vec2", "hubert", "wavlm", "data2vec-audio"),
        ),
        help="architecture to write it as; default: the one it has the shape of",
    )
    options = parser.parse_args(arguments)
    from ssl_suite.core.load import load_encoder
    from ssl_suite.encoders.hub.export import export_encoder
    from ssl_suite.plugins import load_all

    load_all()
    family = export_encoder(load_encoder(options.encoder), options.out, options.family)
    print(f"{options.out}: written as {family.model_type}; transformers.AutoModel.from_pretrained loads it")
