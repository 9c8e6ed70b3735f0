"""Pictures: a page for each frame, which has no text until somebody has looked at it."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingestion_worker.document import Page
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.guard import guard_picture
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from ingestion_worker.reading.source import Source

__all__ = ["extract"]


def extract(source: Source) -> Extracted:
    """Count frames and look at their sizes, without unpacking a pixel."""
    import PIL.Image  # noqa: PLC0415  most documents are no pictures

    # Our own limit says more than Pillow's, and holds for every frame.
    PIL.Image.MAX_IMAGE_PIXELS = None
    reason = None if source.ocr == "never" else "IMAGE"
    with warnings.catch_warnings(action="ignore"), _typed(), PIL.Image.open(source.path) as image:
        guard_picture(*image.size)
        metadata: dict[str, str | int | float | bool] = {"width": image.width, "height": image.height}
        frames = _frames(image, source.max_pages)
    return Extracted((Page(number, "", "none", reason) for number in range(1, frames + 1)), metadata, total=frames)


def _frames(image: Image, most: int) -> int:
    """Count frames, of TIFF with a look at the size of each; as far as matters."""
    if image.format != "TIFF":
        return min(getattr(image, "n_frames", 1), most + 1)
    for frame in range(most + 1):
        try:
            image.seek(frame)
        except EOFError:
            return frame
        guard_picture(*image.size)
    return most + 1


@contextmanager
def _typed() -> Iterator[None]:
    """Say that a picture is broken: Pillow raises whatever the place where it stumbled raises."""
    from PIL import UnidentifiedImageError  # noqa: PLC0415  with Pillow itself

    try:
        yield
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
    ) as e:
        raise DocumentError(Problem.CORRUPT, "the picture is damaged: export or upload it again") from e
