"""Who reads what: a new format is one file and one line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from ingestion_worker.reading import media_types as types

if TYPE_CHECKING:
    from ingestion_worker.reading.source import Extractor

__all__ = ["EXTRACTORS", "extractor_of"]

_HERE = "ingestion_worker.reading.extractors"

# Imported when the first such document comes: a child that reads a text needs no PDFium.
EXTRACTORS = {
    types.PDF: f"{_HERE}.pdf:extract",
    types.DOCX: f"{_HERE}.word:extract",
    types.XLSX: f"{_HERE}.excel:extract",
    types.PPTX: f"{_HERE}.powerpoint:extract",
    types.ODT: f"{_HERE}.open_document:extract",
    types.ODS: f"{_HERE}.open_document:extract",
    types.ODP: f"{_HERE}.open_document:extract",
    types.DOC: f"{_HERE}.old_office:extract",
    types.XLS: f"{_HERE}.old_excel:extract",
    types.PPT: f"{_HERE}.old_office:extract",
    types.RTF: f"{_HERE}.rtf:extract",
    types.HTML: f"{_HERE}.html:extract",
    types.MARKDOWN: f"{_HERE}.plain:extract",
    types.TEXT: f"{_HERE}.plain:extract",
    types.CSV: f"{_HERE}.separated:extract",
    types.EML: f"{_HERE}.mail:extract",
    types.MSG: f"{_HERE}.outlook:extract",
    types.EPUB: f"{_HERE}.epub:extract",
    types.PNG: f"{_HERE}.picture:extract",
    types.JPEG: f"{_HERE}.picture:extract",
    types.TIFF: f"{_HERE}.picture:extract",
    types.GIF: f"{_HERE}.picture:extract",
    types.BMP: f"{_HERE}.picture:extract",
    types.WEBP: f"{_HERE}.picture:extract",
}


def extractor_of(media_type: str) -> Extractor:
    """Return the function that reads such files. Raises `KeyError` for a media type of nobody's."""
    module, _, name = EXTRACTORS[media_type].partition(":")
    return cast("Extractor", getattr(import_module(module), name))
