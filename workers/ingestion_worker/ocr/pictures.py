"""Pictures of any kind as grey ones, upright as the camera meant them, and never larger than allowed.

Runs in the child. What a picture would cost is computed from its header, before one pixel of it is decoded.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["grey_picture", "opened_picture", "page_of"]

# What a decoder is kept for; others are attack surface.
FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM")
# Decoded bytes for each pixel that is allowed in the end: a larger picture is decoded before it is reduced.
DECODED_BYTES = 4
# A picture with more than so many times the pixels allowed was not made to be looked at.
BOMB = 10
LONGEST_SIDE = 32_767
WIDE_MODES = {"I", "I;16", "I;16B", "I;16L", "F"}
BROKEN = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, ZeroDivisionError)


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture file. Raises `DocumentError`, also for what Pillow says while it is being used."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Ours is stricter, and knows the setting.
    try:
        with warnings.catch_warnings(action="ignore"), problems_told(), Image.open(path, formats=FORMATS) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def problems_told() -> Iterator[None]:
    """Raise `DocumentError` for whatever Pillow's decoders raise."""
    try:
        yield
    except UnidentifiedImageError:
        raise DocumentError(Problem.UNSUPPORTED, "this is no picture of a kind that can be read") from None
    except MemoryError as error:
        raise DocumentError(Problem.OOM, "the picture does not fit into memory") from error
    except BROKEN as error:
        raise DocumentError(Problem.CORRUPT, f"the picture is damaged ({type(error).__name__})") from error


def page_of(image: Image.Image, number: int, most_pixels: int) -> Image.Image:
    """Return a page of an opened picture, counted from 1, in grey, with nothing else that its file may tell."""
    with problems_told():
        return _page_of(image, number, most_pixels)


def _page_of(image: Image.Image, number: int, most_pixels: int) -> Image.Image:
    _turn_to(image, number)
    _must_be_affordable(image, most_pixels)
    if image.format in {"JPEG", "MPO"}:
        _draft(image, most_pixels)
    upright = ImageOps.exif_transpose(image)
    page = _fitting(_grey(upright), most_pixels)
    page.info = {}
    return page


def _turn_to(image: Image.Image, number: int) -> None:
    try:
        image.seek(number - 1)
    except EOFError:
        raise DocumentError(Problem.CORRUPT, f"there is no page {number}") from None


def grey_picture(path: Path) -> Image.Image:
    """Return a picture that this process, or one like it, has written."""
    with opened_picture(path) as image:
        image.load()
        return image.convert("L")


def _must_be_affordable(image: Image.Image, most_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > BOMB * most_pixels:
        raise DocumentError(Problem.BOMB, f"the picture has {pixels // 1_000_000} million pixels")
    if image.format in {"JPEG", "MPO"}:
        return  # Its decoder can leave pixels out.
    if pixels * _bytes_of_pixel(image) > DECODED_BYTES * most_pixels:
        sentence = f"the picture is {image.width} by {image.height} pixels, too large to decode; see OCR_MAX_PIXELS"
        raise DocumentError(Problem.TOO_LARGE, sentence)


def _bytes_of_pixel(image: Image.Image) -> int:
    return 4 if image.mode in {"I", "F", "RGB", "RGBX"} else len(image.getbands()) * (2 if "16" in image.mode else 1)


def _draft(image: Image.Image, most_pixels: int) -> None:
    """Have a JPEG decoded in grey, and smaller where it is larger than needed."""
    factor = math.sqrt(most_pixels / (image.width * image.height))
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor))) if factor < 1 else image.size
    image.draft("L", size)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode in WIDE_MODES:
        return _narrowed(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("L")
    if image.mode in {"CMYK", "LAB", "HSV", "YCbCr"}:
        image = image.convert("RGB")
    return image.convert("L")


def _narrowed(image: Image.Image) -> Image.Image:
    """Bring 16 bits and more down to 8; the lightest becomes white, for a scanner may use but 12 of 16."""
    wide = image.convert("F")
    found: Any = wide.getextrema()
    lowest = min(found[0], 0.0)
    span = max(found[1] - lowest, 1.0)
    return wide.point(lambda level: level * (255 / span) + (-lowest * 255 / span)).convert("L")


def _fitting(image: Image.Image, most_pixels: int) -> Image.Image:
    factor = min(math.sqrt(most_pixels / (image.width * image.height)), LONGEST_SIDE / max(image.size))
    if factor >= 1:
        return image
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
