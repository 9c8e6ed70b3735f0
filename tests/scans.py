"""Scans with known text: letters set in a PDF's own fonts, made pictures by PDFium, and spoilt by Pillow.

No font of the system takes part: PDFium carries those that every reader of PDF must have.
"""

from __future__ import annotations

import hashlib
import io
import math
import unicodedata
from typing import TYPE_CHECKING

import jiwer
import pypdfium2
from PIL import Image, ImageChops, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENGLISH = """Dear Ms Whitfield,

thank you for the order of 14 March, which reached us on Monday. We have
reserved 250 brass hinges (article 70-4418) and twelve door frames in oak
for you, and expect to send them by rail before the end of this month.

The price of the hinges is 3.75 each, so the invoice will show 937.50 plus
carriage. Should any frame arrive damaged, please write to us within ten
days and we shall replace it without further questions.

Our warehouse will be closed from 2 to 9 April while the roof is repaired.
Orders that come in during this week are handled in the sequence in which
they arrive, and nobody needs to ask for them twice.

Yours sincerely,
Harold Pembroke
Sales office, Quayside Joinery"""

GERMAN = """Sehr geehrte Frau Schönwälder,

für Ihre Bestellung vom 14. März danken wir Ihnen herzlich. Die größeren
Türrahmen aus Eiche müssen wir erst fertigen; sie verlassen unser Haus
voraussichtlich in der übernächsten Woche mit der Güterbahn.

Über die Höhe der Frachtkosten können wir heute noch nichts sagen. Falls
etwas beschädigt ankäme, schreiben Sie uns bitte innerhalb von zehn Tagen,
damit wir es ohne Rückfragen ersetzen.

Mit freundlichen Grüßen
Jörg Weißmüller"""

A4 = (595, 842)
MARGIN, LEADING = 70, 1.35


def pdf(
    *pages: str,
    font: str = "Times-Roman",
    points: float = 11,
    box: tuple[float, float] = A4,
    password: str | None = None,
) -> bytes:
    """Return a PDF of these pages, a line of text a line on paper."""
    lock = Lock(password) if password else None
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(f"<< /Type /Font /Subtype /Type1 /BaseFont /{font} /Encoding /WinAnsiEncoding >>".encode())
    kids = []
    for text in pages:
        content = _typeset(text, points, box[1])
        content = lock.closed(content, len(objects) + 1) if lock else content
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %g %g] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (*box, len(objects))
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    return _file_of([*objects, lock.dictionary] if lock else objects, lock.trailer(len(objects) + 1) if lock else b"")


class Lock:
    """The oldest encryption that PDF has (revision 2: RC4, 40 bits), for a document that needs a password."""

    ID, PERMISSIONS = b"0123456789abcdef", -4
    PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")

    def __init__(self, password: str) -> None:
        padded = (password.encode("latin-1") + self.PADDING)[:32]
        owner = rc4(hashlib.md5(padded).digest()[:5], padded)
        permissions = self.PERMISSIONS.to_bytes(4, "little", signed=True)
        self._key = hashlib.md5(padded + owner + permissions + self.ID).digest()[:5]
        proofs = (owner.hex().encode(), rc4(self._key, self.PADDING).hex().encode(), self.PERMISSIONS)
        self.dictionary = b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P %d >>" % proofs

    def closed(self, content: bytes, number: int) -> bytes:
        return rc4(hashlib.md5(self._key + number.to_bytes(3, "little") + b"\0\0").digest()[:10], content)

    def trailer(self, number: int) -> bytes:
        return b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (number, self.ID.hex().encode(), self.ID.hex().encode())


def rc4(key: bytes, content: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in content:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _typeset(text: str, points: float, height: float) -> bytes:
    shown = [
        line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        for line in text.split("\n")
    ]
    lines = b"\n".join(b"(%s) Tj T*" % line for line in shown)
    start = b"BT /F1 %g Tf %g TL %d %g Td\n" % (points, points * LEADING, MARGIN, height - MARGIN)
    return start + lines + b"\nET"


def _file_of(objects: Sequence[bytes], trailer: bytes) -> bytes:
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer << /Size %d /Root 1 0 R%s >>\n" % (len(objects) + 1, trailer))
    out.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return out.getvalue()


def picture(text: str, *, dpi: int = 300, font: str = "Times-Roman", points: float = 11) -> Image.Image:
    """Return a clean grey scan of a page."""
    with pypdfium2.PdfDocument(pdf(text, font=font, points=points)) as document:
        made: Image.Image = document[0].render(scale=dpi / 72, grayscale=True).to_pil()
        return made


def skewed(image: Image.Image, degrees: float = 2.0) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=255)


def noisy(image: Image.Image, deviation: float = 35.0) -> Image.Image:
    """Return it as a bad sensor sees it: a little out of focus, with noise of this standard deviation."""
    noise = Image.effect_noise(image.size, deviation)
    return ImageChops.add(image.filter(ImageFilter.GaussianBlur(0.8)), noise, 1, -128)


def shaded(image: Image.Image, darkest: float = 0.25) -> Image.Image:
    """Return it as lit from one side: from full light at the right down to `darkest` of it at the left."""
    light = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
    floor = round(255 * darkest)
    light = light.point([floor + level * (255 - floor) // 255 for level in range(256)])
    return ImageChops.multiply(image, light.resize(image.size))


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def character_error_rate(truth: str, read: str) -> float:
    """Return how much of the text is wrong, white space counted as one blank wherever it is."""
    rate = jiwer.cer(_plain(truth), _plain(read))
    assert isinstance(rate, float)
    assert not math.isnan(rate)
    return rate


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
