"""A document of every format we read, written by somebody else's program or by hand, with the text it holds."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.message import EmailMessage
from functools import cache
from textwrap import wrap
from typing import TYPE_CHECKING

import docx as word
import openpyxl
import pptx as powerpoint
from msoffcrypto.format.ooxml import OOXMLFile
from PIL import Image, ImageDraw
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from old_office_documents import old_presentation, old_sheet, old_text
from outlook_mails import outlook_mail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AGREEMENT = """\
The agreement between Müller & Söhne GmbH and the customer begins on the first day of March and ends after three years,
unless one of them gives notice in writing six months before. Neither needs a reason for it.

All prices are in euros and without taxes. The customer pays within thirty days of the date of each invoice; after that
the supplier may ask for interest, which is eight percent above the rate of the central bank.

Where a delivery is late, the customer tells the supplier so, and names a day by which it must arrive. What cannot be
delivered by then may be bought elsewhere, and the supplier bears what it costs beyond the price."""
PARAGRAPHS = tuple(paragraph.replace("\n", " ") for paragraph in AGREEMENT.split("\n\n"))
PASSWORD = "correct horse"


@dataclass(frozen=True)
class Sample:
    """`pages` are the texts that reading must find; marks of Markdown in them do not matter."""

    name: str
    media_type: str
    content: bytes
    pages: tuple[str, ...]
    password: str | None = None
    needs_ocr: int = 0

    @property
    def ending(self) -> str:
        return self.name.rpartition(".")[2]


def zipped(parts: dict[str, str | bytes], *, first_stored: bool = False) -> bytes:
    """Return an archive of these files; OpenDocument and EPUB want their first one uncompressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, content) in enumerate(parts.items()):
            method = zipfile.ZIP_STORED if first_stored and number == 0 else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, method)
    return out.getvalue()


def pdf(
    pages: Sequence[str] = PARAGRAPHS, *, password: str | None = None, hidden: bool = False, picture: bool = False
) -> bytes:
    """Write a page for each text, in lines of seventy characters."""
    out = io.BytesIO()
    encryption = StandardEncryption(password, strength=128) if password else None
    canvas = Canvas(out, invariant=True, encrypt=encryption)
    canvas.setTitle("The agreement")
    canvas.setAuthor("Ada Lovelace")
    for text in pages:
        if picture:
            canvas.drawImage(ImageReader(io.BytesIO(image("PNG"))), 20, 20, 555, 800)
        lines = canvas.beginText(72, 760)
        lines.setTextRenderMode(3 if hidden else 0)
        for line in wrap(text, 70):
            lines.textLine(line)
        canvas.drawText(lines)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def filled_form() -> bytes:
    """Write a PDF with a form that somebody has filled in."""
    out = io.BytesIO()
    canvas = Canvas(out, invariant=True)
    canvas.drawString(72, 760, "Name of the customer:")
    canvas.acroForm.textfield(name="customer", value="Grace Hopper", x=220, y=750, width=200, height=20)
    canvas.save()
    return out.getvalue()


def docx() -> bytes:
    """Write headings, a list, a table, a page break, a header and a footer."""
    document = word.Document()
    document.core_properties.title = "The agreement"
    document.core_properties.author = "Ada Lovelace"
    section = document.sections[0]
    section.header.paragraphs[0].text = "Confidential draft"
    section.footer.paragraphs[0].text = "Registered in Vienna"
    document.add_heading("Terms", 1)
    document.add_paragraph(PARAGRAPHS[0])
    document.add_heading("Payment", 2)
    document.add_paragraph("First item", style="List Bullet")
    document.add_page_break()  # type: ignore[no-untyped-call]
    document.add_paragraph(PARAGRAPHS[1])
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("Part", "Price"), ("Bolt | M8", "0.25")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


DOCX_PAGES = (
    f"Confidential draft Terms {PARAGRAPHS[0]} Payment First item",
    f"{PARAGRAPHS[1]} Part Price Bolt \\| M8 0.25 Registered in Vienna",
)


