"""Media types we read, the names people give them, and what they are called in a sentence."""

from __future__ import annotations

__all__ = ["NAMES", "TEXTS", "media_type_named"]

OPEN_XML = "application/vnd.openxmlformats-officedocument"
OPEN_DOCUMENT = "application/vnd.oasis.opendocument"

PDF = "application/pdf"
DOCX = f"{OPEN_XML}.wordprocessingml.document"
XLSX = f"{OPEN_XML}.spreadsheetml.sheet"
PPTX = f"{OPEN_XML}.presentationml.presentation"
ODT, ODS, ODP = f"{OPEN_DOCUMENT}.text", f"{OPEN_DOCUMENT}.spreadsheet", f"{OPEN_DOCUMENT}.presentation"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
RTF = "application/rtf"
HTML, MARKDOWN, TEXT, CSV = "text/html", "text/markdown", "text/plain", "text/csv"
EML, MSG = "message/rfc822", "application/vnd.ms-outlook"
EPUB = "application/epub+zip"
PNG, JPEG, TIFF, GIF, BMP, WEBP = "image/png", "image/jpeg", "image/tiff", "image/gif", "image/bmp", "image/webp"

# Each with the names it goes by: endings of file names first, other media types after.
NAMES = {
    PDF: ("pdf", "application/x-pdf"),
    DOCX: ("docx", "docm", "dotx", "dotm", "word"),
    XLSX: ("xlsx", "xlsm", "xltx", "xltm", "excel"),
    PPTX: ("pptx", "pptm", "ppsx", "ppsm", "potx", "potm", "powerpoint"),
    ODT: ("odt", "ott"),
    ODS: ("ods", "ots"),
    ODP: ("odp", "otp"),
    DOC: ("doc", "dot"),
    XLS: ("xls", "xlt"),
    PPT: ("ppt", "pps", "pot"),
    RTF: ("rtf", "text/rtf", "text/richtext"),
    HTML: ("html", "htm", "xhtml", "application/xhtml+xml"),
    MARKDOWN: ("md", "markdown", "mkd", "text/x-markdown"),
    TEXT: ("txt", "text", "log", "asc"),
    CSV: ("csv", "tsv", "tab", "text/tab-separated-values", "application/csv", "text/comma-separated-values"),
    EML: ("eml", "mht", "mhtml", "multipart/related"),
    MSG: ("msg",),
    EPUB: ("epub",),
    PNG: ("png", "image/x-png"),
    JPEG: ("jpg", "jpeg", "jpe", "image/jpg", "image/pjpeg"),
    TIFF: ("tif", "tiff", "image/tif"),
    GIF: ("gif",),
    BMP: ("bmp", "dib", "image/x-ms-bmp", "image/x-bmp"),
    WEBP: ("webp",),
}
# Between these only the sender can choose, for any bytes may be text.
TEXTS = (HTML, MARKDOWN, TEXT, CSV, EML)

_MEDIA_TYPES = {name: media_type for media_type, names in NAMES.items() for name in (media_type, *names)}


def media_type_named(name: str | None) -> str | None:
    """Return the media type called that: `pdf`, `.PDF`, `application/pdf; x=y`; `None` for one that we do not read."""
    plain = (name or "").partition(";")[0].strip().lower()
    return _MEDIA_TYPES.get(plain.removeprefix("."))
