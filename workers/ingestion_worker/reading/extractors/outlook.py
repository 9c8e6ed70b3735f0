"""MSG: mail as Outlook keeps it, with whatever is attached. Properties by their numbers as [MS-OXPROPS] has them."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.charset import decoded
from ingestion_worker.reading.compound_file import opened_compound_file
from ingestion_worker.reading.extractors.html import declared_charset
from ingestion_worker.reading.extractors.letters import Attachment, Letter, extracted_letter
from ingestion_worker.reading.extractors.outlook_rtf import text_of_compressed_rtf

if TYPE_CHECKING:
    from olefile import OleFileIO

    from ingestion_worker.reading.source import Extracted, Source

__all__ = ["extract"]

Place = tuple[str, ...]

SUBJECT, SENDER, SENDER_ADDRESS, SMTP_ADDRESS, TO, CC = "0037", "0C1A", "0C1F", "5D01", "0E04", "0E03"
PLAIN, HTML, RTF = "1000", "1013", "1009"
FILE_NAME, SHORT_NAME, SHOWN_NAME, MIME, CONTENT = "3707", "3704", "3001", "370E", "3701"
SENT, DELIVERED, CODEPAGE, INTERNET_CODEPAGE = 0x0039_0040, 0x0E06_0040, 0x3FFD_0003, 0x3FDE_0003
PROPERTIES = "__properties_version1.0"
# Bytes before the first entry, in a mail of its own and in one within another; and of an entry.
HEADS, ENTRY = (32, 24), 16
# Windows counts tenths of microseconds from here.
BEGINNING_OF_TIME = datetime(1601, 1, 1, tzinfo=UTC)
DEEPEST = 20


def extract(source: Source) -> Extracted:
    """Read a mail of Outlook's."""
    with opened_compound_file(source.path) as file:
        letter = _Storage(file, ()).letter()
    return extracted_letter(letter, source)


class _Storage:
    """A mail, or an attachment, in the folders of a compound file."""

    def __init__(self, file: OleFileIO, place: Place) -> None:
        self._file = file
        self._place = place
        self._numbers = self._fixed_properties()

    def letter(self) -> Letter:
        if len(self._place) > DEEPEST:
            raise DocumentError(Problem.BOMB, "it is nested deeper than any mail")
        address = self._text(SMTP_ADDRESS) or self._text(SENDER_ADDRESS)
        sender = self._text(SENDER)
        if "@" in address and address != sender:
            sender = f"{sender} <{address}>".strip()
        head = {"From": sender, "To": self._text(TO), "Cc": self._text(CC), "Date": self._date()}
        return Letter(self._text(SUBJECT), head, self._texts(), self._attachments())

    def _texts(self) -> list[tuple[str, bool]]:
        if (plain := self._text(PLAIN)).strip():
            return [(plain, False)]
        html = self._bytes(HTML, "0102")
        if html:
            declared = [("document", declared_charset(html[:4096])), ("sender", self._charset())]
            return [(decoded(html, declared), True)]
        if text := self._text(HTML):
            return [(text, True)]
        rtf = self._bytes(RTF, "0102")
        return [(text_of_compressed_rtf(rtf), False)] if rtf else []

    def _attachments(self) -> list[Attachment]:
        folders = sorted(
            {
                entry[len(self._place)]
                for entry in self._file.listdir()
                if len(entry) > len(self._place) + 1
                and tuple(entry[: len(self._place)]) == self._place
                and entry[len(self._place)].lower().startswith("__attach_version1.0_")
            }
        )
        found = (_Storage(self._file, (*self._place, folder)).attachment() for folder in folders)
        return [attachment for attachment in found if attachment is not None]

    def attachment(self) -> Attachment | None:
        name = self._text(FILE_NAME) or self._text(SHORT_NAME) or self._text(SHOWN_NAME)
        inner = (*self._place, f"__substg1.0_{CONTENT}000D")
        if self._file.exists([*inner, PROPERTIES]):
            letter = _Storage(self._file, inner).letter()
            return Attachment(name or letter.subject or "mail", letter)
        content = self._bytes(CONTENT, "0102")
        return Attachment(name, content, self._text(MIME) or None) if content else None

    def _text(self, number: str) -> str:
        if wide := self._bytes(number, "001F"):
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._bytes(number, "001E")
        return decoded(narrow, [("sender", self._charset())]).rstrip("\0") if narrow else ""

    def _bytes(self, number: str, kind: str) -> bytes:
        place = [*self._place, f"__substg1.0_{number}{kind}"]
        if not self._file.exists(place):
            return b""
        with self._file.openstream(place) as stream:
            content: bytes = stream.read()
        return content

    def _charset(self) -> str | None:
        page = self._numbers.get(INTERNET_CODEPAGE) or self._numbers.get(CODEPAGE) or 0
        if page == 65001:  # noqa: PLR2004  Windows' name of it
            return "utf-8"
        return f"cp{page & 0xFFFF}" if page else None

    def _date(self) -> str:
        ticks = self._numbers.get(SENT) or self._numbers.get(DELIVERED) or 0
        try:
            return (BEGINNING_OF_TIME + timedelta(microseconds=ticks // 10)).isoformat(" ", "seconds") if ticks else ""
        except OverflowError:
            return ""

    def _fixed_properties(self) -> dict[int, int]:
        place = [*self._place, PROPERTIES]
        if not self._file.exists(place):
            return {}
        with self._file.openstream(place) as stream:
            content: bytes = stream.read()
        head = HEADS[bool(self._place)]
        entries = (content[at : at + ENTRY] for at in range(head, len(content) - ENTRY + 1, ENTRY))
        return {tag: value for tag, _, value in (struct.unpack("<IIQ", entry) for entry in entries)}
