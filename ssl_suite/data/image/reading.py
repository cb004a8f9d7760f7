"""Reading images: from encoded bytes or files, with one sentence for each that cannot be read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_suite.core.data import BadItem
from ssl_suite.data.common.manifest import list_media

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def list_images(place: Path) -> dict[str, list[Any]]:
    """See `list_media`."""
    return list_media(place, "image", EXTENSIONS)


def load_image(value: Any, where: str) -> Image.Image:
    """Decodes {"bytes", "path"} to RGB; transparency is laid on white.

    Raises:
        BadItem: naming the file, or `where` for bytes in a table.
    """
    path, data = value.get("path"), value.get("bytes")
    name = path if data is None else where
    try:
        image: Image.Image = Image.open(path if data is None else io.BytesIO(data))
        image.load()
    except FileNotFoundError:
        raise BadItem(f"{name} does not exist.") from None
    except UnidentifiedImageError:  # its text repeats the path, or an address in memory
        raise BadItem(f"{name} is not an image of a known format; replace it, or set on_error: skip.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadItem(f"{name} is not a readable image ({error}); replace it, or set on_error: skip.") from None
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if (image.mode in ("RGBA", "LA", "P", "PA") and "transparency" in image.info) or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
