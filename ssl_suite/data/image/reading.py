"""Reading images: from encoded bytes or files, with one sentence for each that cannot be read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_suite.core.errors import BadItem
from ssl_suite.data.common.manifest import Media, encoded

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))
UNREAD = frozenset((
    ".jfif", ".jp2", ".jxl", ".avif", ".heic", ".heif", ".pgm", ".pbm", ".pnm", ".svg", ".tga", ".psd", ".dng",
))  # fmt: skip
list_images = Media("image", EXTENSIONS, UNREAD)


def load_image(value: Any, where: str, orient: bool = True) -> Image.Image:
    """Decodes {"bytes", "path"} to RGB; transparency is laid on white.

    Args:
        value: what the column holds; a picture that is decoded is one already.
        where: the row, for messages.
        orient: turn the picture as its EXIF orientation says.

    Raises:
        BadItem: naming the file, or `where` for bytes in a table.
    """
    name, content = (where, value) if isinstance(value, Image.Image) else encoded(value, where)
    try:
        image = _opened(content)
        image.load()
        if orient:
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:  # its text repeats the path, or an address in memory
        raise BadItem(f"{name} is not an image of a known format; replace it, or set on_error: skip.") from None
    except Exception as error:  # PIL's readers raise anything at broken files
        raise BadItem(f"{name} is not a readable image ({error}); replace it, or set on_error: skip.") from None
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if (image.mode in ("RGBA", "LA", "P", "PA") and "transparency" in image.info) or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _opened(content: Image.Image | Path | bytes) -> Image.Image:
    if isinstance(content, Image.Image):
        return content
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
