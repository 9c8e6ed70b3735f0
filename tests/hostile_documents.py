"""Files that do harm: each with the problems that reading may end with; `killed` where only a limit can end it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cache
from typing import TYPE_CHECKING

import sample_documents
from ingestion_worker.problem import Problem
from sample_documents import zipped

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1_048_576
# The child was killed: for its time, for its memory, or by a library that cannot go on.
KILLED = frozenset({Problem.TIMEOUT, Problem.OOM, Problem.CRASH})
BOMB, CORRUPT, TOO_LARGE = Problem.BOMB, Problem.CORRUPT, Problem.TOO_LARGE


@dataclass(frozen=True)
class Hostile:
    """`read` stands among `ends` for being read to the end, within the limits."""

    name: str
    make: Callable[[], bytes]
    ends: frozenset[str]


def raw_pdf(objects: list[bytes], root: int = 1) -> bytes:
    """Put numbered objects together, with a table of where they are."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer <</Size %d /Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, root, table)
    return bytes(out)


def _deflated(block: bytes, times: int) -> bytes:
    """Return what a block repeated so often deflates to, without deflating it more than once."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = squeezer.compress(block) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return piece * times + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def stream(content: bytes, extra: bytes = b"") -> bytes:
    return b"<</Length %d %s>>\nstream\n" % (len(content), extra) + content + b"\nendstream"


CATALOG, ONE_PAGE = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
FONT = b"<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"


def twice_deflated_pdf() -> bytes:
    """Some kilobytes that unfold to a gigabyte of drawing, deflated twice."""
    content = zlib.compress(b"\x78\x9c" + _deflated(b"BT /F1 9 Tf 1 1 Td (harm) Tj ET\n" * 32_768, 1024), 9)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources " + FONT + b"/Contents 4 0 R>>"
    return raw_pdf([CATALOG, ONE_PAGE, page, stream(content, b"/Filter[/FlateDecode/FlateDecode]")])


def fanned_out_pdf(levels: int = 14, times: int = 10) -> bytes:
    """Forms that each draw the next one ten times."""
    forms = [
        stream(
            b"/X Do\n" * times,
            b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>" % (6 + level),
        )
        for level in range(levels)
    ]
    last = stream(b"BT /F1 9 Tf (harm) Tj ET", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources " + FONT)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</XObject<</X 5 0 R>>>>/Contents 4 0 R>>"
    return raw_pdf([CATALOG, ONE_PAGE, page, stream(b"/X Do"), *forms, last])


def looped_pdf() -> bytes:
    """A tree of pages that has itself for a branch."""
    return raw_pdf([CATALOG, b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>"])


def boundless_pdf(side: int = 14_400, text: bytes = b"vast") -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Resources " % (side, side) + FONT + b"/Contents 4 0 R>>"
    return raw_pdf([CATALOG, ONE_PAGE, page, stream(b"BT /F1 9 Tf 9 9 Td (" + text + b") Tj ET")])


def boastful_pdf() -> bytes:
    """One page that says it is a million."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>"
    return raw_pdf([CATALOG, b"<</Type/Pages/Kids[3 0 R]/Count 1000000>>", page])


