"""PDF, by PDFium: page by page, with a decision for each whether its text is worth having or must be read by OCR."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion_worker.document import Page
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors.pdf_pictures import PageLook, look_at
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestion_worker.reading.source import Source

__all__ = ["extract", "ocr_reason"]

# Private use, replacement characters and controls: letters of a font that says not which they are.
UNMAPPED = re.compile("[\ue000-\uf8ff\ufffd\x00-\x01\x03-\x08\x0e-\x1f\U000f0000-\U0010ffff]")
# Tika's `faster` limit: below it a page is readable in spite of a symbol font's bullets.
MOST_UNMAPPED = 0.10
# A stamp or a page number on a scan, in characters.
LITTLE_TEXT = 32
# Points a side, as PDF itself limits it: at 300 dpi that is a picture of 3.6 gigapixels.
LONGEST_SIDE = 14_400

PROPERTIES = {
    "Title": "title",
    "Author": "author",
    "Subject": "subject",
    "Keywords": "keywords",
    "Creator": "creator",
    "Producer": "producer",
    "CreationDate": "created",
    "ModDate": "modified",
}
DATE = re.compile(r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?")


def extract(source: Source) -> Extracted:
    """Open a PDF. Raises ENCRYPTED for one whose password is missing or wrong."""
    document = _opened(source)
    warnings: list[str] = []
    metadata: dict[str, str | int | float | bool] = dict(_properties(document))
    if attached := document.count_attachments():
        warnings.append(f"{attached} files embedded in the PDF were not read: send them by themselves")
    return Extracted(_pages(document, source, warnings), metadata, warnings, wrapped=True, total=len(document))


def _opened(source: Source) -> pypdfium2.PdfDocument:
    try:
        document = pypdfium2.PdfDocument(source.path, password=source.password)
    except pypdfium2.PdfiumError as error:
        raise _refusal(error, source.password) from error
    count = len(document)
    if not count:
        raise DocumentError(Problem.CORRUPT, "the PDF has no pages that could be found: export or upload it again")
    if count > source.max_pages:
        raise DocumentError(Problem.TOO_LARGE, f"it has {count} pages; DOCUMENT_MAX_PAGES allows {source.max_pages}")
    return document


def _refusal(error: pypdfium2.PdfiumError, password: str | None) -> DocumentError:
    if error.err_code == pdfium.FPDF_ERR_PASSWORD:
        if password:
            return DocumentError(Problem.ENCRYPTED, "the password does not open the PDF: send the right one")
        return DocumentError(Problem.ENCRYPTED, "the PDF needs a password: send it as options.password")
    if error.err_code == pdfium.FPDF_ERR_SECURITY:
        return DocumentError(Problem.ENCRYPTED, "the PDF is locked in a way that no password opens: send it unlocked")
    return DocumentError(Problem.CORRUPT, "the PDF is damaged beyond what can be repaired: export or upload it again")


def _pages(document: pypdfium2.PdfDocument, source: Source, warnings: list[str]) -> Iterator[Page]:
    broken = 0
    with closing(document):
        for number in range(1, len(document) + 1):
            try:
                yield _page(document, number, source, warnings)
            except pypdfium2.PdfiumError:
                broken += 1
                warnings.append(f"page {number} is damaged and was left out")
                yield Page(number, "", "none")
        if broken == len(document):
            raise DocumentError(Problem.CORRUPT, "every page of the PDF is damaged: export or upload it again")


def _page(document: pypdfium2.PdfDocument, number: int, source: Source, warnings: list[str]) -> Page:
    page = _with_filled_fields(document[number - 1], document, number)
    try:
        text = _text(page)
        reason = ocr_reason(text, page, source.ocr)
        if reason and max(page.get_size()) > LONGEST_SIDE:
            warnings.append(f"page {number} is larger than a PDF's page may be, so that no OCR will read it")
            reason = None
    finally:
        page.close()
    return Page(number, text, "text" if text else "none", reason)


def _text(page: pypdfium2.PdfPage) -> str:
    with closing(page.get_textpage()) as textpage:
        return textpage.get_text_range() if textpage.count_chars() else ""


def _with_filled_fields(page: pypdfium2.PdfPage, document: pypdfium2.PdfDocument, number: int) -> pypdfium2.PdfPage:
    """Print what was filled into a form onto the page, for it is no part of the page's text."""
    annotations = pdfium.FPDFPage_GetAnnotCount(page)
    if not annotations or not any(_is_field(page, index) for index in range(min(annotations, MOST_ANNOTATIONS))):
        return page
    if pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY) != pdfium.FLATTEN_SUCCESS:
        return page
    page.close()
    return document[number - 1]


MOST_ANNOTATIONS = 1_000


def _is_field(page: pypdfium2.PdfPage, index: int) -> bool:
    annotation = pdfium.FPDFPage_GetAnnot(page, index)
    if not annotation:
        return False
    kind = pdfium.FPDFAnnot_GetSubtype(annotation)
    pdfium.FPDFPage_CloseAnnot(annotation)
    return bool(kind in (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT))


def ocr_reason(text: str, page: pypdfium2.PdfPage, mode: str) -> str | None:
    """Return why OCR should look at a page, or `None`: it has good text, or nothing to see."""
    if mode == "never":
        return None
    if mode == "always":
        return "ASKED_FOR"
    letters = len(text) - sum(map(text.count, " \r\n\t"))
    if letters and len(UNMAPPED.findall(text)) > MOST_UNMAPPED * letters:
        return "UNMAPPED_CHARACTERS"
    look: PageLook = look_at(page, has_text=letters > 0)
    if not letters:
        return "NO_TEXT" if look.has_picture else None
    if look.only_invisible_text and look.has_picture:
        return "INVISIBLE_TEXT"
    return "LITTLE_TEXT" if letters < LITTLE_TEXT and look.is_mostly_picture else None


def _properties(document: pypdfium2.PdfDocument) -> Iterator[tuple[str, str]]:
    for key, value in document.get_metadata_dict(skip_empty=True).items():
        if name := PROPERTIES.get(key):
            yield name, _iso_date(value) if name in ("created", "modified") else value


def _iso_date(written: str) -> str:
    """Turn `D:20240131120000+01'00'` into ISO 8601, and leave anything else as it is."""
    found = DATE.match(written)
    if not found:
        return written
    year, month, day, hour, minute, second, utc, sign, hours, minutes = found.groups()
    date = f"{year}-{month or '01'}-{day or '01'}"
    if hour is None:
        return date
    zone = "Z" if utc else f"{sign}{hours}:{minutes or '00'}" if sign else ""
    return f"{date}T{hour}:{minute or '00'}:{second or '00'}{zone}"
