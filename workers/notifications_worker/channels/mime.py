"""Headers and parts of a mail as bytes (RFC 2045, 2046), all of them seven-bit so that no server needs 8BITMIME.

Python's own `EmailMessage` parses every header it is given and again when it writes it, which was nineteen parts in
twenty of what a mail costs. So what is plain is written as it is, and only what needs encoding or folding is Python's.
"""

from __future__ import annotations

import binascii
import re
from email.message import MIMEPart
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["file_part", "header", "multipart", "text_part"]

CRLF = b"\r\n"
# RFC 5322, 2.1.1: what a header line should not exceed, and no line may.
COMFORTABLE_LINE = 78
LONGEST_LINE = 998
BASE64_LINE = 76
_FOLDED = EmailPolicy(linesep="\r\n", cte_type="7bit")
_FOLDED_UTF8 = _FOLDED.clone(utf8=True)
# What no seven-bit text may hold; tabs and line ends it may.
_ODD = re.compile(r"[^\t\n\x20-\x7e]")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def header(name: str, value: Any, *, utf8: bool = False, longest: int = COMFORTABLE_LINE) -> bytes:
    """Write a header: on one line while it is plain and no longer than that, else encoded and folded.

    `utf8`: what is outside ASCII is written as it is (RFC 6532). Raises ValueError for what no header can hold.
    """
    plain = f"{name}: {value}"
    if len(plain) <= longest and plain.isascii() and plain.isprintable():
        return plain.encode() + CRLF
    policy = _FOLDED_UTF8 if utf8 else _FOLDED
    return policy.fold_binary(*policy.header_store_parse(name, value))


def text_part(subtype: str, text: str) -> bytes:
    """Write a part of text, in whichever encoding is shortest to read. Raises ValueError for half a surrogate pair."""
    lines = _LINE_ENDS.sub("\n", text)
    if not lines.endswith("\n"):
        lines += "\n"
    encoding, body = _encoded(lines)
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode() + body.replace(b"\n", CRLF)


def _encoded(lines: str) -> tuple[str, bytes]:
    if _ODD.search(lines) is None and max(map(len, lines.split("\n"))) <= LONGEST_LINE:
        return "7bit", lines.encode()
    content = lines.encode()
    quoted = binascii.b2a_qp(content, istext=True)
    return ("quoted-printable", quoted) if len(quoted) <= len(content) * 4 / 3 else ("base64", _base64(content, b"\n"))


def file_part(content: bytes, content_type: str, filename: str, content_id: str | None = None) -> bytes:
    """Write a part that is a file; with a content id it is one that HTML shows. Its name may be any (RFC 2231)."""
    kind, _, subtype = content_type.partition("/")
    where = "inline" if content_id else "attachment"
    cid = f"<{content_id}>" if content_id else None
    part = MIMEPart(policy=_FOLDED)
    part.set_content(b"", maintype=kind, subtype=subtype, disposition=where, filename=filename, cid=cid)
    return part.as_bytes().rstrip() + CRLF + CRLF + _base64(content, CRLF)


def _base64(content: bytes, line_end: bytes) -> bytes:
    encoded = binascii.b2a_base64(content, newline=False)
    lines = [encoded[start : start + BASE64_LINE] for start in range(0, len(encoded), BASE64_LINE)]
    return line_end.join([*lines, b""])


def multipart(subtype: str, boundary: str, parts: Sequence[bytes]) -> bytes:
    """Put parts together; `boundary` must be in none of them."""
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'.encode()
    return head + b"".join(_delimited(boundary, parts)) + f"--{boundary}--\r\n".encode()


def _delimited(boundary: str, parts: Sequence[bytes]) -> Iterable[bytes]:
    for part in parts:
        # The line end before the next separator is the separator's, not the part's.
        yield f"--{boundary}\r\n".encode() + part + CRLF