def vast_png(side: int = 50_000) -> bytes:
    """A picture of 2.5 gigapixels in 300 KB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = b"\x78\x9c" + _deflated(bytes(1 + side // 8) * 100, side // 100)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff_of_itself() -> bytes:
    """A directory whose next one is itself."""
    entries = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 3, 1, 1),
        (279, 4, 1, 1),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + packed + struct.pack("<I", 8)


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def open_xml(main: str, kind: str, content: str | bytes, more: dict[str, str | bytes] | None = None) -> bytes:
    """Put the least around a main part that makes it a document."""
    return zipped(
        {
            "[Content_Types].xml": f'<Types><Override PartName="/{main}" ContentType="application/vnd.openxmlformats-'
            f'officedocument.{kind}.main+xml"/></Types>',
            "_rels/.rels": f'<Relationships><Relationship Id="1" Type="{RELATION}/officeDocument" Target="{main}"/>'
            "</Relationships>",
            main: content,
            **(more or {}),
        }
    )


def docx_of(body: str, before: str = "") -> bytes:
    return open_xml(
        "word/document.xml",
        "wordprocessingml.document",
        f"{before}<w:document {W}><w:body>{body}</w:body></w:document>",
    )


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def unfolding_docx() -> bytes:
    """One megabyte that unfolds to a gigabyte: an empty part whose content is put in afterwards."""
    size = 1024 * MEBIBYTE
    big = _deflated(b" " * MEBIBYTE, 1024)
    out = io.BytesIO(docx_of(paragraph("small")))
    with zipfile.ZipFile(out, "a") as archive:
        part = zipfile.ZipInfo("word/big.xml")
        archive.writestr(part, big)
        part.file_size, part.compress_type = size, zipfile.ZIP_DEFLATED
    return out.getvalue()


def lying_docx() -> bytes:
    """A part that says it unfolds to a kilobyte and unfolds to 32 megabytes."""
    honest = docx_of(paragraph("x" * 32 * MEBIBYTE))
    size = 32 * MEBIBYTE
    at = honest.rfind(b"PK\x01\x02")
    while struct.unpack_from("<I", honest, at + 24)[0] < size:
        at = honest.rfind(b"PK\x01\x02", 0, at)
    lying = bytearray(honest)
    struct.pack_into("<I", lying, at + 24, 1024)
    return bytes(lying)


def sparse_xlsx(cells: str) -> bytes:
    return open_xml(
        "xl/workbook.xml",
        "spreadsheetml.sheet",
        f'<workbook {S}><sheets><sheet name="One" sheetId="1" r:id="rId1"/></sheets></workbook>',
        {
            "xl/_rels/workbook.xml.rels": f'<Relationships><Relationship Id="rId1" Type="{RELATION}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f"<worksheet {S}><sheetData>{cells}</sheetData></worksheet>",
        },
    )


def far_corners() -> bytes:
    return sparse_xlsx(
        '<row r="1"><c r="A1" t="inlineStr"><is><t>first</t></is></c></row>'
        '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>last</t></is></c></row>'
    )


def entity_bomb() -> str:
    lines = ['<!ENTITY a0 "harm">'] + [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)]
    return f"<?xml version='1.0'?><!DOCTYPE x [{''.join(lines)}]>"


OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'


def deep_docx() -> bytes:
    return docx_of("<w:sdt>" * 100_000 + paragraph("deep") + "</w:sdt>" * 100_000)


def repeated_ods() -> bytes:
    cells = '<table:table-cell table:number-columns-repeated="16384"><text:p>x</text:p></table:table-cell>'
    row = f'<table:table-row table:number-rows-repeated="1048576">{cells}</table:table-row>'
    return sample_documents.open_document(
        "spreadsheet", f'<office:spreadsheet><table:table table:name="t">{row * 100}</table:table></office:spreadsheet>'
    )


def nested_zip(levels: int = 40) -> bytes:
    content = b"harm" * 1000
    for _ in range(levels):
        content = zipped({"inner.zip": content})
    return content


def slipping_docx() -> bytes:
    """Names that would leave a folder if anybody unpacked them by their names."""
    out = io.BytesIO(docx_of(paragraph("harmless")))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("../../../../etc/cron.d/harm", "harm")
        archive.writestr("/etc/passwd", "harm")
    return out.getvalue()


def crowded_zip(entries: int = 30_000) -> bytes:
    out = io.BytesIO(docx_of(paragraph("crowded")))
    with zipfile.ZipFile(out, "a") as archive:
        for number in range(entries):
            archive.writestr(f"part{number}.xml", "")
    return out.getvalue()


def zip_in_its_own_shadow() -> bytes:
    """Two hundred names in the directory for the same megabyte of unfolding bytes."""
    first = io.BytesIO()
    with zipfile.ZipFile(first, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", b"<Types>" + b" " * MEBIBYTE + b"</Types>")
    whole = first.getvalue()
    at = whole.find(b"PK\x01\x02")
    end = whole.find(b"PK\x05\x06")
    directory = whole[at:end] * 200
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 200, 200, len(directory), at, 0)
    return whole[:at] + directory + tail


def locked_zip() -> bytes:
    """An office document whose parts say that they are encrypted."""
    content = bytearray(docx_of(paragraph("locked")))
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(content)


def nested_mail(levels: int, *, by_forwarding: bool) -> bytes:
    """Mails within mails, or parts within parts."""
    if by_forwarding:
        head = b"From: a@example.com\r\nSubject: deep\r\nTo: b@example.com\r\nContent-Type: message/rfc822\r\n\r\n"
        return head * levels + b"From: a@example.com\r\nSubject: end\r\nTo: b@example.com\r\n\r\nend\r\n"
    parts = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(levels))
    return (
        b"From: a@example.com\r\nSubject: deep\r\nTo: b@example.com\r\nMIME-Version: 1.0\r\n" + parts + b"\r\nend\r\n"
    )


def crowded_mail(attachments: int = 3_000) -> bytes:
    head = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: crowded\r\n"
    part = b'\r\n--b\r\nContent-Type: text/csv; name="%d.csv"\r\n\r\nx,y,z\r\n1,2,3\r\n'
    parts = b"".join(part % number for number in range(attachments))
    return head + b'Content-Type: multipart/mixed; boundary="b"\r\n' + parts + b"\r\n--b--\r\n"


def mail_with_bomb() -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.com", "b@example.com", "a bomb"
    mail.set_content("see below")
    mail.add_attachment(unfolding_docx(), maintype="application", subtype="octet-stream", filename="bomb.docx")
    return mail.as_bytes()


READ = "read"


def _ends(*ends: str) -> frozenset[str]:
    return frozenset(ends)


@cache
def hostile_documents() -> tuple[Hostile, ...]:
    """Return all of them. Sizes are such that a reader without limits would use minutes or gigabytes."""
    return (
        Hostile("twice-deflated.pdf", twice_deflated_pdf, KILLED | {CORRUPT, READ, TOO_LARGE, Problem.EMPTY}),
        Hostile("fanned-out.pdf", fanned_out_pdf, KILLED),
        Hostile("looped.pdf", looped_pdf, _ends(CORRUPT)),
        Hostile("boundless.pdf", boundless_pdf, _ends(READ)),
        Hostile("boastful.pdf", boastful_pdf, _ends(TOO_LARGE, CORRUPT, Problem.EMPTY)),
        Hostile("vast.png", vast_png, _ends(BOMB)),
        Hostile("itself.tiff", tiff_of_itself, _ends(TOO_LARGE, CORRUPT, READ)),
        Hostile("unfolding.docx", unfolding_docx, _ends(BOMB)),
        Hostile("lying.docx", lying_docx, _ends(CORRUPT)),
        Hostile("far-corners.xlsx", far_corners, _ends(READ)),
        Hostile("entities.docx", lambda: docx_of(paragraph("&a11;"), entity_bomb()), _ends(BOMB)),
        Hostile("outside.docx", lambda: docx_of(paragraph("&e;"), OUTSIDE), _ends(BOMB)),
        Hostile("repeated.ods", repeated_ods, _ends(READ, TOO_LARGE)),
        Hostile("nested.zip", nested_zip, _ends(Problem.UNSUPPORTED)),
        Hostile("slipping.docx", slipping_docx, _ends(READ)),
        Hostile("crowded.docx", crowded_zip, _ends(BOMB)),
        Hostile("shadow.docx", zip_in_its_own_shadow, _ends(BOMB)),
        Hostile("locked-parts.docx", locked_zip, _ends(Problem.ENCRYPTED)),
        Hostile("deep.html", lambda: b"<html><body>" + b"<div>" * 300_000 + b"deep</body></html>", _ends(READ)),
        Hostile("deep.docx", deep_docx, _ends(BOMB)),
        Hostile(
            "endless-tag.html", lambda: b"<html><body><p>begin <a href='" + b"x" * 20 * MEBIBYTE, _ends(READ, TOO_LARGE)
        ),
        Hostile("angles.html", lambda: b"<html><body>" + b"<" * MEBIBYTE, _ends(READ, TOO_LARGE)),
        Hostile("comments.html", lambda: b"<html><body>" + b"<!--" * MEBIBYTE, _ends(READ, TOO_LARGE, Problem.EMPTY)),
        Hostile("deep-tables.html", lambda: b"<html><body>" + b"<table><tr><td>x" * 20_000, _ends(READ)),
        Hostile("endless-line.csv", lambda: b"a,b,c\n1,2,3\n1,2,3\n4," + b"5" * 30 * MEBIBYTE, _ends(TOO_LARGE)),
        Hostile("endless-quote.csv", lambda: b'a,b,c\n1,2,3\n1,2,"3\n' + b"4,5,6\n" * 4_000_000, _ends(TOO_LARGE)),
        Hostile("many-cells.csv", lambda: b"a,b\n1,2\n" + b"," * 3_000_000 + b"\n", _ends(READ, TOO_LARGE)),
        Hostile("endless-line.txt", lambda: b"word " * 6 * MEBIBYTE, _ends(TOO_LARGE)),
        Hostile("deep-mails.eml", lambda: nested_mail(3_000, by_forwarding=True), _ends(BOMB)),
        Hostile("deep-parts.eml", lambda: nested_mail(3_000, by_forwarding=False), _ends(BOMB)),
        Hostile("mails.eml", lambda: nested_mail(12, by_forwarding=True), _ends(READ)),
        Hostile("crowded.eml", crowded_mail, _ends(READ)),
        Hostile("bomb.eml", mail_with_bomb, _ends(READ)),
        Hostile("deep.rtf", lambda: b"{\\rtf1 " + b"{" * 200_000 + b"deep" + b"}" * 200_000 + b"}", _ends(BOMB)),
        Hostile("noise.bin", lambda: bytes(range(256)) * 4096, _ends(Problem.UNSUPPORTED)),
        Hostile("nothing.pdf", lambda: b"", _ends(Problem.EMPTY)),
        Hostile("blank.txt", lambda: b" \n\t\n" * 1000, _ends(Problem.EMPTY)),
    )
