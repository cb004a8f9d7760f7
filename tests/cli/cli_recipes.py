"""Options shared by the tests of the command line, and what recipes make together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_suite.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"

QUICK = [
    "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1",
]  # fmt: skip
ENCODERS = {
    "text": "{class_path: TextEncoder, init_args: {vocab_size: 400, dim: 16, layers: 1, heads: 2, max_length: 32}}",
    "image": "{class_path: ImageEncoder, init_args: {name: resnet18, small_images: true, width: 8}}",
    "speech": "{class_path: SpeechEncoder, init_args: {mels: 20, dim: 16, layers: 1}}",
}
METHODS = {"text": "MaskedLM", "image": "SimCLR", "speech": "APC"}
DATA = {
    "text": ["--data=Text", "--data.vocab_size=400", "--data.max_length=32"],
    "image": ["--data=Images", "--data.image_size=16"],
    "speech": ["--data=Speech"],
}


def printed(capsys: pytest.CaptureFixture[str], *configs: str) -> dict[str, Any]:
    """What `fit` would run with these recipes of configs/."""
    capsys.readouterr()
    arguments = [a for c in configs for a in ("-c", str(CONFIGS / c))]
    with pytest.raises(SystemExit) as done:
        main(["fit", *arguments, "--print_config"])
    assert done.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)
