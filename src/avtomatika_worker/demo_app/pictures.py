"""Makes thumbnails and finds the colors of a picture. The only module here that needs Pillow."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

_JPEG_QUALITY = 88


class NotAPictureError(Exception):
    """A file that Pillow cannot read as a picture."""


def shrink(source: Path, width: int) -> Image.Image:
    """Return the picture at most ``width`` pixels wide, upright, with its proportions kept; it is never enlarged.

    The result's mode is RGBA if the picture has transparent parts, otherwise RGB. Raises `NotAPictureError`, or
    ``FileNotFoundError`` if there is no such file.
    """
    try:
        with Image.open(source) as opened:
            image = ImageOps.exif_transpose(opened)
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        # Pillow has no single error for broken files: truncated data is OSError, a broken PNG chunk SyntaxError.
        raise NotAPictureError(f"{source.name} cannot be read as a picture: {error}") from error
    image.thumbnail((width, image.height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def save(image: Image.Image, directory: Path, name: str) -> Path:
    """Write the picture as ``name`` with the matching suffix, .png for RGBA and .jpg for RGB; return its path.

    The directory is created if needed. An existing file is replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if image.mode == "RGBA":
        path = directory / f"{name}.png"
        image.save(path, optimize=True)
    else:
        path = directory / f"{name}.jpg"
        image.save(path, quality=_JPEG_QUALITY, optimize=True, progressive=True)
    return path


def safe_name(text: str) -> str:
    """Return ``text`` as a file name without a path: at most 60 letters, digits, dashes and underscores."""
    return re.sub(r"[^\w-]+", "_", text)[:60].strip("_") or "picture"


def average_color(image: Image.Image) -> str:
    """Return the mean of all pixels as ``#rrggbb``; transparent ones do not count."""
    return _code(image.reduce(image.size).convert("RGB").tobytes())


def dominant_colors(image: Image.Image, count: int) -> list[str]:
    """Return up to ``count`` colors that represent the picture, as ``#rrggbb``, the most frequent first.

    Transparent parts count as white.
    """
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image if image.mode == "RGBA" else None)
    reduced = flat.quantize(count, Image.Quantize.MEDIANCUT, kmeans=3)
    palette = bytes(reduced.getpalette("RGB") or ())
    shares = reduced.histogram()
    used = sorted((i for i in range(len(palette) // 3) if shares[i]), key=lambda i: shares[i], reverse=True)
    return list(dict.fromkeys(_code(palette[3 * i : 3 * i + 3]) for i in used))


def _code(color: bytes) -> str:
    return "#" + color.hex()
