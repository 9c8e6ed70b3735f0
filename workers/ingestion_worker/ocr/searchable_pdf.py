"""The child task `assemble`: one PDF of a scanned document in which its text can be searched and copied."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pypdfium2
from pypdfium2 import raw

from ingestion_worker.document import SOURCE
from ingestion_worker.ocr.render import PDF, opened_pdf
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from ingestion_worker.isolation.task import Desk

__all__ = ["SEARCHABLE_PDF", "assemble"]

SEARCHABLE_PDF = "searchable.pdf"
# In points; of a picture nobody knows how large it was on paper.
A4_LONG_SIDE = 842.0


def assemble(desk: Desk) -> dict[str, Any]:
    """Put `page-<n>.pdf` of every page that was read in place of the page itself.

    Order: `mediaType`, `password`, `pages` (how many there are). Pages that had text of their own, or could not be
    read, are taken over from a PDF as they are; of a picture file they are left out. Writes `searchable.pdf`; returns
    `pages` and `bytes`.
    """
    order = desk.order
    with ExitStack() as opened:
        made = pypdfium2.PdfDocument.new()
        opened.callback(made.close)
        is_pdf = order["mediaType"] == PDF
        source = opened.enter_context(opened_pdf(desk.folder / SOURCE, order.get("password"))) if is_pdf else None
        for number in range(1, order["pages"] + 1):
            _append(made, desk, source, number)
            desk.report(number, order["pages"])
        if not len(made):
            raise DocumentError(Problem.EMPTY, "no page was read, so there is nothing to search")
        path = desk.folder / SEARCHABLE_PDF
        made.save(path)
        return {"pages": len(made), "bytes": path.stat().st_size}


def _append(made: pypdfium2.PdfDocument, desk: Desk, source: pypdfium2.PdfDocument | None, number: int) -> None:
    path = desk.folder / f"page-{number}.pdf"
    try:
        if path.exists():
            with opened_pdf(path, None) as page:
                made.import_pages(page)
            _scale(made, source.get_page_size(number - 1) if source is not None else None)
        elif source is not None:
            made.import_pages(source, pages=[number - 1])
    except pypdfium2.PdfiumError as error:
        raise DocumentError(Problem.CORRUPT, f"page {number} cannot be put into another PDF") from error


def _scale(made: pypdfium2.PdfDocument, paper: tuple[float, float] | None) -> None:
    """Make the last page as large as its paper: Tesseract was not told, so that it reads better."""
    page = made[len(made) - 1]
    width, height = page.get_size()
    long = max(paper) if paper else A4_LONG_SIDE
    scale = long / max(width, height)
    matrix, clip = raw.FS_MATRIX(scale, 0, 0, scale, 0, 0), raw.FS_RECTF(0, height * scale, width * scale, 0)
    if not raw.FPDFPage_TransFormWithClip(page.raw, matrix, clip):
        raise pypdfium2.PdfiumError("a page cannot be scaled")
    for set_box in (page.set_mediabox, page.set_cropbox):
        set_box(0, 0, width * scale, height * scale)
    page.close()
