"""Kinds of text: mail, HTML, tables, Markdown and anything else that a person can read."""

from __future__ import annotations

import csv
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.charset import charset_of_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextKind", "likely_delimiter", "text_kind"]

MAIL_HEADER = re.compile(
    r"(from|to|cc|subject|date|received|mime-version|message-id|return-path|delivered-to|reply-to|content-type"
    r"|x-[a-z-]+|dkim-signature|authentication-results|sender|thread-topic)\s?:",
    re.IGNORECASE,
)
HEADER_LINE = re.compile(r"[!-9;-~]+\s?:|[ \t]")
HTML_BEGIN = re.compile(
    r"(<!--.*?-->|<\?xml.*?\?>|\s)*<(!doctype\s+html|html|head|body|meta|title)\b", re.IGNORECASE | re.DOTALL
)
HTML_TAGS = re.compile(r"</?(p|div|span|table|tr|td|a|ul|li|h[1-6]|br|b|strong|em|font)\b[^<>]*>", re.IGNORECASE)
XML_BEGIN = re.compile(r"\s*(<\?xml|<[A-Za-z_][\w.-]*:?[\w.-]*(\s+xmlns|\s*>))")
MARKDOWN = re.compile(r"^(#{1,6} \S|```|\[[^\]]+\]\([^)]+\)|\* \S.*\*\*|\|( ?:?-+:? ?\|)+$)", re.MULTILINE)
CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# Known headers of a mail that nobody called one.
SURE_HEADERS = 3
DELIMITERS = ",;\t|"
# Rows that must agree before something nobody called a table is one, out of the first.
AGREEING_LINES, ALL_BUT_FEW, MOST_LINES = 3, 0.95, 50
# Part of letters that may be controls: old logs and mails have a few.
FEW = 0.01

FOREIGN_XML = (
    ("<svg", "an SVG drawing"),
    ('progid="word.document"', "a Word document of 2003's XML kind; save it as docx"),
    ("urn:schemas-microsoft-com:office:spreadsheet", "an Excel sheet of 2003's XML kind; save it as xlsx"),
    ("<office:document", "a flat OpenDocument file; save it as odt"),
    ("<fictionbook", "a FictionBook"),
)


class TextKind(NamedTuple):
    """`media_type` is `None` for what we do not read; `seems` then says what it is."""

    media_type: str | None
    is_text: bool = True
    seems: str = ""


def text_kind(head: bytes, named: Sequence[str]) -> TextKind:
    """Tell what kind of text this begins; `named` are the sender's opinions, the most trusted first."""
    text = head.decode(charset_of_bytes(head).name, "replace").lstrip("\ufeff")
    if len(CONTROLS.findall(text)) > FEW * len(text):
        return TextKind(None, is_text=False, seems="binary data of an unknown kind")
    if _is_mail(text, declared=types.EML in named[:1]):
        return TextKind(types.EML)
    if HTML_BEGIN.match(text):
        return TextKind(types.HTML)
    if XML_BEGIN.match(text) and types.MARKDOWN not in named and (foreign := _foreign_xml(text)):
        return TextKind(None, seems=foreign)
    trusted = next((name for name in named if name not in (types.EML, types.TEXT)), None)
    looks = trusted or _by_looks(text)
    return TextKind(types.TEXT if looks == types.MARKDOWN and types.TEXT in named and not trusted else looks)


def _is_mail(text: str, *, declared: bool) -> bool:
    """Take it for a mail if it begins with headers alone, two of them known, or one if it is called a mail."""
    lines = text.splitlines()[:200]
    if lines and lines[0].startswith("From "):  # A mailbox's line in front of each mail.
        lines = lines[1:]
    known = 0
    for line in lines:
        if not line:
            break
        if not HEADER_LINE.match(line):
            return False
        known += bool(MAIL_HEADER.match(line))
    else:
        known = known if len(lines) > SURE_HEADERS else 0
    return known >= (1 if declared else SURE_HEADERS)


def _foreign_xml(text: str) -> str | None:
    low = text.lower()
    for sign, name in FOREIGN_XML:
        if sign in low:
            return name
    return "XML of an unknown kind" if low.lstrip().startswith("<?xml") else None


def _by_looks(text: str) -> str:
    if len(HTML_TAGS.findall(text)) > max(3, text.count("\n") // 2):
        return types.HTML
    if _is_table(text):
        return types.CSV
    return types.MARKDOWN if len(MARKDOWN.findall(text)) > 1 else types.TEXT


def _is_table(text: str) -> bool:
    """Take lines for rows if they agree; sentences may agree in their commas."""
    delimiter, share = likely_delimiter(text)
    if share < ALL_BUT_FEW or re.search(r"\w[.!?] \w", text):
        return False
    return delimiter != "," or ", " not in text


def likely_delimiter(text: str) -> tuple[str, float]:
    """Return what stands between cells, and the share of the first rows that have as many cells then."""
    whole_lines = text.splitlines()[:MOST_LINES] if text.endswith("\n") else text.splitlines()[:-1][:MOST_LINES]
    lines = whole_lines or text.splitlines()[:1]
    return max(
        ((delimiter, _share_that_agrees(lines, delimiter)) for delimiter in DELIMITERS), key=lambda pair: pair[1]
    )


def _share_that_agrees(lines: Sequence[str], delimiter: str) -> float:
    try:
        widths = Counter(len(row) for row in csv.reader((f"{line}\n" for line in lines), delimiter=delimiter) if row)
    except csv.Error:
        return 0.0
    width, rows = max(widths.items(), key=lambda pair: pair[1], default=(0, 0))
    # A few rows agree by chance, as do rows of a single cell.
    return rows / widths.total() if width > 1 and rows >= AGREEING_LINES else 0.0