def xlsx() -> bytes:
    """Write two sheets with texts, numbers, dates, a formula and an empty row and column."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    for row in (
        ["Part", "Price", "Since"],
        ["Bolt", 0.25, date(2026, 3, 1)],
        ["Müller's nut", 1200, date(2025, 12, 24)],
    ):
        sheet.append(row)
    other = book.create_sheet("Totals")
    other["B2"], other["D9"] = "Sum", True
    other["D10"] = "a | b\nc"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


XLSX_PAGES = (
    "Prices Part Price Since Bolt 0.25 2026-03-01 Müller's nut 1200 2025-12-24",
    "Totals Sum TRUE a \\| b c",
)


def pptx() -> bytes:
    """Write two slides, one with notes and one with a table."""
    show = powerpoint.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Our agreement"
    slide.placeholders[1].text = PARAGRAPHS[0]
    slide.notes_slide.notes_text_frame.text = "Speak slowly here"
    second = show.slides.add_slide(show.slide_layouts[5])
    second.shapes.title.text = "Prices"
    inches = powerpoint.util.Inches
    table = second.shapes.add_table(2, 2, inches(1), inches(2), inches(4), inches(1)).table
    for place, text in (((0, 0), "Part"), ((0, 1), "Price"), ((1, 0), "Bolt"), ((1, 1), "0.25")):
        table.cell(*place).text = text
    out = io.BytesIO()
    show.save(out)
    return out.getvalue()


PPTX_PAGES = (f"Our agreement {PARAGRAPHS[0]} Notes: Speak slowly here", "Prices Part Price Bolt 0.25")

ODF = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("style", "style"),
        ("meta", "meta"),
        ("manifest", "manifest"),
    )
)


def open_document(kind: str, body: str, styles: str = "") -> bytes:
    """Write a file of OpenDocument with this in its body."""
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    media_type = f"application/vnd.oasis.opendocument.{kind}"
    parts: dict[str, str | bytes] = {
        "mimetype": media_type,
        "content.xml": f"{head}<office:document-content {ODF}><office:body>{body}</office:body>"
        "</office:document-content>",
        "styles.xml": f"{head}<office:document-styles {ODF}>{styles}</office:document-styles>",
        "meta.xml": f'{head}<office:document-meta {ODF} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
        "<dc:title>The agreement</dc:title><meta:initial-creator>Ada Lovelace</meta:initial-creator>"
        "</office:meta></office:document-meta>",
        "META-INF/manifest.xml": f'{head}<manifest:manifest {ODF}><manifest:file-entry manifest:full-path="/" '
        f'manifest:media-type="{media_type}"/></manifest:manifest>',
    }
    return zipped(parts, first_stored=True)


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def odt() -> bytes:
    return open_document(
        "text",
        f'<office:text><text:tracked-changes>gone</text:tracked-changes><text:h text:outline-level="2">Terms</text:h>'
        f'<text:p>{escaped(PARAGRAPHS[0])}</text:p><text:list><text:list-item><text:p>First<text:s text:c="2"/>item'
        f"</text:p></text:list-item></text:list><table:table><table:table-row><table:table-cell><text:p>Part</text:p>"
        f"</table:table-cell><table:table-cell><text:p>Price</text:p></table:table-cell></table:table-row>"
        f"</table:table><text:soft-page-break/><text:p>{PARAGRAPHS[1]}</text:p></office:text>",
        "<office:master-styles><style:master-page><style:header><text:p>Confidential draft</text:p></style:header>"
        "</style:master-page></office:master-styles>",
    )


def ods() -> bytes:
    def cell(text: str) -> str:
        return f"<table:table-cell><text:p>{text}</text:p></table:table-cell>"

    empty = '<table:table-cell table:number-columns-repeated="16380"/>'
    rest = f'<table:table-row table:number-rows-repeated="1048570">{empty}</table:table-row>'
    return open_document(
        "spreadsheet",
        f'<office:spreadsheet><table:table table:name="Prices"><table:table-row>{cell("Part")}{cell("Price")}{empty}'
        f"</table:table-row><table:table-row>{cell('Bolt')}{cell('0.25')}</table:table-row>{rest}</table:table>"
        f'<table:table table:name="Totals"><table:table-row>{cell("Sum")}</table:table-row></table:table>'
        "</office:spreadsheet>",
    )


def odp() -> bytes:
    slides = "".join(
        f"<draw:page><draw:frame><draw:text-box><text:p>{escaped(text)}</text:p></draw:text-box></draw:frame></draw:page>"
        for text in PARAGRAPHS[:2]
    )
    return open_document("presentation", f"<office:presentation>{slides}</office:presentation>")


def rtf() -> bytes:
    text = "".join(f"\\u{ord(c)}?" if ord(c) > 127 else c for c in PARAGRAPHS[0])
    return (
        r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Times New Roman;}}{\info{\title The agreement}}\f0\fs24 "
        + text
        + r"\par Caf\'e9 au lait\par}"
    ).encode("ascii")


HTML = (
    "<!doctype html><html lang=en><head><meta charset={charset}><title>The agreement</title><style>p {{}}</style>"
    "<script>if (1 < 2) alert('no')</script></head><body><h1>Terms</h1><p>{first}</p><ul><li>First item<li>Second item"
    "</ul><table><tr><th>Part<th>Price<tr><td>Bolt<td>0.25</table><!-- not shown --><div>{second}</div>"
    "<pre>a  b\n  c</pre></body></html>"
)
HTML_TEXT = f"Terms {PARAGRAPHS[0]} First item Second item Part Price Bolt 0.25 {PARAGRAPHS[1]} a b c"


def html(charset: str = "utf-8") -> bytes:
    return HTML.format(charset=charset, first=escaped(PARAGRAPHS[0]), second=PARAGRAPHS[1]).encode(charset)


def txt() -> bytes:
    return "\n\n".join("\n".join(wrap(text, 72)) for text in PARAGRAPHS).encode()


def markdown() -> bytes:
    return f"# Terms\n\n{PARAGRAPHS[0]}\n\n- First item\n- Second item\n\n## Payment\n\n{PARAGRAPHS[1]}\n".encode()


def csv() -> bytes:
    return 'Part;Price;Remark\r\nBolt;0,25;"for a\r\nnut; or two"\r\nMüller;1200;|\r\n'.encode("cp1252")


CSV_TEXT = "Part Price Remark Bolt 0,25 for a nut; or two Müller 1200 \\|"


def image(kind: str = "PNG", frames: int = 1) -> bytes:
    """Draw a page of writing."""
    pictures = []
    for number in range(frames):
        picture = Image.new("L", (620, 877), 255)
        draw = ImageDraw.Draw(picture)
        for line, text in enumerate(wrap(PARAGRAPHS[number % 3], 60)):
            draw.text((40, 60 + 24 * line), text, fill=0)
        pictures.append(picture)
    out = io.BytesIO()
    pictures[0].save(out, kind, **({"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}))
    return out.getvalue()


def epub() -> bytes:
    chapters = {
        f"OPS/chapter {number}.xhtml": f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x'
        f"</title></head><body><h2>Chapter {number}</h2><p>{escaped(text)}</p></body></html>"
        for number, text in enumerate(PARAGRAPHS, start=1)
    }
    items = "".join(
        f'<item id="c{n}" href="chapter%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in (3, 1, 2)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in (1, 2, 3))
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
            "OPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<metadata><dc:title>The agreement</dc:title><dc:creator>Ada Lovelace</dc:creator></metadata><manifest>"
            f"{items}</manifest><spine>{spine}</spine></package>",
            **chapters,
        },
        first_stored=True,
    )


def eml() -> bytes:
    """Write a mail with a document, a table, another mail and a program attached."""
    mail = _mail("The agreement, signed", PARAGRAPHS[0])
    mail.add_alternative(f"<p>{escaped(PARAGRAPHS[0])}</p>", subtype="html")
    mail.add_attachment(docx(), maintype="application", subtype="octet-stream", filename="../../etc/Verträge.docx")
    mail.add_attachment(csv(), maintype="text", subtype="csv", filename="prices.csv")
    mail.add_attachment(_mail("Inner", PARAGRAPHS[2]))
    mail.add_attachment(b"MZ\x90\0" + bytes(60), maintype="application", subtype="octet-stream", filename="setup.exe")
    return mail.as_bytes()


def _mail(subject: str, text: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Jürgen Groß <jg@example.com>", "ada@example.com", subject
    mail["Date"] = datetime(2026, 3, 1, 12, tzinfo=UTC)
    mail.set_content("\n".join(wrap(text, 72)), cte="8bit")
    return mail


def _head(subject: str) -> str:
    return f"{subject} From: Jürgen Groß <jg@example.com> To: ada@example.com Date: Sun, 01 Mar 2026 12:00:00 +0000"


EML_PAGES = (
    f"{_head('The agreement, signed')} {PARAGRAPHS[0]}",
    f"Attachment: Verträge.docx {DOCX_PAGES[0]}",
    f"Attachment: Verträge.docx {DOCX_PAGES[1]}",
    f"Attachment: prices.csv {CSV_TEXT}",
    f"Attachment: Inner {_head('Inner')} {PARAGRAPHS[2]}",
)


def locked(content: bytes) -> bytes:
    """Lock an Office document with the password."""
    out = io.BytesIO()
    OOXMLFile(io.BytesIO(content)).encrypt(PASSWORD, out)
    return out.getvalue()


OFFICE = "application/vnd.openxmlformats-officedocument"
OPEN = "application/vnd.oasis.opendocument"
ONE_TEXT = (" ".join(PARAGRAPHS),)

_MAKERS: tuple[tuple[str, str, Callable[[], bytes], tuple[str, ...]], ...] = (
    ("agreement.pdf", "application/pdf", pdf, PARAGRAPHS),
    ("form.pdf", "application/pdf", filled_form, ("Name of the customer: Grace Hopper",)),
    ("agreement.docx", f"{OFFICE}.wordprocessingml.document", docx, DOCX_PAGES),
    ("prices.xlsx", f"{OFFICE}.spreadsheetml.sheet", xlsx, XLSX_PAGES),
    ("slides.pptx", f"{OFFICE}.presentationml.presentation", pptx, PPTX_PAGES),
    (
        "agreement.odt",
        f"{OPEN}.text",
        odt,
        (f"Confidential draft Terms {PARAGRAPHS[0]} First item Part Price", PARAGRAPHS[1]),
    ),
    ("prices.ods", f"{OPEN}.spreadsheet", ods, ("Prices Part Price Bolt 0.25", "Totals Sum")),
    ("slides.odp", f"{OPEN}.presentation", odp, PARAGRAPHS[:2]),
    ("agreement.rtf", "application/rtf", rtf, (f"{PARAGRAPHS[0]} Café au lait",)),
    ("agreement.html", "text/html", html, (HTML_TEXT,)),
    ("agreement.txt", "text/plain", txt, ONE_TEXT),
    (
        "agreement.md",
        "text/markdown",
        markdown,
        (f"Terms {PARAGRAPHS[0]} First item Second item Payment {PARAGRAPHS[1]}",),
    ),
    ("prices.csv", "text/csv", csv, (CSV_TEXT,)),
    (
        "agreement.epub",
        "application/epub+zip",
        epub,
        tuple(f"Chapter {n} {text}" for n, text in enumerate(PARAGRAPHS, 1)),
    ),
    ("agreement.eml", "message/rfc822", eml, EML_PAGES),
    (
        "agreement.msg",
        "application/vnd.ms-outlook",
        lambda: outlook_mail("The agreement, signed", PARAGRAPHS[0], {"prices.csv": csv()}),
        (
            "The agreement, signed From: Jürgen Groß <jg@example.com> To: Ada Date: 2026-03-01 12:00:00+00:00 "
            + PARAGRAPHS[0],
            f"Attachment: prices.csv {CSV_TEXT}",
        ),
    ),
    ("agreement.doc", "application/msword", lambda: old_text(PARAGRAPHS), ONE_TEXT),
    ("prices.xls", "application/vnd.ms-excel", old_sheet, ("# Prices | Part | Price | | --- | --- | | Bolt | 0.25 |",)),
    ("slides.ppt", "application/vnd.ms-powerpoint", lambda: old_presentation(PARAGRAPHS[0]), (PARAGRAPHS[0],)),
)
_PICTURES = (
    ("png", "PNG", 1),
    ("jpeg", "JPEG", 1),
    ("gif", "GIF", 1),
    ("bmp", "BMP", 1),
    ("webp", "WEBP", 1),
    ("tiff", "TIFF", 3),
)


@cache
def samples() -> tuple[Sample, ...]:
    """Return a document of every format."""
    plain = [Sample(name, media_type, make(), pages) for name, media_type, make, pages in _MAKERS]
    pictures = [
        Sample(f"scan.{ending}", f"image/{ending}", image(kind, frames), ("",) * frames, needs_ocr=frames)
        for ending, kind, frames in _PICTURES
    ]
    return (*plain, *pictures, *_locked_samples())


def _locked_samples() -> list[Sample]:
    return [
        Sample("locked.pdf", "application/pdf", pdf(password=PASSWORD), PARAGRAPHS, PASSWORD),
        Sample("locked.docx", f"{OFFICE}.wordprocessingml.document", locked(docx()), DOCX_PAGES, PASSWORD),
        Sample("locked.xlsx", f"{OFFICE}.spreadsheetml.sheet", locked(xlsx()), XLSX_PAGES, PASSWORD),
    ]
