"""Writes the least that is a document of Office 97: nothing writes these any more."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from compound_files import compound_file

if TYPE_CHECKING:
    from collections.abc import Sequence


def old_text(paragraphs: Sequence[str]) -> bytes:
    """Return a DOC: the file information block, the text in UTF-16, and the table that says where it is."""
    text = "\r".join(paragraphs) + "\r"
    encoded = text.encode("utf-16-le")
    begin = 1536
    pieces = struct.pack("<II", 0, len(text)) + struct.pack("<HIH", 0, begin, 0)
    table = b"\x02" + struct.pack("<I", len(pieces)) + pieces
    head = bytearray(begin)
    struct.pack_into("<HHHHHHHB", head, 0, 0xA5EC, 0x00C1, 0, 0x0409, 0, 0x1200, 0x00BF, 0)
    struct.pack_into("<II", head, 24, begin, begin + len(encoded))
    struct.pack_into("<H", head, 32, 14)
    struct.pack_into("<H", head, 62, 22)
    struct.pack_into("<I", head, 64, begin + len(encoded))
    struct.pack_into("<I", head, 76, len(text))
    struct.pack_into("<H", head, 152, 93)
    struct.pack_into("<II", head, 154 + 33 * 8, 0, len(table))
    return compound_file({"WordDocument": bytes(head) + encoded, "1Table": table})


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def _short_text(text: str) -> bytes:
    return struct.pack("<BB", len(text), 0) + text.encode("latin-1")


def sheet_of_excel_4(*cells: tuple[int, int, str]) -> bytes:
    """Return an XLS as Excel 4 wrote it: one sheet, and no file system around it."""
    begin = _record(0x0409, struct.pack("<HHH", 0, 0x0010, 0))
    texts = b"".join(
        _record(0x0204, struct.pack("<HHHH", row, column, 0, len(text)) + text.encode("latin-1"))
        for row, column, text in cells
    )
    return begin + texts + _record(0x000A, b"")


def old_sheet(more: bytes = b"") -> bytes:
    """Return an XLS of one sheet with three texts and a number, and more records."""
    strings = ("Part", "Price", "Bolt")
    table = struct.pack("<II", len(strings), len(strings))
    table += b"".join(struct.pack("<HB", len(text), 0) + text.encode("latin-1") for text in strings)
    begin = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0005, 0, 0, 0, 0))
    shared = _record(0x00FC, table)
    end = _record(0x000A, b"")
    name = _short_text("Prices")
    where = len(begin) + 4 + 6 + len(name) + len(shared) + len(end)
    book = begin + _record(0x0085, struct.pack("<IH", where, 0) + name) + shared + end
    cells = b"".join(
        _record(0x00FD, struct.pack("<HHHI", row, column, 0, string))
        for row, column, string in ((0, 0, 0), (0, 1, 1), (1, 0, 2))
    )
    cells += _record(0x0203, struct.pack("<HHHd", 1, 1, 0, 0.25))
    sheet = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0010, 0, 0, 0, 0)) + cells + more + end
    return compound_file({"Workbook": book + sheet})


def number_cell(row: int, column: int, number: float) -> bytes:
    return _record(0x0203, struct.pack("<HHHd", row, column, 0, number))


def old_presentation(text: str) -> bytes:
    """Return a PPT of one slide."""

    def atom(kind: int, content: bytes, version: int = 0) -> bytes:
        return struct.pack("<HHI", version, kind, len(content)) + content

    listed = (
        atom(1011, struct.pack("<IIIII", 1, 0, 0, 256, 0))
        + atom(3999, struct.pack("<I", 1))
        + atom(4000, text.encode("utf-16-le"))
    )
    document = atom(1000, atom(4080, listed, 0xF), 0xF)
    slide = atom(1006, atom(1007, bytes(24)), 0xF)
    user = struct.pack("<IIII", 20, 0xE391C05F, 0, 0)
    return compound_file({"PowerPoint Document": document + slide, "Current User": atom(0x0FF6, user)})
