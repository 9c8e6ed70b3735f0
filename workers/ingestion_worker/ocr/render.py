"""The child task `render`: pages of a PDF, or of a picture file, as grey pictures that an engine can be shown."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from ingestion_worker.document import SOURCE
from ingestion_worker.ocr.pictures import LONGEST_SIDE, opened_picture, page_of
from ingestion_worker.problem import UNLUCKY, DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ingestion_worker.isolation.task import Desk

__all__ = ["opened_pdf", "render"]

PDF = "application/pdf"
POINTS_PER_INCH = 72
# A page that would have to be made with fewer dots per inch shows no letters.
LEAST_DPI = 50
# Tried in turn until the file is small enough; after them, smaller pictures.
QUALITIES = (85, 70)
SHRINK = 0.7


@dataclass(frozen=True, slots=True)
class Wanted:
    """What pictures must be like: `side` in pixels; with `most_bytes` they are JPEG, else PNG."""

    dpi: int
    pixels: int
    side: int
    most_bytes: int | None


def render(desk: Desk) -> dict[str, Any]:
    """Make pictures of pages.

    Order: `mediaType`, `password`, `pages` (numbers), `dpi`, `maxPixels`, and optionally `maxSide` and `maxBytes`.
    Writes `page-<n>.png` (`.jpg` with `maxBytes`). Returns `pages`, each with `file`, `width`, `height` and `dpi`
    (`None` for pictures: what their files say of it is often wrong), and `failed`: pages of which there is no picture,
    each with `problem` and `sentence`.
    """
    order = desk.order
    wanted = Wanted(order["dpi"], order["maxPixels"], order.get("maxSide") or LONGEST_SIDE, order.get("maxBytes"))
    pages, failed = dict[str, Any](), dict[str, Any]()
    with _source(desk, wanted) as picture_of:
        for done, number in enumerate(order["pages"], 1):
            try:
                pages[str(number)] = _saved(picture_of(number), desk.folder, number, wanted)
            except DocumentError as error:
                if error.problem in UNLUCKY:
                    raise
                failed[str(number)] = {"problem": error.problem, "sentence": error.sentence}
            desk.report(done, len(order["pages"]))
    return {"pages": pages, "failed": failed}


@contextmanager
def _source(desk: Desk, wanted: Wanted) -> Iterator[Callable[[int], Image.Image]]:
    """Open the document; what is yielded makes the picture of a page, by its number."""
    path = desk.folder / SOURCE
    if desk.order["mediaType"] == PDF:
        with opened_pdf(path, desk.order.get("password")) as document:
            yield lambda number: _of_pdf(document, number, wanted)
        return
    with opened_picture(path) as image:
        yield lambda number: _of_picture(image, number, wanted)


@contextmanager
def opened_pdf(path: Path, password: str | None) -> Iterator[pypdfium2.PdfDocument]:
    """Open a PDF. Raises `DocumentError`."""
    try:
        document = pypdfium2.PdfDocument(path, password=password)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            sentence = "the password is wrong" if password else "it needs a password: give it as `password`"
            raise DocumentError(Problem.ENCRYPTED, sentence) from None
        if error.err_code == pdfium.FPDF_ERR_SECURITY:
            raise DocumentError(Problem.ENCRYPTED, "it is encrypted in a way that cannot be undone here") from None
        raise DocumentError(Problem.CORRUPT, "the PDF is damaged beyond repair") from None
    try:
        yield document
    finally:
        document.close()


def _of_pdf(document: pypdfium2.PdfDocument, number: int, wanted: Wanted) -> Image.Image:
    try:
        if not 1 <= number <= len(document):
            raise DocumentError(Problem.CORRUPT, f"there is no page {number}")
        page = document[number - 1]
        try:
            dpi = _affordable_dpi(page.get_size(), wanted)
            picture: Image.Image = page.render(scale=dpi / POINTS_PER_INCH, grayscale=True).to_pil().convert("L")
        finally:
            page.close()
    except pypdfium2.PdfiumError as error:
        raise DocumentError(Problem.CORRUPT, f"page {number} of the PDF is damaged") from error
    except MemoryError as error:
        raise DocumentError(Problem.OOM, f"page {number} does not fit into memory") from error
    picture.info = {"dpi": dpi}
    return picture


def _affordable_dpi(points: tuple[float, float], wanted: Wanted) -> float:
    """Return the dots per inch that were asked for, or as many as the page's size allows."""
    width, height = (side / POINTS_PER_INCH for side in points)
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise DocumentError(Problem.CORRUPT, "a page of the PDF has no size")
    # A pixel is left for rounding up, on either side.
    most = min(math.sqrt(wanted.pixels / (width * height)), (wanted.side - 1) / max(width, height))
    if most < min(LEAST_DPI, wanted.dpi):
        sentence = f"a page is {width:.0f} by {height:.0f} inches, too large for a picture; see OCR_MAX_PIXELS"
        raise DocumentError(Problem.TOO_LARGE, sentence)
    return min(float(wanted.dpi), most * 0.999)


def _of_picture(image: Image.Image, number: int, wanted: Wanted) -> Image.Image:
    picture = page_of(image, number, wanted.pixels)
    factor = wanted.side / max(picture.size)
    return picture if factor >= 1 else _shrunk(picture, factor)


def _saved(picture: Image.Image, folder: Path, number: int, wanted: Wanted) -> dict[str, Any]:
    dpi = picture.info.pop("dpi", None)
    if wanted.most_bytes is None:
        path = folder / f"page-{number}.png"
        picture.save(path, compress_level=1)
    else:
        path = folder / f"page-{number}.jpg"
        picture = _saved_small(picture, path, wanted.most_bytes)
    return {"file": path.name, "width": picture.width, "height": picture.height, "dpi": dpi and round(dpi)}


def _saved_small(picture: Image.Image, path: Path, most_bytes: int) -> Image.Image:
    """Write a JPEG of at most so many bytes: first with less quality, then with fewer pixels."""
    for quality in QUALITIES:
        picture.save(path, quality=quality)
        if path.stat().st_size <= most_bytes:
            return picture
    return _saved_small(_shrunk(picture, SHRINK), path, most_bytes)


def _shrunk(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(1, int(picture.width * factor)), max(1, int(picture.height * factor)))
    smaller = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    smaller.info = {}
    return smaller
